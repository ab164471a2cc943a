"""Labels in a store: a table a version, and columns that every model of a cell inherits.

A version is never changed. Labelling again with other thresholds, or after more landscape metrics,
makes the next one; with the same, the one that is there is made the current one again. Weights are
not touched: labels are derived columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.errors import StoreBusyError, StoreError
from zoo.paths import absolute
from zoo.phases.cells import INPUTS
from zoo.phases.confidence import DRAWS
from zoo.phases.from_store import StoreCells, store_cells
from zoo.phases.labels import Labels, label
from zoo.phases.rule import UNDETERMINED
from zoo.phases.rules import RULES, TAXONOMY
from zoo.phases.thresholds import Thresholds, thresholds
from zoo.store import (
    DerivedColumn,
    TableColumn,
    derived_columns,
    newest_table,
    publish,
    publish_next,
    read_plan,
    read_table,
    stage_id,
    table_names,
)
from zoo.store.locks import hold_patiently
from zoo.store.paths import StorePaths

__all__ = ["Published", "label_store", "labels_of_store", "read_labels"]

#: Changes whenever the rule, the margin or the confidence mean something else.
RULE_VERSION = 2
_STAGE = "label"
#: How long to wait for another process that publishes labels.
_PATIENCE_S = 300.0


@dataclass(frozen=True, slots=True, eq=False)
class Published:
    """Labels that are in a store.

    Args:
        table: name of their table, ``"phases-v<N>"``.
        new: whether this call made it.
        labels: the labels.
        source: the cells.
    """

    table: str
    new: bool
    labels: Labels
    source: StoreCells

    @property
    def version(self) -> int:
        """N."""
        return int(self.table.rpartition("v")[2])


def labels_of_store(
    path: str | PathLike[str],
    limits: Thresholds | None = None,
    *,
    draws: int = DRAWS,
    rule: str = TAXONOMY,
) -> tuple[StoreCells, Labels]:
    """Return the labels that a store would get; writes nothing.

    Args:
        path: the store.
        limits: the thresholds; None = those of the setting ``zoo``.
        draws: of the resampling.
        rule: in :data:`zoo.phases.rules.RULES`.

    Raises:
        StoreMissingError: no store is there.
        StoreError: it has no cells yet.
    """
    limits = limits or thresholds()
    source = store_cells(path, collapse=limits.collapse, floats=RULES[rule].floats)
    return source, label(source.cells, limits, draws=draws, rule=rule)


def label_store(
    path: str | PathLike[str],
    limits: Thresholds | None = None,
    *,
    draws: int = DRAWS,
    rule: str = TAXONOMY,
) -> Published:
    """Label the cells of a store, and publish the labels.

    Columns, a value per model: ``phase``, ``phase_confidence``, ``phase_margin`` and
    ``phase_boundary`` are the current version, ``phase_v<N>`` stays. The table ``phases-v<N>`` has
    every input, threshold and intermediate result of each cell.

    Args:
        path: the store.
        limits: the thresholds; None = those of the setting ``zoo``.
        draws: of the resampling.
        rule: in :data:`zoo.phases.rules.RULES`.

    Raises:
        StoreMissingError: no store is there.
        StoreError: it has no cells yet, or cannot be written.
        StoreBusyError: another process changes the store's metadata, or labels it, and does not
            end.
    """
    source, labels = labels_of_store(path, limits, draws=draws, rule=rule)
    settings = {
        "rule": RULE_VERSION,
        "thresholds": labels.limits.to_json(),
        "tables": list(source.names),
        "draws": draws,
    }
    if rule != TAXONOMY:
        own = {"rule": rule, "plugin_sha256": RULES.about(rule).plugin}
        settings = {**own, "tables": list(source.names), "draws": draws}
    identity = stage_id(_STAGE, settings)
    facts = {
        "stage": _STAGE,
        "stage-id": identity,
        "axes": dict(source.axes),
        "confidence-from": labels.confidence_from,
        **settings,
    }
    columns = table_columns(source, labels)
    # who labels at the same time waits, so that columns of two versions are not mixed
    lock = StorePaths(absolute(path)).locks / "label.lock"
    with hold_patiently(lock, leased=True, patience_s=_PATIENCE_S) as owned:
        if not owned:
            msg = f"another process has been labelling {path} for {_PATIENCE_S:.0f} s; try again"
            raise StoreBusyError(msg)
        table, new = publish_next(path, "phases", columns, facts, lambda: _same(path, identity))
        publish(path, _model_columns(path, source, labels, table), stage=_STAGE, stage_id=identity)
    return Published(table, new, labels, source)


def read_labels(
    path: str | PathLike[str], table: str | None = None
) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Return the columns and attributes of a table of labels; by default the current one.

    Raises:
        StoreMissingError: no store is there.
        StoreError: the store has no labels yet.
        UnknownNameError: there is no such table.
    """
    if table is None:
        table = current_table(path)
    if table is None:
        msg = f"{path} has no phases yet; run `zoo label {path}` first"
        raise StoreError(msg)
    columns, attributes = read_table(path, table)
    return columns, {**attributes, "table": table}


def current_table(path: str | PathLike[str]) -> str | None:
    """Return the name of the table that the column ``phase`` comes from, or None."""
    for cohort in read_plan(path).cohorts:
        column = derived_columns(path, cohort).get("phase")
        if column is not None:
            return str(column["attributes"].get("table", newest_table(path, "phases")))
    return newest_table(path, "phases")


def _same(path: str | PathLike[str], identity: str) -> str | None:
    """Return the table that was made from the same cells with the same settings, or None."""
    for name in table_names(path):
        if name.startswith("phases-v") and read_table(path, name)[1]["stage-id"] == identity:
            return name
    return None


def table_columns(source: StoreCells, labels: Labels) -> dict[str, TableColumn]:
    """Return the columns of a table of labels."""
    cells, decision = labels.cells, labels.decision
    docs: dict[str, tuple[NDArray[Any], str]] = {
        "cell": (cells.ids, "id of the cell"),
        "load": (cells.load, "value of the load axis"),
        "temperature": (cells.temperature, "value of the temperature axis"),
        "rest": (source.rest, "what else tells the cell from others"),
        "phase": (decision.phases, f"{', '.join(decision.names)} or {UNDETERMINED}"),
        "candidates": (decision.candidates, "every phase that missing numbers leave open"),
        "confidence": (labels.confidence, "share of resampled zoos with the same label"),
        "margin": (decision.margin, "distance to the nearest threshold, in standard errors"),
        "boundary": (
            decision.boundary,
            "1 where the margin is below the threshold 'boundary', else 0; NaN: margin not known",
        ),
        "hard_by": (decision.hard_by, "the test that said whether training is finished"),
        "cka_cut": (labels.cut.cka, "threshold on output similarity"),
        "cka_cut_source": (labels.cut.source, "where it comes from"),
        "chance_loss": (cells.chance_loss, "loss of guessing, nats"),
        "bad_share": (cells.bad_share, "share of models that diverged or collapsed"),
    }
    for name, unit in INPUTS.items():
        docs[name] = (cells.value(name), f"input of the rule, in: {unit}")
        docs[f"{name}_se"] = (cells.error(name), f"standard error of {name}")
    columns = {key: TableColumn(("cell",), values, doc) for key, (values, doc) in docs.items()}
    ids = "run ids, padded with empty text"
    columns["members"] = TableColumn(("cell", "member"), source.members, ids)
    return columns


def _model_columns(
    path: str | PathLike[str], source: StoreCells, labels: Labels, table: str
) -> list[DerivedColumn]:
    """Return what each model inherits from its cell."""
    of_run = {i: n for n, row in enumerate(source.members) for i in row.tolist() if i}
    decision = labels.decision
    facts: dict[str, Any] = {"table": table, "rule": labels.rule}
    if labels.rule == TAXONOMY:
        facts["thresholds"] = labels.limits.to_json()
    found = []
    for cohort in read_plan(path).cohorts:
        # one past the end: a run that is in no cell
        at = np.array([of_run.get(i, len(labels.cells)) for i in cohort.run_ids], dtype=np.int64)
        phase = np.append(decision.phases, UNDETERMINED)[at]
        columns: dict[str, tuple[NDArray[Any], str]] = {
            "phase": (phase, "phase of the model's cell, current version"),
            f"phase_{table.rpartition('-')[2]}": (phase, f"phase of the model's cell, {table}"),
            "phase_confidence": (
                np.append(labels.confidence, np.nan)[at],
                "share of resampled zoos in which the cell has the same phase",
            ),
            "phase_margin": (
                np.append(decision.margin, np.nan)[at],
                "distance of the cell to the nearest threshold, in standard errors",
            ),
            "phase_boundary": (
                np.append(decision.boundary, np.nan)[at],
                "1 if the cell is on a boundary, else 0; NaN where its margin is not known",
            ),
        }
        found += [
            DerivedColumn(cohort.id, name, ("model",), values, doc, facts)
            for name, (values, doc) in columns.items()
        ]
    return found
