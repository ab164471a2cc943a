"""Weight matching: a permuted copy is found again, and no pair is ever brought further apart."""

from __future__ import annotations

import numpy as np
import pytest

from zoo.architectures import build, initial_row
from zoo.architectures.symmetry import describe, permutation_groups, random_permutation
from zoo.data import DataShape
from zoo.landscape.weight_matching import (
    groups_from_json,
    match_rows,
    match_weights,
    permute_row,
)
from zoo.spec.run import RunSpec

CASES = [
    {"architecture": "mlp", "width": 12, "norm": "none"},
    {"architecture": "mlp", "width": 12, "norm": "batch", "depth": 3},
    {"architecture": "mlp", "width": 12, "norm": "group", "norm_groups": 3},
    {"architecture": "cnn", "width": 8, "norm": "batch"},
    {"architecture": "cnn", "width": 8, "norm": "group", "norm_groups": 4},
]


def network_of(case):
    return build(RunSpec(data="digits", **case), DataShape((1, 8, 8), 10))


def row_of(network, seed):
    row = initial_row(network.layout, init="default", scale=1.0, seed=seed)
    noise = np.random.default_rng(seed).normal(size=row.shape).astype(np.float32)
    return row + 0.1 * noise


@pytest.mark.parametrize("case", CASES, ids=lambda c: "-".join(map(str, c.values())))
def test_a_pure_permutation_is_undone_exactly(case):
    network = network_of(case)
    groups = permutation_groups(network)
    row = row_of(network, 1)
    orders = [random_permutation(g, 5 + i) for i, g in enumerate(groups)]
    moved = permute_row(network.layout, groups, row, orders)
    assert not np.array_equal(moved, row)
    back = match_rows(network.layout, groups, row[None], moved[None])[0]
    np.testing.assert_array_equal(back, row)


@pytest.mark.parametrize("case", CASES, ids=lambda c: "-".join(map(str, c.values())))
def test_two_models_come_nearer_and_blocks_stay_whole(case):
    network = network_of(case)
    groups = groups_from_json(describe(network)["permutation_groups"])
    assert groups == permutation_groups(network)
    a, b = row_of(network, 1), row_of(network, 2)
    orders = match_weights(network.layout, groups, a, b)
    matched = permute_row(network.layout, groups, b, orders)
    assert np.linalg.norm(a - matched) < np.linalg.norm(a - b)
    for group, order in zip(groups, orders, strict=True):
        each = group.size // group.blocks
        assert sorted(order) == list(range(group.size))
        for block in order.reshape(group.blocks, each) // each:
            assert len(set(block)) == 1


def test_rows_that_are_not_finite_are_left_alone():
    network = network_of(CASES[0])
    groups = permutation_groups(network)
    a, b = row_of(network, 1), row_of(network, 2)
    b[3] = np.nan
    np.testing.assert_array_equal(match_rows(network.layout, groups, a[None], b[None])[0], b)


def test_one_layer_is_matched_optimally():
    """Against all permutations, for a network small enough to try them."""
    from itertools import permutations

    network = network_of({"architecture": "mlp", "width": 5, "depth": 1})
    groups = permutation_groups(network)
    a, b = row_of(network, 1), row_of(network, 2)
    found = match_rows(network.layout, groups, a[None], b[None])[0]
    tried = [
        np.linalg.norm(a - permute_row(network.layout, groups, b, [np.array(p)]))
        for p in permutations(range(5))
    ]
    assert np.linalg.norm(a - found) == pytest.approx(min(tried), rel=1e-6)
