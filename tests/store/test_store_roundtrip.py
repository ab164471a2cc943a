"""What is written is what zarr, xarray and our reader read."""

from __future__ import annotations

import dataclasses
import json
import math
import zipfile

import fabricated_store as fab
import numpy as np
import pytest
import xarray as xr
import zarr

from zoo.errors import StoreError, StoreMissingError, UnknownNameError
from zoo.spec.run import field_infos
from zoo.store import (
    StoreReader,
    TaskWriter,
    create_store,
    is_store,
    read_plan,
    read_provenance,
    read_sweep_text,
    task_states,
    verify_store,
)
from zoo.store.groups import cohort_arrays
from zoo.train.checkpoint import METRICS
from zoo.train.plan import Plan


def test_zarr_reads_every_array(full, plan):
    root = zarr.open_group(full, mode="r")
    for cohort in plan.cohorts:
        weights, metrics, probe = fab.expected(cohort)
        group = root[cohort.id]
        np.testing.assert_array_equal(group["weights"][...], weights)
        np.testing.assert_array_equal(group["probe_logits"][...], probe)
        names = group["metric"][...].tolist()
        for name, values in metrics.items():
            at = names.index(name)
            np.testing.assert_array_equal(group["metrics"][..., at], values)
        np.testing.assert_array_equal(group["step"][...], cohort.steps)
        np.testing.assert_array_equal(group["epoch"][...], cohort.epochs)
        np.testing.assert_array_equal(group["flops"][...], cohort.train_flops)
        assert group["run_id"][...].tolist() == list(cohort.run_ids)
        assert group["diverged_step"][...].tolist() == [
            fab.diverges_at(cohort, i) for i in range(cohort.models)
        ]
        assert group["last"][...].tolist() == [{2: 1, 7: -1}.get(i, 3) for i in range(13)]
        assert group["status"][2] == "diverged"
        assert group["status"][0] == "done"
        assert group["reason"][2] == "loss not finite at step 25"
        for name, info in field_infos().items():
            found = group[name][...].tolist()
            for value, run in zip(found, cohort.runs, strict=True):
                wanted = getattr(run, name)
                if wanted is None and info.kind != "str":
                    assert math.isnan(value), name
                else:
                    assert value == ("" if wanted is None else wanted), name


def test_members_are_listed_without_warning(full, plan):
    root = zarr.open_group(full, mode="r")
    assert {name for name, _ in root.members()} == {"_zoo", "mlp-a", "mlp-b"}
    for way in (root["mlp-a"], zarr.open_group(full, path="mlp-a", mode="r")):
        names = {name for name, _ in way.arrays()}
        assert names == cohort_arrays(plan, plan.cohorts[0]).keys()
        assert {"weights", "metrics", "status", "norm"} <= names
    assert zarr.open_array(full / "mlp-a" / "weights", mode="r").shape == (13, 4, 300)
    assert zarr.open_array(full / "_zoo", mode="r")[()] == 2


def test_xarray_opens_and_queries(full, plan):
    data = xr.open_zarr(full / "mlp-a", chunks=None)
    sizes = {"model": 13, "checkpoint": 4, "param": 300, "probe": 6, "class": 10, "metric": 9}
    assert dict(data.sizes) == sizes
    weights, metrics, _ = fab.expected(plan.cohort("mlp-a"))
    for name, values in metrics.items():
        one = data.metrics.sel(metric=name)
        np.testing.assert_array_equal(one.values, values)
    assert data.query(model="width >= 64 and norm == 'batch'").sizes["model"] == 0
    chosen = data.query(model="width >= 64 and norm == 'layer' and status == 'done' and lr < 0.02")
    rows = [i for i in range(13) if 0.1 / (i + 1) < 0.02 and i != 7]
    np.testing.assert_array_equal(chosen.weights.values, weights[rows])
    tree = xr.open_datatree(full, engine="zarr", consolidated=False)
    assert set(tree.children) == {"mlp-a", "mlp-b"}
    assert tree["mlp-a"].to_dataset().identical(data)
    with pytest.warns(RuntimeWarning, match="consolidated"):  # xarray looks into the root first
        assert xr.open_zarr(full, group="mlp-a", chunks=None).identical(data)


def test_reader_reads_every_row_in_any_order(full, plan):
    rng = np.random.default_rng(0)
    reader = StoreReader(full)
    for cohort in plan.cohorts:
        weights, metrics, probe = fab.expected(cohort)
        one = reader.cohort(cohort.id)
        rows, ks = rng.integers(0, 13, 200), rng.integers(0, 4, 200)
        np.testing.assert_array_equal(one.read_weights(rows, ks), weights[rows, ks])
        np.testing.assert_array_equal(one.read_probe(rows, ks), probe[rows, ks])
        assert one.read_weights(rows, ks).dtype == np.float32
        assert one.read_probe([], []).shape == (0, 6, 10)
        for name in METRICS:
            np.testing.assert_array_equal(one.metric(name), metrics[name])
        assert one.wall_s.tolist() == [1.5] * 13
        assert one.columns()["status"].tolist() == one.status.tolist()
        assert one.columns()["lr"].tolist() == [run.lr for run in cohort.runs]


def test_reader_refuses_what_is_not_there(full):
    one = StoreReader(full).cohorts[0]
    with pytest.raises(StoreError, match="go from 0 to 12"):
        one.read_weights([13], [0])
    with pytest.raises(StoreError, match="go from 0 to 3"):
        one.read_weights([0], [-1])
    with pytest.raises(UnknownNameError, match="loss"):
        one.metric("loss")
    with pytest.raises(StoreError, match="known: mlp-a, mlp-b"):
        StoreReader(full).cohort("nope")


def test_reader_sees_only_what_is_committed(empty, plan):
    cohort = plan.cohorts[0]
    task = list(cohort.tasks())[1]
    reader = StoreReader(empty)
    one = reader.cohort("mlp-a")
    assert set(one.status.tolist()) == {"planned"}
    assert not one.recorded.any()
    fab.train_task(empty, cohort, task, stop=2)
    assert not one.recorded.any()
    reader.refresh()
    weights, metrics, _ = fab.expected(cohort)
    assert one.recorded[:, :2].sum() == 4 * 2  # row 7 diverged at once
    assert one.status[5:10].tolist() == ["running", "running", "diverged", "running", "running"]
    assert one.status[0] == one.status[12] == "planned"
    found = one.read_weights(np.full(4, 6), np.arange(4))
    np.testing.assert_array_equal(found[:2], weights[6, :2])
    assert np.isnan(found[2:]).all()
    np.testing.assert_array_equal(one.metric("step_lr")[5:10, :2], metrics["step_lr"][5:10, :2])
    assert np.isfinite(one.wall_s[5:10]).all()
    assert np.isnan(one.wall_s[0])
    fab.train_task(empty, cohort, task)
    reader.refresh()
    np.testing.assert_array_equal(one.metric("step_lr")[5:10], metrics["step_lr"][5:10])
    assert one.status[6] == "done"


def test_shard_that_is_not_committed_does_not_exist(empty, plan):
    cohort = plan.cohorts[0]
    task = next(cohort.tasks())
    fab.train_task(empty, cohort, task, stop=2)
    (empty / "_zoo/tasks/mlp-a/0/1.json").unlink()
    assert StoreReader(empty).cohorts[0].last[:2].tolist() == [0, 0]
    report = verify_store(empty)
    assert report.problems == ()
    assert set(report.strays) == {"mlp-a/weights/c.0.1.0", "mlp-a/probe_logits/c.0.1.0.0"}


def test_store_without_probe(tmp_path):
    cohort = fab.make_cohort()
    plan = fab.make_plan(cohort, probe=0)
    path = tmp_path / "x.zarr"
    create_store(path, plan, sweep_toml="", provenance={})
    fab.fill(path, plan, probe=0)
    reader = StoreReader(path)
    with pytest.raises(StoreError, match="probe_size = 0"):
        reader.cohorts[0].read_probe([0], [0])
    assert "probe_logits" not in zarr.open_group(path / "mlp-a", mode="r")
    assert verify_store(path).problems == ()


def test_plan_sweep_and_provenance_come_back(full, plan, tmp_path):
    assert is_store(full)
    assert not is_store(tmp_path / "nothing")
    assert read_plan(full).to_json() == plan.to_json()
    assert read_sweep_text(full) == fab.SWEEP
    assert read_provenance(full)["command"] == ["zoo", "run"]
    with pytest.raises(StoreMissingError, match="zoo run"):
        read_plan(tmp_path)


def test_everything_carries_type_and_version_and_nothing_is_a_pickle(full):
    for file in (p for p in full.rglob("*") if p.is_file()):
        data = file.read_bytes()
        assert not data.startswith((b"\x80\x04", b"\x80\x05", b"\x80\x03", b"\x80\x02")), file
        if file.suffix == ".npz":
            pytest.fail(f"a resume state outlived its task: {file}")
        if file.suffix == ".json":
            raw = json.loads(data)
            attributes = raw["attributes"] if file.name == "zarr.json" else raw
            assert attributes["encoding-type"].startswith("phasezoo")
            assert attributes["encoding-version"] == (2 if file.name == "zarr.json" else 1)


def test_resume_state_is_a_plain_npz_and_two_are_kept(empty, plan):
    cohort = plan.cohorts[0]
    task = next(cohort.tasks())
    with TaskWriter(empty, cohort, task) as writer:
        assert writer.resume_point() is None
        for k in range(4):
            writer.commit(fab.make_checkpoint(cohort, task, k))
        folder = empty / "_zoo/tasks/mlp-a/0"
        assert sorted(p.name for p in folder.glob("*.npz")) == ["2.npz", "3.npz"]
        with zipfile.ZipFile(folder / "3.npz") as archive:
            assert archive.namelist() == ["momentum.npy"]
        point = writer.resume_point()
        last = fab.make_checkpoint(cohort, task, 3)
        assert point.index == 3
        np.testing.assert_array_equal(point.weights, last.weights)
        np.testing.assert_array_equal(point.diverged_step, last.diverged_step)
        np.testing.assert_array_equal(point.arrays["momentum"], last.resume["momentum"])


def test_states(empty, plan):
    cohort = plan.cohorts[0]
    first, second, third = cohort.tasks()
    fab.train_task(empty, cohort, first)
    with TaskWriter(empty, cohort, second) as writer:
        writer.commit(fab.make_checkpoint(cohort, second, 0))
        before = sorted((p, p.stat().st_mtime_ns) for p in empty.rglob("*"))
        states = task_states(empty)
        assert sorted((p, p.stat().st_mtime_ns) for p in empty.rglob("*")) == before
    assert [s.committed for s in states] == [4, 1, 0, 0, 0, 0]
    assert [s.sealed for s in states[:3]] == [True, False, False]
    assert [s.owner_alive for s in states[:3]] == [False, True, False]
    assert states[0].updated > 0.0 == states[2].updated
    assert not task_states(empty)[1].owner_alive
    assert third == states[2].task


def test_failure_is_kept_and_superseded(empty, plan):
    cohort = plan.cohorts[0]
    task = next(cohort.tasks())
    with TaskWriter(empty, cohort, task) as writer:
        writer.commit(fab.make_checkpoint(cohort, task, 0))
        writer.commit(fab.make_checkpoint(cohort, task, 1))
        writer.fail("out of memory", "Traceback ...\nMemoryError")
    reader = StoreReader(empty)
    assert reader.cohorts[0].status[:3].tolist() == ["failed"] * 3
    assert reader.cohorts[0].reason[0] == "out of memory"
    assert task_states(empty)[0].failed
    (failure,) = reader.failures()
    assert (failure.reason, failure.committed, failure.superseded) == ("out of memory", 2, False)
    assert "MemoryError" in failure.traceback
    fab.train_task(empty, cohort, task)
    reader.refresh()
    assert reader.cohorts[0].status[:3].tolist() == ["done", "done", "diverged"]
    assert reader.cohorts[0].reason[0] == ""
    assert reader.failures()[0].superseded
    assert not task_states(empty)[0].failed


def test_a_store_from_before_a_field_is_whole_and_can_be_extended(tmp_path, plan):
    """Fields and wordings that came later are no damage to what was stored without them."""
    known = tuple(n for n in field_infos() if n not in ("trust", "decay_mask"))
    first = plan.cohorts[0]
    old = dataclasses.replace(
        plan, cohorts=tuple(dataclasses.replace(c, fields=known) for c in plan.cohorts)
    )
    path = tmp_path / "old.zarr"
    create_store(path, old, sweep_toml=fab.SWEEP, provenance={"command": ["zoo", "run"]})
    fab.fill(path, old)
    array = path / first.id / "zarr.json"
    assert "trust" not in zarr.open_group(array.parent, mode="r")
    assert "momentum" in zarr.open_group(array.parent, mode="r")
    array.write_text(array.read_text().replace("momentum factor", "the factor on the momentum"))
    assert verify_store(path).problems == ()
    again = read_plan(path)
    assert {c.fields for c in again.cohorts} == {known}
    assert [c.runs for c in again.cohorts] == [c.runs for c in plan.cohorts]
    assert Plan.from_json(json.loads(json.dumps(again.to_json()))).cohorts[0].fields == known
    assert plan.cohorts[0].fields == tuple(field_infos())
