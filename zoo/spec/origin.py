"""Where a row of a zoo comes from: trained here, imported, or derived from other rows."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "ORIGIN_COLUMNS",
    "DerivedOrigin",
    "ImportedOrigin",
    "Origin",
    "Parent",
    "TrainedOrigin",
    "is_run_id",
    "origin_columns",
    "origin_from_json",
    "origin_to_json",
]

_RUN_ID = re.compile(r"[0-9a-f]{16}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
#: Checkpoints of a run, at most: what a store's sizes allow.
_MOST = 2**31


@dataclass(frozen=True, slots=True)
class TrainedOrigin:
    """A row that is trained from its spec."""

    kind: ClassVar[str] = "trained"


@dataclass(frozen=True, slots=True)
class ImportedOrigin:
    """A row that somebody else trained.

    Args:
        source: where it was taken from: a path or an address.
        sha256: of its content there, as hex.
    """

    kind: ClassVar[str] = "imported"
    source: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Parent:
    """One checkpoint that a row is derived from.

    Args:
        run: run id.
        checkpoint: k.
    """

    run: str
    checkpoint: int


@dataclass(frozen=True, slots=True)
class DerivedOrigin:
    """A row that is made of other rows: a child.

    Args:
        parents: what it is made of, in the transform's order; at least one.
        transform: name of what makes it.
        settings: of the transform, JSON-ready.
    """

    kind: ClassVar[str] = "derived"
    parents: tuple[Parent, ...]
    transform: str
    settings: Mapping[str, Any] = field(default_factory=dict)


Origin = TrainedOrigin | ImportedOrigin | DerivedOrigin

#: Column -> what it says of a row.
ORIGIN_COLUMNS: Mapping[str, str] = {
    "origin": "trained, imported or derived",
    "source": "where an imported row was taken from",
    "source_sha256": "sha256 of an imported row's content there",
    "parents": "what a derived row is made of: run id, a colon and the checkpoint of each",
    "transform": "what made a derived row of its parents",
    "transform_settings": "settings of the transform, as JSON",
}


def is_run_id(text: object) -> bool:
    """Return whether something is a run id: sixteen hexadecimal digits."""
    return isinstance(text, str) and _RUN_ID.fullmatch(text) is not None


def origin_to_json(origin: Origin) -> dict[str, Any]:
    """Return an origin, JSON-ready."""
    if isinstance(origin, ImportedOrigin):
        return {"kind": origin.kind, "source": origin.source, "sha256": origin.sha256}
    if isinstance(origin, DerivedOrigin):
        return {
            "kind": origin.kind,
            "parents": [[parent.run, parent.checkpoint] for parent in origin.parents],
            "transform": origin.transform,
            "settings": dict(origin.settings),
        }
    return {"kind": origin.kind}


def origin_from_json(raw: Any) -> Origin:
    """Return what :func:`origin_to_json` made.

    Raises:
        ValueError: it is not that; a clause.
    """
    kind = raw.get("kind") if isinstance(raw, Mapping) else None
    if kind == TrainedOrigin.kind:
        return _TRAINED
    if kind == ImportedOrigin.kind:
        source, digest = raw.get("source"), raw.get("sha256")
        if not isinstance(source, str) or not isinstance(digest, str):
            msg = "is imported from nowhere"
            raise ValueError(msg)
        if _SHA256.fullmatch(digest) is None:
            msg = "has a sha256 that is none"
            raise ValueError(msg)
        return ImportedOrigin(source, digest)
    if kind == DerivedOrigin.kind:
        parents, transform, settings = (
            raw.get(key) for key in ("parents", "transform", "settings")
        )
        if not isinstance(transform, str) or not isinstance(settings, Mapping):
            msg = "is derived by no transform"
            raise ValueError(msg)
        return DerivedOrigin(_parents(parents), transform, settings)
    msg = f"is neither {TrainedOrigin.kind}, {ImportedOrigin.kind} nor {DerivedOrigin.kind}"
    raise ValueError(msg)


_TRAINED = TrainedOrigin()


def _parents(raw: Any) -> tuple[Parent, ...]:
    pairs = raw if isinstance(raw, list) else []
    good = [
        pair
        for pair in pairs
        if isinstance(pair, list) and len(pair) == 2 and is_run_id(pair[0]) and _is_place(pair[1])
    ]
    if not pairs or len(good) != len(pairs):
        msg = "has parents that are no checkpoints of runs"
        raise ValueError(msg)
    return tuple(Parent(run, checkpoint) for run, checkpoint in good)


def _is_place(value: Any) -> bool:
    return type(value) is int and 0 <= value < _MOST


def origin_columns(origins: Iterable[Origin]) -> dict[str, NDArray[np.str_]]:
    """Return the columns of :data:`ORIGIN_COLUMNS`, ``[M]`` text each; empty where one is idle."""
    rows = [_row(origin) for origin in origins]
    return {
        name: np.array([row.get(name, "") for row in rows], dtype=np.str_)
        for name in ORIGIN_COLUMNS
    }


def _row(origin: Origin) -> dict[str, str]:
    found = {"origin": origin.kind}
    if isinstance(origin, ImportedOrigin):
        found |= {"source": origin.source, "source_sha256": origin.sha256}
    if isinstance(origin, DerivedOrigin):
        found["parents"] = " ".join(f"{p.run}:{p.checkpoint}" for p in origin.parents)
        found["transform"] = origin.transform
        found["transform_settings"] = json.dumps(dict(origin.settings), sort_keys=True)
    return found
