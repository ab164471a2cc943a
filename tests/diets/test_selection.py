"""Selections: exact counts, no bias of order, balance, strata; properties over many inputs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zoo.diets.scores.chance import chance
from zoo.diets.selection import SELECTIONS, Choosing, class_counts, select, tie_break
from zoo.diets.strata import STRATA, stratified
from zoo.errors import DataError, UnknownNameError

RULES = sorted(SELECTIONS)


def example(n=200, classes=4, seed=0, ties=False):
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 6, n).astype(float) if ties else rng.normal(size=n)
    return scores, rng.integers(0, classes, n)


@given(
    n=st.integers(1, 120), keep=st.floats(0.01, 1.0), rule=st.sampled_from(RULES),
    balance=st.sampled_from(["none", "class"]), share=st.floats(0, 1), ties=st.booleans(),
    seed=st.integers(0, 9),
)  # fmt: skip
@settings(max_examples=150, deadline=None)
def test_every_rule_keeps_exactly_as_many_as_asked(n, keep, rule, balance, share, ties, seed):
    scores, labels = example(n, seed=seed, ties=ties)
    rest = (1 - keep) * share
    given_rule = Choosing(
        keep=keep, select=rule, offset=rest, trim=rest, balance=balance, seed=seed
    )
    kept = select(scores, labels, given_rule)
    assert len(kept) == max(1, round(keep * n))
    assert (np.diff(kept) > 0).all()
    assert kept.min() >= 0
    assert kept.max() < n


@pytest.mark.parametrize("balance", ["none", "class"])
@pytest.mark.parametrize("rule", RULES)
def test_the_order_of_the_examples_does_not_matter(rule, balance):
    """Also with ties, which a hash of the example's id breaks and not its place."""
    scores, labels = example(ties=True)
    ids = np.arange(len(scores)) * 3 + 1
    turn = np.random.default_rng(3).permutation(len(scores))
    given_rule = Choosing(keep=0.3, select=rule, trim=0.1, offset=0.2, balance=balance, seed=4)
    one = select(scores, labels, given_rule, ids=ids)
    other = select(scores[turn], labels[turn], given_rule, ids=ids[turn])
    np.testing.assert_array_equal(one, other)


def test_hardest_and_easiest_are_disjoint_and_right():
    scores, labels = example()
    hard = select(scores, labels, Choosing(keep=0.5, select="hardest"))
    easy = select(scores, labels, Choosing(keep=0.5, select="easiest"))
    assert not set(hard) & set(easy)
    assert scores[hard].min() > scores[easy].max()
    middle = select(scores, labels, Choosing(keep=0.2, select="middle"))
    np.testing.assert_array_equal(np.sort(np.argsort(scores)[80:120]), middle)
    window = select(scores, labels, Choosing(keep=0.2, select="window", offset=0.7))
    np.testing.assert_array_equal(np.sort(np.argsort(scores)[140:180]), window)
    trimmed = select(scores, labels, Choosing(keep=0.2, select="hardest", trim=0.1))
    np.testing.assert_array_equal(np.sort(np.argsort(scores)[140:180]), trimmed)


def test_a_constant_score_is_the_random_diet():
    _, labels = example()
    constant = np.full(len(labels), 7.25)
    for rule in ("hardest", "easiest", "stratified"):
        for seed in range(3):
            given_rule = Choosing(keep=0.3, select=rule, seed=seed)
            kept = select(constant, labels, given_rule)
            if rule == "hardest":
                random = select(chance(len(labels)), labels, given_rule)
                np.testing.assert_array_equal(kept, random)
    # over many seeds each example is kept as often as any other
    times = np.zeros(len(labels))
    for seed in range(400):
        times[select(constant, labels, Choosing(keep=0.3, seed=seed))] += 1
    spread = np.sqrt(400 * 0.3 * 0.7)
    assert abs(times - 120).max() < 5 * spread


def test_ties_do_not_favour_the_front():
    """A data set sorted by class, all scores equal: every class keeps about its share."""
    labels = np.repeat(np.arange(10), 100)
    kept = select(np.zeros(1000), labels, Choosing(keep=0.5, seed=1))
    counts = class_counts(labels, kept, 10)
    assert counts.sum() == 500
    assert counts.min() > 25


@given(keep=st.floats(0.02, 1.0), rule=st.sampled_from(RULES), seed=st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_class_balance_is_within_one(keep, rule, seed):
    scores, labels = example(211, 5, seed)
    kept = select(scores, labels, Choosing(keep=keep, select=rule, balance="class", seed=seed))
    counts = class_counts(labels, kept, 5)
    sizes = np.bincount(labels, minlength=5)
    assert counts.sum() == max(1, round(keep * 211))
    assert (np.abs(counts - sizes * (counts.sum() / 211)) < 1 + 1e-9).all()


def test_strata_share_the_budget_from_the_smallest_up():
    """A hand-worked case: strata of 2, 10 and 30 examples, budget 24 = 2 + 10 + 12."""
    scores = np.concatenate([np.zeros(30), np.full(10, 0.5), np.ones(2)])
    words = np.random.default_rng(0).integers(0, 2**32, 42).astype(np.uint32)
    kept = stratified(scores, words, 24)
    assert len(set(kept)) == 24
    assert [int((scores[kept] == v).sum()) for v in (1.0, 0.5, 0.0)] == [2, 10, 12]
    few = stratified(scores, words, 6)
    assert [int((scores[few] == v).sum()) for v in (1.0, 0.5, 0.0)] == [2, 2, 2]


def test_strata_cover_the_range_that_hardest_leaves_out():
    scores = np.random.default_rng(0).normal(size=2000)
    labels = np.zeros(2000, dtype=np.int64)
    spread = select(scores, labels, Choosing(keep=0.1, select="stratified", trim=0.1))
    hard = select(scores, labels, Choosing(keep=0.1))
    cut = np.sort(scores)[1800]
    assert scores[spread].max() < cut <= scores[hard].min()
    edges = np.linspace(scores.min(), cut, STRATA + 1)
    filled = np.unique(np.digitize(scores[spread], edges))
    assert len(filled) > 0.8 * STRATA


def test_the_tie_break_is_a_function_of_seed_and_id():
    assert tie_break(np.array([5, 900]), 3)[1] == tie_break(np.array([900]), 3)[0]
    assert tie_break(np.array([900]), 4)[0] != tie_break(np.array([900]), 3)[0]
    # a change here changes what every diet with ties keeps
    assert tie_break(np.arange(3), 0).tolist() == GOLDEN


GOLDEN = [2810492536, 2329287930, 2418513141]


def test_bad_scores_are_refused():
    with pytest.raises(DataError, match="1 not finite"):
        select(np.array([0.0, np.nan]), np.zeros(2, dtype=np.int64), Choosing(keep=0.5))
    with pytest.raises(DataError, match="3 labels"):
        select(np.zeros(2), np.zeros(3, dtype=np.int64), Choosing(keep=0.5))
    with pytest.raises(UnknownNameError, match="unknown selection"):
        select(np.zeros(2), np.zeros(2, dtype=np.int64), Choosing(keep=0.5, select="hardst"))
