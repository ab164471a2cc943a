"""The stage after training on diets: every checkpoint on what it dropped, and on all of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from zoo.architectures import build
from zoo.data import prepare, training_subset
from zoo.diets.keep import labels_of
from zoo.diets.scoring import example_sums
from zoo.stages.base import Part
from zoo.stages.kept import MASK
from zoo.store import DerivedColumn, StageFolder, StoreReader, publish, read_derived, read_plan
from zoo.train.plan import Cohort, Plan, Task
from zoo.train.task_data import cohort_objective, planned_data, split_inputs, split_targets

__all__ = ["DIET_METRICS", "DietMetricsStage"]

#: What the objective's measures are published of, ``[M, K]`` each.
_SETS = {
    "dropped": "the training examples that the diet drops",
    "full_train": "kept and dropped training examples",
}
#: Rows that are evaluated together.
_ROWS = 16


class DietMetricsStage:
    """What is recorded, on dropped examples; on kept ones it is ``train_loss`` and so on."""

    name = "diet-metrics"

    def parts(self, path: Path, settings: Mapping[str, Any]) -> Sequence[Part]:
        """Return a part for each task of the cohorts that the settings name."""
        found = _tasks(read_plan(path), settings)
        return [
            Part(key, task.models, task.models * cohort.checkpoints * cohort.params)
            for key, (cohort, task) in found.items()
        ]

    def run_part(
        self, path: Path, settings: Mapping[str, Any], key: str, paths: Mapping[str, str]
    ) -> tuple[Mapping[str, NDArray[np.generic]], Mapping[str, Any]]:
        """Evaluate every recorded checkpoint of a task."""
        reader = StoreReader(path)
        cohort, task = _tasks(reader.plan, settings)[key]
        out = {
            name: np.full((task.models, cohort.checkpoints), np.nan, dtype=np.float32)
            for name in _columns(cohort)
        }
        kept = np.unpackbits(read_derived(path, cohort, MASK)[task.start : task.stop], axis=1)
        for start in range(task.start, task.stop, _ROWS):
            rows = np.arange(start, min(start + _ROWS, task.stop))
            _measure(reader, cohort, rows, kept[rows - task.start] > 0, paths, out)
        return out, {}

    def finish(
        self,
        path: Path,
        settings: Mapping[str, Any],
        folder: StageFolder,
        paths: Mapping[str, str],
    ) -> None:
        """Publish the columns."""
        plan = read_plan(path)
        found = _tasks(plan, settings)
        columns = []
        for cohort in plan.cohorts:
            keys = [key for key, (owner, _) in found.items() if owner.id == cohort.id]
            if not keys:
                continue
            parts = [folder.read(key)[0] for key in keys]
            for name, doc in _columns(cohort).items():
                values = np.concatenate([part[name] for part in parts])
                dims = ("model", "checkpoint")
                columns.append(DerivedColumn(cohort.id, name, dims, values, doc))
        publish(path, columns, stage=folder.name, stage_id=folder.id)


def _columns(cohort: Cohort) -> dict[str, str]:
    """Return what is published of a cohort: name -> description."""
    return {
        f"{part}_{name}": doc.format(words)
        for part, words in _SETS.items()
        for name, doc in cohort_objective(cohort).measures.items()
    }


def _tasks(plan: Plan, settings: Mapping[str, Any]) -> dict[str, tuple[Cohort, Task]]:
    cohorts = [plan.cohort(name) for name in settings["cohorts"]]
    return {f"{c.id}.{t.index}.{c.rows_hash(t)[:12]}": (c, t) for c in cohorts for t in c.tasks()}


def _measure(
    reader: StoreReader,
    cohort: Cohort,
    rows: NDArray[np.int64],
    kept: NDArray[np.bool_],
    paths: Mapping[str, str],
    out: Mapping[str, NDArray[np.float32]],
) -> None:
    """Fill the rows of ``out`` that belong to ``rows``, at every recorded checkpoint."""
    runs = [cohort.runs[row] for row in rows]
    name = reader.plan.data_key(cohort.runs[0])
    dataset = planned_data(reader.plan, name, paths)
    count = len(dataset.train_y)
    network = build(runs[0], cohort.data_shape)
    objective = cohort_objective(cohort)
    prepared = prepare(dataset, str(cohort.key["normalization"]))
    x = network.inputs(split_inputs(prepared.splits["train"]))
    if dataset.target == "class":
        targets = torch.from_numpy(np.stack([labels_of(run, dataset) for run in runs]))
    else:
        targets = split_targets(prepared.splits["train"]).unsqueeze(0)
    kept = kept[:, :count]
    pool = np.zeros_like(kept)
    for i, run in enumerate(runs):
        size, seed = int(run.train_size or count), int(run.noise_seed or 0)
        pool[i, training_subset(count, size=size, seed=seed)] = True
    recorded = reader.cohort(cohort.id).recorded[rows]
    first = int(rows[0]) % cohort.task_rows
    for k in np.flatnonzero(recorded.any(0)):
        there = np.flatnonzero(recorded[:, k])
        weights = reader.cohort(cohort.id).read_weights(rows[there], np.full(len(there), k))
        with torch.no_grad():
            slab = torch.from_numpy(np.ascontiguousarray(weights))
            own = targets[there] if len(targets) > 1 else targets
            sums = example_sums(network, objective, slab, x, own)
        for i, row in enumerate(there):
            sets = {"full_train": pool[row], "dropped": pool[row] & ~kept[row]}
            for part, chosen in sets.items():
                if chosen.any():
                    here = {n: v[i, chosen].sum(0, keepdim=True) for n, v in sums.items()}
                    count_of = torch.tensor([float(chosen.sum())], dtype=torch.float64)
                    for label, value in objective.measured(here, count_of).items():
                        out[f"{part}_{label}"][first + row, k] = float(value)


DIET_METRICS = DietMetricsStage()
