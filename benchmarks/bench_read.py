"""Random rows: our shard reader beside zarr, h5py, safetensors, a folder of .pt files and memmap.

    taskset -c 0 python benchmarks/bench_read.py [--params 50000] [--rows 256] [--repeat 5] [--json]

Writes a store of random float32 weights (which hardly compress, as trained ones) and the same rows
in every other way into a temporary folder, and reads random rows from each, page cache warm, on one
core. ``oindex`` is given an easier task: rows of one checkpoint, in order (it cannot take pairs).

* ``np.memmap``, ``h5py, contiguous`` and ``safetensors`` keep plain bytes, without compression or
  checksums; ``h5py, gzip`` compresses and checks (Fletcher-32), a row a chunk, as ``zoo export``
  may;
* ``safetensors`` is one file of all rows; ``safetensors, a file per row`` and ``.pt, a file per
  row`` are what zoos are published as (torch.load with weights_only);
* MB/s are of float32 values delivered. ``cpu`` counts the seconds that the process computed and not
  those that it waited, so neighbours on a busy machine weigh less: it is the p50 of MB per
  CPU second.
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

import h5py
import numpy as np
import safetensors
import safetensors.numpy
import torch
import zarr
from heading import heading

import zoo
from zoo.architectures.layout import Layout, Segment
from zoo.data import DataShape
from zoo.spec.record import RecordSpec
from zoo.spec.run import RunSpec
from zoo.store import StoreReader, TaskWriter, create_store
from zoo.train.checkpoint import METRICS, Checkpoint
from zoo.train.plan import Cohort, Plan, metrics_of


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
        data_shape=DataShape((64,), 10),
        metrics=metrics_of(METRICS),
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
    fill_rivals(folder, flat)
    return spent


def fill_rivals(folder, flat):
    """Write the rows as HDF5, safetensors and .pt."""
    M, K, P = flat.shape
    with h5py.File(folder / "x.h5", "w") as file:
        file.create_dataset("contiguous", data=flat)
        file.create_dataset(
            "gzip", data=flat, chunks=(1, 1, P), compression="gzip", compression_opts=1,
            shuffle=True, fletcher32=True,
        )  # fmt: skip
    safetensors.numpy.save_file({"x": np.asarray(flat)}, folder / "x.safetensors")
    for kind in ("st", "pt"):
        (folder / kind).mkdir()
    for m in range(M):
        for k in range(K):
            row = np.array(flat[m, k])
            safetensors.numpy.save_file({"w": row}, folder / "st" / f"{m}-{k}.safetensors")
            torch.save({"w": torch.from_numpy(row)}, folder / "pt" / f"{m}-{k}.pt")


def each(read):
    """Return a reader of pairs that reads them one by one."""
    return lambda rows, ks: np.stack(
        [read(r, k) for r, k in zip(rows.tolist(), ks.tolist(), strict=True)]
    )


def readers(folder):
    """Return each way to read n pairs (row, checkpoint) as a function."""
    ours = StoreReader(folder / "x.zarr").cohorts[0]
    array = zarr.open_array(folder / "x.zarr" / "bench" / "weights", mode="r")
    flat = np.load(folder / "x.npy", mmap_mode="r")
    mapped = zoo.open(folder / "x.zarr").query().materialize(folder / "maps").zoo
    h5 = h5py.File(folder / "x.h5")
    whole = safetensors.safe_open(folder / "x.safetensors", "numpy").get_slice("x")
    one = safetensors.numpy.load_file

    def pickled(r, k):
        return torch.load(folder / "pt" / f"{r}-{k}.pt", weights_only=True)["w"].numpy()

    return {
        "np.memmap (plain bytes)": lambda rows, ks: flat[rows, ks],
        "phasezoo": ours.read_weights,
        "phasezoo, materialized": mapped.source.cohorts[0].read_weights,
        "zarr, loop": each(lambda r, k: array[r, k]),
        "zarr, vindex": lambda rows, ks: array.vindex[
            rows[:, None], ks[:, None], np.arange(array.shape[2])[None]
        ],
        "zarr, oindex": lambda rows, ks: array.oindex[np.unique(rows), int(ks[0])],
        "h5py, contiguous": each(lambda r, k: h5["contiguous"][r, k]),
        "h5py, gzip": each(lambda r, k: h5["gzip"][r, k]),
        "safetensors": each(lambda r, k: whole[r : r + 1, k : k + 1][0, 0]),
        "safetensors, a file per row": each(
            lambda r, k: one(folder / "st" / f"{r}-{k}.safetensors")["w"]
        ),
        ".pt, a file per row": each(pickled),
    }


def measure(ways, cohort, count, repeat):
    rng = np.random.default_rng(1)
    found = {}
    for name, read in ways.items():
        speeds, cpu = [], []
        for turn in range(repeat + 1):
            rows = rng.permutation(cohort.models)[:count]
            ks = rng.integers(0, cohort.checkpoints, len(rows))
            start, busy = time.perf_counter(), time.process_time()
            data = read(rows, ks)
            if turn:  # the first is the warm-up
                size = data.nbytes / 1e6
                speeds.append(size / (time.perf_counter() - start))
                cpu.append(size / (time.process_time() - busy))
        p20, *_, p80 = statistics.quantiles(speeds, n=5) if repeat > 1 else speeds * 4
        p50 = statistics.median(speeds)
        found[name] = {"p20": p20, "p50": p50, "p80": p80, "cpu": statistics.median(cpu)}
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
        "versions": {m.__name__: m.__version__ for m in (zarr, np, h5py, safetensors, torch)},
        "write_MB_per_s": round(size / spent, 1),
        "read_MB_per_s": {
            way: {name: round(value, 1) for name, value in row.items()}
            for way, row in found.items()
        },
    }
    if asked.json:
        print(json.dumps(report))
        return
    print(heading("zarr", "h5py", "safetensors", "numpy"))
    print(f"{size:.0f} MB written durably at {report['write_MB_per_s']} MB/s")
    speeds = report["read_MB_per_s"]
    print(f"{asked.rows} random rows of {asked.params} float32, MB/s   p20     p50     p80     cpu")
    for way, row in speeds.items():
        print(f"  {way:38} " + " ".join(f"{row[q]:7.1f}" for q in ("p20", "p50", "p80", "cpu")))
    ratio = speeds["phasezoo"]["cpu"] / speeds["zarr, oindex"]["cpu"]
    print(f"phasezoo reads {ratio:.1f} times as fast as zarr's oindex (by CPU seconds)")


if __name__ == "__main__":
    main()
