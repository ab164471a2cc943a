"""The phase rule: every branch, missing numbers, margins, cuts and confidence."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zoo.errors import SpecError, UnknownNameError
from zoo.phases import (
    INPUTS,
    PHASES,
    SETTINGS,
    Cells,
    CellSample,
    label,
    otsu_cut,
    thresholds,
)

NAN = math.nan
PUBLISHED = SETTINGS["published"]


def cells_of(rows, *, classes=10, bad=None, samples=(), pool=None):
    """Return cells from mappings input → value (and input_se → standard error)."""
    n = len(rows)
    names = [str(i) for i in range(n)]
    return Cells(
        load=np.array(names),
        temperature=np.array(names),
        values={k: np.array([float(r.get(k, NAN)) for r in rows]) for k in INPUTS},
        errors={k: np.array([float(r.get(f"{k}_se", NAN)) for r in rows]) for k in INPUTS},
        chance_loss=np.full(n, math.log(classes)),
        bad_share=np.zeros(n) if bad is None else np.array(bad, dtype=float),
        ids=np.array(names),
        pool=np.array(pool or [""] * n),
        samples=samples,
    )


def row(loss, mc, cka, **more):
    return {"train_loss": loss, "mode_connectivity": mc, "cka": cka, **more}


TABLE = [
    (row(0.5, -3.0, 0.4), "I"),
    (row(0.5, -0.001, 0.9), "I"),
    (row(0.5, 0.0, 0.4), "II"),
    (row(0.5, 4.0, 0.9), "II"),
    (row(0.0101, 1.0, 0.9), "II"),
    (row(0.01, 1.0, 0.9), "IV-B"),
    (row(0.001, -1.51, 0.9), "III"),
    (row(0.001, -1.5, 0.9), "IV-B"),
    (row(0.001, 0.5, 0.72), "IV-B"),
    (row(0.001, 0.0, 0.71), "IV-A"),
    (row(0.001, 0.0, 0.2), "IV-A"),
    (row(2.08, -9.0, 0.2), "X"),
    (row(math.inf, -9.0, 0.2), "X"),
]


@pytest.mark.parametrize(("numbers", "phase"), TABLE)
def test_every_branch(numbers, phase):
    found = label(cells_of([numbers]), PUBLISHED)
    assert found.phases.tolist() == [phase]
    assert found.decision.candidates.tolist() == [phase]
    assert found.counts()[phase] == 1
    assert sum(found.counts().values()) == 1


@pytest.mark.parametrize(
    ("numbers", "candidates", "by"),
    [
        (row(NAN, -3, 0.9), "I|III", ""),
        (row(NAN, 0.5, 0.9), "II|IV-B", ""),
        (row(NAN, -1, 0.2), "I|IV-A", ""),
        (row(0.5, NAN, 0.9), "I|II", "train_loss"),
        (row(0.001, NAN, 0.9), "III|IV-B", "train_loss"),
        (row(0.001, 0, NAN), "IV-A|IV-B", "train_loss"),
        (row(NAN, NAN, NAN), "I|II|III|IV-A|IV-B", ""),
        ({"train_error": 3.0}, "I|II", "train_error"),
        ({"lambda_max": 5.0}, "III|IV-A|IV-B", "lambda_max"),
        ({"trace": 500.0}, "I|II", "trace"),
    ],
)
def test_what_is_missing_leaves_phases_open(numbers, candidates, by):
    found = label(cells_of([numbers]), PUBLISHED)
    assert found.phases.tolist() == ["undetermined"]
    assert found.decision.candidates.tolist() == [candidates]
    assert found.decision.hard_by.tolist() == [by]
    assert np.isnan(found.confidence[0])


def test_a_missing_number_that_does_not_matter_is_not_missed():
    rows = [row(0.5, -3, NAN), row(0.001, -3, NAN), row(5.0, NAN, NAN)]
    assert label(cells_of(rows), PUBLISHED).phases.tolist() == ["I", "III", "X"]
    # the next hardness test stands in
    rows = [row(NAN, -3, NAN, lambda_max=50.0), row(NAN, 0, 0.8, train_error=0.05)]
    found = label(cells_of(rows), PUBLISHED)
    assert found.phases.tolist() == ["I", "IV-B"]
    assert found.decision.hard_by.tolist() == ["lambda_max", "train_error"]


def test_cells_with_a_majority_of_bad_models_are_x():
    rows = [row(0.001, 0, 0.9)] * 3
    found = label(cells_of(rows, bad=[0.4, 0.5, 0.6]), PUBLISHED)
    assert found.phases.tolist() == ["IV-B", "IV-B", "X"]
    stricter = thresholds("published", {"bad_share": 0.3})
    assert label(cells_of(rows, bad=[0.2, 0.4, 0.6]), stricter).phases.tolist() == [
        "IV-B",
        "X",
        "X",
    ]


def naive(numbers, limits):
    """The rule for one cell, as prose would say it."""
    if numbers["train_loss"] > limits.collapse * math.log(10):
        return "X"
    if numbers[limits.active[0]] > getattr(limits, limits.active[0]):
        return "I" if numbers["mode_connectivity"] < limits.optimised else "II"
    if numbers["mode_connectivity"] < -limits.connected:
        return "III"
    return "IV-B" if numbers["cka"] > limits.cka else "IV-A"


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "train_loss": st.sampled_from([0.0, 0.009, 0.011, 0.5, 2.0, 2.2]),
                "train_error": st.sampled_from([0.0, 0.5, 2.0, 80.0]),
                "mode_connectivity": st.floats(-5, 5),
                "cka": st.floats(-0.2, 1),
            }
        ),
        min_size=1,
        max_size=8,
    ),
    st.sampled_from([("train_loss",), ("train_error",), ("train_error", "train_loss")]),
)
def test_the_rule_equals_the_plain_one_and_cells_do_not_mix(rows, tests):
    limits = thresholds("published", {"train_error": 1.0, "cka": 0.5}, tests)
    found = label(cells_of(rows), limits)
    assert found.phases.tolist() == [naive(r, limits) for r in rows]
    for n, numbers in enumerate(rows):
        alone = label(cells_of([numbers]), limits)
        assert alone.phases[0] == found.phases[n]


def test_margin_is_the_nearest_threshold_in_standard_errors():
    errors = {"train_loss_se": 0.002, "mode_connectivity_se": 0.5, "cka_se": 0.01}
    rows = [
        row(0.05, -3.0, 0.4, **errors),  # loss 20, mc 6
        row(0.001, -2.0, 0.9, **errors),  # loss 4.5, mc 1
        row(0.001, 0.0, 0.72, **errors),  # loss 4.5, mc 3, cka 1
        row(0.009, 0.0, 0.9, **errors),  # loss 0.5
        row(0.001, 0.0, 0.9),
        row(2.2, 0.0, 0.9, train_loss_se=0.1),
    ]
    found = label(cells_of(rows), PUBLISHED).decision
    limit = 0.9 * math.log(10)
    expected = [6, 1, 1, 0.5, NAN, (2.2 - limit) / 0.1]
    np.testing.assert_allclose(found.margin, expected, rtol=1e-9)
    # where no standard error is known, neither is whether a boundary is near
    np.testing.assert_array_equal(found.boundary, [0, 0, 0, 1, NAN, 0])
    wide = thresholds("published", {"boundary": 2.0})
    near = label(cells_of(rows), wide).decision.boundary
    np.testing.assert_array_equal(near, [0, 1, 1, 1, NAN, 1])


def test_seeds_without_spread_are_on_a_threshold_or_off_it():
    same = {"train_loss_se": 0.0, "mode_connectivity_se": 0.0, "cka_se": 0.0}
    found = label(cells_of([row(0.001, 0, 0.8, **same), row(0.01, 0, 0.8, **same)]), PUBLISHED)
    assert found.decision.margin.tolist() == [math.inf, 0.0]
    assert found.decision.boundary.tolist() == [False, True]


# -- the cut -----------------------------------------------------------------------------------


def brute_otsu(values):
    x = np.sort(values)
    best, cut = -1.0, None
    for k in range(1, len(x)):
        if x[k] == x[k - 1]:
            continue
        # within-class variance, the other form of the same criterion
        within = ((x[:k] - x[:k].mean()) ** 2).sum() + ((x[k:] - x[k:].mean()) ** 2).sum()
        if cut is None or within < best:
            best, cut = within, (x[k - 1] + x[k]) / 2
    return cut


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(-50, 50), min_size=4, max_size=40))
def test_otsu_equals_the_least_variance_within(values):
    x = np.array(values, dtype=float) / 7
    found = otsu_cut(x)
    if len(set(values)) == 1:
        assert found is None
        return

    def within(cut):
        a, b = x[x < cut], x[x > cut]
        return a.var() * len(a) + b.var() * len(b)

    assert within(found) == pytest.approx(within(brute_otsu(x)), abs=1e-9)


def test_otsu_finds_a_gap():
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(0.6, 0.03, 30), rng.normal(0.85, 0.03, 30), [NAN]])
    assert 0.68 < otsu_cut(x) < 0.77
    assert otsu_cut(np.array([0.1, 0.9, 0.5])) is None


def test_the_cut_comes_from_the_finished_connected_cells_of_a_pool():
    easy = [row(0.001, 0.0, c) for c in (0.80, 0.82, 0.94, 0.96)]
    lower = [row(0.001, 0.0, c) for c in (0.30, 0.32, 0.50, 0.52)]
    other = [row(0.5, -3, 0.01), row(0.001, -9, 0.02), row(2.3, 0, 0.03)]
    limits = thresholds("published", {"cka": None})
    pool = ["a"] * 4 + ["b"] * 4 + ["a"] * 3
    found = label(cells_of(easy + lower + other, pool=pool), limits)
    assert found.phases.tolist() == ["IV-A", "IV-A", "IV-B", "IV-B"] * 2 + ["I", "III", "X"]
    assert found.cut.cka[0] == pytest.approx(0.88)
    assert found.cut.cka[4] == pytest.approx(0.41)
    assert found.cut.source[0] == "Otsu's cut of the 4 finished, connected cells of a"
    # too few of them: nothing is guessed
    few = label(cells_of(easy[:3]), limits)
    assert few.phases.tolist() == ["undetermined"] * 3
    assert few.decision.candidates.tolist() == ["IV-A|IV-B"] * 3
    assert "too few" in few.cut.source[0]


# -- confidence --------------------------------------------------------------------------------


def sample_of(losses, pairs_mc, pairs_cka, bad=None):
    S = len(losses)
    a, b = np.array(list(itertools.combinations(range(S), 2))).T
    members = {"train_loss": np.array(losses, dtype=float)}
    pairs = {"mode_connectivity": (a, b, pairs_mc), "cka": (a, b, pairs_cka)}
    return CellSample(members, np.zeros(S, bool) if bad is None else np.array(bad), pairs)


def test_confidence_over_seeds():
    sure, torn = np.full(10, 0.9), np.array([0.9, 0.9, 0.9, 0.9, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3])
    zero = np.zeros(10)
    samples = (sample_of([0.001] * 5, zero, sure), sample_of([0.001] * 5, zero, torn))
    rows = [row(0.001, 0, 0.9), row(0.001, 0, torn.mean())]
    limits = thresholds("published", {"cka": float(torn.mean()) + 0.02})
    found = label(cells_of(rows, samples=samples), limits)
    assert found.confidence_from == "seeds"
    assert found.phases.tolist() == ["IV-B", "IV-A"]
    assert found.confidence[0] == 1.0
    assert 0.2 < found.confidence[1] < 0.9
    again = label(cells_of(rows, samples=samples), limits)
    np.testing.assert_array_equal(found.confidence, again.confidence)


def test_confidence_equals_the_enumeration_of_all_resamples():
    losses = [0.002, 0.002, 0.03]
    mc, cka = np.array([-2.0, 0.0, 0.0]), np.array([0.9, 0.6, 0.5])
    cell = row(np.mean(losses), mc.mean(), cka.mean())
    found = label(
        cells_of([cell], samples=(sample_of(losses, mc, cka),)),
        thresholds("published", {}, ("train_loss",)), draws=20000,
    )  # fmt: skip
    pairs, same, total = [(0, 1), (0, 2), (1, 2)], 0, 0
    for drawn in itertools.product(range(3), repeat=3):
        times = np.bincount(drawn, minlength=3)
        weight = np.array([times[a] * times[b] for a, b in pairs])
        if not weight.sum():
            continue
        numbers = row(np.mean(np.take(losses, drawn)), weight @ mc / weight.sum(),
                      weight @ cka / weight.sum())  # fmt: skip
        total += 1
        same += naive(numbers, PUBLISHED) == found.phases[0]
    assert 0 < same < total
    assert found.confidence[0] == pytest.approx(same / total, abs=0.02)


def test_confidence_of_x_counts_the_bad_models():
    pairs = np.zeros(10)
    sample = sample_of([0.01] * 5, pairs, pairs, bad=[True, True, True, False, False])
    found = label(cells_of([row(0.01, 0, 0)], bad=[0.6], samples=(sample,)), PUBLISHED)
    assert found.phases.tolist() == ["X"]
    # binomial(5, 0.6) > 2
    expected = sum(math.comb(5, k) * 0.6**k * 0.4 ** (5 - k) for k in (3, 4, 5))
    assert found.confidence[0] == pytest.approx(expected, abs=0.05)


def test_tests_that_disagree_lower_the_confidence():
    rows = [
        row(0.02, -3.0, 0.9, train_error=0.0),
        row(0.02, -3.0, 0.9, train_error=3.0),
        row(0.02, -3.0, 0.9, train_error=0.0, lambda_max=100.0, trace=900.0),
    ]
    found = label(cells_of(rows), PUBLISHED)
    assert found.phases.tolist() == ["I", "I", "I"]
    assert found.confidence_from == "tests"
    assert found.confidence.tolist() == [0.5, 1.0, 0.75]


def test_confidence_from_standard_errors_is_that_of_a_normal():
    errors = {"train_loss_se": 1e-6, "mode_connectivity_se": 1.0, "cka_se": 1e-6}
    found = label(cells_of([row(0.5, -1.0, 0.9, **errors)]), PUBLISHED, draws=40000)
    assert found.confidence_from == "standard errors"
    assert found.confidence[0] == pytest.approx(0.5 * (1 + math.erf(1 / math.sqrt(2))), abs=0.01)


# -- thresholds --------------------------------------------------------------------------------


def test_settings_say_where_every_threshold_comes_from():
    assert set(SETTINGS) == {"published", "zoo"}
    for name in SETTINGS:
        limits = SETTINGS[name]
        used = [k for k, v in limits.numbers().items() if v is not None or k == "cka"]
        assert {*used, "hard_tests"} <= set(limits.sources), name
    mine = thresholds("zoo", {"train_error": 2.0})
    assert mine.sources["train_error"] == "given by the user"
    assert mine.sources["connected"] == SETTINGS["zoo"].sources["connected"]
    assert thresholds("zoo") == SETTINGS["zoo"]


def test_wrong_thresholds_are_all_named():
    with pytest.raises(SpecError) as error:
        thresholds("zoo", {"cak": 0.5, "connected": None})
    assert "did you mean 'cka'" in str(error.value)
    assert "connected" in str(error.value)
    with pytest.raises(SpecError, match="2 problems"):
        thresholds("zoo", {"train_error": NAN, "bad_share": 2.0})
    with pytest.raises(SpecError, match="unknown test"):
        thresholds("zoo", {}, ("loss",))
    with pytest.raises(SpecError, match="all are off"):
        thresholds("zoo", {"train_error": None}, ("train_error",))
    with pytest.raises(UnknownNameError, match="published"):
        thresholds("publish")
    assert PHASES == ("X", "I", "II", "III", "IV-A", "IV-B")
