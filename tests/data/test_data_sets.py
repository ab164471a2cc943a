"""Data sets by name: shapes, fingerprints, what is said when one is missing."""

import doctest
import importlib
import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from zoo.data import DATASETS, load, mnist1d
from zoo.data.base import SOURCES, Arrays, arrays_sha256
from zoo.data.digits import held_out_rows
from zoo.errors import DataError, MissingDataError, UnknownNameError

GOLDEN = {
    "digits": "3d5902fc4e5920a233c9e2429440a19a907e1f106d5f1f32ce27a3788fa58b9f",
    "mnist1d": "eda97e1669c0380b2552c9c26ae9ff7f410558410e9d7bdfe03f42499d31fffc",
    "fashion_mnist": "5a61a556277c3cff6f67e846a00f6c3c9daff7916c760c85ec9af65e26f5150c",
}
FASHION = Path(DATASETS["fashion_mnist"].system_path)


@pytest.mark.parametrize("name", list(DATASETS))
def test_every_set_says_what_it_is(name):
    about = DATASETS[name]
    assert about.name == name
    assert about.source in SOURCES
    assert about.licence
    assert bool(about.files) == (about.source in ("system-package", "user-path"))
    assert bool(about.install) == (about.source == "system-package")


@pytest.mark.parametrize("name", ["digits", "mnist1d", "fashion_mnist"])
def test_a_set_is_what_its_entry_says(name):
    if name == "fashion_mnist" and not FASHION.exists():
        pytest.skip("Debian package dataset-fashion-mnist is not installed")
    about, data = DATASETS[name], load(name)
    assert data.fingerprint == GOLDEN[name]
    assert (len(data.train_x), len(data.test_x)) == about.sizes
    assert data.example_shape == about.example_shape == data.train_x.shape[1:]
    assert data.classes == about.classes
    for labels in (data.train_y, data.test_y):
        assert labels.dtype == np.int64
        assert set(labels) == set(range(about.classes))
    assert data.train_x.dtype in (np.uint8, np.float32)


def test_a_set_is_loaded_once_and_cannot_be_changed():
    data = load("digits")
    assert load("digits") is data
    with pytest.raises(ValueError, match="read-only"):
        data.train_x[0] = 0


def test_digits_are_those_of_scikit_learn():
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    test = held_out_rows(labels, 360)
    data = load("digits")
    np.testing.assert_array_equal(data.test_x.reshape(-1, 64), pixels[test])
    np.testing.assert_array_equal(data.test_y, labels[test])
    rest = np.setdiff1d(np.arange(1797), test)
    np.testing.assert_array_equal(data.train_x.reshape(-1, 64), pixels[rest])
    np.testing.assert_array_equal(data.train_y, labels[rest])


def test_the_split_is_stratified():
    labels = np.repeat(np.arange(10), 180)
    for count in (1, 9, 360, 1800):
        rows = held_out_rows(labels, count)
        assert len(np.unique(rows)) == count
        shares = np.bincount(labels[rows], minlength=10)
        assert np.abs(shares - count / 10).max() < 1


def test_mnist1d_is_the_package_s():
    package = importlib.import_module("mnist1d.data")
    numpy_state, python_state = np.random.get_state(), random.getstate()  # noqa: NPY002
    try:
        theirs = package.make_dataset(package.get_dataset_args())
    finally:
        np.random.set_state(numpy_state)  # noqa: NPY002
        random.setstate(python_state)
    x, y = mnist1d.generate()
    np.testing.assert_allclose(x, np.concatenate([theirs["x"], theirs["x_test"]]), atol=1e-12)
    np.testing.assert_array_equal(y, np.concatenate([theirs["y"], theirs["y_test"]]))
    data = load("mnist1d")
    np.testing.assert_array_equal(data.train_x[:, 0], theirs["x"].astype(np.float32))
    np.testing.assert_array_equal(data.test_x[:, 0], theirs["x_test"].astype(np.float32))
    np.testing.assert_array_equal(data.test_y, theirs["y_test"])


def test_mnist1d_leaves_the_global_generator_alone():
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    mnist1d.generate()
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


def test_importing_the_room_loads_nothing():
    code = "import sys, zoo.data; print([m for m in ('sklearn', 'scipy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_names():
    assert "npz:mine" in DATASETS
    assert "npz:my-own_2.1" in DATASETS
    for bad in ("npz:", "npz:a b", "npz:../x", "nope", "npz:a\n", 3):
        assert bad not in DATASETS
    assert DATASETS["npz:mine"].name == "npz:mine"
    with pytest.raises(UnknownNameError, match="did you mean 'digits'"):
        load("digit")
    with pytest.raises(UnknownNameError):
        load("npz:")


def test_a_missing_set_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.delenv("ZOO_DATA_CIFAR10", raising=False)
    with pytest.raises(MissingDataError, match=r"cifar-10-binary\.tar\.gz.*ZOO_DATA_CIFAR10"):
        load("cifar10")
    with pytest.raises(MissingDataError, match=r"nothing is at .*gone"):
        load("mnist", path=tmp_path / "gone")
    with pytest.raises(MissingDataError, match=r"lacks train-images-idx3-ubyte, .*t10k-labels"):
        load("mnist", path=tmp_path)
    with pytest.raises(MissingDataError, match="train_x, train_y, test_x and test_y"):
        load("npz:mine")


def test_a_missing_package_says_its_command(monkeypatch, tmp_path):
    monkeypatch.setenv("ZOO_DATA_FASHION_MNIST", str(tmp_path))
    with pytest.raises(MissingDataError, match="`apt-get install dataset-fashion-mnist`"):
        load("fashion_mnist")


def test_a_set_that_needs_no_path_takes_none(tmp_path):
    with pytest.raises(DataError, match="bundled and takes no path"):
        load("digits", path=tmp_path)


def small():
    return Arrays(
        np.arange(12, dtype=np.uint8).reshape(4, 3),
        np.array([0, 1, 0, 1]),
        np.arange(6, dtype=np.uint8).reshape(2, 3),
        np.array([1, 0]),
    )


def test_the_fingerprint_sees_values_dtypes_shapes_and_places():
    a = small()
    changed = a.train_x.copy()
    changed[3, 2] += 1
    variants = [
        a,
        a._replace(train_x=changed),
        a._replace(train_x=a.train_x.astype(np.float32)),
        a._replace(train_x=a.train_x.reshape(4, 3, 1)),
        a._replace(train_x=a.test_x, test_x=a.train_x),
        a._replace(test_y=a.test_y[::-1]),
    ]
    assert len({arrays_sha256(v) for v in variants}) == len(variants)


def test_the_fingerprint_sees_no_memory_layout():
    a = small()
    swapped = a.train_x.astype(">f4")
    plain = a._replace(train_x=np.asfortranarray(swapped.astype("<f4")))
    assert arrays_sha256(a._replace(train_x=swapped)) == arrays_sha256(plain)


def test_the_docstring_example_runs():
    result = doctest.testmod(importlib.import_module("zoo.data.load"))
    assert result.attempted > 0
    assert result.failed == 0


@pytest.mark.skipif(not FASHION.exists(), reason="Debian package not installed")
def test_a_path_wins_over_the_package(tmp_path):
    for file in FASHION.iterdir():
        shutil.copy(file, tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(MissingDataError, match="lacks t10k-labels-idx1-ubyte"):
        load("fashion_mnist", path=tmp_path)
