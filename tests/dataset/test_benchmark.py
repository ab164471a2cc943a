"""The benchmark: features, folds, scores against scikit-learn and scipy, and what it must find."""

from __future__ import annotations

import json

import numpy as np
import pytest
from fabricated import MemoryCohort, MemoryStore, make_cohort, make_plan
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score

from zoo.dataset import Zoo
from zoo.dataset.baselines import NeuralTraining, Target, fit_boosting, fit_neural, fit_ridge
from zoo.dataset.benchmark import CONTROLS, INPUTS, _parts, benchmark, folds_of, make_targets
from zoo.dataset.features import (
    epoch_features,
    hyperparameter_features,
    layer_statistics,
    raw_weights,
    row_statistics,
)
from zoo.dataset.scores import accuracy, kendall_tau, r_squared, score_predictions
from zoo.dataset.splits import group_keys
from zoo.errors import QueryError
from zoo.report.bench import bench_plot, bench_table
from zoo.spec.run import RunSpec

SEEDS, K = 8, 3


def make_zoo():
    """Return a zoo whose accuracy is a function of the spread of the first layer's weights.

    The spread is drawn for each checkpoint: neither hyper-parameters nor epoch know it.
    """
    rng = np.random.default_rng(0)
    cohorts = []
    for width, norm in ((8, "none"), (12, "batch"), (8, "batch"), (12, "none")):
        specs = [
            RunSpec(width=width, norm=norm, batch_size=b, epochs=3, seed=s)
            for b in (4, 8)
            for s in range(SEEDS)
        ]
        cohort = make_cohort(specs, checkpoints=K)
        scale = rng.uniform(0.2, 2, (len(specs), K))
        accuracy = 0.1 + 0.4 * scale
        source = MemoryCohort(cohort, np.ones((len(specs), K), bool), rng, accuracy=accuracy)
        first = cohort.layout.segments[0]
        source._weights *= 0.3
        source._weights[..., : first.stop] *= scale[..., None].astype(np.float32)
        for s in cohort.layout.segments:
            if s.name.endswith("running_var"):
                source._weights[..., s.offset : s.stop] = 1
        cohorts.append(source)
    axes = {"load": "width", "temperature": "batch_size"}
    return Zoo(MemoryStore(make_plan(tuple(c.cohort for c in cohorts), axes=axes), cohorts))


@pytest.fixture(scope="module")
def view():
    return make_zoo().query()


def test_statistics_are_the_56_features_of_the_small_cnn_zoo():
    spec = RunSpec(architecture="cnn", width=16)
    layout = make_cohort([spec]).layout
    rows = np.random.default_rng(0).normal(size=(3, layout.params)).astype(np.float32)
    found = row_statistics(rows, layout)
    assert found.values.shape == (3, 56)
    s = layout["hidden.1.conv.weight"]
    part = rows[:, s.offset : s.stop]
    at = found.names.index("hidden.1.conv.weight:mean")
    want = [part.mean(1), part.std(1), *np.percentile(part, (0, 25, 50, 75, 100), axis=1)]
    np.testing.assert_allclose(found.values[:, at : at + 7].T, want, rtol=1e-5, atol=1e-6)


def test_features_of_several_architectures_share_columns(view):
    found = layer_statistics(view)
    assert len(set(found.names)) == len(found.names)
    norms = [i for i, n in enumerate(found.names) if ".norm." in n]
    plain = view["norm"] == "none"
    assert np.isnan(found.values[plain][:, norms]).all()
    assert np.isfinite(found.values[~plain]).all()
    for i in (0, len(view) - 1):
        layout = view.zoo.plan.cohort(view[i]["cohort"]).layout
        own = row_statistics(view[i : i + 1].weights(), layout)
        at = [found.names.index(n) for n in own.names]
        np.testing.assert_array_equal(found.values[i, at], own.values[0])


def test_raw_weights_put_equal_units_into_equal_columns(view):
    found = raw_weights(view)
    names = {n: i for i, n in enumerate(found.names)}
    for i in (0, len(view) - 1):
        state = view.state_dict(i)
        width = view[i]["width"]
        kernel = state["hidden.1.linear.weight"].numpy()
        for a, b in ((0, 0), (3, 5), (width - 1, width - 1)):
            column = names[f"hidden.1.linear.weight[{a * 12 + b}]"]
            assert found.values[i, column] == kernel[a, b]
        if width < 12:
            assert found.values[i, names[f"hidden.1.linear.weight[{11 * 12 + 11}]"]] == 0
    assert "hidden.0.norm.running_mean[0]" not in names


def test_controls_know_nothing_but_what_they_say(view):
    hyper = hyperparameter_features(view)
    assert {n.split("=")[0].removeprefix("log ") for n in hyper.names} == {
        "width", "norm", "batch_size",
    }  # fmt: skip
    without = hyperparameter_features(view, ("batch_size",))
    assert not any("batch_size" in n for n in without.names)
    assert epoch_features(view).names == ("epoch", "log epoch")


@given(
    n=st.integers(3, 40),
    seed=st.integers(0, 99),
)
def test_scores_are_those_of_other_libraries(n, seed):
    rng = np.random.default_rng(seed)
    y, p = rng.normal(size=n), rng.integers(0, 5, n).astype(float)
    assert r_squared(y, p) == pytest.approx(r2_score(y, p))
    pairs = [(i, j) for i in range(n) for j in range(i)]
    s = sum(np.sign(y[i] - y[j]) * np.sign(p[i] - p[j]) for i, j in pairs)
    ties = sum(p[i] == p[j] for i, j in pairs)
    if ties < len(pairs):
        want = s / np.sqrt(len(pairs) * (len(pairs) - ties))
        assert kendall_tau(y, p) == pytest.approx(want, abs=1e-12)
    else:
        assert kendall_tau(y, p) == 0
    assert accuracy(p.astype(int), np.zeros(n, int)) == (p == 0).mean()


def test_intervals_resample_runs_and_not_rows():
    """With all rows of a run equal, more rows per run must not narrow the interval."""
    rng = np.random.default_rng(0)
    truth, noise = rng.normal(size=40), rng.normal(size=40)
    once = score_predictions(truth, truth + noise, np.arange(40), classes=False)
    runs = np.repeat(np.arange(40), 25)
    often = score_predictions(truth[runs], (truth + noise)[runs], runs, classes=False)
    width = [s["r2"].high - s["r2"].low for s in (once, often)]
    assert width[1] == pytest.approx(width[0], rel=0.05)
    assert once["r2"].low < once["r2"].value < once["r2"].high
    assert once["r2"].value == pytest.approx(often["r2"].value)


def test_folds_keep_groups_and_do_not_depend_on_order(view):
    fold = folds_of(view, "seed", 4)
    for seed in range(SEEDS):
        assert len(set(fold[view["seed"] == seed])) == 1
    assert np.bincount(fold).tolist() == [len(view) // 4] * 4
    order = np.random.default_rng(0).permutation(len(view))
    np.testing.assert_array_equal(folds_of(view.take(order), "seed", 4), fold[order])
    assert folds_of(view, "width", 5).max() == 1  # no more folds than groups
    with pytest.raises(QueryError, match="at least 2"):
        folds_of(view[view["seed"] == 1], "seed", 5)


def test_crossed_folds_share_neither_kind_of_group_and_test_every_row_once(view):
    parts = _parts(view, "cell", "seed", 5)
    assert len(parts) == 9
    assert sorted(np.concatenate([test for _, test in parts])) == list(range(len(view)))
    cell, seed = group_keys(view, "cell"), group_keys(view, "seed")
    for train, test in parts:
        assert not set(cell[train]) & set(cell[test])
        assert not set(seed[train]) & set(seed[test])
    rows = benchmark(
        view, tasks=["norm"], models=["ridge"], inputs=["statistics"], by="cell", apart="seed"
    )
    assert rows[0].rows == len(view)


def test_ridge_is_scikit_learns_with_the_strength_that_groups_choose():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(30), 4)
    base = rng.normal(size=(30, 6))[groups]
    x = (base + 0.1 * rng.normal(size=base.shape)).astype(np.float32)
    y = np.stack([base @ rng.normal(size=6) + 0.3 * rng.normal(size=120), rng.normal(size=120)], 1)
    train, test = np.flatnonzero(groups < 24), np.flatnonzero(groups >= 24)
    wide = np.concatenate([x, np.zeros((120, 200), np.float32) + rng.normal(size=(120, 200))], 1)
    for table in (x, wide.astype(np.float32)):  # from columns, and from the Gram matrix
        ours = fit_ridge(table, y, train, test, groups)
        scaled = (table - table[train].mean(0)) / table[train].std(0)
        paths = [
            Ridge(alpha=10.0**e).fit(scaled[train], y[train]).predict(scaled[test])
            for e in range(-3, 7)
        ]
        for target in range(2):
            gaps = [np.abs(ours[:, target] - p[:, target]).max() for p in paths]
            assert min(gaps) < 1e-4
        # what is noise is shrunk away
        assert np.abs(ours[:, 1] - y[train, 1].mean()).max() < 0.5
    gaps = x.copy()
    gaps[groups == 3, 2] = np.nan
    gaps[5, 1] = 3e38
    assert np.isfinite(fit_ridge(gaps, y, train, test, groups)).all()
    # where nothing varies, the mean is all that can be said
    constant = fit_ridge(np.ones((120, 2), np.float32), y, train, test, groups)
    np.testing.assert_allclose(constant, np.tile(y[train].mean(0), (24, 1)))


def test_boosting_keeps_classes_and_numbers_apart():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 4)).astype(np.float32)
    numbers = Target("n", x[:, 0].astype(float) * 3 + 7)
    classes = Target("c", (x[:, 1] > 0).astype(np.int64), ("no", "yes"))
    constant = Target("k", np.ones(300))
    train, test = np.arange(200), np.arange(200, 300)
    a, b, c = fit_boosting(x, [numbers, classes, constant], train, test, iterations=60)
    assert r_squared(numbers.values[test], a) > 0.9
    assert accuracy(classes.values[test], b) > 0.9
    assert (c == 1).all()


def test_raw_tables_go_through_components_of_the_training_rows():
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=(200, 3))
    x = (hidden @ rng.normal(size=(3, 1500))).astype(np.float32)
    target = Target("n", hidden[:, 0])
    train, test = np.arange(150), np.arange(150, 200)
    (found,) = fit_boosting(x, [target], train, test)
    assert r_squared(target.values[test], found) > 0.6
    poisoned = x.copy()
    poisoned[test[1:]] = 1e6  # other test rows must not matter
    (again,) = fit_boosting(poisoned, [target], train, test)
    assert again[0] == found[0]


def test_the_network_learns_from_graphs_and_scores_every_test_row(view):
    targets = make_targets(view, ["test_accuracy", "norm"])
    fold = folds_of(view, "seed", 4)
    train, test = np.flatnonzero(fold > 0), np.flatnonzero(fold == 0)
    ticks = []
    training = NeuralTraining(epochs=40, batch=16)
    scores = fit_neural(view, targets, train, test, training=training, tick=lambda: ticks.append(1))
    assert len(ticks) == 40
    assert [s.shape for s in scores] == [(len(test), 1), (len(test), 2)]
    predicted = targets[0].decoded(scores[0], train)
    assert r_squared(targets[0].values[test], predicted) > 0.5
    assert accuracy(targets[1].values[test], targets[1].decoded(scores[1], train)) == 1
    again = fit_neural(view, targets, train, test[::-1], training=training)
    np.testing.assert_allclose(again[0][::-1], scores[0], atol=1e-4)


@pytest.fixture(scope="module")
def rows(view):
    shares = []
    found = benchmark(
        view,
        tasks=["test_accuracy", "norm", "batch_size"],
        models=("ridge", "boosting"),
        folds=4,
        progress=shares.append,
    )
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1)
    return found


def test_weights_are_found_to_say_what_the_controls_cannot(rows):
    score = {(r.task, r.inputs, r.model): r.score.value for r in rows}
    assert score["test_accuracy", "statistics", "boosting"] > 0.9
    for control in CONTROLS:
        assert score["test_accuracy", control, "boosting"] < 0.2
        assert score["norm", control, "ridge"] < 0.8  # the norm is not among its own features
        assert score["batch_size", control, "ridge"] < 0.2
    assert score["norm", "statistics", "ridge"] == 1
    assert score["batch_size", "statistics", "boosting"] < 0.2  # nothing in these weights says it
    assert {r.control for r in rows if r.inputs in CONTROLS} == {True}
    assert {r.inputs for r in rows} == set(INPUTS)
    assert all((r.tau is None) == (r.metric == "accuracy") for r in rows)


def test_table_picture_and_json(rows, tmp_path):
    table = bench_table(rows)
    assert "test_accuracy R²" in table
    assert "norm acc (chance 0.50)" in table
    assert table.count("control ") == 6
    json.dumps([row.to_json() for row in rows], allow_nan=False)
    path = bench_plot(rows, tmp_path / "bench.png", title="a title")
    assert path.stat().st_size > 20_000


def test_tasks_are_chosen_and_refused_with_reasons(view):
    names = [t.name for t in make_targets(view)]
    assert names[:2] == ["test_accuracy", "gap"]
    assert set(names[2:]) == {"width", "norm", "batch_size"}
    wide = make_targets(view, ["lr"] if "lr" in view.zoo.varying else ["width"])
    assert wide[0].labels == ()
    with pytest.raises(QueryError, match="does not vary"):
        make_targets(view, ["lr"])
    with pytest.raises(QueryError, match="unknown column 'nrom'"):
        make_targets(view, ["nrom"])
    with pytest.raises(QueryError, match="inputs: epoch"):
        benchmark(view, inputs=["weights"])
    assert len(benchmark(view, tasks=["norm"], models=["ridge"], inputs=["epoch"], limit=40)) == 1
