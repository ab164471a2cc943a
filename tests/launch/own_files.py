"""A data set and scores of a user's own, as small as they can be."""

from __future__ import annotations

import numpy as np

from zoo.spec import Sweep

TRAIN = 60
#: Scores as text: the later an example, the higher.
RANK_TEXT = "".join(f"{value}\n" for value in range(TRAIN))


def write_data(path, seed):
    """Write 60 + 20 examples of three classes; another seed, other content."""
    draw = np.random.default_rng(seed)
    np.savez(
        path,
        train_x=draw.normal(size=(TRAIN, 6)).astype("f4"), train_y=np.arange(TRAIN) % 3,
        test_x=draw.normal(size=(20, 6)).astype("f4"), test_y=np.arange(20) % 3,
    )  # fmt: skip
    return path


def sweep_of(seeds=(0, 1), paths=None, **base):
    """Return a sweep on ``npz:wells`` that trains in no time."""
    base = {"data": "npz:wells", "epochs": 1, "width": 4, "batch_size": 20, **base}
    return Sweep(
        name="own", base=base, grid={"seed": list(seeds)}, paths=paths or {},
        record={"probe_size": 4}, diet={"baseline": False},
    )  # fmt: skip
