"""``zoo reproduce``: train one model again, among dummies, and compare every bit."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.arithmetic import pinned
from zoo.errors import UnknownNameError
from zoo.paths import absolute
from zoo.provenance import fingerprint, fingerprint_changes
from zoo.stages.kept import kept_of_task
from zoo.store import CohortReader, StoreReader, data_paths, read_provenance
from zoo.store.commits import read_seal
from zoo.store.paths import StorePaths
from zoo.train.checkpoint import Checkpoint
from zoo.train.plan import Cohort, Plan, Task
from zoo.train.trainer import TaskTrainer

__all__ = ["Difference", "Reproduction", "reproduce"]


@dataclass(frozen=True, slots=True)
class Difference:
    """Where a new run first leaves the recorded one.

    Args:
        checkpoint, step: where.
        what: ``weights``, ``probe_logits``, a metric, or ``status``.
        differing: values with other bits.
        values: values compared.
        largest: largest absolute difference; NaN where one side has no number.
    """

    checkpoint: int
    step: int
    what: str
    differing: int
    values: int
    largest: float


@dataclass(frozen=True, slots=True)
class Reproduction:
    """What came of training one model again.

    Args:
        run_id, cohort, row: the model.
        backend: what trained it, then and now.
        checkpoints: recorded checkpoints that were compared.
        difference: the first difference, or None: every bit matches.
        warnings: what differs between the machine and software of then and now.
    """

    run_id: str
    cohort: str
    row: int
    backend: str
    checkpoints: int
    difference: Difference | None
    warnings: tuple[str, ...]

    @property
    def matches(self) -> bool:
        """Whether every recorded bit came out again."""
        return self.difference is None

    def to_json(self) -> dict[str, Any]:
        """Return the result, JSON-ready."""
        first = self.difference
        names = Difference.__slots__
        return {
            "run_id": self.run_id,
            "cohort": self.cohort,
            "row": self.row,
            "backend": self.backend,
            "checkpoints": self.checkpoints,
            "matches": self.matches,
            "difference": None if first is None else {n: getattr(first, n) for n in names},
            "warnings": list(self.warnings),
        }


def reproduce(
    store: str | os.PathLike[str], run_id: str, *, paths: Mapping[str, str] | None = None
) -> Reproduction:
    """Train one model of a store again and hold it against the recorded trajectory, bit by bit.

    The other rows of its group are dummies. The backend is the cohort's own.

    Args:
        store: the store; it is only read.
        run_id: the model, or the beginning of its id where that is unique.
        paths: data set -> path, before environment variables and what the store says.

    Raises:
        StoreMissingError: no store is there.
        UnknownNameError: no such run, or nothing of it is recorded.
        DataError: the data set is not the one that the store was made with.
    """
    reader = StoreReader(store)
    cohort, row = _find(reader.plan, run_id)
    found = reader.cohort(cohort.id)
    recorded = int(found.recorded[row].sum())
    if not recorded:
        msg = f"nothing of run {cohort.run_ids[row]} is recorded yet; `zoo run {store}` trains it"
        raise UnknownNameError(msg)
    paths = data_paths(store, paths)
    # A diverged run is compared up to the checkpoint that it did not reach.
    last = recorded - 1 if found.diverged_step[row] < 0 else recorded
    first = None
    with pinned():
        kept = kept_of_task(store, cohort, Task(cohort.id, 0, row, row + 1))
        for checkpoint in _train(reader.plan, cohort, row, paths, kept):
            first = next(_differences(found, row, checkpoint), None)
            if first is not None or checkpoint.index >= last:
                break
    return Reproduction(
        run_id=cohort.run_ids[row],
        cohort=cohort.id,
        row=row,
        backend=cohort.backend,
        checkpoints=recorded,
        difference=first,
        warnings=fingerprint_changes(_fingerprint_of(absolute(store), cohort, row), fingerprint()),
    )


def _find(plan: Plan, run_id: str) -> tuple[Cohort, int]:
    places = {r: (c, row) for c in plan.cohorts for row, r in enumerate(c.run_ids)}
    if run_id in places:
        return places[run_id]
    matches = [known for known in places if run_id and known.startswith(run_id)]
    if len(matches) == 1:
        return places[matches[0]]
    many = f"is the beginning of {len(matches)} runs" if matches else "is no run of this store"
    msg = f"{run_id!r} {many}; `zoo query STORE --columns run_id` lists them"
    raise UnknownNameError(msg)


def _train(
    plan: Plan,
    cohort: Cohort,
    row: int,
    paths: Mapping[str, str],
    kept: Mapping[str, NDArray[np.int64]],
) -> Iterator[Checkpoint]:
    alone = replace(
        cohort,
        runs=cohort.runs[row : row + 1],
        steps=cohort.steps[row : row + 1],
        epochs=cohort.epochs[row : row + 1],
    )
    yield from TaskTrainer(plan, alone, Task(cohort.id, 0, 0, 1), paths=paths, kept=kept).run()


def _differences(found: CohortReader, row: int, new: Checkpoint) -> Iterator[Difference]:
    """Yield what differs at one checkpoint."""
    k = new.index
    step = int(found.cohort.steps[row, k])
    then, now = int(found.diverged_step[row]), int(new.diverged_step[0])
    there = bool(found.recorded[row, k])
    if there != (now < 0) or (not there and then != now):
        yield Difference(k, step, "status", 1, 1, float("nan"))
    if not there:
        return
    rows, ks = np.array([row]), np.array([k])
    pairs: list[tuple[str, NDArray[Any], NDArray[Any]]] = [
        ("weights", found.read_weights(rows, ks)[0], new.weights[0])
    ]
    if new.probe is not None:
        pairs.append(("probe_logits", found.read_probe(rows, ks)[0], new.probe[0]))
    pairs += [(n, found.metric(n)[row, k : k + 1], values) for n, values in new.metrics.items()]
    for what, old, fresh in pairs:
        other = _other_bits(old, fresh)
        if other.any():
            gap = np.abs(old.astype(np.float64) - fresh.astype(np.float64))
            yield Difference(k, step, what, int(other.sum()), other.size, float(gap.max()))


def _other_bits(old: NDArray[Any], new: NDArray[Any]) -> NDArray[np.bool_]:
    """Return where two float arrays have other bits; two NaN are the same value."""
    kind = {2: np.uint16, 4: np.uint32, 8: np.uint64}[old.dtype.itemsize]
    different = np.ascontiguousarray(old).view(kind) != np.ascontiguousarray(new).view(kind)
    result: NDArray[np.bool_] = different & ~(np.isnan(old) & np.isnan(new))
    return result


def _fingerprint_of(store: Path, cohort: Cohort, row: int) -> Mapping[str, Any]:
    """Return the fingerprint of what finished the row's task, or else of what made the store."""
    task = next(t for t in cohort.tasks() if t.start <= row < t.stop)
    seal = read_seal(StorePaths(store), cohort, task)
    record = seal.record if seal is not None else read_provenance(store)
    found: Mapping[str, Any] = record.get("fingerprint", {})
    return found
