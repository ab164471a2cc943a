"""Space-filling designs: seeded, prefix-stable where they can be, and better than chance."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import qmc

from zoo.errors import UnknownNameError
from zoo.spec.points import POINT_METHODS, unit_points

NAMES = ("lr", "width", "dropout")

GOLDEN = {
    "random": [0.9292527180206455, 0.05387634132501051, 0.476761314210136],
    "sobol": [0.5841664443723857, 0.08416644437238574, 0.33416644437238574],
    "lhs": [0.09597604820018153, 0.3453487579701822, 0.8808807263185973],
}


@pytest.mark.parametrize("method", POINT_METHODS.names())
@pytest.mark.parametrize("n", [1, 2, 7, 64, 100])
def test_points_are_in_the_cube_and_repeat(method, n):
    points = unit_points(method, NAMES, n, seed=3)
    assert points.shape == (n, 3)
    assert points.min() >= 0
    assert points.max() < 1
    np.testing.assert_array_equal(points, unit_points(method, NAMES, n, seed=3))
    assert not np.array_equal(points, unit_points(method, NAMES, n, seed=4))


@pytest.mark.parametrize("method", ["random", "sobol"])
def test_a_longer_design_starts_with_the_shorter(method):
    long = unit_points(method, NAMES, 100, seed=1)
    for n in (1, 16, 37, 64, 99):
        np.testing.assert_array_equal(long[:n], unit_points(method, NAMES, n, seed=1))


@pytest.mark.parametrize("method", ["random", "lhs"])
def test_another_axis_leaves_the_values_of_the_others(method):
    few = unit_points(method, ("lr", "width"), 20, seed=1)
    more = unit_points(method, ("lr", "dropout", "width"), 20, seed=1)
    np.testing.assert_array_equal(few[:, 0], more[:, 0])
    np.testing.assert_array_equal(few[:, 1], more[:, 2])


@pytest.mark.parametrize("n", [1, 10, 33])
def test_a_latin_hypercube_has_one_point_a_stratum(n):
    points = unit_points("lhs", NAMES, n, seed=5)
    for column in points.T:
        assert sorted((column * n).astype(int).tolist()) == list(range(n))


@pytest.mark.parametrize("log2_n", [3, 6, 8])
def test_sobol_has_one_point_a_stratum_and_balances_pairs(log2_n):
    n = 2**log2_n
    points = unit_points("sobol", NAMES, n, seed=5)
    for column in points.T:
        assert sorted((column * n).astype(int).tolist()) == list(range(n))
    quadrants = np.unique((points[:, :2] * 2).astype(int), axis=0, return_counts=True)[1]
    assert quadrants.tolist() == [n // 4] * 4


def test_sobol_fills_the_space_better_than_chance():
    def spread(method):
        return np.mean([qmc.discrepancy(unit_points(method, NAMES, 64, seed)) for seed in range(8)])

    assert spread("sobol") < spread("lhs") < spread("random")


def test_the_shifted_sequence_is_a_sobol_sequence():
    plain = qmc.Sobol(3, scramble=False).random_base2(5)
    ours = unit_points("sobol", NAMES, 32, seed=9)
    words = (plain * 2**30).astype(np.int64) ^ (ours * 2**30).astype(np.int64)
    assert (words == words[0]).all()


def test_values_never_change():
    """Run ids depend on these numbers: a change here orphans every sampled zoo."""
    np.testing.assert_allclose(
        unit_points("random", ["lr"], 3, 0)[:, 0], GOLDEN["random"], 0, 1e-15
    )
    np.testing.assert_allclose(unit_points("sobol", ["lr"], 3, 0)[:, 0], GOLDEN["sobol"], 0, 1e-15)
    np.testing.assert_allclose(unit_points("lhs", ["lr"], 3, 0)[:, 0], GOLDEN["lhs"], 0, 1e-15)


def test_an_unknown_method_names_the_nearest():
    with pytest.raises(UnknownNameError, match="did you mean 'sobol'"):
        unit_points("sobool", NAMES, 3, 0)
