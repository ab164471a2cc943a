"""Makes the small store of the current format that every later version must be able to use.

    python tests/store/formats/make.py

writes ``format_N.tar.xz`` beside this file: the store, its data and its plug-in, and ``said.json``,
what the version that made it says of the store. It is made once for each format and committed;
nobody makes it anew for a format that has been released.
"""

from __future__ import annotations

import io
import itertools
import json
import os
import shutil
import socket
import sys
import tarfile
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
#: Paths in the store are absolute; this one is of no machine in particular.
PLACE = Path("/tmp/phasezoo-format")

PLUGIN = '''"""An activation of a user's own."""

from zoo import plugin


@plugin.activation("cube")
def cube(x):
    """x³/10, smooth and odd."""
    return x * x * x / 10
'''

SWEEP = """name = "format"
description = "a little of everything that a store can hold"

[axes]
load = "width"
temperature = "batch_size"

[base]
data = "npz:wells"
epochs = 2
lr = 0.05

[record]
every_epochs = 1.0
probe_size = 4

[[block]]
base = { norm = "batch" }
grid = { width = [2, 3], batch_size = [4, 8], seed = [0, 1] }

[[block]]
grid = { keep = [0.5, 1.0] }
[block.base]
width = 3
batch_size = 8
optimizer = "adamw"
score = "el2n"
score_epoch = 1
score_seeds = 2
scorer = "epochs=1,width=2"

[[block]]
base = { width = 3, batch_size = 8, lr = 1e30 }

[[block]]
base = { width = 3, batch_size = 8, activation = "cube" }

[[block]]
base = { data = "npz:flow", objective = "mse", width = 3, batch_size = 8 }
grid = { seed = [0, 1] }

[paths]
"npz:wells" = "wells.npz"
"npz:flow" = "flow.npz"

[run]
backend = "eager"
"""

HALF = """name = "half"

[base]
data = "npz:wells"
epochs = 2
width = 3
batch_size = 8
optimizer = "adamw"
lr = 0.01

[grid]
seed = [0, 1]

[record]
every_epochs = 1.0

[paths]
"npz:wells" = "wells.npz"
"""


def write_data() -> None:
    """Write classes of three kinds, and floats with gaps, weights and a third split."""
    rng = np.random.default_rng(0)
    y = np.arange(48) % 3
    x = rng.normal(size=(48, 1, 4, 4)).astype("f4") + y[:, None, None, None]
    np.savez("wells.npz", train_x=x[:32], train_y=y[:32], test_x=x[32:], test_y=y[32:])
    x = rng.normal(size=(48, 5)).astype("f4")
    y = np.stack([x.sum(1), x[:, 0] * x[:, 1]], 1)
    there = rng.random(y.shape) < 0.7
    there[:, 0] = True
    parts = {"train": slice(0, 24), "test": slice(24, 36), "val": slice(36, 48)}
    arrays = {f"{name}_x": x[part] for name, part in parts.items()}
    arrays |= {f"{name}_y": y[part] for name, part in parts.items()}
    np.savez(
        "flow.npz", **arrays, train_mask=there[:24], train_weight=rng.random(24) + 0.5,
        test_mask=there[24:36],
    )  # fmt: skip


def half_trained(path: Path) -> None:
    """Make a store of which each task has its first two of three checkpoints, and a state."""
    from zoo.spec import load_sweep
    from zoo.stages.plan import placed, prepare_store
    from zoo.store import TaskWriter
    from zoo.train.trainer import TaskTrainer

    (PLACE / "half.toml").write_text(HALF)
    sweep = placed(load_sweep(PLACE / "half.toml"))
    plan = prepare_store(sweep, path, backend="eager")
    for task in plan.tasks():
        cohort = plan.cohort(task.cohort)
        trainer = TaskTrainer(plan, cohort, task, paths=sweep.paths)
        with TaskWriter(path, cohort, task) as writer:
            for checkpoint in itertools.islice(trainer.run(), 2):
                writer.commit(checkpoint)


def said(path: Path) -> dict[str, object]:
    """Return what this version says of a store: columns, weights' hash, phases, fingerprints."""
    import zoo
    from zoo.store import content_hash, read_plan

    found = zoo.open(path)
    view = found.query()
    numbers = {}
    for name in sorted(found.column_info):
        values = np.asarray(view[name])
        if name not in ("wall_s",):
            numbers[name] = [None if v != v else v for v in values.tolist()]
    return {
        "columns": numbers,
        "content_hash": content_hash(path),
        "data": {key: facts["fingerprint"] for key, facts in read_plan(path).data.items()},
    }


def main() -> int:
    """Make the archive."""
    from zoo.cli import main as zoo_command
    from zoo.store.schema import FORMAT_VERSION

    socket.gethostname = lambda: "maker"  # leases and records name the host
    shutil.rmtree(PLACE, ignore_errors=True)
    PLACE.mkdir()
    os.chdir(PLACE)
    write_data()
    (PLACE / "cube.py").write_text(PLUGIN)
    (PLACE / "format.toml").write_text(SWEEP)
    plugged = ["--plugin", "cube.py"]
    for words in (
        ["run", "format.toml", "--out", "z.zarr", "--workers", "0", *plugged],
        ["landscape", "z.zarr", "--workers", "0", *plugged,
         "--set", "connectivity.min_steps=8", "--set", "probes.train=16"],
        ["label", "z.zarr", *plugged],
    ):  # fmt: skip
        if zoo_command(words):
            return 1
    half_trained(PLACE / "half.zarr")
    (PLACE / "said.json").write_text(json.dumps(said(PLACE / "z.zarr")))
    target = HERE / f"format_{FORMAT_VERSION}.tar.xz"
    with tarfile.open(target, "w:xz") as archive:
        for file in sorted(p for p in PLACE.rglob("*") if p.is_file()):
            info = tarfile.TarInfo(str(file.relative_to(PLACE)))
            content = file.read_bytes()
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    sys.stdout.write(f"{target}: {target.stat().st_size:,} bytes\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
