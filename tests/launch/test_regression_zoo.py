"""A zoo that fits floats, from the sweep to the report: nothing in it speaks of right and wrong."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import zoo
from zoo.cli.main import main

SWEEP = """
name = "waves"
axes = {load = "width", temperature = "batch_size"}
[base]
data = "npz:waves"
objective = "mse"
optimizer = "adam"
lr = 0.01
epochs = 8
[grid]
width = [4, 16]
batch_size = [16, 32]
seed = [0, 1]
[paths]
"npz:waves" = "waves.npz"
[record]
epochs = [0, 8]
"""
QUICK = [
    word
    for option in (
        "curvature.steps=4", "curvature.more_steps=6", "curvature.probes=2", "ntk.examples=16",
        "connectivity.min_steps=2", "connectivity.max_steps=4", "connectivity.points=3",
        "connectivity.statistics=32", "probes.train=64", "probes.test=32", "probes.mixup=32",
    )
    for word in ("--set", option)
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    found = tmp_path_factory.mktemp("waves")
    draw = np.random.default_rng(0)
    frequency, phase = draw.uniform(1, 3, (256, 1)), draw.uniform(0, 2 * np.pi, (256, 1))
    x = np.sin(2 * np.pi * frequency * np.linspace(0, 1, 24) + phase).astype("f4")
    y = np.concatenate([frequency, np.cos(phase)], 1).astype("f4")
    np.savez(found / "waves.npz", train_x=x[:192], train_y=y[:192], test_x=x[192:], test_y=y[192:])
    (found / "waves.toml").write_text(SWEEP)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(found)
        assert main(["run", "waves.toml", "--out", "w.zarr", "--workers", "0", "-q"]) == 0
        assert main(["landscape", "w.zarr", "--workers", "0", "-q", *QUICK]) == 0
    return found


def test_r2_is_what_numpy_says(folder):
    opened = zoo.open(folder / "w.zarr", paths={"npz:waves": folder / "waves.npz"})
    last = opened.query("epoch == -1")
    data = np.load(folder / "waves.npz")
    # normalization = "standard"
    x = (data["test_x"] - data["train_x"].mean(0)) / data["train_x"].std(0)
    for i in range(len(last)):
        row, z = last[i], last.model(i)(torch.from_numpy(x).float()).detach().double().numpy()
        y = data["test_y"].astype(float)
        r2 = 1 - np.square(y - z).sum() / np.square(y - y.mean(0)).sum()
        assert row["test_r2"] == pytest.approx(r2, rel=1e-5)
        assert row["test_loss"] == pytest.approx(np.square(y - z).mean(), rel=1e-5)


@pytest.mark.parametrize(
    "words",
    [
        ["status", "w.zarr"],
        ["info", "w.zarr", "--columns"],
        ["query", "w.zarr", "test_r2 > 0 and epoch == -1"],
        ["report", "w.zarr", "--by", "width"],
        ["report", "w.zarr", "--html", "page.html"],
        ["report", "w.zarr", "--plot", "picture.svg"],
    ],
)
def test_no_verb_speaks_of_accuracy(words, folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    assert main(words) == 0
    said = capsys.readouterr().out
    if words[0] == "report":
        files = [*folder.glob("page.html"), *folder.glob("*.svg")]
        said += "".join(path.read_text() for path in files)
        assert "r2" in said.lower() or "R²" in said
    assert "accuracy" not in said.lower()


def test_its_landscape_has_what_floats_have(folder):
    opened = zoo.open(folder / "w.zarr")
    cells = {path.name for path in (folder / "w.zarr/tables/cells-v1").iterdir()}
    assert {"lambda_max", "hessian_trace"} <= set(opened.columns)
    assert {"mode_connectivity_loss", "cka", "test_r2"} <= cells
    assert not {"mode_connectivity", "nc1", "probe_test_ece"} & ({*opened.columns} | cells)
    assert np.isfinite(opened.query("epoch == -1").column("lambda_max")).all()


def test_phases_and_what_does_not_apply_are_refused_in_one_sentence(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    assert main(["label", "w.zarr"]) == 1
    assert "phases need a training error" in capsys.readouterr().err
    for change, word in (
        (("mse", "cross_entropy"), "objective = 'cross_entropy'"),
        (("lr = 0.01", 'lr = 0.01\nscore = "el2n"\nkeep = 0.5'), "score = 'el2n'"),
    ):
        (folder / "bad.toml").write_text(SWEEP.replace(*change))
        assert main(["plan", "bad.toml", "--json"]) == 1
        said = capsys.readouterr()
        problems = json.loads(said.out)["error"]["problems"]
        assert len(problems) == 1
        assert word in said.err
