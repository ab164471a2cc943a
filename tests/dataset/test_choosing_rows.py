"""The rows of a view: choosing, ordering, grouping; wrong arguments; what a view says of itself."""

from __future__ import annotations

import html
import re

import numpy as np
import pandas
import pytest
import torch
from fabricated import MemoryCohort, MemoryStore, make_cohort, make_plan, make_store

import zoo as package
from zoo.cli import main
from zoo.dataset import Zoo, fit_normalization, layer_statistics, split_by
from zoo.dataset.splits import FRACTIONS
from zoo.dataset.structure import only_structure
from zoo.errors import QueryError, SpecError, UnknownNameError, ZooError
from zoo.landscape import MODEL_METRICS
from zoo.launch.local import run
from zoo.spec.run import RunSpec, field_infos


@pytest.fixture
def zoo():
    return Zoo(make_store(3))


def pairs(view):
    return list(zip(view["run_id"].tolist(), view["checkpoint"].tolist(), strict=True))


@pytest.mark.parametrize(
    ("predicate", "conditions"),
    [
        ("test_accuracy > 0.4", {}),
        ("epoch == -1", {}),
        ("step == -2 or norm == 'batch'", {"width": [8, 16]}),
        (None, {"norm": "none", "epoch": (0, 3)}),
        ("beta1 is None", {}),
        (None, {}),
    ],
)
def test_a_query_of_a_view_is_the_zoos_within_its_rows(zoo, predicate, conditions):
    everywhere = set(pairs(zoo.query(predicate, **conditions)))
    for view in (zoo.query(), zoo.query("epoch >= 2").sort("-test_accuracy")[::2], zoo.query()[:0]):
        found = view.query(predicate, **conditions)
        assert pairs(found) == [p for p in pairs(view) if p in everywhere]
    with pytest.raises(QueryError, match="did you mean 'width'"):
        zoo.query().query("widht == 3")


def test_samples_are_different_rows_and_repeat_from_their_seed(zoo):
    view = zoo.query()
    drawn = view.sample(7, seed=1)
    assert pairs(drawn) == pairs(view.sample(7, seed=1)) != pairs(view.sample(7, seed=2))
    assert len(set(pairs(drawn))) == 7
    assert set(pairs(drawn)) <= set(pairs(view))
    assert set(pairs(view.sample(len(view)))) == set(pairs(view))
    assert len(view.sample(0)) == 0
    with pytest.raises(QueryError, match=f"allowed: at most {len(view)}"):
        view.sample(len(view) + 1)


@pytest.mark.parametrize("names", [["norm"], ["width", "norm"], ["beta1"], ["test_accuracy"]])
def test_groups_are_those_of_pandas(zoo, names):
    view = zoo.query().sort("-test_accuracy")
    groups = view.groupby(*names)
    frame = view.to_pandas()
    wanted = frame.groupby(names if len(names) > 1 else names[0], dropna=False)
    theirs = {
        key if isinstance(key, tuple) else (key,): part.index.tolist() for key, part in wanted
    }
    ours = {}
    for value, part in groups:
        key = value if isinstance(value, tuple) else (value,)
        rows = [pairs(view).index(p) for p in pairs(part)]
        ours[tuple(np.nan if k is None else k for k in key)] = rows
    assert list(map(repr, ours)) == list(map(repr, theirs))
    assert list(ours.values()) == list(theirs.values())
    assert groups.counts() == {value: len(part) for value, part in groups.items()}
    assert pairs(dict(groups)[next(iter(groups.keys()))]) == pairs(next(iter(groups))[1])
    assert len(view.groupby(names)) == len(groups)


def test_a_group_that_is_not_there_is_named(zoo):
    groups = zoo.query().groupby("norm")
    assert pairs(groups["batch"]) == pairs(zoo.query(norm="batch"))
    assert "batch" in groups
    with pytest.raises(UnknownNameError, match="no row with norm = 'bacth'; did you mean 'batch'"):
        groups["bacth"]


def test_a_list_of_names_is_a_table(zoo):
    view = zoo.query()
    for key in (["width", "norm"], ("width", "norm")):
        assert view[key].dtype.names == ("width", "norm")
        np.testing.assert_array_equal(view[key], view.table(["width", "norm"]))
    assert view.table("width").dtype.names == ("width",)
    assert zoo.runs(columns="width").dtype.names == ("width",)
    assert view.to_pandas("width").columns.tolist() == ["width"]
    with pytest.raises(QueryError, match="did you mean 'width'"):
        view[["norm", "widht"]]


def test_a_minus_sorts_downwards_and_lists_are_taken(zoo):
    view = zoo.query()
    frame = view.to_pandas()
    wanted = frame.sort_values(
        ["norm", "test_accuracy", "epoch"], ascending=[True, False, True], kind="stable"
    )
    assert pairs(view.sort("norm", "-test_accuracy", "epoch")) == [
        pairs(view)[i] for i in wanted.index
    ]
    assert pairs(view.sort(["norm", "-test_accuracy", "epoch"])) == pairs(
        view.sort("norm", "-test_accuracy", "epoch")
    )
    down = view.sort("test_accuracy", descending=True)
    assert pairs(view.sort("-test_accuracy")) == pairs(down)
    with pytest.raises(QueryError, match="unknown column 'test_acuracy'; did you mean"):
        view.sort("-test_acuracy")


def test_runs_and_trajectories_of_a_row(zoo):
    view = zoo.query().sort("-test_accuracy")
    for i in (0, -1):
        run_id = view[i]["run_id"]
        assert view.run(i).run_id == run_id
        np.testing.assert_array_equal(view.trajectory(i), zoo.trajectory(run_id))


@pytest.mark.parametrize("wrong", [0, None, 1.5, b"ab", ["a"], np.int64(3)])
@pytest.mark.parametrize("method", ["run", "trajectory", "place"])
def test_a_run_by_anything_but_its_id_says_what_to_write(zoo, method, wrong):
    with pytest.raises(UnknownNameError, match=r"is no run id, which is text.*view\.run\(i\)"):
        getattr(zoo, method)(wrong)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda z, v: v[1.5], "rows are counted by integers"),
        (lambda z, v: v[None], "rows are counted by integers"),
        (lambda z, v: v[True], "rows are counted by integers"),
        (lambda z, v: v[[0.5]], "integers or a mask"),
        (lambda z, v: v[{"a": 1}], "integers"),
        (lambda z, v: v[[[0, 1]]], "in one list or array"),
        (lambda z, v: v[[True, False]], "a mask of 2 values for a view of"),
        (lambda z, v: v[[0, 999]], "row 999 of a view of"),
        (lambda z, v: v.take("ab"), "integers or a mask"),
        (lambda z, v: v.model("a"), "rows are counted by integers"),
        (lambda z, v: v.spec(999), "row 999 of a view of"),
        (lambda z, v: v.state_dict(None), "rows are counted by integers"),
        (lambda z, v: v.run(999), "row 999 of a view of"),
        (lambda z, v: v.trajectory("a"), "rows are counted by integers"),
        (lambda z, v: v.head("3"), "n = '3'; allowed: a whole number"),
        (lambda z, v: v.head(2.5), "n = 2.5; allowed: a whole number"),
        (lambda z, v: v.head(-1), "n = -1; allowed: a whole number, at least 0"),
        (lambda z, v: v.sample(-1), "n = -1; allowed: a whole number, at least 0"),
        (lambda z, v: v.sort(3), "3 is not the name of a column"),
        (lambda z, v: v.groupby(), "groupby() needs a column"),
        (lambda z, v: v.groupby(3), "3 is not the name of a column"),
        (lambda z, v: v.column(3), "unknown column '3'"),
        (lambda z, v: v.counts(None), "unknown column 'None'"),
        (lambda z, v: v.table(3), "3 is not the name of a column"),
        (lambda z, v: v.table([3]), "3 is not the name of a column"),
        (lambda z, v: v.to_pandas(3), "3 is not the name of a column"),
        (lambda z, v: v.query(3), "a predicate is text, not int"),
        (lambda z, v: z.query(3), "a predicate is text, not int"),
        (lambda z, v: z.query(lr=object()), "cannot be compared"),
        (lambda z, v: z.runs(3), "a predicate is text, not int"),
        (lambda z, v: z.runs(columns=3), "3 is not the name of a column"),
        (lambda z, v: next(v.iter(batch=0)), "batch = 0"),
        (lambda z, v: next(v.iter(batch="8")), "batch = '8'"),
        (lambda z, v: v.pairs(3), "3 is not the name of a column"),
        (lambda z, v: v.pairs(limit="3"), "limit = '3'"),
        (lambda z, v: v.torch_dataset(3), "unknown form 3"),
        (lambda z, v: v.snapshot("../x"), "snapshots are kept in a store"),
        (lambda z, v: split_by(v, 3), "3 is not the name of a column"),
        (lambda z, v: z.plan.cohort("mlp-w8-nnoe"), "did you mean 'mlp-w8-none'"),
        (lambda z, v: v.layouts[0]["output.wieght"], "did you mean 'output.weight'"),
    ],
)
def test_wrong_arguments_say_what_is_right(zoo, call, says):
    with pytest.raises((ZooError, TypeError, IndexError)) as caught:
        call(zoo, zoo.query())
    assert says in str(caught.value)


def test_indices_of_other_libraries_are_taken(zoo):
    view = zoo.query()
    mask = view["width"] == 16
    want = pairs(view[mask])
    assert pairs(view[pandas.Series(mask)]) == want
    assert pairs(view[torch.from_numpy(mask)]) == want
    assert pairs(view[mask.tolist()]) == want
    assert pairs(view[torch.tensor([2, 0])]) == [pairs(view)[2], pairs(view)[0]]
    assert view[torch.tensor(2)] == view[np.int64(2)] == view[2]
    assert len(view[[]]) == 0


# -- names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [("learning_rate", "lr"), ("batchsize", "batch_size"), ("accuracy", "test_accuracy")],
)
def test_names_of_other_libraries_lead_to_ours(zoo, theirs, ours):
    calls = (
        lambda: zoo.query(f"{theirs} > 0"),
        lambda: zoo.query(**{theirs: 1}),
        lambda: zoo.query().column(theirs),
    )
    for call in calls:
        with pytest.raises(QueryError) as caught:
            call()
        text = str(caught.value)
        assert f"unknown column {theirs!r}; did you mean {ours!r}?; known: run_id" in text
        assert "zscore" not in text
        assert len(text) < 500
        assert "and " in text  # the list is cut


@pytest.mark.parametrize("name", ["phase", "phase_margin"])
def test_a_phase_before_labelling_names_the_two_verbs(zoo, name):
    for call in (lambda: zoo.query(f"{name} == 'I'"), lambda: zoo.query()[name]):
        with pytest.raises(QueryError, match="run `zoo landscape STORE`, then `zoo label STORE`"):
            call()
    store = make_store(3)
    for source in store.cohorts:
        facts = {"data_type": "float64", "attributes": {"long_name": "sharpness"}}
        source.derived = {"lambda_max": {"dimension_names": ["model"], **facts}}
    with pytest.raises(QueryError, match="no phase yet: run `zoo label STORE`"):
        Zoo(store).query(**{name: "I"})


def test_columns_of_the_landscape_name_its_verb(zoo):
    with pytest.raises(QueryError, match="not been measured yet: run `zoo landscape STORE`;"):
        zoo.query("lambda_max > 3")
    rare = next(
        column.name
        for name in MODEL_METRICS
        if not MODEL_METRICS[name].default
        for column in MODEL_METRICS[name].columns
        if not column.dims
    )
    with pytest.raises(QueryError, match="zoo landscape STORE --metrics spectrum"):
        zoo.query().column(rare)


def test_an_empty_result_names_the_values_that_there_are(zoo):
    view = zoo.query("norm == 'layer' and width > 99 and epoch == -1")
    text = str(view)
    assert "no checkpoints" in text
    assert "recorded checkpoints have: norm batch, none; width 8, 16" in text
    assert "from_end" not in text
    assert "norm batch, none" in view.sort("width")[:3]._repr_html_()
    assert str(zoo.query().query(norm="layer")).endswith("norm batch, none")
    bare = make_store(0)
    for source in bare.cohorts:
        source.recorded[:] = False
    assert "no checkpoint is recorded yet" in str(Zoo(bare).query(norm="none"))


def test_the_command_line_names_them_too(tmp_path, capsys):
    sweep = package.Sweep(name="t", base={"epochs": 1, "train_size": 100, "width": 4})
    assert run(sweep, tmp_path / "z.zarr", workers=0, backend="eager").complete
    assert main(["query", str(tmp_path / "z.zarr"), "norm == 'layer'"]) == 0
    assert "no checkpoints\nrecorded checkpoints have: norm none\n" in capsys.readouterr().out
    assert main(["query", str(tmp_path / "z.zarr"), "learning_rate > 1"]) == 1
    assert "did you mean 'lr'?" in capsys.readouterr().err


# -- splits ---------------------------------------------------------------------------------------


def test_shares_may_come_without_names(zoo):
    view = zoo.query()
    three = split_by(view, "run", fractions=(0.5, 0.25, 0.25))
    assert three == split_by(view, "run", fractions={"train": 0.5, "val": 0.25, "test": 0.25})
    assert tuple(split_by(view, "run", fractions=[0.5, 0.5]).parts) == ("train", "test")
    assert split_by(view, "run", fractions=dict(FRACTIONS)) == split_by(view, "run")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ((0.8, 0.1), "add up to 0.9"),
        ((1.0,), "are no shares of parts"),
        ((0.25,) * 4, "are no shares of parts"),
        (0.8, "are no shares of parts"),
        ("train=0.8", "are no shares of parts"),
        ({}, "are no shares of parts"),
        (None, "are no shares of parts"),
        ({"train": "0.8", "test": 0.2}, "'train' has no share from 0 to 1"),
        ((1.2, -0.2), "'train' has no share from 0 to 1"),
        ({"train": float("nan"), "test": 1.0}, "'train' has no share from 0 to 1"),
    ],
)
def test_shares_that_are_none_say_what_is_allowed(zoo, given, says):
    with pytest.raises(SpecError) as caught:
        split_by(zoo.query(), "run", fractions=given)
    assert says in str(caught.value)
    assert "(0.7, 0.15, 0.15), adding up to 1" in str(caught.value)


# -- texts ----------------------------------------------------------------------------------------


def test_every_repr_is_one_short_line(zoo):
    view = zoo.query()
    part = zoo.query(norm="none")
    data = view.torch_dataset("graph", targets="width")
    sweep = package.Sweep(name="t", grid={"seed": list(range(50)), "width": [4, 8]})
    things = [
        zoo, view, view[:0], zoo.plan, zoo.plan.cohorts[0], view.spec(0), sweep, view.layouts[0],
        only_structure(part), split_by(view), data, data[0][0], data.loader().sampler,
        view.torch_dataset("tokens")[0][0], view.torch_dataset("layers")[0][0],
        view.pairs("epoch", "run"), view.pairs("epoch", "run").torch_dataset(), view.run(0),
        view.groupby("norm"), next(view.trajectories()), fit_normalization(part),
        layer_statistics(part), zoo.column_info["width"],
    ]  # fmt: skip
    for thing in things:
        text = repr(thing)
        assert len(text) <= 240, text
        assert "\n" not in text
        assert re.match(r"<?[A-Z]\w+", text), text
        assert type(thing).__name__ in text
    assert repr(zoo) == f"<Zoo 'fabricated': 8 runs ({_states(zoo)}), {len(view)} checkpoints>"
    assert f": {len(view)} checkpoints of" in repr(view)


def _states(zoo):
    return ", ".join(f"{n} {state}" for state, n in zoo.status().items() if n)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"seed": 3, "init_seed": 5, "order_seed": 3},
        {"optimizer": "adamw", "beta1": 0.8, "lr": 0.01},
        {"optimizer": "sgd", "momentum": 0.9, "nesterov": True},
        {"norm": "group", "norm_groups": 4, "epochs": 5},
        {"norm": "frn", "width": 16},
        {"score": "el2n", "keep": 0.5, "select": "easiest"},
        {"schedule": "one_cycle", "steps": 100, "architecture": "cnn"},
    ],
)
def test_a_specs_repr_makes_the_same_spec(fields):
    spec = RunSpec(**fields)
    for one in (spec, spec.resolve(1000)):
        assert eval(repr(one)) == one
        assert len(repr(one)) < 250
    assert repr(RunSpec()) == "RunSpec()"
    assert len(field_infos()) > 50


def test_pages_in_notebooks_escape_what_they_show(zoo):
    name = "<script>alert('x')</script> & co"
    runs = [RunSpec(width=8, epochs=2, seed=s) for s in range(3)]
    cohort = make_cohort(runs, checkpoints=5, name=name)
    source = MemoryCohort(cohort, np.ones((3, 5), bool), np.random.default_rng(0))
    plan = make_plan((cohort,), name=name, axes={"load": "seed"})
    evil = Zoo(MemoryStore(plan, [source]), path="<b>here</b>")
    for shown in (evil, evil.query(), evil.query(cohort="none"), evil.query()[:1]):
        page = shown._repr_html_()
        assert "<script" not in page
        assert "<b>here" not in page
        assert html.escape(name) in page
        tags = re.findall(r"</?(\w+)>", page)
        assert set(tags) <= {"p", "b", "br", "table", "thead", "tbody", "tr", "th", "td"}
    assert evil.query()._repr_html_().count("<tr>") == 1 + 8
    assert "and 7 more rows" in evil.query()._repr_html_()


def test_the_front_door_lists_everything_behind_it():
    listed = dir(package)
    assert set(package.__all__) <= set(listed)
    assert {"dataset", "errors", "report", "spec"} <= set(listed)
    assert "importlib" not in listed
    for name in listed:
        getattr(package, name)
    with pytest.raises(AttributeError, match="no attribute 'opne'"):
        package.opne  # noqa: B018
