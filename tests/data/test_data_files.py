"""Readers of published formats, on small files written here as the formats say."""

import gzip
import io
import os
import pickle
import struct
import tarfile
import warnings

import numpy as np
import pytest

from zoo.data import load
from zoo.data.idx import parse_idx
from zoo.errors import DataError, MissingDataError

RANDOM = np.random.default_rng(0)


# -- idx -------------------------------------------------------------------------------------


def idx(array, code=8):
    head = struct.pack(f">BBBB{array.ndim}I", 0, 0, code, array.ndim, *array.shape)
    return head + array.tobytes()


def write_idx(folder, *, dot="-", packed=False):
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {}
    for part, count in (("train", 20), ("t10k", 10)):
        arrays[part] = RANDOM.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = np.arange(count, dtype=np.uint8) % 10
        for stem, array in ((f"images{dot}idx3", arrays[part]), (f"labels{dot}idx1", labels)):
            name, content = f"{part}-{stem}-ubyte", idx(array)
            if packed:
                (folder / f"{name}.gz").write_bytes(gzip.compress(content))
            else:
                (folder / name).write_bytes(content)
    return arrays


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("dot", ["-", "."])
@pytest.mark.parametrize("below", ["", "raw", "MNIST/raw"])
def test_idx_folders(tmp_path, packed, dot, below):
    arrays = write_idx(tmp_path / below, dot=dot, packed=packed)
    data = load("mnist", path=tmp_path)
    np.testing.assert_array_equal(data.train_x[:, 0], arrays["train"])
    np.testing.assert_array_equal(data.test_x[:, 0], arrays["t10k"])
    np.testing.assert_array_equal(data.train_y, np.arange(20) % 10)
    assert data.source == "user-path"


def test_the_environment_gives_the_path(tmp_path, monkeypatch):
    mine, other = tmp_path / "mine", tmp_path / "other"
    from_variable, explicit = write_idx(mine), write_idx(other)
    monkeypatch.setenv("ZOO_DATA_MNIST", str(mine))
    np.testing.assert_array_equal(load("mnist").train_x[:, 0], from_variable["train"])
    np.testing.assert_array_equal(
        load("mnist", path=other).train_x[:, 0], explicit["train"], "an explicit path wins"
    )


@pytest.mark.parametrize(
    ("code", "dtype"), [(8, ">u1"), (9, ">i1"), (11, ">i2"), (12, ">i4"), (13, ">f4"), (14, ">f8")]
)
def test_idx_types(code, dtype):
    array = np.arange(-3, 9).astype(dtype).reshape(3, 2, 2)
    np.testing.assert_array_equal(parse_idx(idx(array, code), "here"), array)


GOOD = idx(np.zeros((2, 3), dtype=np.uint8))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not an idx file"),
        (b"\x1f\x8b\x08\x00", "not an idx file"),
        (b"\0\0\x07\x01" + b"\0" * 8, "not an idx file"),
        (GOOD[:9], "cut short"),
        (GOOD[:-1], "needs 6 bytes, the file holds 5"),
        (GOOD + b"\0", "needs 6 bytes, the file holds 7"),
    ],
)
def test_broken_idx(content, message):
    with pytest.raises(DataError, match=message):
        parse_idx(content, "here")


def test_a_broken_gzip_names_its_place(tmp_path):
    write_idx(tmp_path, packed=True)
    broken = tmp_path / "train-images-idx3-ubyte.gz"
    broken.write_bytes(broken.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"cannot be read"):
        load("mnist", path=tmp_path)


# -- CIFAR -----------------------------------------------------------------------------------

BLACK = np.zeros((5, 3072), dtype=np.uint8)


def python2_string(text):
    """Return the opcode of a Python 2 ``str``, which Python 3 never writes."""
    return pickle.BINSTRING + struct.pack("<i", len(text)) + text


def python2_batch(data, labels, key=b"labels", dtype=b"u1"):
    """Return a batch as the published files hold it: protocol 2 of Python 2 and numpy 1."""
    number = b"".join(pickle.BININT1 + bytes([v]) for v in labels)
    shape = b"".join(pickle.BININT + struct.pack("<i", n) for n in data.shape)
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\n"
        + b"cnumpy\nndarray\n"
        + pickle.BININT1 + b"\0" + pickle.TUPLE1 + python2_string(b"b")
        + pickle.TUPLE3 + pickle.REDUCE + pickle.MARK
        + pickle.BININT1 + b"\x01" + shape + pickle.TUPLE2
        + b"cnumpy\ndtype\n"
        + python2_string(dtype) + pickle.BININT1 + b"\0" + pickle.BININT1 + b"\x01"
        + pickle.TUPLE3 + pickle.REDUCE + pickle.MARK
        + pickle.BININT1 + b"\x03" + python2_string(b"|") + pickle.NONE * 3
        + (pickle.BININT + struct.pack("<i", -1)) * 2 + pickle.BININT1 + b"\0"
        + pickle.TUPLE + pickle.BUILD
        + pickle.NEWFALSE + python2_string(data.tobytes())
        + pickle.TUPLE + pickle.BUILD
    )  # fmt: skip
    return (
        pickle.PROTO + b"\x02" + pickle.EMPTY_DICT + pickle.MARK
        + python2_string(b"batch_label") + python2_string(b"training batch 1 of 5")
        + python2_string(key) + pickle.EMPTY_LIST + pickle.MARK + number + pickle.APPENDS
        + python2_string(b"data") + array
        + pickle.SETITEMS + pickle.STOP
    )  # fmt: skip


def python3_batch(data, labels, key=b"labels"):
    """Return the same batch as Python 3 and the installed numpy write it."""
    return pickle.dumps({b"data": data, key: [int(y) for y in labels]}, protocol=2)


def binary_batch(data, labels, coarse):
    rows = [[[7], [y], x] if coarse else [[y], x] for y, x in zip(labels, data, strict=True)]
    return b"".join(np.concatenate(row).astype(np.uint8).tobytes() for row in rows)


def cifar_files(name, version):
    """Return file contents and the (data, labels) that they hold, five pictures a batch."""
    hundred = name == "cifar100"
    stems = ["train"] if hundred else [f"data_batch_{i}" for i in range(1, 6)]
    stems.append("test" if hundred else "test_batch")
    files, parts = {}, []
    for stem in stems:
        data = RANDOM.integers(0, 256, (5, 3072), dtype=np.uint8)
        labels = RANDOM.integers(0, 100 if hundred else 10, 5)
        parts.append((data, labels))
        key = b"fine_labels" if hundred else b"labels"
        if version == "binary":
            files[f"{stem}.bin"] = binary_batch(data, labels, hundred)
        else:
            write = python2_batch if version == "python2" else python3_batch
            files[stem] = write(data, labels, key)
    return files, parts


def folder_name(name, version):
    dashed = name.replace("cifar", "cifar-")
    if version == "binary":
        return f"{dashed}-batches-bin" if name == "cifar10" else f"{dashed}-binary"
    return f"{dashed}-batches-py" if name == "cifar10" else f"{dashed}-python"


def place(root, name, version, form):
    """Write a CIFAR set and return the path to give and what it holds."""
    files, parts = cifar_files(name, version)
    inner = folder_name(name, version)
    if form in ("folder", "parent"):
        folder = root / inner
        folder.mkdir()
        for file, content in files.items():
            (folder / file).write_bytes(content)
        return (folder if form == "folder" else root), parts
    kind = "binary" if version == "binary" else "python"
    path = root / f"{name.replace('cifar', 'cifar-')}-{kind}.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for file, content in {**files, "readme.html": b"<html>"}.items():
            info = tarfile.TarInfo(f"{inner}/{file}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return (path if form == "archive" else root), parts


@pytest.mark.parametrize("form", ["folder", "parent", "archive", "archive in folder"])
@pytest.mark.parametrize("version", ["binary", "python2", "python3"])
@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar(tmp_path, name, version, form):
    path, parts = place(tmp_path, name, version, form)
    data = load(name, path=path)
    train = np.concatenate([x for x, _ in parts[:-1]])
    np.testing.assert_array_equal(data.train_x.reshape(-1, 3072), train)
    np.testing.assert_array_equal(data.train_y, np.concatenate([y for _, y in parts[:-1]]))
    np.testing.assert_array_equal(data.test_x.reshape(-1, 3072), parts[-1][0])
    np.testing.assert_array_equal(data.test_y, parts[-1][1])
    assert data.train_x.shape[1:] == (3, 32, 32)
    assert data.classes == int(name[5:])


def test_both_versions_have_one_fingerprint(tmp_path):
    data, labels = BLACK + np.arange(5, dtype=np.uint8)[:, None], range(5)
    for version, end in (("binary", ".bin"), ("python", "")):
        (tmp_path / version).mkdir()
        for stem in ("train", "test"):
            content = (
                binary_batch(data, labels, coarse=True)
                if end
                else python2_batch(data, labels, b"fine_labels")
            )
            (tmp_path / version / f"{stem}{end}").write_bytes(content)
    binary, python = (load("cifar100", path=tmp_path / v) for v in ("binary", "python"))
    assert binary.fingerprint == python.fingerprint


def test_the_handmade_batch_is_a_real_pickle():
    data = np.arange(2 * 3072, dtype=np.uint8).reshape(2, 3072)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the name numpy.core is old
        whole = pickle.loads(python2_batch(data, [1, 2]), encoding="bytes")
    np.testing.assert_array_equal(whole[b"data"], data)
    assert whole[b"labels"] == [1, 2]


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_a_malicious_pickle_runs_nothing(tmp_path, protocol):
    path, _ = place(tmp_path, "cifar10", "python2", "folder")
    trap = tmp_path / "trap"
    (path / "data_batch_3").write_bytes(pickle.dumps({b"data": Evil(trap)}, protocol=protocol))
    with pytest.raises(DataError, match=r"data_batch_3.*mkdir, which no CIFAR batch does"):
        load("cifar10", path=path)
    assert not trap.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a CIFAR batch"),
        (b"garbage", "not a CIFAR batch"),
        (pickle.dumps([1, 2], protocol=2), "not a CIFAR batch"),
        (pickle.dumps({b"labels": [1]}, protocol=2), "'data'"),
        (python3_batch(BLACK, [1] * 5, b"other"), "'labels'"),
        (python3_batch(BLACK.astype(np.int64), [1] * 5), "not uint8"),
        (python3_batch(BLACK.astype(object), [1] * 5), "not uint8"),
        (python2_batch(BLACK, [1] * 5, dtype=b"O8"), "not uint8"),
        (python3_batch(BLACK[:, :3071], [1] * 5), r"not \[N, 3072\]"),
        (python3_batch(BLACK, [1] * 5)[:-30], "not a CIFAR batch"),
        (
            python3_batch(BLACK, [1] * 4),
            r"train_y = 24: one target per example; .*25 targets",
        ),
        (python3_batch(BLACK, [99] * 5), "label too large"),
    ],
)
def test_broken_python_batches(tmp_path, content, message):
    path, _ = place(tmp_path, "cifar10", "python2", "folder")
    (path / "data_batch_1").write_bytes(content)
    with pytest.raises(DataError, match=message):
        load("cifar10", path=path)


def test_broken_binary_batches(tmp_path):
    path, _ = place(tmp_path, "cifar10", "binary", "folder")
    batch = path / "test_batch.bin"
    batch.write_bytes(batch.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"test_batch\.bin: 15364 bytes are not a whole number"):
        load("cifar10", path=path)


def test_a_missing_batch_is_named(tmp_path):
    path, _ = place(tmp_path, "cifar10", "binary", "folder")
    (path / "data_batch_2.bin").unlink()
    with pytest.raises(MissingDataError, match=r"lacks data_batch_2\.bin \(binary version\)"):
        load("cifar10", path=path)


def test_not_an_archive(tmp_path):
    path = tmp_path / "cifar-10-binary.tar.gz"
    path.write_bytes(b"<html>404</html>")
    with pytest.raises(DataError, match=r"tar\.gz: cannot be read"):
        load("cifar10", path=path)


# -- npz -------------------------------------------------------------------------------------


def own():
    return {
        "train_x": RANDOM.normal(size=(12, 3, 5)),
        "train_y": np.arange(12) % 3,
        "test_x": RANDOM.normal(size=(6, 3, 5)),
        "test_y": np.arange(6) % 3,
    }


def test_npz(tmp_path):
    arrays = own()
    np.savez_compressed(tmp_path / "mine.npz", **arrays)
    data = load("npz:mine", path=tmp_path / "mine.npz")
    assert data.name == "npz:mine"
    assert data.classes == 3
    assert data.example_shape == (3, 5)
    assert data.train_x.dtype == np.float32
    np.testing.assert_array_equal(data.train_x, arrays["train_x"].astype(np.float32))
    np.testing.assert_array_equal(data.test_y, arrays["test_y"])


def test_two_own_sets_have_their_own_variables(tmp_path, monkeypatch):
    first, second = own(), own()
    for name, arrays in (("A-1", first), ("b", second)):
        np.savez(tmp_path / f"{name}.npz", **arrays)
    monkeypatch.setenv("ZOO_DATA_NPZ_A_1", str(tmp_path / "A-1.npz"))
    monkeypatch.setenv("ZOO_DATA_NPZ_B", str(tmp_path / "b.npz"))
    a, b = load("npz:A-1"), load("npz:b")
    np.testing.assert_array_equal(a.train_x, first["train_x"].astype(np.float32))
    np.testing.assert_array_equal(b.train_x, second["train_x"].astype(np.float32))
    assert a.fingerprint != b.fingerprint


def test_a_replaced_file_is_read_again(tmp_path):
    path = tmp_path / "x.npz"
    np.savez(path, **own())
    before = load("npz", path=path).fingerprint
    np.savez(path, **own())
    os.utime(path, ns=(1, 1))
    assert load("npz", path=path).fingerprint != before


BAD = {
    "missing": ({"train_y": None}, [r"train_y: is missing; there is (train_x|test_x|test_y), "]),
    "object": ({"train_x": np.array([{}] * 12)}, [r"train_x: cannot be read: .*never loaded"]),
    "text": ({"train_x": np.full((12, 3, 5), "a")}, [r"train_x = '<U1': bad dtype"]),
    "complex": ({"test_x": np.zeros((6, 3, 5), complex)}, [r"test_x = 'complex128': bad dtype"]),
    "flat": ({"train_x": np.zeros(12)}, [r"train_x = \(12,\): bad shape"]),
    "scalar": ({"train_y": np.int64(3)}, [r"train_y = \(\): bad shape"]),
    "nan": (
        {"test_x": np.full((6, 3, 5), np.nan)},
        [r"test_x = 90: .*first in example 0"],
    ),
    "huge": ({"test_x": np.full((6, 3, 5), 1e300)}, [r"test_x = 90: values are not finite"]),
    "empty": ({"test_x": np.zeros((0, 3, 5)), "test_y": np.zeros(0, int)}, [r"test_x .*is empty"]),
    "unequal": ({"test_x": np.zeros((6, 3, 4))}, [r"test_x = \(3, 4\): unlike train_x"]),
    "floats and labels": (
        {"train_y": np.zeros(12)},
        [r"test_y = 'int64 \[\]': unlike train_y; allowed: float64 \[\]"],
    ),
    "text labels": ({"train_y": np.array(["a"] * 12)}, [r"train_y = '<U1': bad dtype"]),
    "not finite": (
        {"train_y": np.r_[np.zeros(11), np.inf], "test_y": np.zeros(6)},
        [r"train_y = 1: values are not finite, the first in example 11"],
    ),
    "other columns": (
        {"train_y": np.zeros((12, 2)), "test_y": np.zeros((6, 3))},
        [r"test_y = 'float64 \[3\]': unlike train_y; allowed: float64 \[2\]"],
    ),
    "a column of labels": (
        {"train_y": np.arange(12)[:, None], "test_y": np.zeros((6, 1), int)},
        [r"train_y = '0 to 11': integers of shape \[12, 1\].*if they are labels: train_y\[:, 0\]"],
    ),
    "negative": ({"train_y": np.arange(12) - 1}, [r"train_y = -1: negative label"]),
    "many": ({"train_y": np.arange(12) * 10**6}, [r"train_y = 11000000: label too large"]),
    "all at once": (
        {"train_x": np.zeros((11, 3, 5)), "train_y": np.full(12, -1), "test_y": None},
        [
            r"3 problems",
            r"test_y: is missing",
            r"train_y = -1",
            r"train_y = 12: one target per",
        ],
    ),
}


@pytest.mark.parametrize(("change", "messages"), BAD.values(), ids=BAD)
def test_bad_npz(tmp_path, change, messages):
    arrays = {k: v for k, v in {**own(), **change}.items() if v is not None}
    np.savez(tmp_path / "x.npz", **arrays)
    for message in messages:
        with pytest.raises(DataError, match=message) as caught:
            load("npz", path=tmp_path / "x.npz")
    count = len(messages) - 1 or 1
    assert str(caught.value).count("\n") == count, "each problem once, and no other"


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04broken"])
def test_not_an_npz(tmp_path, content):
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"x\.npz: not a readable \.npz file"):
        load("npz", path=tmp_path / "x.npz")


def test_a_single_array_is_not_an_npz(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros(3))
    with pytest.raises(DataError, match=r"not a readable \.npz file"):
        load("npz", path=tmp_path / "x.npy")


def test_a_folder_is_not_an_npz(tmp_path):
    with pytest.raises(DataError, match=r"not a file"):
        load("npz", path=tmp_path)
