"""The codec against zarr's own, both ways."""

from __future__ import annotations

import json
import shutil
import tempfile
import warnings
from pathlib import Path

import numcodecs.blosc
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from zoo.errors import StoreCorruptError
from zoo.store import StoreReader
from zoo.store import shard as shard_module
from zoo.store.chunks import decode_numbers, decode_strings, encode_chunk
from zoo.store.schema import ArraySpec
from zoo.store.shard import ShardSpec, decode_chunk, encode_shard
from zoo.store.shard_file import read_index, read_rows


def open_array(folder, spec, models):
    """Make a [M, 1, P] array of zarr's with one shard of ours or of its own."""
    chunk = (spec.rows, 1, spec.chunk_values * spec.splits)
    shape = (models, 1, spec.values)
    dims = ("model", "checkpoint", "param")
    array = ArraySpec("w", "slab", shape, dims, spec.dtype, chunk, spec.fill_value, "", spec)
    (folder / "w").mkdir()
    (folder / "w" / "zarr.json").write_text(json.dumps(array.metadata()))
    return zarr.open_array(folder / "w", mode="r+")


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 7),
    models=st.integers(1, 7),
    values=st.integers(1, 200),
    chunk_bytes=st.sampled_from([40, 64, 4 << 20]),
    form=st.sampled_from(
        [
            ("float32", None),
            ("float16", None),
            ("int8", -7),
            ("uint8", 0),
            ("int64", -1),
            ("bool", False),
            ("uint16", 65535),
            ("float64", 0.0),
        ]
    ),
    seed=st.integers(0, 2**32 - 1),
)
def test_ours_is_zarrs_and_zarrs_is_ours(rows, models, values, chunk_bytes, form, seed):
    """Of every type, what is not there reads as the fill value that the array declares."""
    dtype, fill = form
    models = min(models, rows)
    rng = np.random.default_rng(seed)
    data = rng.integers(0, 100, (models, values)).astype(dtype)
    present = rng.random(models) < 0.7
    missing = ShardSpec(rows, values, dtype, fill=fill).fill_value
    data[~present] = missing
    folder = Path(tempfile.mkdtemp())
    saved = shard_module.CHUNK_BYTES
    shard_module.CHUNK_BYTES = chunk_bytes
    try:
        spec = ShardSpec(rows, values, dtype, fill=fill)
        array = open_array(folder, spec, models)
        file = folder / "w/c.0.0.0"
        file.write_bytes(encode_shard(spec, data, present))
        np.testing.assert_array_equal(array[:, 0], data)
        assert encode_shard(spec, data, present) == file.read_bytes()
        file.unlink()
        array[:, 0] = data
        empty = np.array_equal(data, np.full_like(data, missing), equal_nan=data.dtype.kind == "f")
        if file.exists():  # zarr leaves out a shard of nothing but the fill value
            out = np.full_like(data, missing)
            order = rng.permutation(models)
            assert read_rows(file, spec, order, [out[i] for i in order]) <= models
            np.testing.assert_array_equal(out, data)
            assert read_index(file, spec).shape == (rows, spec.splits, 2)
        else:
            assert empty
    finally:
        shard_module.CHUNK_BYTES = saved
        shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("dtype", "fill"), [("int8", None), ("int8", 300), ("uint8", -1), ("bool", 2)]
)
def test_a_type_without_nan_declares_its_fill_value(dtype, fill):
    with pytest.raises(ValueError, match=f"shards of {dtype} declare their fill value"):
        ShardSpec(2, 3, dtype, fill=fill)


def test_large_rows_are_split():
    spec = ShardSpec(2, 2_500_000, "float32")
    assert spec.splits == 3
    assert spec.chunk_values * spec.splits >= spec.values
    assert spec.chunk_bytes <= shard_module.CHUNK_BYTES
    assert ShardSpec(2, 2_500_000, "float32", split=False).splits == 1


def test_bytes_do_not_depend_on_the_number_of_threads():
    data = np.random.default_rng(0).normal(size=(1, 200_000)).astype(np.float32)
    spec, present = ShardSpec(1, 200_000, "float32"), np.array([True])
    before = numcodecs.blosc.get_nthreads()
    found = set()
    try:
        for count in (1, 2, 4):
            numcodecs.blosc.set_nthreads(count)
            found.add(encode_shard(spec, data, present))
    finally:
        numcodecs.blosc.set_nthreads(before)
    assert len(found) == 1


def test_a_chunk_of_another_length_is_refused():
    spec, other = ShardSpec(1, 10, "float32"), ShardSpec(1, 11, "float32")
    data = encode_shard(other, np.ones((1, 11), np.float32), np.array([True]))
    with pytest.raises(StoreCorruptError, match="another number of values"):
        decode_chunk(spec, data[: -other.index_bytes], np.empty(10, np.float32))


def test_plain_chunks_come_back(tmp_path):
    texts = ["", "a", "Ångström ≥ 1", "x" * 300]
    assert decode_strings(encode_chunk(np.array(texts), dtype="string")) == texts
    numbers = np.arange(12, dtype=np.float32).reshape(3, 4)
    data = encode_chunk(numbers, dtype="float32")
    np.testing.assert_array_equal(decode_numbers(data, dtype="float32", shape=(3, 4)), numbers)
    for place in range(len(data)):
        bad = bytearray(data)
        bad[place] ^= 4
        with pytest.raises(StoreCorruptError):
            decode_numbers(bytes(bad), dtype="float32", shape=(3, 4))
    with pytest.raises(StoreCorruptError, match="does not hold"):
        decode_numbers(data, dtype="float32", shape=(3, 5))


@pytest.mark.parametrize("dtype", ["float64", "int64", "bool", "string", "float16"])
def test_no_data_type_makes_zarr_warn(tmp_path, dtype):
    values = np.array(["a", "b"]) if dtype == "string" else np.array([0, 1]).astype(dtype)
    empty = {"string": "", "bool": False, "int64": 0}.get(dtype, float("nan"))
    spec = ArraySpec("x", "column", (2,), ("model",), dtype, (2,), empty, "")
    (tmp_path / "x").mkdir()
    (tmp_path / "x/zarr.json").write_text(json.dumps(spec.metadata()))
    (tmp_path / "x/c.0").write_bytes(encode_chunk(values, dtype=dtype))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert zarr.open_array(tmp_path / "x", mode="r")[...].tolist() == values.tolist()


def test_checksums_of_weights_tell_rows_apart_without_reading_them(full, plan):
    """Equal for equal rows, and changed by any change of a row's stored content."""
    reader = StoreReader(full)
    seen = {}
    for source in reader.cohorts:
        rows, ks = source.recorded.nonzero()
        weights = source.read_weights(rows, ks)
        for row, k, value, w in zip(
            rows, ks, source.weight_checksums(rows, ks).tolist(), weights, strict=True
        ):
            assert seen.setdefault(value, w.tobytes()) == w.tobytes()
            assert source.weight_checksums(row, k).tolist() == [value]
        lost = np.argwhere(~source.recorded)
        if len(lost):
            assert not source.weight_checksums(lost[:, 0], lost[:, 1]).any()
    assert len(seen) > 20
