"""Random rows: our shard reader beside zarr's oindex, a loop over zarr rows, and np.memmap.

    python benchmarks/bench_read.py [--params 50000] [--rows 256] [--repeat 5] [--json]

Writes a store of random float32 weights (which hardly compress, as trained ones) and a flat .npy of
the same into a temporary folder, and reads random rows in each way, page cache warm. ``oindex`` is
given an easier task: rows of one checkpoint, in order (it cannot take pairs).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import zarr

from zoo.architectures.layout import Layout, Segment
from zoo.spec.record import RecordSpec
from zoo.spec.run import RunSpec
from zoo.store import StoreReader, TaskWriter, create_store
from zoo.train.checkpoint import METRICS, Checkpoint
from zoo.train.plan import Cohort, Plan


def make_plan(models, checkpoints, params, task_rows):
    runs = tuple(RunSpec(seed=i, epochs=1).resolve(1024) for i in range(models))
    steps = np.tile(np.arange(checkpoints, dtype=np.int64), (models, 1))
    cohort = Cohort(
        id="bench",
        key={},
        runs=runs,
        steps=steps,
        epochs=steps / 32,
        layout=Layout((Segment("weight", (params,), 0, "kernel"),)),
        architecture={"train_flops_per_example": 1},
        task_rows=task_rows,
        group_rows=4,
        example_shape=(64,),
        classes=10,
    )
    return Plan("bench", {}, RecordSpec(probe_size=0), {"digits": {}}, (cohort,))


def fill(folder, plan):
    """Write the store and the flat file; return the seconds that the store took."""
    cohort = plan.cohorts[0]
    create_store(folder / "x.zarr", plan, sweep_toml="", provenance={})
    shape = (cohort.models, cohort.checkpoints, cohort.params)
    flat = np.lib.format.open_memmap(folder / "x.npy", mode="w+", dtype=np.float32, shape=shape)
    rng, spent = np.random.default_rng(0), 0.0
    for task in cohort.tasks():
        R = task.models
        with TaskWriter(folder / "x.zarr", cohort, task) as writer:
            for k in range(cohort.checkpoints):
                weights = rng.normal(size=(R, cohort.params)).astype(np.float32)
                flat[task.start : task.stop, k] = weights
                metrics = {name: np.zeros(R, np.float32) for name in METRICS}
                point = Checkpoint(k, weights, metrics, None, np.full(R, -1), {})
                start = time.perf_counter()
                writer.commit(point)
                spent += time.perf_counter() - start
            writer.seal({})
    flat.flush()
    return spent


def readers(folder):
    """Return each way to read n pairs (row, checkpoint) as a function."""
    ours = StoreReader(folder / "x.zarr").cohorts[0]
    array = zarr.open_array(folder / "x.zarr" / "bench" / "weights", mode="r")
    flat = np.load(folder / "x.npy", mmap_mode="r")
    return {
        "np.memmap (raw)": lambda rows, ks: flat[rows, ks],
        "phasezoo": ours.read_weights,
        "zarr, loop": lambda rows, ks: np.stack(
            [array[r, k] for r, k in zip(rows.tolist(), ks.tolist(), strict=True)]
        ),
        "zarr, vindex": lambda rows, ks: array.vindex[
            rows[:, None], ks[:, None], np.arange(array.shape[2])[None]
        ],
        "zarr, oindex": lambda rows, ks: array.oindex[np.unique(rows), int(ks[0])],
    }


def measure(ways, cohort, count, repeat):
    rng = np.random.default_rng(1)
    found = {}
    for name, read in ways.items():
        speeds = []
        for turn in range(repeat + 1):
            rows = rng.permutation(cohort.models)[:count]
            ks = rng.integers(0, cohort.checkpoints, len(rows))
            start = time.perf_counter()
            data = read(rows, ks)
            if turn:  # the first is the warm-up
                speeds.append(data.nbytes / 1e6 / (time.perf_counter() - start))
        found[name] = statistics.quantiles(speeds, n=5) if repeat > 1 else speeds * 4
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--models", type=int, default=512)
    parser.add_argument("--checkpoints", type=int, default=4)
    parser.add_argument("--params", type=int, default=50_000)
    parser.add_argument("--task-rows", type=int, default=64)
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    plan = make_plan(asked.models, asked.checkpoints, asked.params, asked.task_rows)
    cohort = plan.cohorts[0]
    with tempfile.TemporaryDirectory() as name:
        spent = fill(Path(name), plan)
        found = measure(readers(Path(name)), cohort, asked.rows, asked.repeat)
    size = cohort.models * cohort.checkpoints * cohort.params * 4 / 1e6
    report = {
        "options": vars(asked),
        "machine": {"cpu": platform.machine(), "cores": os.cpu_count()},
        "versions": {"zarr": zarr.__version__, "numpy": np.__version__},
        "write_MB_per_s": round(size / spent, 1),
        "read_MB_per_s": {
            way: {"p20": round(q[0], 1), "p50": round((q[1] + q[2]) / 2, 1), "p80": round(q[3], 1)}
            for way, q in found.items()
        },
    }
    if asked.json:
        print(json.dumps(report))
        return
    print(f"{size:.0f} MB written durably at {report['write_MB_per_s']} MB/s")
    print(f"{asked.rows} random rows of {asked.params} float32, MB/s   p20     p50     p80")
    for way, row in report["read_MB_per_s"].items():
        print(f"  {way:38} {row['p20']:9.1f} {row['p50']:7.1f} {row['p80']:7.1f}")


if __name__ == "__main__":
    main()
