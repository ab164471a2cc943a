"""Iteration, pairs, trajectories, snapshots, memory maps and normalisation."""

from __future__ import annotations

import dataclasses
import itertools
import json
import pickle
import sys

import numpy as np
import pytest
import torch
from fabricated import MemoryStore, make_store
from hypothesis import given
from hypothesis import strategies as st

from zoo.architectures import Layout, Segment
from zoo.dataset import View, Zoo
from zoo.dataset.batches import Shuffle, plan_batches, rows_at_once
from zoo.dataset.normalization import SCOPES, Normalization, fit_normalization
from zoo.dataset.pairs import _drawn, _every
from zoo.dataset.structure import by_structure, only_structure
from zoo.errors import QueryError, StoreError


@pytest.fixture
def zoo():
    return Zoo(make_store(3))


@pytest.mark.parametrize("shuffle", [False, True])
def test_every_row_comes_once_in_batches_of_one_structure(zoo, shuffle):
    view = zoo.query().sort("test_accuracy")
    batches = plan_batches(view, 3, Shuffle(1) if shuffle else None)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(view)))
    assert all(len(by_structure(view.take(b))) == 1 for b in batches)
    again = plan_batches(view, 3, Shuffle(1) if shuffle else None)
    assert [b.tolist() for b in batches] == [b.tolist() for b in again]
    other = plan_batches(view, 3, Shuffle(1, 1) if shuffle else None)
    assert ([b.tolist() for b in batches] == [b.tolist() for b in other]) != shuffle
    assert all(
        len(b) == 3 for b in plan_batches(view, 3, Shuffle() if shuffle else None, drop_last=True)
    )
    with pytest.raises(QueryError, match="at least 1"):
        plan_batches(view, 0)


def test_rows_at_once_fit_into_memory(zoo):
    view = zoo.query()
    assert rows_at_once(view) == 1024
    assert rows_at_once(view, 7) == 7
    cohort = dataclasses.replace(
        zoo.plan.cohorts[0], layout=Layout((Segment("w", (10**7,), 0, "kernel"),))
    )
    plan = dataclasses.replace(zoo.plan, cohorts=(cohort,))
    wide = Zoo(MemoryStore(plan, []))
    assert rows_at_once(View(wide, *[np.empty(0, np.int64)] * 3)) == 3


def test_shards_in_a_window_stay_together(zoo):
    view = zoo.query(norm="none")
    batches = plan_batches(view, 100, Shuffle(window=2))
    shards = view.shards()[np.concatenate(batches)]
    # with two shards at a time, a shard's rows lie within the rows of two shards
    for shard in np.unique(shards):
        places = np.flatnonzero(shards == shard)
        assert len(np.unique(shards[places[0] : places[-1] + 1])) <= 2


def test_iter_gives_each_row_its_own_weights(zoo):
    seen = {}
    for part, weights in zoo.query().iter(4, shuffle=True):
        for row, values in zip(part, weights, strict=True):
            seen[row["run_id"], row["checkpoint"]] = values
    for source in zoo.source.cohorts:
        for m, k in np.argwhere(source.recorded):
            key = source.cohort.run_ids[m], int(k)
            np.testing.assert_array_equal(seen.pop(key), source._weights[m, k])
    assert not seen


def test_pairs_are_all_pairs_that_meet_the_conditions(zoo):
    view = zoo.query()
    rows = list(view)
    want = {
        frozenset((i, j))
        for i, j in itertools.combinations(range(len(rows)), 2)
        if rows[i]["norm"] == rows[j]["norm"]  # one structure each
        and rows[i]["checkpoint"] == rows[j]["checkpoint"]
        and rows[i]["batch_size"] == rows[j]["batch_size"]
        and rows[i]["run_id"] != rows[j]["run_id"]
    }
    where = {(r["run_id"], r["checkpoint"]): i for i, r in enumerate(rows)}
    pairs = view.pairs(["checkpoint", "batch_size"])
    found = [
        frozenset((where[a["run_id"], a["checkpoint"]], where[b["run_id"], b["checkpoint"]]))
        for a, b in zip(pairs.left, pairs.right, strict=True)
    ]
    assert len(found) == len(set(found)) == len(pairs) > 3
    assert set(found) == want
    some = view.pairs(["checkpoint", "batch_size"], limit=3, seed=1)
    assert len(some) == 3
    count = 0
    for part, left, right in pairs.iter(2):
        np.testing.assert_array_equal(left, part.left.stacked_weights())
        np.testing.assert_array_equal(right, part.right.stacked_weights())
        count += len(part)
    assert count == len(pairs)
    assert len(zoo.query(width=99).pairs()) == 0
    assert len(view.pairs("run", "checkpoint")) == sum(
        n * (n - 1) // 2 for n in view.counts("run_id").values()
    )


@given(sizes=st.lists(st.integers(0, 9), min_size=1, max_size=6))
def test_drawn_pairs_are_pairs_of_one_group(sizes):
    sizes = np.array([*sizes, 2])
    order = np.random.default_rng(0).permutation(int(sizes.sum()))
    left, right = _every(order, sizes)
    every = set(map(frozenset, zip(left.tolist(), right.tolist(), strict=True)))
    assert len(every) == (sizes * (sizes - 1) // 2).sum()
    left, right = _drawn(order, sizes, 400, seed=1)
    drawn = set(map(frozenset, zip(left.tolist(), right.tolist(), strict=True)))
    assert drawn <= every
    assert all(len(pair) == 2 for pair in drawn)
    assert len(drawn) >= 0.4 * len(every)


def test_trajectories_are_runs_in_order(zoo):
    view = zoo.query("epoch > 0").sort("test_accuracy")
    runs = view["run_id"].tolist()
    found = list(view.trajectories())
    assert [t.run_id for t in found] == list(dict.fromkeys(runs))
    for t in found:
        ks = t.view["checkpoint"]
        assert (np.diff(ks) > 0).all()
        np.testing.assert_array_equal(t.weights, zoo.trajectory(t.run_id)[ks])
    assert sum(len(t.view) for t in found) == len(view)


def test_materialised_views_read_the_same_from_maps(zoo, tmp_path):
    view = zoo.query().sort("test_accuracy")
    mapped = view.materialize(tmp_path)
    for _ in range(2):  # the second time from what is there
        ours, theirs = mapped.weights(), view.weights()
        assert ours.keys() == theirs.keys()
        for name, values in theirs.items():
            np.testing.assert_array_equal(ours[name], values)
        mapped = view.materialize(tmp_path)
    np.testing.assert_array_equal(mapped["test_accuracy"], view["test_accuracy"])
    kept = mapped.weights()
    for source in zoo.source.cohorts:
        source._weights = source._weights + 1  # the maps do not ask the store again
    for name, values in mapped.weights().items():
        np.testing.assert_array_equal(values, kept[name])
    assert not list(tmp_path.glob("*.tmp"))
    part = mapped[:2]
    assert len(part.state_dict(0)) == len(view.state_dict(0))


def test_workers_take_the_map_and_not_its_values(zoo, tmp_path):
    mapped = zoo.query(norm="none").materialize(tmp_path)
    source = mapped.zoo.source.cohorts[0]
    source._source = None
    sent = pickle.dumps(source)
    assert len(sent) < source._weights.nbytes / 2
    again = pickle.loads(sent)
    assert isinstance(again._weights, np.memmap)
    np.testing.assert_array_equal(again._weights, source._weights)


def test_a_torn_map_is_made_again(zoo, tmp_path):
    view = zoo.query(norm="none")
    view.materialize(tmp_path)
    (array,) = tmp_path.glob("*.npy")
    array.write_bytes(array.read_bytes()[:-4])
    np.testing.assert_array_equal(view.materialize(tmp_path).weights(), view.weights())


def test_normalisation_is_the_moments_of_the_rows(zoo):
    view = zoo.query()
    for scope in SCOPES:
        fitted = fit_normalization(view, scope, batch=3)
        everything = np.concatenate([w.ravel() for w in view.weights().values()])
        for name, rows in view.weights().items():
            layout = zoo.plan.cohort(name).layout
            for s in layout.segments:
                values = rows[:, s.offset : s.stop].astype(np.float64)
                if scope == "parameter":
                    mean, deviation = values.mean(0), values.std(0)
                elif scope == "tensor":
                    mean, deviation = values.mean(), values.std()
                else:
                    mean, deviation = (
                        everything.mean(dtype=np.float64),
                        everything.std(dtype=np.float64),
                    )
                np.testing.assert_allclose(
                    fitted.mean[layout][s.offset : s.stop] * np.ones(s.size), mean, atol=1e-5
                )
                np.testing.assert_allclose(
                    fitted.deviation[layout][s.offset : s.stop], deviation, rtol=1e-4
                )
            tensor = torch.from_numpy(rows)
            there = fitted.apply(tensor, layout)
            torch.testing.assert_close(fitted.invert(there, layout), tensor, atol=1e-5, rtol=1e-5)
    assert fitted.runs == tuple(sorted(set(view["run_id"].tolist())))


def test_normalisation_goes_through_a_file_and_refuses_strange_layouts(zoo, tmp_path):
    fitted = fit_normalization(zoo.query(norm="none"), "tensor")
    fitted.save(tmp_path / "n.npz")
    loaded = Normalization.load(tmp_path / "n.npz")
    assert loaded.hash == fitted.hash
    assert loaded.runs == fitted.runs
    layout = zoo.plan.cohorts[1].layout
    with pytest.raises(QueryError, match="not fitted on rows of this layout"):
        fitted.apply(torch.zeros(1, layout.params), layout)
    anywhere = fit_normalization(zoo.query(norm="none"), "global")
    assert anywhere.apply(torch.zeros(1, layout.params), layout).shape == (1, layout.params)
    (tmp_path / "n.npz").write_bytes(b"no archive")
    with pytest.raises(StoreError, match="no normalisation"):
        Normalization.load(tmp_path / "n.npz")
    with pytest.raises(QueryError, match="allowed: parameter"):
        fit_normalization(zoo.query(), "layer")


def test_conversions_keep_every_value(zoo):
    view = zoo.query()
    polars = pytest.importorskip("polars")
    frame = view.to_polars()
    assert frame.columns == list(zoo.columns)
    assert frame["width"].to_list() == view["width"].tolist()
    missing = [None if v != v else v for v in view["beta1"].tolist()]
    assert frame["beta1"].to_list() == missing
    assert frame.filter(polars.col("norm") == "batch").height == len(zoo.query(norm="batch"))
    pytest.importorskip("xarray")
    data = view[view["width"] == 8].to_xarray(["width", "lr"], weights=True)
    assert data.sizes["row"] == len(zoo.query(width=8))
    np.testing.assert_array_equal(data["weights"].values, zoo.query(width=8).weights())
    with pytest.raises(QueryError, match="2 parameter layouts"):
        view.to_xarray(weights=True)


@pytest.mark.parametrize("library", ["polars", "xarray"])
def test_a_missing_library_is_named(zoo, library, monkeypatch):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ImportError, match=f"pip install {library}"):
        getattr(zoo.query(), f"to_{library}")()


def test_structures_differ_by_what_decides_the_function(zoo):
    found = by_structure(zoo.query())
    assert [s.norm for s in found] == ["none", "batch"]
    assert only_structure(zoo.query(norm="none")).params == zoo.plan.cohorts[0].params
    with pytest.raises(QueryError, match="2 structures"):
        only_structure(zoo.query())
    with pytest.raises(QueryError, match="no rows"):
        only_structure(zoo.query(width=99))
    json.dumps([s.family for s in found])
