"""A small zoo trained for real: recorded behaviour, open(), data, the guide in docs/query.md."""

from __future__ import annotations

import dataclasses
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr

import zoo
from zoo.errors import DataError, StoreMissingError, UnknownNameError
from zoo.report import accuracy_plot
from zoo.store import DerivedColumn, TaskWriter, claim_task, create_store, publish
from zoo.train.planner import plan as make_plan
from zoo.train.trainer import TaskTrainer

REPO = Path(__file__).parents[2]
SWEEP = {
    "name": "quickstart",
    "axes": {"load": "width", "temperature": "batch_size"},
    "base": {"data": "digits", "momentum": 0.9, "lr": 0.05, "epochs": 6},
    "record": {"every_epochs": 2, "probe_size": 16},
    "block": [
        {
            "grid": {
                "width": [16, 64],
                "batch_size": [32, 64],
                "norm": ["none", "batch"],
                "seed": [0, 1],
            }
        },
        # a learning rate at which an unnormalised network cannot last
        {"base": {"lr": 1e4}, "grid": {"width": [64], "norm": ["none"], "seed": [2]}},
        {"base": {"architecture": "cnn", "norm": "group", "epochs": 2}, "grid": {"width": [8]}},
    ],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with ``datasets_out/quickstart.zarr`` in it."""
    root = tmp_path_factory.mktemp("real")
    (root / "datasets_out").mkdir()
    path = root / "datasets_out" / "quickstart.zarr"
    sweep = zoo.Sweep.from_dict(SWEEP)
    plan = make_plan(sweep, backend="eager")
    create_store(path, plan, sweep_toml=sweep.to_toml(), provenance={"test": True})
    for task in plan.tasks():
        cohort = plan.cohort(task.cohort)
        with claim_task(path, task) as owned:
            assert owned
            writer = TaskWriter(path, cohort, task)
            for checkpoint in TaskTrainer(plan, cohort, task).run():
                writer.commit(checkpoint)
            writer.seal({"wall_s": 1.5})
    return root


@pytest.fixture
def real(folder):
    return zoo.open(folder / "datasets_out" / "quickstart.zarr")


def test_open_finds_every_run_and_how_it_ended(real):
    assert len(real) == 18
    assert real.status() == {"planned": 0, "running": 0, "done": 17, "diverged": 1, "failed": 0}
    lost = real.runs(status="diverged")
    assert lost["lr"].tolist() == [1e4]
    assert lost["diverged_step"][0] >= 1
    assert lost["reason"][0]
    run = real.run(lost["run_id"][0])
    assert run.recorded.any()
    assert not run.recorded[-1]
    trajectory = real.trajectory(run.run_id)
    np.testing.assert_array_equal(np.isfinite(trajectory).all(1), run.recorded)
    last = real.query(f"run_id == '{run.run_id}' and epoch == -1")
    assert last["checkpoint"].tolist() == [int(np.flatnonzero(run.recorded)[-1])]
    assert "quickstart" in repr(real)
    assert "18 (17 done, 1 diverged)" in real.describe()


def test_a_model_answers_as_recorded(real):
    inputs, labels = real.probe_inputs()
    data = real.data()
    assert inputs.shape == (16, *data.example_shape)
    view = real.query("epoch == -1 and status == 'done'")
    assert set(view["architecture"]) == {"mlp", "cnn"}
    assert len(view) == 17
    assert len(view.cohorts) > 2
    for i, logits in enumerate(view.probe_logits()):
        model = view.model(i)
        with torch.no_grad():
            ours = model(torch.from_numpy(inputs)).numpy()
            predicted = model(torch.from_numpy(data.test_x)).argmax(1).numpy()
        scale = np.abs(ours).max()
        np.testing.assert_allclose(ours, logits, atol=1e-3 * scale, rtol=0)
        accuracy = float((predicted == data.test_y).mean())
        # one example may change sides between two orders of summation
        assert abs(accuracy - view[i]["test_accuracy"]) <= 1.5 / len(data.test_y)
    assert len(labels) == 16


def test_weights_and_trajectory_are_the_same_rows(real):
    view = real.query(norm="batch", width=64, batch_size=32)
    weights = view.weights()
    for run_id in np.unique(view["run_id"]):
        at = view["run_id"] == run_id
        np.testing.assert_array_equal(real.trajectory(run_id)[view["checkpoint"][at]], weights[at])
        # the recorded norm is that of the trained columns
        trained = real.plan.cohort(view.cohorts[0]).layout.trained
        norms = np.linalg.norm(weights[at][:, :trained].astype(np.float64), axis=1)
        np.testing.assert_allclose(norms, view["weight_norm"][at], rtol=1e-5)


def test_columns_follow_training(real):
    view = real.query(lr=0.05, architecture="mlp")
    assert set(view["epoch"]) == {0, 2, 4, 6}
    np.testing.assert_allclose(view["step_lr"], 0.05, rtol=1e-6)
    assert (view[view["epoch"] == 0]["init_distance"] == 0).all()
    done = real.runs(status="done")
    assert (done["flops"] > 0).all()


def test_data_is_checked_against_the_plan(real):
    with pytest.raises(UnknownNameError, match="digits"):
        real.data("mnist")
    with pytest.raises(UnknownNameError, match="standard"):
        real.data("digits", normalization="unit")
    facts = {"digits": {**real.plan.data["digits"], "fingerprint": "0" * 64}}
    real.source.plan = dataclasses.replace(real.plan, data=facts)
    with pytest.raises(DataError, match="fingerprint"):
        real.data()


def test_columns_are_those_that_the_store_itself_holds(real, folder):
    group = zarr.open_group(folder / "datasets_out" / "quickstart.zarr", mode="r")
    view = real.query()
    compared = 0
    for name, part in view.by_cohort().items():
        arrays = group[f"cohorts/{name}"] if "cohorts" in group else group[name]
        for column in real.columns:
            if column not in arrays:
                continue
            stored = arrays[column][:]
            at = (part["row"],) if stored.ndim == 1 else (part["row"], part["checkpoint"])
            np.testing.assert_array_equal(part[column], stored[at], err_msg=f"{name}/{column}")
            compared += 1
    assert compared > 9 * 40


def test_a_store_that_grows(tmp_path):
    sweep = zoo.Sweep.from_dict({**SWEEP, "axes": {}, "block": SWEEP["block"][2:]})
    plan = make_plan(sweep, backend="eager")
    create_store(tmp_path / "z.zarr", plan, sweep_toml=sweep.to_toml(), provenance={})
    grown = zoo.open(tmp_path / "z.zarr")
    assert (grown.status()["planned"], len(grown.query()), len(grown.runs())) == (1, 0, 1)
    (task,) = plan.tasks()
    cohort = plan.cohorts[0]
    with claim_task(tmp_path / "z.zarr", task):
        writer = TaskWriter(tmp_path / "z.zarr", cohort, task)
        checkpoints = TaskTrainer(plan, cohort, task).run()
        writer.commit(next(checkpoints))
        assert len(grown.query()) == 0
        assert grown.refresh().status()["running"] == 1
        first = grown.query("epoch == -1")
        assert first["step"].tolist() == [0]
        writer.commit(next(checkpoints))
        writer.seal({})
    assert grown.refresh().status()["done"] == 1
    assert grown.query("epoch == -1")["epoch"].tolist() == [2.0]
    np.testing.assert_array_equal(first.weights()[0], grown.trajectory(first[0]["run_id"])[0])


def test_open_where_there_is_no_store(tmp_path):
    with pytest.raises(StoreMissingError):
        zoo.open(tmp_path / "nothing.zarr")


def test_the_guide_runs(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    text = (REPO / "docs" / "query.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    assert len(blocks) >= 8
    scope: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, "docs/query.md", "exec"), scope)
    printed = capsys.readouterr().out
    assert "did you mean 'test_accuracy'" in printed
    assert (folder / "quickstart.png").stat().st_size > 10_000


def test_the_first_example_of_the_readme_runs(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    for library in ("pandas", "polars", "xarray", "h5py"):  # make demo installs none of them
        monkeypatch.setitem(sys.modules, library, None)
    text = (REPO / "README.md").read_text()
    block = re.search(r"```python\n(.*?)```", text, flags=re.DOTALL).group(1)
    assert len(block.splitlines()) <= 11
    assert "stacked_weights()" in block
    exec(compile(block, "README.md", "exec"), {})
    printed = capsys.readouterr().out
    assert "models; {" in printed
    assert re.search(r"\(\d+, (\d+)\) \(\d+, \1\)", printed)  # [n, P] and [K, P]


def test_the_guide_names_every_column(real):
    text = (REPO / "docs" / "query.md").read_text()
    fields = {n for n in real.columns if n in dir(real.query().spec(0))}
    missing = [n for n in real.columns if n not in fields and not re.search(rf"\b{n}\b", text)]
    assert missing == []


def test_picture_of_the_real_zoo(real, tmp_path):
    assert accuracy_plot(real, tmp_path / "a.png").exists()


def test_what_stages_add_can_be_asked_for(folder, tmp_path):
    path = shutil.copytree(folder / "datasets_out" / "quickstart.zarr", tmp_path / "z.zarr")
    z = zoo.open(path)
    before = len(z.columns)
    first, *others = z.plan.cohorts
    sharp = np.arange(first.models * first.checkpoints, dtype=np.float64)
    phase = np.array(["I", "IV-A"] * first.models)[: first.models]
    publish(
        path,
        [
            DerivedColumn(first.id, "phase", ("model",), phase, "label of the cell"),
            DerivedColumn(
                first.id, "sharpness", ("model", "checkpoint"),
                sharp.reshape(first.models, first.checkpoints), "of the minimum",
            ),
            DerivedColumn(first.id, "bits", ("model", "byte"), np.eye(first.models), "no column"),
        ],
        stage="test",
        stage_id="0",
    )  # fmt: skip
    assert len(z.columns) == before
    z.refresh()
    assert z.columns[before:] == ("phase", "sharpness")
    view = z.query("phase == 'IV-A' and epoch == -1")
    assert set(view["cohort"]) == {first.id}
    assert len(view) == first.models // 2
    assert view["sharpness"].tolist() == [
        sharp.reshape(first.models, -1)[row, k]
        for row, k in zip(view["row"], view["checkpoint"], strict=True)
    ]
    assert len(z.query("sharpness >= 0")) == int(z.tables[0].recorded.sum())
    assert others
    assert z.runs(columns=["run_id", "phase"])["phase"].tolist().count("") == len(z) - first.models
    table = z.query("epoch == -1").table(["phase", "sharpness"])
    assert np.isnan(table["sharpness"]).sum() == len(table) - first.models
