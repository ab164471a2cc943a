"""The scoring stage: before a zoo with diets is trained, score its examples and choose.

Its parts are blocks of scoring models (:mod:`zoo.diets.demand`). The end publishes a table of
scores a job (``scores-<id>``: every seed, epoch and example), and for each cohort with diets the
membership masks that the workers train by. A mask that is there is never replaced: what a model
is trained on stays, whatever is scored later or on another machine.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.data.score_file import values_fingerprint
from zoo.diets.demand import BLOCK, ScoringJob, family_of, scoring_jobs
from zoo.diets.keep import FEW, kept_examples, labels_of, mean_score, planned_scores
from zoo.diets.scores import SCORES
from zoo.diets.scores.memorization import memorization
from zoo.diets.scoring import score_block
from zoo.diets.selection import class_counts
from zoo.errors import StoreError
from zoo.provenance import fingerprint
from zoo.spec.diet import SCORE_FILE
from zoo.spec.run import RunSpec
from zoo.stages.base import Part
from zoo.stages.kept import MASK
from zoo.store import (
    DerivedColumn,
    StageFolder,
    TableColumn,
    derived_columns,
    publish,
    publish_table,
    read_plan,
    read_table,
    table_names,
)
from zoo.train.plan import Cohort, Plan
from zoo.train.task_data import cohort_objective, planned_data

__all__ = ["OWN", "SCORING", "ScoringStage", "extra_settings", "jobs_of"]

#: The stage's settings for what the diets of a store need.
OWN: Mapping[str, Any] = {"format": 1}

_LOG = logging.getLogger("zoo.diets")


def extra_settings(jobs: Sequence[ScoringJob]) -> dict[str, Any]:
    """Return the settings of a stage that scores more than the diets of a store need."""
    return {**OWN, "jobs": [job.to_json() for job in jobs]}


def jobs_of(plan: Plan, settings: Mapping[str, Any]) -> tuple[ScoringJob, ...]:
    """Return the scoring jobs: those of the settings, or those that the plan's diets need.

    Raises:
        SpecError: score epochs beyond the training of the scorer.
    """
    if "jobs" in settings:
        return tuple(ScoringJob.from_json(raw) for raw in settings["jobs"])
    sizes = {name: int(facts["train_examples"]) for name, facts in plan.data.items()}
    runs = [run for cohort in plan.cohorts for run in cohort.runs]
    return scoring_jobs(runs, sizes, source=plan.name)


class ScoringStage:
    """Scores, then membership masks."""

    name = "scoring"

    def parts(self, path: Path, settings: Mapping[str, Any]) -> Sequence[Part]:
        """Return a part for each block of scoring models."""
        out = []
        for job in jobs_of(read_plan(path), settings):
            per_epoch = job.scorer.steps_per_epoch * job.scorer.batch_size
            for block in range(job.blocks):
                models = min(BLOCK, job.seeds - block * BLOCK)
                cost = models * (job.last_epoch + len(job.epochs)) * per_epoch
                out.append(Part(f"{job.id}.{block}", models, cost))
        return out

    def run_part(
        self, path: Path, settings: Mapping[str, Any], key: str, paths: Mapping[str, str]
    ) -> tuple[Mapping[str, NDArray[np.generic]], Mapping[str, Any]]:
        """Train one block of scoring models and let it score."""
        plan = read_plan(path)
        name, block = key.rsplit(".", 1)
        job = next(j for j in jobs_of(plan, settings) if j.id == name)
        data = plan.data_key(job.scorer)
        planned_data(plan, data, paths)
        facts = {"fingerprint": fingerprint(), "data": plan.data[data]["fingerprint"]}
        return score_block(job, int(block), paths=paths), facts

    def finish(
        self,
        path: Path,
        settings: Mapping[str, Any],
        folder: StageFolder,
        paths: Mapping[str, str],
    ) -> None:
        """Publish a table per job, and the masks of cohorts that have none yet."""
        plan = read_plan(path)
        for job in jobs_of(plan, settings):
            _publish_scores(path, job, folder)
        if "jobs" not in settings:
            _publish_masks(path, plan, folder, paths)


def _publish_scores(path: Path, job: ScoringJob, folder: StageFolder) -> None:
    name = f"scores-{job.id}"
    if name in table_names(path):
        return
    read = [folder.read(f"{job.id}.{block}") for block in range(job.blocks)]
    parts = [arrays for arrays, _ in read]
    whole = {n: np.concatenate([part[n] for part in parts]) for n in parts[0]}
    dims = ("seed", "epoch", "example")
    columns = {
        "epochs": TableColumn(("epoch",), np.array(job.epochs), "epochs of the scoring models"),
    }
    if "correct" in whole:
        share = whole["correct"].mean(2, dtype=np.float64)
        columns["accuracy"] = TableColumn(dims[:2], share, "on the whole training set")
    if job.subsets:
        columns["correct"] = TableColumn(dims, whole["correct"], "whether the model is right")
        columns["member"] = TableColumn(
            ("seed", "example"), whole["member"], "whether the model was trained on it"
        )
    else:
        columns |= {s: TableColumn(dims, whole[s], SCORES[s].doc) for s in job.scores}
    facts = {
        "kind": "scores",
        "job": job.to_json(),
        "family": job.family,
        "scorer": job.scorer.identity(),
        "data": read[0][1]["data"],
        "fingerprint": read[0][1]["fingerprint"],
        "stage": folder.name,
        "stage-id": folder.id,
    }
    publish_table(path, name, columns, facts)


class _Tables:
    """The scores of a store, found by what they are."""

    def __init__(self, path: Path, plan: Plan) -> None:
        names = [n for n in table_names(path) if n.startswith("scores-")]
        self.tables = [read_table(path, name) for name in names]
        self.plan = plan
        self.known: dict[tuple[object, ...], NDArray[np.float64]] = {}

    def mean(self, run: RunSpec) -> NDArray[np.float64]:
        """Return the mean score ``[N]`` that a run's diet ranks by."""
        subsets = SCORES[run.score].kind == "subsets"
        examples = int(self.plan.data[self.plan.data_key(run)]["train_examples"])
        family = family_of(run, examples, subsets=subsets)
        seeds, epoch = int(run.score_seeds or 1), run.score_epoch
        key = (family, run.score, seeds, epoch)
        if key not in self.known:
            self.known[key] = self._find(family, run.score, seeds, epoch, subsets=subsets)
        return self.known[key]

    def _find(
        self, family: str, score: str, seeds: int, epoch: float | None, *, subsets: bool
    ) -> NDArray[np.float64]:
        column = "correct" if subsets else score
        for arrays, facts in self.tables:
            epochs = arrays["epochs"].tolist()
            if facts["family"] != family or column not in arrays or epoch not in epochs:
                continue
            if len(arrays[column]) < seeds:
                continue
            values = arrays[column][:seeds, epochs.index(epoch)]
            if subsets:
                return memorization(values, arrays["member"][:seeds])
            return mean_score(values, seeds)
        msg = f"no table of the store has {score} at epoch {epoch} by {seeds} models of {family}"
        raise StoreError(msg)


def _publish_masks(path: Path, plan: Plan, folder: StageFolder, paths: Mapping[str, str]) -> None:
    """Publish the masks of cohorts that have none yet, in one go: each may be large."""
    tables = _Tables(path, plan)
    columns = (
        column
        for cohort in plan.cohorts
        if any(run.keep is not None for run in cohort.runs)
        and not derived_columns(path, cohort).keys() >= _wanted(cohort)
        for column in _mask_columns(cohort, tables, paths)
    )
    publish(path, columns, stage=folder.name, stage_id=folder.id)


def _wanted(cohort: Cohort) -> frozenset[str]:
    """Return the columns that say what the models of a cohort are trained on."""
    classes = {"kept_classes", "kept_smallest_class"}
    labels = cohort_objective(cohort).target == "class"
    return frozenset({MASK, "kept_examples", *(classes if labels else ())})


def _mask_columns(
    cohort: Cohort, tables: _Tables, paths: Mapping[str, str]
) -> Iterator[DerivedColumn]:
    dataset = planned_data(tables.plan, tables.plan.data_key(cohort.runs[0]), paths)
    count = len(dataset.train_y)
    masks = np.zeros((cohort.models, count), dtype=np.bool_)
    counts = np.zeros((cohort.models, dataset.classes), dtype=np.int64)
    for row, run in enumerate(cohort.runs):
        kept = kept_examples(run, dataset, tables.mean, paths=paths)
        masks[row, kept] = True
        counts[row] = class_counts(labels_of(run, dataset), kept, dataset.classes)
    files = {r.score: r for r in cohort.runs if r.score.startswith(SCORE_FILE)}
    prints = {f: values_fingerprint(planned_scores(files[f], count, paths)) for f in sorted(files)}
    facts = {"examples": count, "bits": "big", "score-files": prints}
    packed = np.packbits(masks, axis=1)
    yield DerivedColumn(
        cohort.id, MASK, ("model", "mask_byte"), packed,
        "training examples that the model is trained on, a bit each, first the highest of a byte",
        facts,
    )  # fmt: skip
    if dataset.target == "class":
        yield from _class_columns(cohort, counts)
    yield DerivedColumn(
        cohort.id, "kept_examples", ("model",), masks.sum(1, dtype=np.int64),
        "training examples that the model is trained on",
    )  # fmt: skip


def _class_columns(cohort: Cohort, counts: NDArray[np.int64]) -> Iterator[DerivedColumn]:
    """Yield what is left of each class, ``counts [M, C]``; warn where it is next to nothing."""
    _warn_of_few(cohort, counts)
    yield DerivedColumn(
        cohort.id, "kept_classes", ("model", "class"), counts,
        "training examples of each class (as labelled in training) that the model is trained on",
    )  # fmt: skip
    yield DerivedColumn(
        cohort.id, "kept_smallest_class", ("model",), counts.min(1),
        "examples of the class with the fewest that the model is trained on",
    )  # fmt: skip


def _warn_of_few(cohort: Cohort, counts: NDArray[np.int64]) -> None:
    """Say so where diets leave next to nothing of a class; ``counts`` is ``[M, C]``."""
    dieting = np.array([run.keep is not None for run in cohort.runs])
    few = np.flatnonzero(dieting & (counts < FEW).any(1))
    if len(few):
        worst = cohort.runs[few[counts[few].min(1).argmin()]]
        _LOG.warning(
            "%d of %d diets of cohort %s keep fewer than %d examples of a class (the worst: score"
            " %s, select %s, keep %g); balance = 'class' keeps every class, `zoo diets` lists them",
            len(few), int(dieting.sum()), cohort.id, FEW, worst.score, worst.select, worst.keep,
        )  # fmt: skip


SCORING = ScoringStage()
