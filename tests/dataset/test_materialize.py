"""Materialised weights: a cache that is known by content, checked, and made again when damaged."""

from __future__ import annotations

import dataclasses
import logging
import os
import pickle
import socket

import numpy as np
import pytest
from fabricated import MemoryStore, make_plan, make_store

from zoo.dataset import Zoo


@pytest.fixture
def zoo():
    return Zoo(make_store(3, cuts=False))


def other_weights(seed=3):
    """The same runs with other weights: another library, machine or data made them."""
    store = make_store(seed, cuts=False)
    for source in store.cohorts:
        source._weights = source._weights + 1
    return Zoo(store)


def equal(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) for k in a)


def test_a_cache_never_serves_another_stores_weights(zoo, tmp_path):
    ours, theirs = zoo.query(), other_weights().query()
    assert ours["run_id"].tolist() == theirs["run_id"].tolist()
    ours.materialize(tmp_path)
    assert equal(theirs.materialize(tmp_path).weights(), theirs.weights())
    assert equal(ours.materialize(tmp_path).weights(), ours.weights())
    assert not equal(ours.weights(), theirs.weights())


def test_the_data_are_part_of_what_a_cache_is_known_by(zoo, tmp_path):
    facts = {"digits": {**zoo.plan.data["digits"], "fingerprint": "1" * 64}}
    plan = dataclasses.replace(make_plan(zoo.plan.cohorts), data=facts)
    again = Zoo(MemoryStore(plan, zoo.source.cohorts))
    zoo.query(norm="none").materialize(tmp_path)
    assert len(list(tmp_path.glob("*.npy"))) == 1
    again.query(norm="none").materialize(tmp_path)
    assert len(list(tmp_path.glob("*.npy"))) == 2
    zoo.query(norm="none").materialize(tmp_path)
    assert len(list(tmp_path.glob("*.npy"))) == 2


@pytest.mark.parametrize("place", [10, 200, -1])
def test_a_flipped_bit_is_told_and_mended(zoo, tmp_path, caplog, place):
    view = zoo.query(norm="none")
    view.materialize(tmp_path)
    (array,) = tmp_path.glob("*.npy")
    whole = array.read_bytes()
    damaged = bytearray(whole)
    damaged[place] ^= 1 << 6
    array.write_bytes(damaged)
    with caplog.at_level(logging.WARNING):
        again = view.materialize(tmp_path)
    assert f"{array} does not match its checksum; it is made again" in caplog.text
    np.testing.assert_array_equal(again.weights(), view.weights())
    assert array.read_bytes() == whole


@pytest.mark.parametrize("damage", [b"", b"{}", b"no json", b'{"check":1}'])
def test_a_damaged_record_is_told_and_mended(zoo, tmp_path, caplog, damage):
    view = zoo.query(norm="none")
    view.materialize(tmp_path)
    (record,) = tmp_path.glob("*.json")
    whole = record.read_bytes()
    record.write_bytes(damage)
    with caplog.at_level(logging.WARNING):
        np.testing.assert_array_equal(view.materialize(tmp_path).weights(), view.weights())
    assert f"{record} does not match its checksum; it is made again" in caplog.text
    assert record.read_bytes() == whole


def test_what_is_whole_is_not_made_again(zoo, tmp_path, caplog):
    view = zoo.query(norm="none")
    view.materialize(tmp_path)
    before = {p: p.stat().st_mtime_ns for p in tmp_path.iterdir()}
    with caplog.at_level(logging.WARNING):
        view.materialize(tmp_path)
    assert {p: p.stat().st_mtime_ns for p in tmp_path.iterdir()} == before
    assert caplog.text == ""


@pytest.mark.parametrize("damage", ["flip", "cut", "delete"])
def test_a_worker_reads_the_store_where_the_map_is_damaged(zoo, tmp_path, caplog, damage):
    view = zoo.query(norm="none")
    source = view.materialize(tmp_path).zoo.source.cohorts[0]
    sent = pickle.dumps(source)
    (array,) = tmp_path.glob("*.npy")
    content = bytearray(array.read_bytes())
    content[150] ^= 1
    array.unlink()
    if damage != "delete":
        array.write_bytes(content if damage == "flip" else content[:-8])
    with caplog.at_level(logging.WARNING):
        again = pickle.loads(sent)
    assert "weights are read from the store instead" in caplog.text
    rows, ks = view["row"], view["checkpoint"]
    np.testing.assert_array_equal(again.read_weights(rows, ks), view.weights())


def test_a_view_of_maps_can_be_materialised_again(zoo, tmp_path):
    view = zoo.query(norm="none")
    once = view.materialize(tmp_path / "a")
    twice = once.materialize(tmp_path / "b")
    np.testing.assert_array_equal(twice.weights(), view.weights())
    names = [sorted(p.name for p in (tmp_path / f).iterdir()) for f in ("a", "b")]
    assert names[0] == names[1]


def test_what_a_killed_process_left_is_cleared(zoo, tmp_path):
    """A process id that no process has, on this host: that one was killed."""
    view = zoo.query(norm="none")
    view.materialize(tmp_path)
    left = [
        tmp_path / f".{file.name}.{socket.gethostname()}.{2**22 + 1}.abcd1234.tmp"
        for file in tmp_path.iterdir()
    ]
    for folder in left:
        folder.mkdir()
    view.materialize(tmp_path)
    assert len(left) == 2
    assert not any(folder.exists() for folder in left)


def test_what_earlier_versions_left_is_cleared_when_nobody_writes_it(zoo, tmp_path):
    stem = f"mlp-{'0' * 16}"
    old = [tmp_path / f"{stem}.json.{'a' * 32}.tmp", tmp_path / f"{stem}.123.tmp"]
    others = [tmp_path / name for name in (f"{stem}.json.{'b' * 32}.tmp", "notes.json.tmp")]
    for file in (*old, *others):
        file.touch()
    for file in (*old, others[1]):
        os.utime(file, (1, 1))
    zoo.query(norm="none").materialize(tmp_path)
    assert sorted(tmp_path.glob("*.tmp")) == sorted(others)
