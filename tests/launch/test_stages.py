"""Stages: parts done by workers that may die, and results published when all are there."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

import zoo
from zoo.errors import SpecError, UnknownNameError
from zoo.launch.stages import run_stage
from zoo.stages import BUSY, DONE, Talk, open_stage
from zoo.store import StageFolder, content_hash, derived_columns, read_derived, verify_store

HERE = Path(__file__).parent
COMMAND = (sys.executable, str(HERE / "norm_stage.py"))


@pytest.fixture
def store(clean, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(HERE))
    import norm_stage  # noqa: F401 - registers the stage

    return shutil.copytree(clean, tmp_path / "z.zarr")


def norms(store):
    return {c: read_derived(store, c, "last_norm").tolist() for c in cohorts(store)}


def cohorts(store):
    return [c.id for c in zoo.open(store).plan.cohorts]


def test_values_do_not_depend_on_workers_or_deaths(store, clean, clean_hash, tmp_path, tasks):
    seen = []
    summary = run_stage(store, "norms", {}, workers=0, progress=seen.append)
    assert (summary.parts, summary.done, summary.computed, summary.published) == (
        tasks, tasks, tasks, True,
    )  # fmt: skip
    assert [state.ended for state in seen] == [False] * (tasks + 1) + [True]
    assert seen[-1].done == seen[-1].models == len(zoo.open(store))
    quiet = norms(store)
    v = zoo.open(store).query("last_norm > 0 and epoch == -1")
    assert len(v) == len(zoo.open(store))
    np.testing.assert_allclose(v["last_norm"], v["weight_norm"], rtol=1e-5)

    again = run_stage(store, "norms", {}, workers=2, command=COMMAND)
    assert (again.computed, again.published) == (0, True)

    marks = tmp_path / "marks"
    marks.mkdir()
    other = shutil.copytree(clean, tmp_path / "other.zarr")
    settings = {"deaths": 2, "marks": str(marks)}
    summary = run_stage(other, "norms", settings, workers=2, command=COMMAND)
    assert summary.published
    assert summary.failures == ()
    assert len(list(marks.iterdir())) == 2 * tasks
    assert norms(other) == quiet
    assert content_hash(other) == clean_hash
    assert verify_store(other).problems == ()


def test_a_part_that_fails_is_given_up_and_nothing_is_published(store):
    key = f"{cohorts(store)[0]}.0"
    summary = run_stage(store, "norms", {"raise_in": key}, workers=2, command=COMMAND)
    assert not summary.published
    assert summary.done == summary.parts - 1
    (failed,) = summary.failures
    assert failed.task.key == key
    assert "planted" in failed.reason
    assert summary.to_json()["failures"] == [{"part": key, "reason": failed.reason}]
    assert derived_columns(store, cohorts(store)[0]) == {}
    with pytest.raises(ValueError, match="planted"):
        run_stage(store, "norms", {"raise_in": key}, workers=0)


def test_a_part_has_one_owner(store):
    key = f"{cohorts(store)[0]}.0"
    do = open_stage("norms", store, {}, {}).worker(Talk())
    with StageFolder(store, "norms", {}).claim(key):
        assert do(key) == BUSY
    assert do(key) == DONE
    assert do(key) == DONE
    assert StageFolder(store, "norms", {}).parts_done() == {key}


def test_bad_calls(store):
    with pytest.raises(UnknownNameError, match="did you mean 'norms'"):
        run_stage(store, "norm", {})
    with pytest.raises(SpecError, match="workers"):
        run_stage(store, "norms", {}, workers=-1)
