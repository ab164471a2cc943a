"""Snapshots: a view with a name and a content hash, so that a paper can say which rows it used."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from zoo.dataset.batches import plan_batches, rows_at_once
from zoo.errors import QueryError, StoreCorruptError, StoreError, UnknownNameError, nearest
from zoo.store.paths import StorePaths
from zoo.store.records import read_record, write_record

if TYPE_CHECKING:
    from zoo.dataset.view import View
    from zoo.dataset.zoo import Zoo

__all__ = ["Snapshot", "content_hash", "list_snapshots", "open_snapshot", "take_snapshot"]

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


def content_hash(view: View) -> str:
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


def take_snapshot(view: View, name: str) -> Snapshot:
    """Write a view down under a name, in the store; see :meth:`zoo.dataset.View.snapshot`."""
    paths = _paths(view.zoo)
    if not _NAME.fullmatch(name):
        msg = f"snapshot name {name!r}: allowed are letters, digits, '.', '_' and '-'"
        raise QueryError(msg)
    snapshot = Snapshot(name, content_hash(view), len(view))
    where = paths.records / "snapshots" / f"{name}.json"
    if where.exists():
        known = read_record(where, "snapshot")
        if known["hash"] == snapshot.hash:
            return snapshot
        msg = (
            f"the snapshot {name!r} exists with other rows (hash {known['hash'][:16]}, here "
            f"{snapshot.hash[:16]}); snapshots never change: choose another name"
        )
        raise StoreError(msg)
    runs, inverse = np.unique(view["run_id"], return_inverse=True)
    body = {
        "name": name,
        "hash": snapshot.hash,
        "rows": len(view),
        "runs": runs.tolist(),
        "run": inverse.tolist(),
        "checkpoint": view["checkpoint"].tolist(),
    }
    write_record(where, "snapshot", body)
    return snapshot


def list_snapshots(zoo: Zoo) -> tuple[Snapshot, ...]:
    """Return the snapshots of a store, by name."""
    folder = _paths(zoo).records / "snapshots"
    bodies = [read_record(path, "snapshot") for path in sorted(folder.glob("*.json"))]
    return tuple(Snapshot(b["name"], b["hash"], b["rows"]) for b in bodies)


def open_snapshot(zoo: Zoo, name: str, *, verify: bool = True) -> View:
    """Return the rows of a snapshot; see :meth:`zoo.dataset.Zoo.snapshot`."""
    from zoo.dataset.view import View

    where = _paths(zoo).records / "snapshots" / f"{name}.json"
    if not where.exists():
        known = [snapshot.name for snapshot in list_snapshots(zoo)]
        close = nearest(name, known)
        hint = f"; did you mean {close!r}?" if close else ""
        msg = f"no snapshot {name!r}; there are: {', '.join(known) or 'none'}{hint}"
        raise UnknownNameError(msg)
    body = read_record(where, "snapshot")
    places = [zoo.place(run) for run in body["runs"]]
    at = np.array(places, dtype=np.int64).reshape(-1, 2)[np.array(body["run"], dtype=np.int64)]
    checkpoints: NDArray[np.int64] = np.array(body["checkpoint"], dtype=np.int64)
    view = View(zoo, at[:, 0].copy(), at[:, 1].copy(), checkpoints)
    if verify and content_hash(view) != body["hash"]:
        msg = f"the weights of snapshot {name!r} are not those that it was taken of; run zoo verify"
        raise StoreCorruptError(msg)
    return view


def _paths(zoo: Zoo) -> StorePaths:
    if zoo.path is None:
        msg = "snapshots are kept in a store, and this zoo has no path"
        raise StoreError(msg)
    return StorePaths(zoo.path)
