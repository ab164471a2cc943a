"""The stage after training on diets: every checkpoint on what it dropped, and on all of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from zoo.architectures import build
from zoo.data import load, prepare, training_subset
from zoo.diets.keep import labels_of
from zoo.diets.scoring import score_models
from zoo.launch.kept import MASK
from zoo.launch.schedule import Part
from zoo.launch.scoring import data_paths
from zoo.store import DerivedColumn, StageFolder, StoreReader, publish, read_derived, read_plan
from zoo.train.plan import Cohort, Plan, Task

__all__ = ["DIET_METRICS", "DietMetricsStage"]

#: What is published, ``[M, K]`` each.
_COLUMNS = {
    "dropped_loss": "mean cross-entropy over the training examples that the diet drops (nats)",
    "dropped_accuracy": "share correct of the training examples that the diet drops",
    "full_train_loss": "mean cross-entropy over kept and dropped training examples (nats)",
    "full_train_accuracy": "share correct of kept and dropped training examples",
}
#: Rows that are evaluated together.
_ROWS = 16


class DietMetricsStage:
    """Loss and accuracy on dropped examples; those on kept ones are ``train_loss`` and so on."""

    name = "diet-metrics"

    def parts(self, path: Path, settings: Mapping[str, Any]) -> Sequence[Part]:
        """Return a part for each task of the cohorts that the settings name."""
        found = _tasks(read_plan(path), settings)
        return [
            Part(key, task.models, task.models * cohort.checkpoints * cohort.params)
            for key, (cohort, task) in found.items()
        ]

    def run_part(
        self, path: Path, settings: Mapping[str, Any], key: str
    ) -> tuple[Mapping[str, NDArray[np.generic]], Mapping[str, Any]]:
        """Evaluate every recorded checkpoint of a task."""
        reader = StoreReader(path)
        cohort, task = _tasks(reader.plan, settings)[key]
        out = {
            name: np.full((task.models, cohort.checkpoints), np.nan, dtype=np.float32)
            for name in _COLUMNS
        }
        kept = np.unpackbits(read_derived(path, cohort.id, MASK)[task.start : task.stop], axis=1)
        for start in range(task.start, task.stop, _ROWS):
            rows = np.arange(start, min(start + _ROWS, task.stop))
            _measure(reader, cohort, rows, kept[rows - task.start] > 0, data_paths(path), out)
        return out, {}

    def finish(self, path: Path, settings: Mapping[str, Any], folder: StageFolder) -> None:
        """Publish the columns."""
        plan = read_plan(path)
        found = _tasks(plan, settings)
        columns = []
        for cohort in plan.cohorts:
            keys = [key for key, (owner, _) in found.items() if owner.id == cohort.id]
            if not keys:
                continue
            parts = [folder.read(key)[0] for key in keys]
            for name, doc in _COLUMNS.items():
                values = np.concatenate([part[name] for part in parts])
                dims = ("model", "checkpoint")
                columns.append(DerivedColumn(cohort.id, name, dims, values, doc))
        publish(path, columns, stage=folder.name, stage_id=folder.id)


def _tasks(plan: Plan, settings: Mapping[str, Any]) -> dict[str, tuple[Cohort, Task]]:
    cohorts = [plan.cohort(name) for name in settings["cohorts"]]
    return {f"{c.id}.{task.index}": (c, task) for c in cohorts for task in c.tasks()}


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
    name = str(cohort.key["data"])
    dataset = load(name, path=paths.get(name))
    count = len(dataset.train_y)
    network = build(runs[0], cohort.example_shape, cohort.classes)
    prepared = prepare(dataset, str(cohort.key["normalization"]))
    x = network.inputs(torch.from_numpy(np.array(prepared.train_x)))
    labels = torch.from_numpy(np.stack([labels_of(run, dataset) for run in runs]))
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
            said = score_models(network, slab, x, labels[there], ["correct", "loss"])
        for label, values in (("accuracy", said["correct"]), ("loss", said["loss"])):
            each = values.double().numpy()
            for i, row in enumerate(there):
                drop = pool[row] & ~kept[row]
                place = first + row, k
                out[f"full_train_{label}"][place] = each[i, pool[row]].mean()
                if drop.any():
                    out[f"dropped_{label}"][place] = each[i, drop].mean()


DIET_METRICS = DietMetricsStage()
