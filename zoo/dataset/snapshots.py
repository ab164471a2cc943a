"""Snapshots: a view with a name and a content hash, so that a paper can say which rows it used."""

from __future__ import annotations

import hashlib
import logging
import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from zoo.dataset.any_view import AnyView, AnyZoo
from zoo.dataset.batches import plan_batches, rows_at_once
from zoo.errors import NameTakenError, QueryError, StoreCorruptError, StoreError, no_such
from zoo.paths import is_clutter
from zoo.store.derived import alone
from zoo.store.files import write_new
from zoo.store.paths import StorePaths
from zoo.store.records import record_bytes
from zoo.store.snapshot import SnapshotRecord, read_snapshot

__all__ = [
    "Snapshot",
    "check_content",
    "find_snapshot",
    "list_snapshots",
    "snapshot_hash",
    "take_snapshot",
]

_LOG = logging.getLogger(__name__)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What is written down of a named view.

    Args:
        name: of the snapshot.
        hash: sha256 over each row's run id, step and weights, in order; 64 hexadecimal digits.
        rows: number of rows.
    """

    name: str
    hash: str
    rows: int


def snapshot_hash(view: AnyView) -> str:
    """Return the sha256 over each row's run id, step and weights, in the view's order.

    A row enters with the sha256 of its own weights, so the order in which rows are read does not
    matter.
    """
    rows = np.zeros((len(view), 32), dtype=np.uint8)

    for positions in plan_batches(view, rows_at_once(view)):
        weights = view.take(positions).stacked_weights()
        for position, row in zip(positions, weights, strict=True):
            digest = hashlib.sha256(np.ascontiguousarray(row, dtype="<f4").tobytes())
            rows[position] = np.frombuffer(digest.digest(), dtype=np.uint8)

    total = hashlib.sha256()
    for run, step, row in zip(view["run_id"].tolist(), view["step"].tolist(), rows, strict=True):
        total.update(f"{run}:{step}:".encode() + row.tobytes())
    return total.hexdigest()


def take_snapshot(view: AnyView, name: str) -> Snapshot:
    """Write a view down under a name, in the store; see :meth:`zoo.dataset.View.snapshot`."""
    paths = _paths(view.zoo)
    if not _is_name(name):
        msg = f"snapshot name {name!r}: allowed are letters, digits, '.', '_' and '-'"
        raise QueryError(msg)
    where = paths.records / "snapshots" / f"{name}.json"
    runs, inverse = np.unique(view["run_id"], return_inverse=True)
    checkpoints = np.asarray(view["checkpoint"], dtype=np.int64)
    record = SnapshotRecord(name, snapshot_hash(view), tuple(runs.tolist()), inverse, checkpoints)
    with alone(paths):  # whoever has the store removes what others staged
        data = record_bytes("snapshot", record.to_json())
        if write_new(where, data, staging=paths.records):
            return _told(record)
    known = read_snapshot(where)
    if known.hash != record.hash:
        msg = (
            f"the snapshot {name!r} exists with other rows (hash {known.hash[:16]}, here "
            f"{record.hash[:16]}); snapshots never change: choose another name"
        )
        raise NameTakenError(msg)
    return _told(known)


def _told(record: SnapshotRecord) -> Snapshot:
    return Snapshot(record.name, record.hash, len(record.run))


def list_snapshots(zoo: AnyZoo) -> tuple[Snapshot, ...]:
    """Return the snapshots of a store, by name."""
    folder = _paths(zoo).records / "snapshots"
    files = sorted(path for path in folder.glob("*.json") if not is_clutter(path))
    found = []
    for path in files:
        try:
            found.append(_told(read_snapshot(path)))
        except StoreCorruptError as error:  # the others are there all the same
            _LOG.warning("%s", error)
    return tuple(found)


def find_snapshot(zoo: AnyZoo, name: str) -> tuple[Snapshot, tuple[NDArray[np.int64], ...]]:
    """Return a snapshot and its rows' cohorts, rows and checkpoints, ``[n]`` each."""
    where = _paths(zoo).records / "snapshots" / f"{name}.json"
    if not _is_name(name) or not where.exists():
        known = [snapshot.name for snapshot in list_snapshots(zoo)]
        raise no_such(name, "snapshot", known)
    record = read_snapshot(where)
    places = np.array([zoo.place(run) for run in record.runs], dtype=np.int64).reshape(-1, 2)
    at = places[record.run]
    counts = np.array([source.cohort.checkpoints for source in zoo.source.cohorts], dtype=np.int64)
    if np.any(record.checkpoint >= counts[at[:, 0]]):
        msg = f"{where} names checkpoints that its runs do not have; run `zoo repair`"
        raise StoreCorruptError(msg)
    return _told(record), (at[:, 0].copy(), at[:, 1].copy(), record.checkpoint)


def check_content(view: AnyView, snapshot: Snapshot) -> None:
    """Hold the weights of a snapshot's rows against its hash.

    Raises:
        StoreCorruptError: they are others.
    """
    if snapshot_hash(view) != snapshot.hash:
        msg = (
            f"the weights of snapshot {snapshot.name!r} are sound, and not those that it was"
            " taken of: they were trained again with other bits. Take a snapshot of another name,"
            " or open this one with verify=False"
        )
        raise StoreCorruptError(msg)


def _is_name(name: object) -> bool:
    return isinstance(name, str) and _NAME.fullmatch(name) is not None


def _paths(zoo: AnyZoo) -> StorePaths:
    if zoo.path is None:
        msg = "snapshots are kept in a store, and this zoo has no path"
        raise StoreError(msg)
    return StorePaths(zoo.path)
