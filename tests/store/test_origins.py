"""Every row has an origin: trained, imported, or derived from other rows."""

from __future__ import annotations

import dataclasses
import json

import fabricated_store as fab
import numpy as np
import pytest
import zarr

import zoo
from zoo.errors import TrainError
from zoo.spec.origin import (
    ORIGIN_COLUMNS,
    DerivedOrigin,
    ImportedOrigin,
    Parent,
    TrainedOrigin,
    origin_from_json,
    origin_to_json,
)
from zoo.spec.run import RunSpec
from zoo.store import StoreReader, create_store, read_plan, rewrite_planned, verify_store
from zoo.train.trainer import TaskTrainer


@pytest.fixture(scope="module")
def cohort():
    """A row of each origin; of the imported one nobody knows with which learning rate."""
    trained = fab.make_cohort(models=4, task_rows=2)
    origins = (
        TrainedOrigin(),
        TrainedOrigin(),
        ImportedOrigin("https://example.org/zoo.pt", "ab" * 32),
        DerivedOrigin(
            (Parent(trained.run_ids[0], 3), Parent(trained.run_ids[1], 2)), "merged", {"share": 0.5}
        ),
    )
    unknown = RunSpec.stored({**trained.runs[2].to_dict(), "lr": None, "optimizer": None})
    return dataclasses.replace(
        trained,
        runs=(*trained.runs[:2], unknown, trained.runs[3]),
        run_ids=(*trained.run_ids[:2], "00" * 8, "11" * 8),
        origins=origins,
    )


@pytest.fixture
def mixed(tmp_path, cohort):
    path = tmp_path / "x.zarr"
    plain = fab.make_cohort("mlp-b", models=2, width=16, task_rows=2, seed=90)
    create_store(path, fab.make_plan(cohort, plain), sweep_toml=fab.SWEEP, provenance={})
    fab.fill(path, read_plan(path))
    return path


def test_the_plan_keeps_origins(mixed, cohort):
    again = read_plan(mixed).cohorts[0]
    assert again.origins == cohort.origins
    assert again.run_ids == cohort.run_ids
    assert (again.runs[2].lr, again.runs[2].optimizer) == (None, None)
    assert again.train_flops.tolist()[:2] == cohort.train_flops.tolist()[:2]
    assert np.isnan(again.train_flops[2:]).all()
    assert verify_store(mixed).problems == ()


def test_queries_know_origins(mixed, cohort):
    opened = zoo.open(mixed)
    last = opened.query("from_end == -1")
    assert (last["origin"] == "trained").sum() == 4
    assert {*ORIGIN_COLUMNS} <= opened.column_info.keys()
    one = opened.query("origin == 'imported' and from_end == -1")
    assert one["run_id"].tolist() == ["00" * 8]
    assert one["source"].tolist() == ["https://example.org/zoo.pt"]
    assert one["source_sha256"].tolist() == ["ab" * 32]
    assert np.isnan(one["lr"]).all()
    assert one["optimizer"].tolist() == [""]
    child = opened.query("transform == 'merged' and from_end == -1")
    first, second = cohort.run_ids[:2]
    assert child["parents"].tolist() == [f"{first}:3 {second}:2"]
    assert json.loads(child["transform_settings"][0]) == {"share": 0.5}
    assert np.isfinite(child.stacked_weights()).all()
    columns = StoreReader(mixed).cohorts[0].columns()
    assert columns["origin"].tolist() == ["trained", "trained", "imported", "derived"]


def test_the_columns_of_the_store(mixed, cohort):
    root = zarr.open_group(mixed, mode="r")
    group = root[cohort.id]
    assert group["origin"][...].tolist() == ["trained", "trained", "imported", "derived"]
    assert group["transform"][...].tolist() == ["", "", "", "merged"]
    assert group["source_sha256"][...].tolist() == ["", "", "ab" * 32, ""]
    assert np.isnan(group["lr"][...]).tolist() == [False, False, True, False]
    # trained rows alone need no more than the word, and no file for it
    plain = root["mlp-b"]
    assert plain["origin"][...].tolist() == ["trained"] * 2
    assert not {"source", "parents", "transform"} & set(plain.array_keys())
    assert not (mixed / "mlp-b" / "origin").exists()
    (mixed / cohort.id / "parents" / "c.0").unlink()
    assert [p for p in verify_store(mixed).problems if "parents/c.0: is missing" in p]
    rewrite_planned(mixed)
    assert verify_store(mixed).problems == ()


def test_no_row_is_trained_that_is_not_there_to_be(mixed, cohort):
    plan = read_plan(mixed)
    _, others = plan.cohorts[0].tasks()
    cohort = dataclasses.replace(plan.cohorts[0], layout=_layout(plan.cohorts[0]))
    with pytest.raises(TrainError, match="rows that are derived and imported; only rows whose"):
        TaskTrainer(plan, cohort, others)


def _layout(cohort):
    from zoo.architectures import build

    return build(cohort.runs[0], cohort.data_shape).layout


@pytest.mark.parametrize("kind", ["trained", "imported", "derived"])
def test_json_there_and_back(kind, cohort):
    origin = next(origin for origin in cohort.origins if origin.kind == kind)
    assert origin_from_json(json.loads(json.dumps(origin_to_json(origin)))) == origin
