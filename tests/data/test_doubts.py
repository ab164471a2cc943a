"""Data that can be trained on and were likely meant otherwise: planning says so, with a remedy."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from zoo.cli import main
from zoo.data import load
from zoo.data.doubts import doubts, in_words
from zoo.data.load import _load
from zoo.errors import DataError
from zoo.spec import Sweep
from zoo.stages.plan import prepare_store

N = 24


def arrays(shape=(6,), train_y=None, test_y=None):
    draw = np.random.default_rng(0)
    labels = np.arange(N) % 3
    return {
        "train_x": draw.normal(size=(N, *shape)).astype("f4"),
        "train_y": labels if train_y is None else np.asarray(train_y),
        "test_x": draw.normal(size=(N, *shape)).astype("f4"),
        "test_y": labels if test_y is None else np.asarray(test_y),
    }


def doubts_of(tmp_path, **kwargs):
    _load.cache_clear()
    np.savez(tmp_path / "d.npz", **arrays(**kwargs))
    return doubts(load("npz", path=tmp_path / "d.npz"))


SHAPES = {
    (28, 28, 3): r"x\.transpose\(0, 3, 1, 2\)",
    (32, 48, 3): r"x\.transpose\(0, 3, 1, 2\)",
    (8, 8, 1): r"x\.transpose\(0, 3, 1, 2\)",
    (28, 28): r"x\[:, None\]",
    (100, 2): r"x\.transpose\(0, 2, 1\)",
}
FINE = [(6,), (784,), (3, 32, 32), (1, 28, 28), (1, 8, 8), (3, 8, 4), (2, 100), (1, 40), (6, 5),
        (16, 16, 16)]  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_axes_in_another_order(tmp_path, shape):
    (said,) = doubts_of(tmp_path, shape=shape)
    assert str(list(shape)) in said
    code = said.split(": ")[-1]
    remedied = eval(code, {"x": np.zeros((N, *shape))})
    assert not list(doubts_of(tmp_path, shape=remedied.shape[1:]))  # the remedy is one


@pytest.mark.parametrize("shape", FINE, ids=str)
def test_shapes_that_raise_no_doubt(tmp_path, shape):
    assert doubts_of(tmp_path, shape=shape) == ()


def test_labels_that_begin_at_one(tmp_path):
    labels = np.arange(N) % 3 + 1
    (said,) = doubts_of(tmp_path, train_y=labels, test_y=labels)
    assert "from 1 to 3" in said
    assert "4 classes" in said
    assert "y - 1" in said
    assert doubts_of(tmp_path, train_y=labels - 1, test_y=labels - 1) == ()


def test_labels_that_no_example_has(tmp_path):
    labels = np.arange(N) % 3 * 5
    (said,) = doubts_of(tmp_path, train_y=labels, test_y=labels)
    assert "labels 1, 2, 3, 4, 6, 7, 8, 9," in said
    code = said.split(": ")[-1]
    both = eval(code, {"np": np, "train_y": labels, "test_y": labels})
    assert doubts_of(tmp_path, train_y=both[:N], test_y=both[N:]) == ()


def test_labels_of_one_part_alone(tmp_path):
    two = np.arange(N) % 2
    (said,) = doubts_of(tmp_path, train_y=two)
    assert said.startswith("no training example has label 2")
    (said,) = doubts_of(tmp_path, test_y=two)
    assert said.startswith("no test example has label 2")
    (said,) = doubts_of(tmp_path, train_y=np.zeros(N, int), test_y=np.zeros(N, int))
    assert "nothing to learn" in said


def test_published_data_are_beyond_doubt():
    assert doubts(load("digits")) == ()
    assert in_words((3, 32, 32)) == "3 x 32 x 32 (channels x height x width)"


BAD = {
    "one-hot": (np.eye(3)[np.arange(N) % 3].astype(int), r"train_y\.argmax\(1\)"),
    "column": ((np.arange(N) % 3)[:, None], r"train_y\[:, 0\]"),
    "float": ((np.arange(N) % 3).astype(float), r"train_y\.astype\(int\)"),
    "NaN": (
        np.where(np.arange(N) < 2, np.nan, 1.0),
        r"train_y = 2: values are not finite, the first in example 0",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_labels_that_are_refused_name_the_remedy(tmp_path, case):
    labels, remedy = BAD[case]
    np.savez(tmp_path / "d.npz", **arrays(train_y=labels))
    with pytest.raises(DataError, match=remedy):
        load("npz", path=tmp_path / "d.npz")


def test_inputs_that_are_not_finite_say_where(tmp_path):
    bad = arrays()
    bad["train_x"][7, 2] = np.inf
    np.savez(tmp_path / "d.npz", **bad)
    with pytest.raises(DataError, match=r"train_x = 1: values are not finite.*example 7"):
        load("npz", path=tmp_path / "d.npz")


@pytest.fixture
def sweep(tmp_path):
    labels = np.arange(N) % 3 + 1
    np.savez(tmp_path / "d.npz", **arrays((8, 8, 3), labels, labels))
    (tmp_path / "s.toml").write_text(
        'name = "d"\n[paths]\nnpz = "d.npz"\n[base]\ndata = "npz"\nepochs = 1\nbatch_size = 8\n'
        "width = 4\n[grid]\nseed = [0, 1]\n"
    )
    return tmp_path / "s.toml"


def test_plan_prints_the_data_and_warns(sweep, capsys):
    import json

    assert main(["plan", str(sweep), "--calibrate", "0"]) == 0
    out = capsys.readouterr().out
    assert "npz: 24 + 24 examples of 8 x 8 x 3 (channels x height x width), 4 classes" in out
    assert out.count("  warning   npz: ") == 2
    assert main(["plan", str(sweep), "--calibrate", "0", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)["data"]["npz"]
    assert facts["example_shape"] == [8, 8, 3]
    assert len(facts["doubts"]) == 2


def test_a_run_warns_before_its_store_is_made(sweep, tmp_path, caplog):
    from zoo.spec import load_sweep

    with caplog.at_level(logging.WARNING, "zoo.data"):
        prepare_store(load_sweep(sweep), tmp_path / "z.zarr")
    assert len(caplog.records) == 2
    assert "'npz'" in caplog.text
    caplog.clear()
    more = Sweep.from_dict(
        {**load_sweep(sweep).to_dict(), "grid": {"seed": [0, 1, 2]}}, folder=tmp_path
    )
    prepare_store(more, tmp_path / "z.zarr")
    assert not caplog.records  # once is enough
