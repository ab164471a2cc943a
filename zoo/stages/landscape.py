"""The landscape stage: metrics of models and of cells, in parts that any process may compute.

A part is one metric at one checkpoint of a block of models, or of a block of cells. What it holds
depends on the options alone and not on what else was asked for, so a part that another choice of
metrics or checkpoints has made is taken over.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from zoo.architectures import Network, build
from zoo.data import Dataset
from zoo.errors import StoreError
from zoo.landscape import CELL_METRICS, MODEL_METRICS
from zoo.landscape.blocks import Models, Wanted, measure_models, measure_pairs
from zoo.landscape.cells import all_pairs, ring_pairs
from zoo.paths import absolute
from zoo.spec.run import RunSpec
from zoo.stages.base import Part
from zoo.stages.kept import kept_of_task
from zoo.stages.landscape_columns import publish_landscape
from zoo.stages.landscape_settings import NAME
from zoo.store import StageFolder, StoreReader, stage_settings
from zoo.store.paths import StorePaths
from zoo.train.cells import Cell, cells_of
from zoo.train.plan import Cohort, Plan
from zoo.train.task_data import TaskData, cohort_objective, planned_data, task_data

__all__ = ["LANDSCAPE", "LandscapeStage", "from_ends"]

_LOG = 10
#: Models of a part, about.
_PART_ROWS = 64

_Arrays = dict[str, NDArray[np.float64]]


def from_ends(plan: Plan, checkpoints: str) -> tuple[int, ...]:
    """Return which checkpoints are meant, counted from each run's last, which is 0."""
    found: set[int] = set()
    for K in {cohort.checkpoints for cohort in plan.cohorts}:
        if checkpoints == "last":
            found.add(0)
        elif checkpoints == "all" or K <= _LOG:
            found |= set(range(K))
        else:
            places = np.unique(np.geomspace(1, K, _LOG).round().astype(int))
            found |= {K - int(k) for k in places}
    return tuple(sorted(found))


@dataclass(frozen=True, slots=True)
class _Block:
    """What a part is about: models of one network, as (cohort's position, row), or their cells."""

    metric: str
    from_end: int
    members: tuple[tuple[int, int], ...]
    cells: tuple[Cell, ...] = ()

    def key(self, plan: Plan) -> str:
        kind = "cells" if self.cells else "models"
        ids = ",".join(plan.cohorts[c].run_ids[row] for c, row in self.members)
        digest = hashlib.sha256(ids.encode()).hexdigest()[:16]
        return f"{self.metric}.{self.from_end}.{kind}.{digest}"

    def cohort(self, plan: Plan) -> Cohort:
        """Return the cohort of the first model; the others have the same network."""
        return plan.cohorts[self.members[0][0]]


@dataclass(frozen=True, slots=True)
class LandscapeStage:
    """The stage, as an executor runs it."""

    name: str = NAME

    def parts(self, path: Path, settings: Mapping[str, Any]) -> Sequence[Part]:
        """Return the parts.

        Raises:
            StoreError: the store is not trained to its end.
        """
        reader = _reader(path)
        _check_complete(reader)
        plan = reader.plan
        return [
            Part(block.key(plan), len(block.members), _cost(plan, block))
            for block in _blocks(plan, settings)
        ]

    def run_part(
        self, path: Path, settings: Mapping[str, Any], key: str, paths: Mapping[str, str]
    ) -> tuple[_Arrays, dict[str, Any]]:
        """Return the values of a part's models or pairs."""
        found = _made_before(path, settings, key)
        if found is not None:
            return found, {"taken_over": True}
        reader = _reader(path)
        block = _by_key(reader.plan, settings)[key]
        with torch.no_grad():
            found = _measured(path, reader, settings, block, paths)
            return found, {"models": len(block.members)}

    def finish(
        self,
        path: Path,
        settings: Mapping[str, Any],
        folder: StageFolder,
        paths: Mapping[str, str],
    ) -> None:
        """Publish the columns and the tables of cells and pairs, from every part there is."""
        reader = _reader(path)
        everything = {**settings, "checkpoints": "all", "metrics": list(settings["options"])}
        parts: dict[tuple[str, int], list[tuple[_Block, _Arrays]]] = {}
        folders = _folders(path, settings)
        where = {key: held for held in folders for key in held.parts_done()}
        for block in _blocks(reader.plan, everything):
            key = block.key(reader.plan)
            if key in where:
                arrays, _ = where[key].read(key)
                parts.setdefault((block.metric, block.from_end), []).append((block, arrays))
        models = {
            name: [(b.members, arrays) for b, arrays in blocks]
            for name, blocks in parts.items()
            if name[0] in MODEL_METRICS
        }
        cells = {
            name: [(b.cells, arrays) for b, arrays in blocks]
            for name, blocks in parts.items()
            if name[0] in CELL_METRICS
        }
        first = {reader.plan.data_key(c.runs[0]): c.id for c in reversed(reader.plan.cohorts)}
        data = {name: _data(reader, cohort, paths) for name, cohort in first.items()}
        publish_landscape(path, reader, folder, models, cells, data)


LANDSCAPE = LandscapeStage()


def _check_complete(reader: StoreReader) -> None:
    states = [state for cohort in reader.cohorts for state in cohort.status.tolist()]
    left = sum(state not in ("done", "diverged") for state in states)
    if left:
        msg = f"{left} of {len(states)} models are not trained to their end; `zoo run STORE` first"
        raise StoreError(msg)


def _network_key(plan: Plan, cohort: Cohort) -> str:
    """Return what models must agree on to be measured together."""
    shared = [cohort.architecture["ops"], cohort.data_shape.to_json()]
    own = [plan.data_key(cohort.runs[0]), cohort.key["normalization"], cohort.runs[0].objective]
    return json.dumps([*shared, *own])


def _blocks(plan: Plan, settings: Mapping[str, Any]) -> Iterator[_Block]:
    chosen = from_ends(plan, settings["checkpoints"])
    keys = [_network_key(plan, cohort) for cohort in plan.cohorts]
    cells = [cell for cell in cells_of(plan) if len(cell.members) > 1]
    for key in dict.fromkeys(keys):
        objective = cohort_objective(plan.cohorts[keys.index(key)])
        for metric in settings["metrics"]:
            if metric in MODEL_METRICS and objective.lack(MODEL_METRICS[metric].needs):
                continue
            for from_end in chosen:
                there = {
                    i: cohort
                    for i, cohort in enumerate(plan.cohorts)
                    if keys[i] == key and from_end < cohort.checkpoints
                }
                if metric in CELL_METRICS:
                    own = [cell for cell in cells if cell.members[0][0] in there]
                    yield from _cell_blocks(metric, from_end, own)
                    continue
                members = [(i, row) for i, c in there.items() for row in range(c.models)]
                for start in range(0, len(members), _PART_ROWS):
                    part = tuple(members[start : start + _PART_ROWS])
                    yield _Block(metric, from_end, part)


def _cell_blocks(metric: str, from_end: int, cells: Sequence[Cell]) -> Iterator[_Block]:
    """Yield some cells at a time, of about so many models together."""
    part: list[Cell] = []
    for cell in (*cells, None):
        count = sum(len(c.members) for c in part)
        if part and (cell is None or count + len(cell.members) > _PART_ROWS):
            yield _Block(metric, from_end, tuple(m for c in part for m in c.members), tuple(part))
            part = []
        if cell is not None:
            part.append(cell)


def _by_key(plan: Plan, settings: Mapping[str, Any]) -> dict[str, _Block]:
    return {block.key(plan): block for block in _blocks(plan, settings)}


def _cost(plan: Plan, block: _Block) -> float:
    passes = 100.0 if block.cells else MODEL_METRICS[block.metric].passes
    flops = float(block.cohort(plan).architecture["forward_flops_per_example"])
    return len(block.members) * passes * flops


def _folders(path: Path, settings: Mapping[str, Any]) -> list[StageFolder]:
    """Return the folders of every choice of metrics and checkpoints with these options.

    Options of metrics that are not known to both, as those of plug-ins, do not count.
    """
    here = StageFolder(path, NAME, settings)
    found = [here]
    for file in sorted(here.folder.parent.glob(f"{NAME}-*/settings.json")):
        known = stage_settings(file.parent)
        if known is None:
            continue
        other = known[1]
        if other.get("probes") != settings["probes"] or other == dict(settings):
            continue
        options, own = other.get("options", {}), settings["options"]
        if all(options[name] == own[name] for name in options.keys() & own.keys()):
            found.append(StageFolder(path, NAME, other))
    return found


def _made_before(path: Path, settings: Mapping[str, Any], key: str) -> _Arrays | None:
    for folder in _folders(path, settings):
        if folder.done(key):
            return folder.read(key)[0]
    return None


def _read(
    reader: StoreReader, block: _Block
) -> tuple[list[RunSpec], NDArray[np.float32], NDArray[np.float64]]:
    """Return specs, weights ``[n, P]`` and learning rates ``[n]`` of a block's models."""
    runs, weights, lr = [], [], []
    for position, row in block.members:
        cohort, source = reader.plan.cohorts[position], reader.cohorts[position]
        k = cohort.checkpoints - 1 - block.from_end
        runs.append(cohort.runs[row])
        weights.append(source.read_weights([row], [k]))
        lr.append(float(source.metric("step_lr")[row, k]))
    return runs, np.concatenate(weights), np.array(lr)


def _kept(path: Path, plan: Plan, block: _Block) -> dict[str, NDArray[np.int64]]:
    """Return run id → examples that its diet keeps, of the models that are on one."""
    found: dict[str, NDArray[np.int64]] = {}
    for position in dict.fromkeys(c for c, _ in block.members):
        cohort = plan.cohorts[position]
        for task in cohort.tasks() if any(run.keep is not None for run in cohort.runs) else ():
            found |= kept_of_task(path, cohort, task)
    return found


def _measured(
    path: Path,
    reader: StoreReader,
    settings: Mapping[str, Any],
    block: _Block,
    paths: Mapping[str, str],
) -> _Arrays:
    """Return the values of a block's models, or of the pairs of its cells."""
    runs, weights, lr = _read(reader, block)
    cohort = block.cohort(reader.plan)
    wanted = Wanted(block.metric, settings["options"][block.metric], settings["probes"])
    data = _data(reader, cohort.id, paths)
    models = Models(_network(cohort), data, runs, weights, _kept(path, reader.plan, block))
    if block.cells:
        return measure_pairs(wanted, models, _pairs(block))
    return measure_models(wanted, models, lr)


def _pairs(block: _Block) -> list[tuple[int, int]]:
    """Return the pairs that a metric compares, as positions among the block's models."""
    choose = ring_pairs if CELL_METRICS[block.metric].ring else all_pairs
    pairs: list[tuple[int, int]] = []
    first = 0
    for cell in block.cells:
        pairs += [(first + a, first + b) for a, b in choose(len(cell.members))]
        first += len(cell.members)
    return pairs


@lru_cache(maxsize=2)
def _open(path: str, made: tuple[int, int]) -> StoreReader:
    return StoreReader(path)


def _reader(path: Path) -> StoreReader:
    """Return a store's reader, one for each store: another one at the same path is another."""
    state = StorePaths(path).plan().stat()
    reader = _open(str(absolute(path)), (state.st_ino, state.st_mtime_ns))
    reader.refresh()
    return reader


def _network(cohort: Cohort) -> Network:
    return build(cohort.runs[0], cohort.data_shape)


def _data(reader: StoreReader, cohort: str, paths: Mapping[str, str]) -> TaskData:
    found = reader.plan.cohort(cohort)
    dataset = planned_data(reader.plan, reader.plan.data_key(found.runs[0]), paths)
    return _on_cpu(reader, cohort, dataset, tuple(sorted(paths.items())))


@lru_cache(maxsize=2)
def _on_cpu(
    reader: StoreReader, cohort: str, dataset: Dataset, paths: tuple[tuple[str, str], ...]
) -> TaskData:
    """Return a data set as the metrics take it; ``dataset`` is what tells one from another."""
    found = reader.plan.cohort(cohort)
    return task_data(reader.plan, found, _network(found), dict(paths), torch.device("cpu"))
