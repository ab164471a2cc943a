"""How costs grow with runs and with cohorts: the exponent of each operation on a store.

    python benchmarks/bench_scale.py [--runs 1024,8192,65536] [--cohorts 64,256,1024] [--json FILE]

Seconds are CPU seconds of this process, so neighbours on a busy machine count for little. Runs grow
in one cohort (by seed); cohorts grow with two runs each (by batch size). Nothing is trained: plans
and scores are real, checkpoints are random numbers. Syncing to disk is left out, for it costs the
disk and not the program. What only reads is the best of three calls; the benchmark's own heap is
kept out of the collection of garbage. The exponent is the slope between the last two sizes, in
logarithms: 1 is linear, 2 quadratic. The command fails if one is above ``--limit``.

* plan: expand the sweep and plan it;
* create: write the store of the plan;
* open: ``zoo.open``; query: one by a metric and a field; status: ``zoo status``;
* verify: ``zoo verify``, every byte;
* score: the scoring stage of a diet whose score needs no training;
* publish: one column of every cohort.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import math
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from heading import heading

import zoo
from zoo.launch.diets import score_first
from zoo.launch.status import store_status
from zoo.spec import Sweep
from zoo.stages.plan import prepare_store
from zoo.store import DerivedColumn, TaskWriter, create_store, publish, read_plan, verify_store
from zoo.train import planner
from zoo.train.checkpoint import METRICS, Checkpoint
from zoo.train.plan import Plan

BASE = {"width": 4, "depth": 1, "epochs": 1}
DIET = {"score": "input_norm", "keep": 0.75, "budget": "epochs"}
#: Training examples: a batch of the last cohort must fit into what a diet keeps.
EXAMPLES = {"runs": 200, "cohorts": 1400}
#: Calls of an operation that leaves nothing changed, of which the best counts.
READING = 3


def sweep_of(axis: str, size: int, *, diet: bool) -> Sweep:
    """Return a sweep of ``size`` runs in one cohort, or of ``size`` cohorts of two runs."""
    grid = {"seed": {"range": [0, size]}}
    if axis == "cohorts":
        grid = {"seed": {"range": [0, 2]}, "batch_size": {"range": [2, 2 + size]}}
    raw: dict[str, Any] = {"name": "scale", "grid": grid}
    raw["base"] = BASE | {"train_size": EXAMPLES[axis]} | (DIET if diet else {})
    raw["record"] = {"every_epochs": 1, "probe_size": 4}
    if diet:
        raw["diet"] = {"baseline": False}
    return Sweep.from_dict(raw)


def fill(path: Path, plan: Plan) -> None:
    """Commit and seal every task, with random numbers."""
    rng = np.random.default_rng(0)
    for cohort in plan.cohorts:
        for task in cohort.tasks():
            R = task.models
            with TaskWriter(path, cohort, task) as writer:
                for k in range(cohort.checkpoints):
                    metrics = {name: rng.random(R, dtype=np.float32) for name in METRICS}
                    weights = rng.random((R, cohort.params), dtype=np.float32)
                    probe = np.zeros((R, 4, cohort.data_shape.total), dtype=np.float16)
                    well = np.full(R, -1)
                    writer.commit(Checkpoint(k, weights, metrics, probe, well, {}))
                writer.seal({})


def columns(plan: Plan) -> list[DerivedColumn]:
    """Return one column of every cohort."""
    return [
        DerivedColumn(c.id, "sharpness", ("model",), np.arange(c.models, dtype=np.float64), "")
        for c in plan.cohorts
    ]


@contextlib.contextmanager
def unsynced() -> Iterator[None]:
    """Leave out waiting for the disk."""
    with mock.patch.object(os, "fsync", return_value=None):
        yield


def seconds(work: Callable[[], Any], rounds: int = 1) -> tuple[float, Any]:
    """Return the CPU seconds of the best of some calls, and what the last one returned."""
    best = math.inf
    gc.collect()
    gc.freeze()  # what the benchmark itself holds is not to be collected within a call
    for _ in range(rounds):
        start = time.process_time()
        result = work()
        best = min(best, time.process_time() - start)
    gc.unfreeze()
    return best, result


def measure(axis: str, size: int, folder: Path) -> dict[str, float]:
    """Return the CPU seconds of each operation at one size."""
    found: dict[str, float] = {}
    path, scored = folder / "x.zarr", folder / "scored.zarr"
    found["plan"], plan = seconds(lambda: planner.plan(sweep_of(axis, size, diet=False)))
    text = sweep_of(axis, size, diet=False).to_toml()
    found["create"], _ = seconds(lambda: create_store(path, plan, sweep_toml=text, provenance={}))
    fill(path, plan)
    found["open"], opened = seconds(lambda: zoo.open(path), READING)
    found["query"], view = seconds(lambda: opened.query("test_accuracy >= 0 and lr > 0", epoch=-1))
    assert len(view) == plan.models
    found["status"], status = seconds(lambda: store_status(path), READING)
    assert status.complete
    found["verify"], report = seconds(lambda: verify_store(path), READING)
    assert report.problems == ()
    found["publish"], _ = seconds(
        lambda: publish(path, columns(plan), stage="bench", stage_id="0" * 16)
    )
    prepare_store(sweep_of(axis, size, diet=True), scored)
    found["score"], _ = seconds(lambda: score_first(scored, read_plan(scored), workers=0))
    return found


def at(axis: str, size: int) -> dict[str, float]:
    """Measure in a folder of its own, gone afterwards."""
    folder = Path(tempfile.mkdtemp())
    try:
        with unsynced():
            return measure(axis, size, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def exponents(sizes: list[int], rows: list[dict[str, float]]) -> dict[str, float]:
    """Return the slope of each operation between the last two sizes, in logarithms."""
    step = math.log(sizes[-1] / sizes[-2])
    return {name: math.log(rows[-1][name] / rows[-2][name]) / step for name in rows[0]}


def numbers(text: str) -> list[int]:
    """Return the numbers of a list such as ``64,256``."""
    found = sorted({int(word) for word in text.split(",")})
    if len(found) < 2:
        msg = "give two sizes or more, as in 64,256"
        raise argparse.ArgumentTypeError(msg)
    return found


def main() -> int:
    """Measure, print and compare with the limit."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", type=numbers, default="1024,8192,65536", metavar="N,N")
    parser.add_argument("--cohorts", type=numbers, default="64,256,1024", metavar="N,N")
    parser.add_argument("--limit", type=float, default=1.2, help="largest exponent allowed")
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args()
    print(heading("numpy", "zarr"))
    results, above = {}, []
    for axis, sizes in (("runs", args.runs), ("cohorts", args.cohorts)):
        at(axis, sizes[0])  # imports and caches
        rows = [at(axis, size) for size in sizes]
        slopes = exponents(sizes, rows)
        above += [f"{name} of {axis}" for name, slope in slopes.items() if slope > args.limit]
        results[axis] = {"sizes": sizes, "seconds": rows, "exponents": slopes}
        print(f"{axis:<8} " + " ".join(f"{size:>10,}" for size in sizes) + "   exponent")
        for name, slope in slopes.items():
            line = " ".join(f"{row[name]:>10.3f}" for row in rows)
            print(f"{name:<8} {line}   {slope:>8.2f}", flush=True)
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n")
    print(f"above {args.limit}: {', '.join(above) or 'none'}")
    return 1 if above else 0


if __name__ == "__main__":
    raise SystemExit(main())
