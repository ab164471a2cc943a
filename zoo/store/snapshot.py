"""The record of a snapshot: which rows a user named, and the hash of their weights."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.errors import StoreCorruptError
from zoo.store.records import read_record, wholes

__all__ = ["SnapshotRecord", "read_snapshot"]

_HASH = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, eq=False)
class SnapshotRecord:
    """What is written down of n rows.

    Args:
        name: of the snapshot.
        hash: sha256 over their run ids, steps and weights, as hex.
        runs: the run ids among them.
        run: ``[n]`` each row's place among ``runs``.
        checkpoint: ``[n]``.
    """

    name: str
    hash: str
    runs: tuple[str, ...]
    run: NDArray[np.int64]
    checkpoint: NDArray[np.int64]

    def to_json(self) -> dict[str, Any]:
        """Return the body of the record."""
        return {
            "name": self.name,
            "hash": self.hash,
            "rows": len(self.run),
            "runs": list(self.runs),
            "run": self.run.tolist(),
            "checkpoint": self.checkpoint.tolist(),
        }


def read_snapshot(path: Path) -> SnapshotRecord:
    """Return the record of a snapshot.

    Raises:
        StoreCorruptError: it is damaged, another one's, or says what no snapshot says.
    """
    body = read_record(path, "snapshot")
    if body.get("name") != path.stem:
        msg = f"{path} is the snapshot {body.get('name')!r:.80}; run `zoo repair`"
        raise StoreCorruptError(msg)
    try:
        runs = tuple(body["runs"])
        found = SnapshotRecord(
            name=path.stem,
            hash=body["hash"],
            runs=runs,
            run=wholes(body["run"], high=len(runs) - 1),
            checkpoint=wholes(body["checkpoint"]),
        )
        texts = all(isinstance(run, str) for run in runs)
        sound = texts and _HASH.fullmatch(found.hash) is not None
        sound = sound and len(found.run) == len(found.checkpoint) == body["rows"]
    except (KeyError, TypeError, ValueError):
        sound = False
    if not sound:
        msg = f"{path} is not what a snapshot is; run `zoo repair`"
        raise StoreCorruptError(msg)
    return found
