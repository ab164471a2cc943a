"""Where the records of a store's submissions are, however its path is spelled, also after a move.

They lie beside the store, in ``x.zarr.slurm``. The folder has a random id, and the store notes that
id and the place: a store that was moved, with a link left at its old place or without, still finds
the jobs that it has in the queue. A copy of a store does not take over the original's.
"""

from __future__ import annotations

import contextlib
import json
import re
import secrets
from os import PathLike
from pathlib import Path
from typing import Any

from zoo.paths import absolute
from zoo.store.files import ensure_folder, store_errors, write_atomic
from zoo.store.paths import StorePaths

__all__ = ["make_record_folder", "read_json", "record_folder"]

_SUFFIX = ".slurm"
_ID = re.compile(r"[0-9a-f]{16}")
_MAX_BYTES = 65_536


def record_folder(store: str | PathLike[str]) -> Path:
    """Return the folder of a store's submissions; it may not be there.

    Args:
        store: the store, by any of its names; it may not be there, either.
    """
    path = absolute(store).resolve()
    beside = path.parent / f"{path.name}{_SUFFIX}"
    return _noted(path) or beside


def make_record_folder(store: str | PathLike[str]) -> Path:
    """Make the folder of a store's submissions where it is missing, and let the store note it.

    Raises:
        StoreError: the disk refuses.
    """
    path, folder = absolute(store).resolve(), record_folder(store)
    with store_errors("make a folder for the jobs in", folder):
        ensure_folder(folder)
    own = _fact(folder / "records.json", "id")
    if own is None or not _ID.fullmatch(own):
        own = secrets.token_hex(8)
        write_atomic(folder / "records.json", _line({"id": own}))
    note = {"id": own, "records": str(folder), "store": str(path)}
    if _note(path).parent.is_dir() and _read(_note(path)) != note:
        write_atomic(_note(path), _line(note))
    return folder


def _note(path: Path) -> Path:
    return StorePaths(path).records / "submissions.json"


def _noted(path: Path) -> Path | None:
    """Return the folder that a store notes, if it is the store's own still."""
    note = _read(_note(path))
    place, origin, own = (note.get(key) for key in ("records", "store", "id"))
    if not all(isinstance(text, str) and "\0" not in text for text in (place, origin, own)):
        return None
    folder, former = Path(str(place)), Path(str(origin))
    if not folder.is_absolute() or folder.suffix != _SUFFIX:
        return None
    if _fact(folder / "records.json", "id") != own:
        return None
    with contextlib.suppress(OSError):
        if not former.samefile(path):
            return None  # the original is where it was: this is a copy of it
    return folder


def _fact(path: Path, key: str) -> str | None:
    found = _read(path).get(key)
    return found if isinstance(found, str) else None


def _read(path: Path) -> dict[str, Any]:
    """Return a small record; empty where there is none that can be used."""
    try:
        found = read_json(path, _MAX_BYTES)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def read_json(path: Path, limit: int) -> Any:
    """Return the JSON of a file that others may have written.

    Args:
        path: the file.
        limit: the most bytes that it may have.

    Raises:
        OSError: it cannot be read.
        ValueError: it is larger, no plain file, nested too deeply, or no JSON.
    """
    if not path.is_file():
        if path.exists():
            msg = "is no plain file"
            raise ValueError(msg)
        raise FileNotFoundError(2, "No such file or directory", str(path))
    with path.open("rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        msg = f"has more than {limit:,} bytes"
        raise ValueError(msg)
    try:
        return json.loads(data)
    except RecursionError:
        msg = "is nested too deeply"
        raise ValueError(msg) from None


def _line(facts: dict[str, str]) -> bytes:
    return json.dumps(facts).encode() + b"\n"
