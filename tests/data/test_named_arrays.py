"""Named arrays: roles, splits, windows of a sequence, missing targets, what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from zoo.data import load, prepare
from zoo.data.base import DataSource, make_dataset
from zoo.data.shape import DataShape
from zoo.errors import DataError, UnknownNameError
from zoo.train.task_data import split_inputs, split_targets

OWN = DataSource(
    name="npz:own", source="user-path", licence="", citation="", example_shape=None, classes=None,
    sizes=None, read=lambda path: None,
)  # fmt: skip
RNG = np.random.default_rng(0)


def tokens(n=12, T=5, V=7, **changes):
    """Return arrays of tokens with a label at every position."""
    held = {}
    for part, count in (("train", n), ("test", n // 2)):
        held[f"{part}_tokens"] = RNG.integers(0, V, (count, T))
        held[f"{part}_labels"] = RNG.integers(0, V, (count, T))
    held["train_tokens"][0, 0] = held["train_labels"][0, 0] = V - 1
    return {k: v for k, v in {**held, **changes}.items() if v is not None}


def numbers(n=12, **changes):
    held = {
        "train_x": RNG.normal(size=(n, 4)), "train_y": RNG.normal(size=(n, 3)),
        "test_x": RNG.normal(size=(n // 2, 4)), "test_y": RNG.normal(size=(n // 2, 3)),
    }  # fmt: skip
    return {k: v for k, v in {**held, **changes}.items() if v is not None}


def made(arrays, **options):
    return make_dataset(OWN, arrays, **options)


def test_the_fingerprint_is_of_the_arrays_that_mean_something():
    plain = numbers()
    assert made(plain).fingerprint == made({**plain, "stray": np.zeros(3)}).fingerprint
    assert made(plain).fingerprint != made({**plain, "train_weight": np.ones(12)}).fingerprint


def test_tokens_with_a_label_at_every_position():
    held = tokens()
    data = made(held)
    assert data.shape == DataShape((5,), 7, (5,), 7)
    assert data.shape.total == 35
    assert data.train_x.dtype == data.train_y.dtype == np.int64
    prepared = prepare(data, "standard")
    np.testing.assert_array_equal(prepared.train_x, held["train_tokens"])


def test_missing_targets_are_marked():
    mask = RNG.random((12, 5)) < 0.6
    mask[:, 0] = True
    held = tokens()
    data = made({**held, "train_mask": mask})
    assert data.shape.masked
    np.testing.assert_array_equal(data.train_y, np.where(mask, held["train_labels"], -1))
    values = numbers()
    there = RNG.random((12, 3)) < 0.6
    there[:, 1] = True
    values["train_y"][~there] = np.inf  # what is missing may be anything
    found = made({**values, "train_mask": there}).train_y
    np.testing.assert_array_equal(np.isnan(found), ~there)


def test_weights_have_mean_one_and_splits_have_names():
    more = {"val_x": np.ones((2, 4)), "val_y": np.ones((2, 3)), "val_weight": np.array([1.0, 3.0])}
    data = made(numbers(**more, train_weight=np.arange(12)))
    assert list(data.splits) == ["train", "test", "val"]
    np.testing.assert_allclose(data.splits["val"].weight, [0.5, 1.5])
    np.testing.assert_allclose(data.splits["train"].weight.mean(), 1, rtol=1e-6)
    assert data.splits["test"].weight is None


@pytest.mark.parametrize("stride", [None, 1, 3])
def test_windows_of_tokens(stride):
    seq = {part: RNG.integers(0, 9, n) for part, n in (("train", 100), ("test", 41))}
    data = made({f"{k}_sequence": v for k, v in seq.items()}, context=8, window_stride=stride)
    step = stride or 8
    starts = range(0, 100 - 8, step)
    want_x = np.stack([seq["train"][i : i + 8] for i in starts])
    want_y = np.stack([seq["train"][i + 1 : i + 9] for i in starts])
    prepared = prepare(data)
    for found in (data, prepared):
        np.testing.assert_array_equal(found.train_x, want_x)
        np.testing.assert_array_equal(found.train_y, want_y)
    split = prepared.splits["train"]
    for tensor, want in ((split_inputs(split), want_x), (split_targets(split), want_y)):
        np.testing.assert_array_equal(tensor.numpy(), want)
        assert tensor.untyped_storage().nbytes() == 100 * 8, "windows share the sequence's memory"
    assert data.shape == DataShape((8,), int(max(v.max() for v in seq.values())) + 1, (8,),
                                   int(max(v.max() for v in seq.values())) + 1)  # fmt: skip


def test_windows_of_vectors_are_normalised_and_their_targets_are_not():
    seq = {part: RNG.normal(2, 3, (60, 2)).astype("f4") for part in ("train", "test")}
    data = made({f"{k}_sequence": v for k, v in seq.items()}, context=5, window_stride=2)
    prepared = prepare(data, "standard")
    mean, scale = seq["train"].mean(0), seq["train"].std(0)
    want = np.stack([((seq["train"] - mean) / scale)[i : i + 5].T for i in range(0, 55, 2)])
    np.testing.assert_allclose(prepared.train_x, want, atol=1e-5)
    np.testing.assert_allclose(split_inputs(prepared.splits["train"]).numpy(), want, atol=1e-5)
    np.testing.assert_array_equal(prepared.train_y, seq["train"][5::2])
    assert data.shape == DataShape((2, 5), 2, target="vector")


def test_a_domain_bounds_the_examples():
    data = made(numbers(low=np.zeros(4), high=np.ones(4)))
    assert data.domain is not None
    assert data.domain.low.dtype == np.float32
    assert prepare(data).domain is data.domain


def test_without_targets():
    data = made(numbers(train_y=None, test_y=None))
    assert data.shape == DataShape((4,), 4, target="none")
    assert data.train_y.shape == (12, 0)


BAD = {
    "no mask for one": (
        numbers(train_mask=np.ones((12, 2), bool)),
        [r"train_mask = 'bool \[12, 2\]': is no mask; allowed: .*\[12, 3\]"],
    ),
    "an example without targets": (
        numbers(train_mask=np.arange(36).reshape(12, 3) >= 3),
        [r"train_mask = 1: examples without any target, the first is 0.*leave these examples out"],
    ),
    "mask of nothing": (
        numbers(train_y=None, test_y=None, train_mask=np.ones((12, 3), bool)),
        [r"train_mask: there are no targets to mask"],
    ),
    "weights": (
        numbers(train_weight=-np.ones(12), test_weight=np.ones(5)),
        [r"2 problems", r"train_weight: .*not negative", r"test_weight = 'float64 \[5\]'"],
    ),
    "one part has targets": (numbers(test_y=None), [r"test_y: is missing; there is train_x"]),
    "one split has tokens": (
        tokens(test_tokens=None, test_x=np.zeros((6, 5))),
        [r"test_x = 'x': unlike train_tokens; allowed: tokens"],
    ),
    "two inputs": (tokens(train_x=np.zeros((12, 5))), [r"train_tokens: is given beside train_x"]),
    "floats as tokens": (
        tokens(train_tokens=np.zeros((12, 5))), [r"train_tokens = 'float64': bad dtype"]
    ),
    "negative tokens": (
        tokens(test_tokens=np.full((6, 5), -1)), [r"test_tokens = -1: negative token"]
    ),
    "labels of examples": (
        tokens(train_labels=np.zeros(12, int), test_labels=np.zeros(6, int)),
        [r"train_labels = \(12,\): bad shape; .*train_y", "2 problems"],
    ),
    "a sequence with targets": (
        {"train_sequence": np.zeros(99, int), "test_sequence": np.zeros(99, int),
         "train_y": np.zeros(99, int)},
        [r"train_y: a sequence brings its own targets"],
    ),
    "half a domain": (numbers(low=np.zeros(4)), [r"high: is missing: a domain has both bounds"]),
    "an empty domain": (
        numbers(low=np.ones(4), high=np.ones(4)), [r"high: is not above low everywhere"]
    ),
    "labels of positions as y": (
        tokens(train_labels=None, test_labels=None, train_y=np.full((12, 5), 3),
               test_y=np.full((6, 5), 3)),
        [r"train_y = '3 to 3': .*name them train_labels", "2 problems"],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("arrays", "messages"), BAD.values(), ids=BAD)
def test_bad_arrays(arrays, messages, tmp_path):
    np.savez(tmp_path / "x.npz", **arrays)
    for message in messages:
        with pytest.raises(DataError, match=message):
            made(arrays)
        with pytest.raises(DataError, match=message) as caught:
            load("npz", path=tmp_path / "x.npz")
    count = 2 if any("2 problems" in message for message in messages) else 1
    assert str(caught.value).count("\n") == count, "each problem once, and no other"


@pytest.mark.parametrize(
    ("arrays", "options", "message"),
    [
        (numbers(), {"context": 4}, r"context = 4: .*the data set has none"),
        (
            {"train_sequence": np.zeros(9, int), "test_sequence": np.zeros(9, int)},
            {},
            r"context: .*a window has a length; for instance",
        ),
        (
            {"train_sequence": np.zeros(99, int), "test_sequence": np.zeros(9, int)},
            {"context": 9},
            r"context = 9: test_sequence has 9 places: there is no window; allowed: up to 8",
        ),
    ],
)
def test_windows_that_cannot_be(arrays, options, message):
    with pytest.raises(DataError, match=message):
        made(arrays, **options)


def test_options_are_those_of_the_data_set(tmp_path):
    np.savez(tmp_path / "s.npz", train_sequence=np.arange(50) % 3, test_sequence=np.arange(20) % 3)
    first = load("npz:s", path=tmp_path / "s.npz", context=4)
    second = load("npz:s", path=tmp_path / "s.npz", context=6)
    assert (first.example_shape, second.example_shape) == ((4,), (6,))
    assert first.fingerprint == second.fingerprint, "the file is the same"
    with pytest.raises(UnknownNameError, match="no option of the data set 'digits' 'context'"):
        load("digits", context=4)


def test_masked_windows_of_torch_and_numpy_agree_on_memory():
    data = made(
        {"train_sequence": np.arange(64) % 5, "test_sequence": np.arange(64) % 5},
        context=16, window_stride=1,
    )  # fmt: skip
    assert np.shares_memory(data.train_x[0], data.train_x[1])
    assert torch.equal(split_inputs(data.splits["train"]), torch.from_numpy(data.train_x.copy()))
