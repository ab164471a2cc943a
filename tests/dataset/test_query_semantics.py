"""Queries against a filter in plain Python over plain rows, on random stores."""

from __future__ import annotations

import math

import numpy as np
import pytest
from fabricated import make_store
from hypothesis import given, settings
from hypothesis import strategies as st

from zoo.dataset import Zoo
from zoo.dataset.query import condition_text, count_from_end
from zoo.errors import QueryError


def plain_rows(zoo):
    """Every recorded checkpoint as a dict, straight from the store's arrays."""
    rows = []
    for source in zoo.source.cohorts:
        cohort = source.cohort
        for m, run in enumerate(cohort.runs):
            ks = [k for k in range(cohort.checkpoints) if source.recorded[m, k]]
            for position, k in enumerate(ks):
                row = run.to_dict() | {
                    "run_id": run.run_id,
                    "cohort": cohort.id,
                    "row": m,
                    "status": str(source.status[m]),
                    "checkpoint": k,
                    "step": int(cohort.steps[m, k]),
                    "epoch": float(cohort.epochs[m, k]),
                    "from_end": position - len(ks),
                    "step_lr": float(source.metric("step_lr")[m, k]),
                }
                for name in ("test_accuracy", "train_loss"):
                    row[name] = source.metric(name)[m, k]
                rows.append(row)
    return rows


def found(view):
    return list(zip(view["run_id"].tolist(), view["checkpoint"].tolist(), strict=True))


def expected(zoo, keep):
    return [(r["run_id"], r["checkpoint"]) for r in plain_rows(zoo) if keep(r)]


def counted(column):
    """Conditions on a column that counts from the end."""
    number = st.sampled_from([-3, -2, -1, 0, 2, 4, 6])

    def at(row, value):
        return row["from_end"] == value if value < 0 else row[column] == value

    one = number.map(lambda v: (f"{column} == {v}", {column: v}, lambda r: at(r, v)))
    many = st.lists(number, min_size=1, max_size=3).map(
        lambda vs: (
            f"{column} in {vs}",
            {column: vs},
            lambda r: any(at(r, v) for v in vs),
        )
    )
    return one | many


def ranged(column, values):
    def make(bounds):
        low, high = bounds
        text = " and ".join(
            part
            for part in (
                f"{column} >= {low}" if low is not None else "",
                f"{column} <= {high}" if high is not None else "",
            )
            if part
        )
        return (
            text or "True",
            {column: (low, high)},
            lambda r: (low is None or r[column] >= low) and (high is None or r[column] <= high),
        )

    bound = st.none() | st.sampled_from(values)
    return st.tuples(bound, bound).map(make)


def chosen(column, values):
    one = st.sampled_from(values).map(
        lambda v: (f"{column} == {v!r}", {column: v}, lambda r: r[column] == v)
    )
    many = st.lists(st.sampled_from(values), min_size=1, max_size=3).map(
        lambda vs: (f"{column} in {vs!r}", {column: set(vs)}, lambda r: r[column] in vs)
    )
    return one | many


# each: predicate text, keyword form, the filter in plain Python
CONDITIONS = st.one_of(
    counted("epoch"),
    counted("step"),
    chosen("norm", ["none", "batch", "layer"]),
    chosen("lr", [0.01, 0.1, 1.0, 3.0]),
    chosen("beta1", [None, 0.9]).map(
        lambda c: (c[0].replace("== None", "is None"), *c[1:]) if "in" not in c[0] else c
    ),
    chosen("status", ["done", "diverged", "planned"]),
    ranged("width", [8, 12, 16]),
    ranged("test_accuracy", [0.1, 0.5, 0.9]),
    ranged("epoch", [0, 2, 3, 6]),
)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 9), st.lists(CONDITIONS, min_size=1, max_size=3))
def test_query_equals_a_plain_filter(seed, conditions):
    zoo = Zoo(make_store(seed))
    want = expected(zoo, lambda row: all(keep(row) for _, _, keep in conditions))
    text = " and ".join(f"({t})" for t, _, _ in conditions)
    if "None" not in text or "in [" not in text:  # a list in a predicate holds no missing value
        assert found(zoo.query(text)) == want
    merged = {}
    for _, keyword, _ in conditions:
        merged.update(keyword)
    if len(merged) == len(conditions):
        assert found(zoo.query(**merged)) == want
        first, *rest = conditions
        if "None" not in first[0]:
            others = {k: v for _, keyword, _ in rest for k, v in keyword.items()}
            assert found(zoo.query(first[0], **others)) == want


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 9), CONDITIONS)
def test_a_query_and_its_negation_share_no_row_and_miss_none(seed, condition):
    text = condition[0]
    zoo = Zoo(make_store(seed))
    yes, no = found(zoo.query(text)), found(zoo.query(f"not ({text})"))
    assert not set(yes) & set(no)
    assert sorted(yes + no) == sorted(found(zoo.query()))


def test_minus_one_is_the_last_recorded_checkpoint_of_every_run_that_has_one():
    store = make_store(3)
    zoo = Zoo(store)
    view = zoo.query("epoch == -1")
    want = [
        (run_id, int(last))
        for source in store.cohorts
        for run_id, last in zip(source.cohort.run_ids, source.last, strict=True)
        if last >= 0
    ]
    assert found(view) == want
    assert len({k for _, k in want}) > 1, "the runs must end at different checkpoints"
    assert any((source.last < 0).any() for source in store.cohorts)
    assert len(zoo.runs()) > len(view), "runs with nothing recorded are in runs() alone"


def test_negative_epochs_in_chains_and_on_the_left():
    zoo = Zoo(make_store(2, cuts=False))
    last = found(zoo.query("from_end == -1"))
    assert found(zoo.query("-1 == epoch")) == last
    assert found(zoo.query("step == -1 == from_end")) == last
    assert found(zoo.query("epoch != -1")) == found(zoo.query("from_end < -1"))
    assert found(zoo.query("epoch not in (-1, 0)")) == found(
        zoo.query("from_end != -1 and epoch != 0")
    )
    assert found(zoo.query("not epoch == -1 and width == 8")) == found(
        zoo.query("from_end != -1 and width == 8")
    )


@pytest.mark.parametrize(
    ("text", "rewritten"),
    [
        ("epoch == -1", "from_end == -1"),
        ("width > 3", "width > 3"),
        ("epoch in (-2, 5)", "from_end in [-2] or epoch in [5]"),
        ("epoch == 5", "epoch == 5"),
        ("train_loss == -1", "train_loss == -1"),
    ],
)
def test_rewriting_touches_negative_epochs_alone(text, rewritten):
    assert count_from_end(text) == rewritten


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (3, "x == 3"),
        (np.int64(3), "x == 3"),
        (True, "x == True"),
        ("it's", 'x == "it\'s"'),
        (None, "x is None"),
        (math.nan, "x is None"),
        ([2, 1], "x in [1, 2]"),
        (np.array([0.5, 0.1]), "x in [0.1, 0.5]"),
        ({None}, "x is None"),
        ([None, 1], "x is None or x in [1]"),
        (range(3), "x in [0, 1, 2]"),
        ((1, None), "x >= 1"),
        ((None, 2.5), "x <= 2.5"),
        ((1, 2), "x >= 1 and x <= 2"),
        ((-math.inf, math.inf), ""),
        ((None, None), ""),
    ],
)
def test_keyword_conditions_as_text(value, text):
    assert condition_text("x", value) == text


def test_an_empty_list_finds_nothing():
    assert len(Zoo(make_store()).query(width=[])) == 0


def test_float32_metrics_compare_in_their_own_precision():
    store = make_store(1, cuts=False)
    store.cohorts[0]._metrics["test_accuracy"][:] = np.float32(0.9)
    store.cohorts[1]._metrics["test_accuracy"][:] = np.float32(0.1)
    assert len(Zoo(store).query("test_accuracy >= 0.9")) == store.cohorts[0].recorded.sum()
    assert len(Zoo(store).query(test_accuracy=0.9)) == store.cohorts[0].recorded.sum()


def test_values_of_single_precision_find_what_they_came_from():
    store = make_store(1, cuts=False)
    for source in store.cohorts:
        rates = [[run.lr] for run in source.cohort.runs]
        source._metrics["step_lr"][:] = np.array(rates, dtype=np.float32)
    zoo = Zoo(store)
    every = zoo.query()
    assert len(zoo.query("step_lr == lr")) == len(every)
    assert len(zoo.query("step_lr > lr or step_lr < lr")) == 0
    lr = every["lr"][0]
    same = found(every[every["lr"] == lr])
    assert len({*every["lr"].tolist(), *np.float32(every["lr"]).tolist()}) > 2
    for one in (lr, float(lr), np.float32(lr), every["step_lr"][0]):
        assert found(zoo.query(lr=one)) == found(zoo.query(step_lr=one)) == same
        assert found(zoo.query(lr=[one])) == found(zoo.query(step_lr=[one])) == same
        assert found(zoo.query(lr=(one, one))) == found(zoo.query(step_lr=(one, one))) == same
    assert len(zoo.query(lr=every["step_lr"])) == len(every)
    assert len(zoo.runs(lr=np.float32(lr))) == len(zoo.runs(lr=lr)) > 0
    # a double is not single: it finds the double that it is
    assert len(zoo.query(lr=float(np.float32(lr)))) == 0


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda z: z.query("test_acuracy > 0.9"), "did you mean 'test_accuracy'"),
        (lambda z: z.query(widht=64), "did you mean 'width'"),
        (lambda z: z.query(widht=64), "known: run_id, cohort, row"),
        (lambda z: z.query("width >"), "not a predicate"),
        (lambda z: z.query("__import__('os').system('true')"), "a call is not allowed"),
        (lambda z: z.query("norm > 3"), "compared with number"),
        (lambda z: z.query(norm=3), "compared with number"),
        (lambda z: z.query("epoch > -1"), "from_end >= -1"),
        (lambda z: z.query(epoch=(-5, None)), "from_end >= -5"),
        (lambda z: z.query("step == -0.5"), "must be whole"),
        (lambda z: z.query(width=(1, 2, 3)), "width=[1, 2, 3]"),
        (lambda z: z.query(norm=("batch", "none")), "norm=['batch', 'none']"),
        (lambda z: z.query(lr=object()), "cannot be compared"),
        (lambda z: z.query(lr=math.inf), "cannot be compared"),
        (lambda z: z.runs("test_accuracy > 0.5"), "runs() has one row per run"),
        (lambda z: z.runs("epoch == -1"), "runs() has one row per run"),
        (lambda z: z.runs(columns=["widht"]), "did you mean 'width'"),
        (lambda z: z.query().column("widht"), "did you mean 'width'"),
        (lambda z: z.query().table(["widht"]), "did you mean 'width'"),
        (lambda z: z.query().sort("widht"), "did you mean 'width'"),
    ],
)
def test_errors_say_what_to_do(call, says):
    with pytest.raises(QueryError) as caught:
        call(Zoo(make_store()))
    assert says in str(caught.value)
