"""The stage on a store trained for real: kills, reuse, queries, tables, and the page's code."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import zoo
from zoo.cli import main
from zoo.errors import SpecError, StoreError
from zoo.landscape import CELL_METRICS, MODEL_METRICS
from zoo.landscape.base import applying
from zoo.landscape.blocks import Models, Wanted, measure_models
from zoo.launch.local import run
from zoo.launch.stages import run_stage
from zoo.spec import Sweep
from zoo.stages.landscape import LANDSCAPE, _data, _network, from_ends
from zoo.stages.landscape_settings import NAME, landscape_settings
from zoo.store import (
    StageFolder,
    StoreReader,
    content_hash,
    newest_table,
    read_derived,
    read_table,
    table_names,
    verify_store,
)
from zoo.train.cells import cells_of
from zoo.train.task_data import cohort_objective

DOC = Path(__file__).parents[2] / "docs" / "landscape.md"
TABLES = {
    "name": "tiny",
    "axes": {"load": "width", "temperature": "batch_size"},
    "base": {"data": "digits", "momentum": 0.9, "lr": 0.05, "steps": 40},
    "block": [
        {"grid": {"width": [4, 6], "batch_size": [32, 64], "seed": [0, 1, 2]}},
        {"base": {"norm": "batch", "label_noise": 0.2, "noise_seed": 7, "train_size": 300},
         "grid": {"width": [4], "seed": [0, 1]}},
        # diverges at once: its last checkpoint is not there
        {"base": {"lr": 1e30}, "grid": {"width": [4], "seed": [5]}},
        {"base": {"optimizer": "adam", "lr": 0.01, "train_size": 300},
         "grid": {"width": [4], "seed": [0, 1]}},
    ],
    "record": {"steps": [0, 20, 40], "probe_size": 8},
}  # fmt: skip
#: So that a test takes seconds: fewer examples, products, steps and points.
QUICK = {
    "options": {
        "curvature": {"steps": 6, "more_steps": 8, "probes": 4, "more_probes": [6]},
        "spectrum": {"nodes": 6, "vectors": 2},
        "sharpness": {"batch": 32, "average_draws": 3},
        "ntk": {"examples": 16},
        "connectivity": {"min_steps": 5, "max_steps": 10, "points": 5, "statistics": 64},
        "barrier": {"chord_points": 5, "statistics": 64},
    },
    "probes": {"train": 128, "test": 64, "mixup": 64},
}
EVERYTHING = (*MODEL_METRICS.names(), *CELL_METRICS.names())


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    path = tmp_path_factory.mktemp("landscape") / "z.zarr"
    assert run(Sweep.from_dict(TABLES), path, workers=0, backend="eager").complete
    return path


@pytest.fixture
def store(template, tmp_path):
    return shutil.copytree(template, tmp_path / "z.zarr")


@pytest.fixture(scope="module")
def settings():
    return landscape_settings(EVERYTHING, **QUICK)


@pytest.fixture(scope="module")
def measured(template, settings, tmp_path_factory):
    """The store with everything measured, undisturbed."""
    path = shutil.copytree(template, tmp_path_factory.mktemp("measured") / "z.zarr")
    summary = run_stage(path, NAME, settings, workers=0)
    assert summary.published
    assert summary.computed == summary.parts
    return path


def bytes_of(path):
    """Every file that readers see, but what says when and by whom it was made."""
    return {
        file.relative_to(path).as_posix(): file.read_bytes()
        for file in path.rglob("*")
        if file.is_file() and "_zoo" not in file.relative_to(path).parts
    }


def test_every_column_is_there_and_finite_where_models_are(measured):
    reader = StoreReader(measured)
    seen = 0
    for source in reader.cohorts:
        last = source.recorded[:, -1]
        for name in MODEL_METRICS:
            for column in applying(MODEL_METRICS[name].columns, cohort_objective(source.cohort)):
                values = read_derived(measured, source.cohort.id, column.name)
                assert values.shape[:2] == source.recorded.shape
                assert np.isnan(values[:, :-1]).all()  # only the last was asked for
                here = values[:, -1]
                if column.name == "edge_of_stability" and source.cohort.key["optimizer"] == "adam":
                    assert np.isnan(here).all()
                elif column.name not in ("singular_values", "slq_nodes", "ntk_distance_se"):
                    fine = np.isfinite(here[last])
                    assert fine.all(), column.name
                if column.name == "finite":
                    np.testing.assert_array_equal(here, last)
                elif not last.all():
                    assert np.isnan(here[~last]).all(), column.name
                seen += 1
    assert seen > 100
    assert any("diverged" in source.status for source in reader.cohorts)


def test_training_is_not_touched(template, measured):
    assert content_hash(measured) == content_hash(template)
    report = verify_store(measured)
    assert report.problems == ()


def test_values_are_those_of_the_pure_function(measured, settings):
    """One model alone, measured again from its weights."""
    reader = StoreReader(measured)
    source = reader.cohorts[0]
    cohort = source.cohort
    for metric in ("curvature", "behaviour"):
        wanted = Wanted(metric, settings["options"][metric], settings["probes"])
        weights, data = source.read_weights([1], [2]), _data(reader, cohort.id, {})
        models = Models(_network(cohort), data, cohort.runs[1:2], weights)
        rate = source.metric("step_lr")[1:2, 2].astype(float)
        found = measure_models(wanted, models, rate)
        for name, value in found.items():
            published = read_derived(measured, cohort.id, name)[1, 2]
            np.testing.assert_allclose(published, value[0], rtol=1e-4, atol=1e-6)


def test_cells_and_pairs(measured):
    plan = StoreReader(measured).plan
    arrays, attributes = read_table(measured, newest_table(measured, "cells"))
    pairs, _ = read_table(measured, newest_table(measured, "pairs"))
    cells = cells_of(plan)
    assert arrays["cell"].tolist() == [c.id for c in cells]
    assert sorted(arrays["models"].tolist()) == [1, 2, 2, 3, 3, 3, 3]
    lost = int(np.flatnonzero(arrays["finite_models"] == 0)[0])
    assert arrays["models"][lost] == 1
    np.testing.assert_array_equal(
        np.delete(arrays["finite_models"], lost), np.delete(arrays["models"], lost)
    )
    assert sorted(set(arrays["load"].tolist())) == ["4", "6"]
    assert attributes["load"] == "width"
    assert attributes["probes"]["digits"]["train"]["examples"] == 128
    expected = {1: 0, 2: 1, 3: 3}
    assert arrays["cka_pairs"].tolist() == [expected[n] for n in arrays["models"].tolist()]
    assert np.isnan(arrays["cka"][lost])
    for index, cell in enumerate(cells):
        own = pairs["cell"] == cell.id
        for name in ("mode_connectivity", "cka", "linear_barrier", "l2_distance"):
            mean = np.mean(pairs[name][own]) if own.any() else np.nan
            np.testing.assert_allclose(arrays[name][index], mean)
        runs = set(pairs["a"][own]) | set(pairs["b"][own])
        assert runs <= set(arrays["members"][index])
    reader = StoreReader(measured)
    loss = [float(reader.cohorts[c].metric("train_loss")[r, -1]) for c, r in cells[0].members]
    assert arrays["train_loss"][0] == pytest.approx(np.mean(loss))
    top = [read_derived(measured, reader.cohorts[c].cohort.id, "lambda_max")[r, -1]
           for c, r in cells[0].members]  # fmt: skip
    assert arrays["lambda_max"][0] == pytest.approx(np.mean(top))
    assert arrays["lambda_max_se"][0] == pytest.approx(np.std(top, ddof=1) / 3**0.5)


_SCRIPT = """
import json, os, signal, sys
import zoo.store.stages as stages
from zoo.launch.stages import run_stage

real, left = stages.write_atomic, [int(sys.argv[3])]

def write(path, data, **rest):
    left[0] -= 1
    if left[0] == 0:  # half of it is written, under another name, when the power goes
        path.parent.mkdir(exist_ok=True)
        path.with_suffix(".half.tmp").write_bytes(data[: len(data) // 2])
        os.kill(os.getpid(), signal.SIGKILL)
    real(path, data, **rest)

stages.write_atomic = write
run_stage(sys.argv[1], "landscape", json.loads(sys.argv[2]), workers=0)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="kills by signal")
def test_killed_at_any_moment_it_ends_with_the_same_bytes(store, settings, measured):
    """kill -9 while a part is being written, twice; then on to the end with two workers."""
    folder = StageFolder(store, NAME, settings)
    parts = len(LANDSCAPE.parts(store, settings))
    done = 0
    for writes in (5, 8):  # the first write is that of the settings
        order = [sys.executable, "-c", _SCRIPT, str(store), json.dumps(settings), str(writes)]
        assert subprocess.run(order, check=False).returncode == -signal.SIGKILL
        assert len(folder.parts_done()) > done
        done = len(folder.parts_done())
    assert done < parts
    summary = run_stage(store, NAME, settings, workers=2)
    assert summary.published
    assert summary.computed == parts - done
    assert bytes_of(store) == bytes_of(measured)


def test_again_does_nothing_and_other_choices_take_over_what_is_there(measured, tmp_path):
    path = shutil.copytree(measured, tmp_path / "z.zarr")
    before = bytes_of(path)
    settings = landscape_settings(EVERYTHING, **QUICK)
    assert run_stage(path, NAME, settings, workers=0).computed == 0
    assert bytes_of(path) == before
    assert table_names(path) == ("cells-v1", "pairs-v1")
    more = landscape_settings(["behaviour"], checkpoints="all", **QUICK)
    folder = StageFolder(path, NAME, more)
    assert run_stage(path, NAME, more, workers=0).published
    taken = [folder.read(part)[1].get("taken_over", False) for part in folder.parts_done()]
    assert sum(taken) == len(taken) / 3  # the last of three checkpoints was there
    source = StoreReader(path).cohorts[0]
    values = read_derived(path, source.cohort.id, "probe_train_nll")
    loss = source.metric("train_loss")
    np.testing.assert_array_equal(np.isfinite(values), source.recorded)
    np.testing.assert_allclose(values, loss, rtol=0.25)  # the probe is a part of the set
    unchanged = read_derived(path, source.cohort.id, "lambda_max")
    np.testing.assert_array_equal(np.isfinite(unchanged[:, -1]), source.recorded[:, -1])


def test_queries_find_the_columns(measured):
    found = zoo.open(measured).query("epoch == -1 and lambda_max > 0 and width == 6")
    assert len(found) == 6
    assert np.isfinite(found.column("hessian_trace_se")).all()


def test_the_command_line(store, capsys, monkeypatch):
    assert main(["landscape", str(store), "--dry-run", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["parts"] == facts["parts_to_do"] > 0
    assert "spectrum" not in facts["metrics"]
    assert main(["landscape", str(store), "-m", "weights,behaviour", "-j", "0", "-q"]) == 0
    assert "Measured" in capsys.readouterr().out
    assert main(["landscape", str(store), "-m", "weights", "-j", "0", "-q", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["published"]
    assert main(["landscape", str(store), "-m", "list"]) == 0
    assert "lambda_max" in capsys.readouterr().out
    assert main(["landscape", str(store), "-m", "curvatur"]) == 1
    assert "did you mean 'curvature'?" in capsys.readouterr().err


def test_bad_settings_are_refused_all_at_once():
    with pytest.raises(SpecError) as caught:
        landscape_settings(["weighs"], checkpoints="first", probes={"valid": 3})
    assert len(caught.value.problems) == 3
    bad = {
        "connectivity": {"minsteps": 5, "points": 0, "momentum": "much"},
        "curvature": {"more_probes": [6, 0], "steps": True},
        "weights": {"rank": 3},
    }
    with pytest.raises(SpecError, match="did you mean 'min_steps'") as caught:
        landscape_settings(options=bad, probes={"train": 0})
    assert len(caught.value.problems) == 7


def test_options_on_the_command_line(store, capsys):
    words = ["landscape", str(store), "-m", "ntk", "--set", "ntk.examples=16", "--set",
             "probes.train=128", "-j", "0", "-q"]  # fmt: skip
    assert main(words) == 0
    (folder,) = (store / "_zoo").rglob("landscape-*/settings.json")
    settings = json.loads(folder.read_text())
    settings = settings.get("settings", settings)
    assert settings["options"]["ntk"] == {"examples": 16}
    assert settings["probes"]["train"] == 128
    capsys.readouterr()
    assert main([*words[:4], "--set", "ntk.examples", "--set", "x=1", "--set", "a.b=c"]) == 1
    assert capsys.readouterr().err.count("cannot be read") == 3
    assert main(["landscape", str(store), "-m", "list"]) == 0
    assert "min_steps=200" in capsys.readouterr().out


def test_a_store_that_is_not_trained_is_refused(tmp_path):
    path = tmp_path / "z.zarr"
    run(Sweep.from_dict(TABLES), path, workers=0, backend="eager", limit=1)
    with pytest.raises(StoreError, match="not trained to their end"):
        run_stage(path, NAME, landscape_settings(["weights"]), workers=0)


def test_which_checkpoints(template):
    plan = StoreReader(template).plan
    assert from_ends(plan, "last") == (0,)
    assert from_ends(plan, "all") == (0, 1, 2)
    assert from_ends(plan, "log") == (0, 1, 2)


def test_a_model_on_a_diet_is_measured_on_what_it_ate(tmp_path):
    """The probe is the kept examples, all of them: its loss is the recorded training loss."""
    path = tmp_path / "z.zarr"
    base = {"data": "digits", "width": 4, "momentum": 0.9, "lr": 0.05, "steps": 30}
    grid = {"keep": [0.3, 0.5], "seed": [0, 1]}
    tables = {"name": "diet", "base": {**base, "score": "random"}, "grid": grid}
    run(Sweep.from_dict(tables), path, workers=0, backend="eager")
    assert run_stage(path, NAME, landscape_settings(["behaviour"]), workers=0).published
    for source in StoreReader(path).cohorts:
        found = read_derived(path, source.cohort.id, "probe_train_nll")[:, -1]
        np.testing.assert_allclose(found, source.metric("train_loss")[:, -1], rtol=1e-5)


def test_the_page_names_what_there_is(measured, monkeypatch):
    text = DOC.read_text(encoding="utf-8")
    columns = [c.name for n in MODEL_METRICS for c in MODEL_METRICS[n].columns]
    columns += [c.name for n in CELL_METRICS for c in CELL_METRICS[n].columns]
    missing = [c for c in columns if not c.endswith("_se") and f"`{c}`" not in text]
    assert missing == []
    monkeypatch.chdir(measured.parent)
    names: dict[str, object] = {}
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) >= 3
    for block in blocks:
        exec(compile(block, str(DOC), "exec"), names)
