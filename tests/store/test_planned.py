"""What follows from the plan is written anew by repair, to the last byte."""

from __future__ import annotations

import json

import numpy as np
import pytest
from test_derived import TABLE, columns_of, published

from zoo.cli.main import main
from zoo.errors import StoreCorruptError, StoreError
from zoo.store import (
    StoreReader,
    content_hash,
    derived_columns,
    publish_table,
    read_derived,
    read_plan,
    rewrite_planned,
    verify_store,
)
from zoo.store.paths import StorePaths
from zoo.store.planned import check_planned
from zoo.store.records import record_bytes


@pytest.fixture
def added(full, plan):
    """A store with everything trained, columns and a table."""
    published(full, columns_of(plan))
    publish_table(full, "cells", TABLE, {"rule": 1})
    return full


def damage(file, kind):
    data = file.read_bytes()
    middle = len(data) // 2
    if kind == "delete":
        file.unlink()
    elif kind == "empty":
        file.write_bytes(b"")
    elif kind == "cut":
        file.write_bytes(data[:middle])
    elif kind == "flip":
        file.write_bytes(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])
    else:
        file.write_bytes(b"[[]]")


@pytest.mark.parametrize("kind", ["delete", "empty", "cut", "flip", "other JSON"])
def test_every_planned_file_is_named_and_written_anew(added, plan, kind):
    whole = content_hash(added)
    paths = StorePaths(added)
    files, found = check_planned(paths, read_plan(added))
    assert not found
    planned = {paths.name(file) for file in files}
    assert {"zarr.json", "_zoo/zarr.json", "mlp-a/weights/zarr.json", "mlp-b/lr/c.0"} <= planned
    records = {f"_zoo/derived/{c.id}.json" for c in plan.cohorts}
    for names in (planned, records):  # a group and its record at once would be too much
        before = {name: (added / name).read_bytes() for name in names}
        for name in names:
            damage(added / name, kind)
        problems = verify_store(added).problems
        told = {name for name in names if any(p.startswith(f"{name}:") for p in problems)}
        if kind == "flip":  # a flip may hit a description, which is prose and no damage
            prose = {name for name in names - told if name.endswith("zarr.json")}
            for name in prose:
                (added / name).write_bytes(before[name])
            told |= prose
        else:
            prose = set()
        assert told == names
        assert all("zoo repair" in p for p in problems if p.partition(":")[0] in names)
        assert {*rewrite_planned(added)} == names - prose
        assert {name: (added / name).read_bytes() for name in names} == before
    assert verify_store(added).problems == ()
    assert content_hash(added) == whole


def test_a_group_and_its_record_stand_in_for_each_other(added, plan):
    name = plan.cohorts[0].id
    values = read_derived(added, name, "sharpness")
    group, record = added / name / "zarr.json", added / "_zoo/derived" / f"{name}.json"
    damage(record, "flip")
    with pytest.raises(StoreCorruptError, match="checksum"):
        derived_columns(added, name)
    assert rewrite_planned(added) == (f"_zoo/derived/{name}.json",)
    text = json.loads(group.read_text())
    del text["consolidated_metadata"]["metadata"]["sharpness"]
    group.write_text(json.dumps(text))
    assert any("mlp-a/zarr.json" in p for p in verify_store(added).problems)
    assert rewrite_planned(added) == ("mlp-a/zarr.json",)
    np.testing.assert_array_equal(read_derived(added, name, "sharpness"), values)
    assert verify_store(added).problems == ()


def test_records_of_two_cohorts_that_were_swapped(added, plan):
    first, second = (added / "_zoo/derived" / f"{c.id}.json" for c in plan.cohorts)
    one, two = first.read_bytes(), second.read_bytes()
    first.write_bytes(two)
    second.write_bytes(one)
    with pytest.raises(StoreCorruptError, match="not the record of cohort mlp-a"):
        derived_columns(added, "mlp-a")
    assert StoreReader(added).cohorts[0].derived == {}
    assert len(verify_store(added).problems) == 2
    rewrite_planned(added)
    assert (first.read_bytes(), second.read_bytes()) == (one, two)


def test_zoo_repair_writes_them(added, capsys):
    damage(added / "mlp-a/run_id/c.0", "flip")
    damage(added / "mlp-b/zarr.json", "delete")
    assert main(["repair", str(added)]) == 0
    out = capsys.readouterr().out
    assert "mlp-a/run_id/c.0: written anew" in out
    assert "2 problems found, 2 repaired" in out
    assert verify_store(added).problems == ()


@pytest.mark.parametrize(
    ("found", "words"), [(1, "into a new store"), (99, "update phasezoo"), (None, "new store")]
)
def test_a_store_of_another_format_is_one_error(full, plan, found, words):
    body = {"plan": plan.to_json()} if found is None else {"format": found, "plan": plan.to_json()}
    (full / "_zoo/plan.json").write_bytes(record_bytes("plan", body))
    (full / "_zoo/plan.copy.json").unlink()
    for read in (read_plan, StoreReader, rewrite_planned):
        with pytest.raises(StoreError, match=words) as caught:
            read(full)
        assert f"is a store of format {found or 1}" in str(caught.value)
        assert "reads format 2" in str(caught.value)
