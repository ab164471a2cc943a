"""Views: order, tables, weights over cohorts, models."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import torch
from fabricated import MemoryCohort, MemoryStore, make_cohort, make_plan, make_store

from zoo.dataset import Zoo
from zoo.dataset.summary import human_bytes, value_span
from zoo.errors import QueryError, UnknownNameError
from zoo.spec.run import RunSpec


@pytest.fixture
def store():
    return make_store(3)


@pytest.fixture
def zoo(store):
    return Zoo(store)


def pairs(view):
    return list(zip(view["run_id"].tolist(), view["checkpoint"].tolist(), strict=True))


def test_slices_masks_and_indices_keep_the_order(zoo):
    view = zoo.query()
    all_pairs = pairs(view)
    assert len(all_pairs) > 10
    assert pairs(view[2:9:3]) == all_pairs[2:9:3]
    assert pairs(view[::-1]) == all_pairs[::-1]
    assert pairs(view.head(3)) == all_pairs[:3]
    assert pairs(view[[5, 1, 1]]) == [all_pairs[i] for i in (5, 1, 1)]
    mask = view["width"] == 16
    assert pairs(view[mask]) == [p for p, keep in zip(all_pairs, mask, strict=True) if keep]
    assert view[-1]["run_id"] == all_pairs[-1][0]
    with pytest.raises(IndexError, match="view of"):
        view[len(view)]
    with pytest.raises(TypeError, match="mask"):
        view[[0.5]]


def test_rows_are_plain_dicts_with_none_for_what_is_missing(zoo):
    rows = list(zoo.query())
    assert [(r["run_id"], r["checkpoint"]) for r in rows] == pairs(zoo.query())
    json.dumps(rows, allow_nan=False)
    adam = next(r for r in rows if r["optimizer"] == "adam")
    assert adam["momentum"] is None
    assert adam["beta1"] == 0.9
    assert adam == zoo.query(optimizer="adam")[0]


@pytest.mark.parametrize("descending", [False, True])
def test_sort_is_stable_over_cohorts_with_missing_values_last(zoo, descending):
    view = zoo.query()
    rows = list(view)
    sign = -1 if descending else 1

    def key(row):
        missing = row["beta1"] is None
        return (missing, 0 if missing else sign * row["beta1"], sign * row["test_accuracy"])

    want = [(r["run_id"], r["checkpoint"]) for r in sorted(rows, key=key)]
    assert pairs(view.sort("beta1", "test_accuracy", descending=descending)) == want


def test_table_keeps_types_and_goes_through_pandas_and_back(zoo):
    view = zoo.query("epoch == -1")
    table = view.table()
    assert table.dtype.names == zoo.columns
    kinds = {"run_id": "U", "width": "i", "lr": "f", "step": "i", "nesterov": "f", "row": "i"}
    assert {name: table.dtype[name].kind for name in kinds} == kinds
    frame = view.to_pandas()
    assert len(frame) == len(view)
    back = frame.to_records(index=False)
    for name in zoo.columns:
        ours, theirs = table[name], np.array(back[name].tolist(), dtype=table.dtype[name])
        np.testing.assert_array_equal(ours, theirs)
    narrow = view.table(["lr", "width"])
    assert narrow.dtype.names == ("lr", "width")
    assert narrow["lr"].tolist() == [r["lr"] for r in view]


def test_load_and_temperature_are_columns_of_a_sweep_with_axes(zoo):
    view = zoo.query("load == 16 and temperature == 8")
    assert pairs(view) == pairs(zoo.query(width=16, batch_size=8))
    assert zoo.column_info["load"].doc == "the load axis: width"
    store = make_store(3)
    store.plan = type(store.plan)("bare", {}, store.plan.record, {}, store.plan.cohorts)
    assert "load" not in Zoo(store).columns


def test_counts(zoo):
    view = zoo.query()
    assert view.counts("norm") == {
        "batch": len(zoo.query(norm="batch")),
        "none": len(zoo.query(norm="none")),
    }
    counts = view.counts("beta1")
    assert counts == {0.9: len(zoo.query(optimizer="adam")), None: len(zoo.query(optimizer="sgd"))}


def test_weights_of_one_cohort_are_an_array_in_view_order(zoo, store):
    view = zoo.query(norm="none").sort("test_accuracy")
    weights = view.weights()
    assert weights.shape == (len(view), store.cohorts[0].cohort.params)
    source = store.cohorts[0]
    for i, row in enumerate(view):
        np.testing.assert_array_equal(weights[i], source._weights[row["row"], row["checkpoint"]])
    assert not np.isnan(weights).any()
    logits = view.probe_logits()
    np.testing.assert_array_equal(logits, source._probe[view["row"], view["checkpoint"]])


def test_weights_of_several_layouts_are_a_dict_in_the_order_of_by_cohort(zoo, store):
    view = zoo.query().sort("test_accuracy")
    assert len(view.cohorts) == 2
    weights, logits, parts = view.weights(), view.probe_logits(), view.by_cohort()
    assert tuple(weights) == tuple(parts) == view.cohorts
    for source in store.cohorts:
        name = source.cohort.id
        part = parts[name]
        assert pairs(part) == [
            p for p, r in zip(pairs(view), view, strict=True) if r["cohort"] == name
        ]
        at = (part["row"], part["checkpoint"])
        np.testing.assert_array_equal(weights[name], source._weights[at])
        # logits have one shape, and stand in the view's order
        np.testing.assert_array_equal(logits[view["cohort"] == name], source._probe[at])


def test_stacked_weights_cross_cohorts_of_one_layout(zoo, store):
    rng = np.random.default_rng(0)
    cohorts = []
    for batch in (4, 8):
        specs = [RunSpec(width=8, batch_size=batch, epochs=2, seed=s) for s in range(3)]
        cohort = make_cohort(specs, name=f"b{batch}", checkpoints=3)
        cohorts.append(MemoryCohort(cohort, np.ones((3, 3), bool), rng))
    same = Zoo(MemoryStore(make_plan(tuple(c.cohort for c in cohorts)), cohorts))
    view = same.query().sort("test_accuracy")
    stacked = view.stacked_weights()
    by_name = {c.cohort.id: c._weights for c in cohorts}
    for row, weights in zip(view, stacked, strict=True):
        np.testing.assert_array_equal(
            weights, by_name[row["cohort"]][row["row"], row["checkpoint"]]
        )
    assert stacked.shape == (18, cohorts[0].cohort.params)
    np.testing.assert_array_equal(view.weights(), stacked)  # one layout: one array
    assert len(view.layouts) == 1
    assert same.query(width=99).stacked_weights().shape == (0, cohorts[0].cohort.params)
    with pytest.raises(QueryError, match="2 parameter layouts"):
        zoo.query().stacked_weights()


def test_an_empty_view_still_answers(zoo):
    view = zoo.query(width=999)
    assert len(view) == 0
    assert list(view) == []
    assert view.table().dtype == zoo.query().table().dtype
    assert view.weights() == {}
    assert view.counts("norm") == {}
    assert view.cohorts == ()
    assert len(view.sort("width")) == 0
    assert "no checkpoints" in repr(view)
    one = make_store(0, models=(3, 1), checkpoints=(3, 1))
    one.cohorts.pop()
    one.plan = type(one.plan)("one", {}, one.plan.record, {}, one.plan.cohorts[:1])
    assert Zoo(one).query(width=999).weights().shape == (0, one.plan.cohorts[0].params)


def test_state_dict_and_model_hold_the_recorded_row(zoo, store):
    view = zoo.query(norm="batch")
    for i in (0, len(view) - 1, -1):
        row = view[i]
        raw = store.cohorts[1]._weights[row["row"], row["checkpoint"]].copy()
        state = view.state_dict(i)
        for segment in store.cohorts[1].cohort.layout.segments:
            want = raw[segment.offset : segment.stop].reshape(segment.shape)
            np.testing.assert_array_equal(state[segment.name].numpy(), want)
        model = view.model(i)
        assert not any(m.training for m in model.modules())
        assert model.state_dict().keys() >= state.keys()
        for name, value in state.items():
            assert torch.equal(model.state_dict()[name], value)
        assert model(torch.zeros(2, 1, 8, 8)).shape == (2, 10)
        assert view.spec(i).run_id == row["run_id"]


def test_trajectory_is_nan_where_nothing_is_recorded(zoo, store):
    for source in store.cohorts:
        for row, run_id in enumerate(source.cohort.run_ids):
            np.testing.assert_array_equal(zoo.trajectory(run_id), source._weights[row])


def test_run_by_id_and_by_unique_beginning(zoo, store):
    run_id = store.cohorts[1].cohort.run_ids[2]
    run = zoo.run(run_id)
    assert (run.run_id, run.cohort, run.row) == (run_id, store.cohorts[1].cohort.id, 2)
    assert run.spec is store.cohorts[1].cohort.runs[2]
    assert run.status == store.cohorts[1].status[2]
    assert zoo.run(run_id[:12]).run_id == run_id
    with pytest.raises(UnknownNameError, match=f"did you mean '{run_id}'"):
        zoo.run(run_id[:-1] + "x")
    with pytest.raises(UnknownNameError, match="no run ''"):
        zoo.run("")
    ids = [i for source in store.cohorts for i in source.cohort.run_ids]
    shared = next(a[0] for a in ids if sum(b[0] == a[0] for b in ids) > 1)
    with pytest.raises(UnknownNameError, match="beginning of"):
        zoo.run(shared)


def test_runs_has_every_run_and_status_counts_them(zoo, store):
    runs = zoo.runs()
    assert len(runs) == len(zoo) == 8
    assert "epoch" not in runs.dtype.names
    none_recorded = [s.cohort.run_ids[m] for s in store.cohorts for m in np.flatnonzero(s.last < 0)]
    assert zoo.runs(status="planned")["run_id"].tolist() == none_recorded
    assert sum(zoo.status().values()) == 8
    assert zoo.status()["planned"] == len(none_recorded) > 0
    assert (
        zoo.runs("status == 'diverged'", columns=["reason"])["reason"].tolist()
        == ["loss is not finite"] * zoo.status()["diverged"]
    )


def test_refresh_shows_new_checkpoints_and_leaves_views_alone(zoo, store):
    view = zoo.query()
    before = pairs(view)
    store.cohorts[0].recorded = np.ones_like(store.cohorts[0].recorded)
    assert pairs(zoo.query()) == before
    assert zoo.refresh() is zoo
    assert store.refreshed == 1
    assert len(zoo.query()) > len(before)
    assert pairs(view) == before


def test_info_is_json_and_the_texts_say_what_matters(zoo):
    info = zoo.info()
    json.dumps(info, allow_nan=False)
    assert info["runs"] == 8
    assert info["checkpoints"]["recorded"] == len(zoo.query())
    assert info["varies"]["width"] == [8, 16]
    # what follows from the optimizer or from the seed is not listed
    assert not {"beta1", "init_seed", "steps"} & set(info["varies"])
    assert {"width", "norm", "optimizer", "seed"} <= set(info["varies"])
    for part in ("Zoo 'fabricated'", "width 8, 16", "load = width", "mlp-w16-batch: 3 models"):
        assert part in zoo.describe()
    assert "2 (682, 1610 parameters)" in str(zoo)
    text = str(zoo.query())
    assert f"{len(zoo.query())} checkpoints of" in text
    assert "norm batch, none" in text
    assert "test_accuracy" in text


def test_a_zoo_without_a_probe_says_so(store):
    plan = store.plan
    record = type(plan.record)(probe_size=0)
    store.plan = type(plan)(plan.name, plan.axes, record, plan.data, plan.cohorts)
    with pytest.raises(QueryError, match="probe_size = 0"):
        Zoo(store).query().probe_logits()
    with pytest.raises(QueryError, match="probe_size = 0"):
        Zoo(store).probe_inputs()


def test_to_pandas_without_pandas_names_the_cure(zoo, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match="pip install pandas"):
        zoo.query().to_pandas()


def test_spans_and_sizes():
    assert value_span([3, 1, 2, 3]) == "1, 2, 3"
    assert value_span(range(100)) == "0 to 99 (100 values)"
    assert value_span([None, 0.5]) == "None, 0.5"
    assert value_span("abcdefgh") == "a, b, c, d, e, f, ... (8 values)"
    assert [human_bytes(n) for n in (7, 1200, 3.5e9, 2e12)] == ["7 B", "1.2 kB", "3.5 GB", "2.0 TB"]
