"""Normalisation, label noise and subsets."""

import numpy as np
import pytest
import torch
from scipy import stats

from zoo.data import NORMALIZATIONS, load, noisy_labels, prepare, training_subset
from zoo.data.base import Arrays, DataSource, make_dataset
from zoo.errors import DataError, UnknownNameError

RANDOM = np.random.default_rng(1)
SHAPES = {"flat": (7,), "1-d": (2, 9), "2-d": (3, 4, 5)}


def made(shape, dtype=np.uint8, train=5000):
    about = DataSource("x", "generated", "", "", None, 4, None, read=lambda _: None)
    x = RANDOM.integers(0, 200, (train + 50, *shape)).astype(dtype)
    y = RANDOM.integers(0, 4, train + 50)
    return make_dataset(about, Arrays(x[:train], y[:train], x[train:], y[train:]))


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_standard_gives_each_channel_mean_0_and_deviation_1(shape, dtype):
    data = made(shape, dtype)
    ready = prepare(data, "standard")
    axes = (0, *range(2, data.train_x.ndim))
    wide = ready.train_x.astype(np.float64)
    np.testing.assert_allclose(wide.mean(axis=axes), 0, atol=1e-6)
    np.testing.assert_allclose(wide.std(axis=axes), 1, atol=1e-6)
    np.testing.assert_allclose(
        ready.mean.ravel(), data.train_x.astype(np.float64).mean(axis=axes), rtol=1e-6
    )
    assert ready.mean.shape == ready.scale.shape == (shape[0], *(1,) * (len(shape) - 1))


@pytest.mark.parametrize("name", list(NORMALIZATIONS))
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_the_recorded_numbers_undo_the_map(shape, name):
    data = made(shape, train=100)
    ready = prepare(data, name)
    for raw, x in ((data.train_x, ready.train_x), (data.test_x, ready.test_x)):
        assert x.dtype == np.float32
        np.testing.assert_allclose(x * ready.scale + ready.mean, raw, atol=1e-3)
    np.broadcast_to(ready.mean, shape)
    np.broadcast_to(ready.scale, shape)


def test_unit_maps_the_training_range_to_0_and_1():
    ready = prepare(load("digits"), "unit")
    assert (ready.train_x.min(), ready.train_x.max()) == (0, 1)
    assert ready.scale.item() == 16


def test_none_leaves_the_values():
    data = load("digits")
    np.testing.assert_array_equal(prepare(data, "none").train_x, data.train_x)


def test_a_constant_channel_becomes_zero():
    data = made((2, 9), train=100)
    x = data.train_x.copy()
    x[:, 0] = 3
    about = DataSource("x", "generated", "", "", None, 4, None, read=lambda _: None)
    constant = make_dataset(about, Arrays(x, data.train_y, data.test_x, data.test_y))
    for name in NORMALIZATIONS:
        assert np.isfinite(prepare(constant, name).train_x).all()
    assert (prepare(constant, "standard").train_x[:, 0] == 0).all()
    flat = make_dataset(about, Arrays(x[:, 0], data.train_y, data.test_x[:, 0], data.test_y))
    assert (prepare(flat, "unit").train_x == 0).all()


def test_statistics_are_of_the_training_set_alone():
    data = load("digits")
    ready = prepare(data, "standard")
    assert abs(float(ready.test_x.mean())) > 1e-4
    np.testing.assert_allclose(ready.mean.item(), data.train_x.mean(), rtol=1e-6)


def test_prepared_arrays_belong_to_the_caller():
    data = load("mnist1d")
    before = data.train_x.copy()
    ready = prepare(data, "none")
    torch.from_numpy(ready.train_x).zero_()
    torch.from_numpy(ready.train_y).zero_()
    np.testing.assert_array_equal(data.train_x, before)
    assert data.train_y.any()


def test_an_unknown_normalisation_is_refused():
    with pytest.raises(UnknownNameError, match="unknown normalisation 'zca'"):
        prepare(load("digits"), "zca")


# -- label noise -----------------------------------------------------------------------------

LABELS = RANDOM.integers(0, 10, 1437)


@pytest.mark.parametrize("noise", [0.0, 0.0003, 0.1, 1 / 3, 0.5, 0.999, 1.0])
@pytest.mark.parametrize("classes", [10, 11, 1000])
def test_exactly_so_many_labels_are_wrong(noise, classes):
    noisy = noisy_labels(LABELS, classes, noise=noise, seed=3)
    assert (noisy != LABELS).sum() == round(noise * len(LABELS))
    assert noisy.dtype == np.int64
    assert noisy.min() >= 0
    assert noisy.max() < classes


def test_two_classes_swap():
    labels = LABELS % 2
    np.testing.assert_array_equal(noisy_labels(labels, 2, noise=1.0, seed=0), 1 - labels)


def test_noise_does_not_touch_its_input():
    labels = LABELS.copy()
    for noise in (0.0, 0.5):
        noisy_labels(labels, 10, noise=noise, seed=0)[:] = -1
    np.testing.assert_array_equal(labels, LABELS)


def test_every_other_label_is_as_likely():
    labels = np.full(90_000, 4)
    counts = np.bincount(noisy_labels(labels, 10, noise=1.0, seed=5), minlength=10)
    assert counts[4] == 0
    assert stats.chisquare(np.delete(counts, 4)).pvalue > 1e-4


def test_every_example_is_as_likely():
    hits = sum(
        (noisy_labels(LABELS[:50], 10, noise=0.2, seed=s) != LABELS[:50]) for s in range(2000)
    )
    assert abs(hits / 2000 - 0.2).max() < 5 * np.sqrt(0.16 / 2000)


def test_noise_is_nested_and_seeded():
    low, high = (noisy_labels(LABELS, 10, noise=n, seed=7) for n in (0.2, 0.6))
    wrong = low != LABELS
    np.testing.assert_array_equal(low[wrong], high[wrong])
    assert not np.array_equal(low, noisy_labels(LABELS, 10, noise=0.2, seed=8))
    np.testing.assert_array_equal(low, noisy_labels(LABELS, 10, noise=0.2, seed=7))


@pytest.mark.parametrize(
    ("noise", "classes"), [(-0.1, 10), (1.1, 10), (float("nan"), 10), (0.5, 1)]
)
def test_bad_noise_is_refused(noise, classes):
    with pytest.raises(DataError, match="label_noise"):
        noisy_labels(np.zeros(5, dtype=np.int64), classes, noise=noise, seed=0)


# -- subsets ---------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 500, 1436, 1437])
def test_a_subset_is_sorted_and_has_no_doubles(size):
    rows = training_subset(1437, size=size, seed=2)
    assert rows.dtype == np.int64
    assert len(rows) == size
    assert (np.diff(rows) > 0).all()
    assert size == 0 or 0 <= rows[0] <= rows[-1] < 1437


def test_subsets_are_nested_and_seeded():
    small, large = (training_subset(1437, size=s, seed=2) for s in (300, 900))
    assert np.isin(small, large).all()
    assert not np.array_equal(small, training_subset(1437, size=300, seed=3))


def test_every_row_is_as_likely():
    hits = np.zeros(40)
    for seed in range(2000):
        hits[training_subset(40, size=10, seed=seed)] += 1
    assert abs(hits / 2000 - 0.25).max() < 5 * np.sqrt(0.1875 / 2000)


@pytest.mark.parametrize("size", [-1, 11])
def test_a_subset_larger_than_the_set_is_refused(size):
    with pytest.raises(DataError, match="train_size"):
        training_subset(10, size=size, seed=0)
