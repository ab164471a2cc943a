"""Derived columns and tables: added after training, replaced whole, seen by other programs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import fabricated_store as fab
import numpy as np
import pytest
import xarray as xr
import zarr

from zoo.errors import StoreCorruptError, StoreError, UnknownNameError
from zoo.store import (
    DerivedColumn,
    StageFolder,
    TableColumn,
    content_hash,
    create_store,
    derived_columns,
    extend_store,
    publish,
    publish_table,
    read_derived,
    read_plan,
    read_table,
    stage_id,
    table_names,
    verify_store,
)
from zoo.store.files import write_atomic


def columns_of(plan, shift=0.0):
    """Return columns of all types for every cohort."""
    found = []
    for n, c in enumerate(plan.cohorts):
        M, K = c.models, c.checkpoints
        sharp = np.arange(M * K, dtype=np.float64).reshape(M, K) + shift
        sharp[0, 0] = np.nan
        phase = np.array([f"IV-{'AB'[i % 2]}" for i in range(M)])
        mask = np.arange(M * 3, dtype=np.uint8).reshape(M, 3) + n
        found += [
            DerivedColumn(c.id, "sharpness", ("model", "checkpoint"), sharp, "of the minimum"),
            DerivedColumn(c.id, "phase", ("model",), phase, "label", {"rule": 2}),
            DerivedColumn(c.id, "boundary", ("model",), phase == "IV-A", "near a line"),
            DerivedColumn(c.id, "kept", ("model", "byte"), mask, "bits"),
        ]
    return found


def published(path, columns):
    publish(path, columns, stage="landscape", stage_id="abc")


def test_columns_come_back_and_change_nothing_else(full, plan):
    before = content_hash(full)
    columns = columns_of(plan)
    published(full, columns)
    for column in columns:
        values = read_derived(full, column.cohort, column.name)
        np.testing.assert_array_equal(values, column.values)
    assert content_hash(full) == before
    assert verify_store(full).problems == ()
    attributes = derived_columns(full, plan.cohorts[0].id)["phase"]["attributes"]
    assert (attributes["stage"], attributes["stage-id"], attributes["rule"]) == (
        "landscape", "abc", 2,
    )  # fmt: skip


def test_zarr_and_xarray_see_them(full, plan):
    published(full, columns_of(plan))
    c = plan.cohorts[0]
    root = zarr.open_group(full, mode="r")
    assert root[c.id]["phase"][...].tolist() == columns_of(plan)[1].values.tolist()
    data = xr.open_zarr(full / c.id, chunks=None)
    found = data.query(model="phase == 'IV-A'")
    assert 0 < found.sizes["model"] < c.models
    assert found.sharpness.dims == ("model", "checkpoint")


def test_publishing_again_replaces(full, plan):
    published(full, columns_of(plan))
    later = columns_of(plan, shift=5.0)
    published(full, later)
    np.testing.assert_array_equal(read_derived(full, later[0].cohort, "sharpness"), later[0].values)
    other = DerivedColumn(later[0].cohort, "sharpness", ("model",), np.arange(3)[:1], "")
    wide = DerivedColumn(
        plan.cohorts[0].id, "sharpness", ("model",),
        np.arange(plan.cohorts[0].models, dtype=np.int32), "another form",
    )  # fmt: skip
    with pytest.raises(StoreError, match="along 'model'"):
        published(full, [other] if plan.cohorts[0].models != 1 else [])
    published(full, [wide])
    assert read_derived(full, wide.cohort, "sharpness").dtype == np.int32
    assert verify_store(full).problems == ()


def test_bad_columns_are_all_named_at_once(full, plan):
    c = plan.cohorts[0]
    good = np.zeros(c.models)
    bad = [
        DerivedColumn(c.id, "weights", ("model",), good, ""),
        DerivedColumn(c.id, "row", ("model",), good, ""),
        DerivedColumn("nowhere", "a", ("model",), good, ""),
        DerivedColumn(c.id, "not a name", ("model",), good, ""),
        DerivedColumn(c.id, "b", ("cell",), good, ""),
        DerivedColumn(c.id, "o", ("model",), np.array([None] * c.models), ""),
    ]
    before = content_hash(full)
    with pytest.raises(StoreError) as caught:
        published(full, bad)
    for word in ("weights", "row", "nowhere", "not a name", "cell", "object"):
        assert word in str(caught.value)
    assert content_hash(full) == before
    with pytest.raises(UnknownNameError, match="none yet"):
        read_derived(full, c.id, "phase")


def test_a_flipped_bit_is_found(full, plan):
    published(full, columns_of(plan))
    file = full / plan.cohorts[0].id / "sharpness" / "c.0.0"
    data = bytearray(file.read_bytes())
    data[11] ^= 4
    file.write_bytes(data)
    with pytest.raises(StoreCorruptError, match="checksum"):
        read_derived(full, plan.cohorts[0].id, "sharpness")
    (problem,) = verify_store(full).problems
    assert "sharpness" in problem


def test_an_array_that_was_cut_short_by_a_kill_is_no_problem(full, plan, monkeypatch):
    """Whatever step of publishing is the last one, only the record makes the arrays exist."""
    before = content_hash(full)
    steps = 0
    while True:
        with monkeypatch.context() as patch:
            left = iter(range(steps))

            def step(*args, left=left, **kwargs):
                if next(left, None) is None:
                    raise KeyboardInterrupt
                write_atomic(*args, **kwargs)

            patch.setattr("zoo.store.derived.write_atomic", step)
            try:
                published(full, columns_of(plan))
                break
            except KeyboardInterrupt:
                assert len(derived_columns(full, plan.cohorts[1].id)) == 0
                assert verify_store(full).problems == (), steps
                assert content_hash(full) == before
                steps += 1
    assert steps >= 4
    for column in columns_of(plan):
        values = read_derived(full, column.cohort, column.name)
        np.testing.assert_array_equal(values, column.values)
    report = verify_store(full)
    assert (report.problems, report.strays) == ((), ())


def test_long_columns_have_several_chunks(full, plan, monkeypatch):
    monkeypatch.setattr("zoo.store.derived._CHUNK_BYTES", 64)
    published(full, columns_of(plan))
    c = plan.cohorts[0]
    assert len(list((full / c.id / "sharpness").iterdir())) > 1
    for column in columns_of(plan):
        values = read_derived(full, column.cohort, column.name)
        np.testing.assert_array_equal(values, column.values)
        seen = zarr.open_group(full / column.cohort, mode="r")[column.name][...]
        np.testing.assert_array_equal(seen, column.values)


def test_extending_keeps_them(full, plan):
    published(full, columns_of(plan))
    publish_table(full, "cells", TABLE, {"rule": 1})
    extend_store(full, read_plan(full))
    assert verify_store(full).problems == ()
    assert "phase" in derived_columns(full, plan.cohorts[0].id)


TABLE = {
    "load": TableColumn(("cell",), np.array([1.0, 2.0, np.nan]), "width"),
    "phase": TableColumn(("cell",), np.array(["I", "", "IV-A"]), "label"),
    "scores": TableColumn(("seed", "example"), np.arange(8, dtype=np.float32).reshape(2, 4), ""),
}


def test_tables(full):
    before = content_hash(full)
    publish_table(full, "phases-v1", TABLE, {"thresholds": {"cka": 0.71}})
    publish_table(full, "phases-v1", TABLE, {"thresholds": {"cka": 0.71}})  # nothing to do
    assert table_names(full) == ("phases-v1",)
    arrays, attributes = read_table(full, "phases-v1")
    assert attributes["thresholds"] == {"cka": 0.71}
    for name, column in TABLE.items():
        np.testing.assert_array_equal(arrays[name], column.values)
    with pytest.raises(StoreError, match="never changed"):
        publish_table(full, "phases-v1", TABLE, {"thresholds": {"cka": 0.8}})
    with pytest.raises(UnknownNameError, match="phases-v1"):
        read_table(full, "phases-v2")
    assert content_hash(full) == before
    assert verify_store(full).problems == ()
    root = zarr.open_group(full, mode="r")
    assert root["tables"]["phases-v1"]["phase"][...].tolist() == ["I", "", "IV-A"]
    assert xr.open_zarr(full / "tables" / "phases-v1", chunks=None).scores.shape == (2, 4)


def test_stage_ids_are_of_name_and_settings():
    one = stage_id("landscape", {"probes": 30, "seed": 0})
    assert one == stage_id("landscape", {"seed": 0, "probes": 30})
    others = {stage_id("landscape", {"probes": 31, "seed": 0}), stage_id("x", {"probes": 30})}
    assert one not in others
    assert len(others) == 2


def test_parts_of_a_stage(full):
    stage = StageFolder(full, "landscape", {"probes": 30})
    assert stage.parts_done() == frozenset()
    with (
        stage.claim("a.0") as owned,
        StageFolder(full, "landscape", {"probes": 30}).claim("a.0") as second,
    ):
        assert (owned, second) == (True, False)
        stage.write("a.0", {"x": np.eye(3, dtype=np.float32)}, {"seconds": 1.5})
    assert stage.done("a.0")
    arrays, facts = StageFolder(full, "landscape", {"probes": 30}).read("a.0")
    np.testing.assert_array_equal(arrays["x"], np.eye(3))
    assert facts == {"seconds": 1.5}
    assert StageFolder(full, "landscape", {"probes": 31}).parts_done() == frozenset()
    with pytest.raises(StoreError, match="cannot name a part"):
        stage.write("../a", {}, {})
    with pytest.raises(StoreError, match="Python objects"):
        stage.write("b", {"x": np.array([None])}, {})
    assert verify_store(full).problems == ()
    file = next(stage.folder.glob("*.npz"))
    data = bytearray(file.read_bytes())
    data[60] ^= 1
    file.write_bytes(data)
    with pytest.raises(StoreCorruptError, match="damaged"):
        stage.read("a.0")


KILLED = """
import sys
sys.path[:0] = {path!r}
import fabricated_store as fab
import numpy as np
from zoo.store import *
from test_derived import columns_of
store = sys.argv[1]
plan = read_plan(store)
n = 0
while True:
    n += 1
    publish(store, columns_of(plan, shift=float(n)), stage="s", stage_id=str(n))
    if n == 1:
        print("begun", flush=True)
"""


@pytest.mark.slow
def test_killed_at_any_moment(full, plan):
    """Old values or new ones, whole; and always a sound store."""
    before = content_hash(full)
    folders = [os.path.dirname(__file__), *sys.path]  # noqa: PTH120 - goes to another process
    for delay in np.linspace(0.0, 0.25, 8):
        child = subprocess.Popen(
            [sys.executable, "-c", KILLED.format(path=folders), str(full)],
            stdout=subprocess.PIPE,
        )
        assert child.stdout.readline() == b"begun\n"
        time.sleep(delay)
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        assert verify_store(full).problems == ()
        assert content_hash(full) == before
        for c in plan.cohorts:
            first = columns_of(plan)[0].values.ravel()
            values = read_derived(full, c.id, "sharpness").ravel()
            shift = values[-1] - (c.models * c.checkpoints - 1)
            np.testing.assert_array_equal(values[1:], np.arange(1, len(values)) + shift)
            assert np.isnan(values[0]) == np.isnan(first[0])
    published(full, columns_of(plan))
    assert verify_store(full).problems == ()


def cost_of_publishing(tmp_path, monkeypatch, count, *, lazy):
    """Return how often the plan is read, and the number and size of the files written."""
    plan = fab.make_plan(*(fab.make_cohort(f"mlp-{n}", models=2, seed=3) for n in range(count)))
    path = tmp_path / f"{count}.zarr"
    create_store(path, plan, sweep_toml="", provenance={})
    reads, sizes = [], []

    def read(store):
        reads.append(store)
        return read_plan(store)

    def write(file, data, **kwargs):
        sizes.append(len(data))
        write_atomic(file, data, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr("zoo.store.derived.read_plan", read)
        patch.setattr("zoo.store.derived.write_atomic", write)
        columns = columns_of(plan)
        published(path, iter(columns) if lazy else columns)
    assert verify_store(path).problems == ()
    return len(reads), len(sizes), sum(sizes)


@pytest.mark.parametrize("lazy", [False, True])
def test_publishing_costs_the_same_for_each_cohort(tmp_path, monkeypatch, lazy):
    """It reads the plan once, and writes nothing that grows with what other cohorts have."""
    few = cost_of_publishing(tmp_path, monkeypatch, 2, lazy=lazy)
    many = cost_of_publishing(tmp_path, monkeypatch, 8, lazy=lazy)
    assert few[0] == many[0] == 1
    assert many[1] == 4 * few[1]
    assert many[2] == pytest.approx(4 * few[2], rel=0.01)
