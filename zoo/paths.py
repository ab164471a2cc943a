"""Paths as they are taken in: absolute, so that a later change of folder means nothing to them."""

from __future__ import annotations

import contextlib
import os
import zipfile
from pathlib import Path

__all__ = ["absolute", "is_clutter", "unpack_advice"]

#: What macOS, Windows and NFS leave in folders, by name.
_CLUTTER = (".DS_Store", "Thumbs.db", "desktop.ini", "__MACOSX")
_CLUTTER_STARTS = ("._", ".nfs")

#: The file by which a store is known, as it is named inside an archive.
_PLAN = "_zoo/plan.json"


def absolute(path: str | os.PathLike[str], base: str | os.PathLike[str] | None = None) -> Path:
    """Return a path that means the same from every folder.

    ``~`` is expanded. Symbolic links stay as they are spelled, unless the path has a ``..``: what
    that means depends on where a link leads, so such a path is resolved.

    Args:
        path: what the user gave.
        base: the folder that a relative path counts from; None = the current one.
    """
    found = Path(path)
    with contextlib.suppress(RuntimeError):  # no such user: then it is a file's name
        found = found.expanduser()
    if not found.is_absolute():
        found = (Path.cwd() if base is None else absolute(base)) / found
    return found.resolve() if ".." in found.parts else found


def is_clutter(path: Path) -> bool:
    """Return whether a file is one that an operating system leaves about, and nobody's data."""
    return path.name in _CLUTTER or path.name.startswith(_CLUTTER_STARTS)


def unpack_advice(path: str | os.PathLike[str]) -> str | None:
    """Return how to unpack a zip file that holds a store, None where ``path`` is no zip file."""
    where = absolute(path)
    try:
        if not where.is_file() or not zipfile.is_zipfile(where):
            return None
        with zipfile.ZipFile(where) as archive:
            names = [name for name in archive.namelist() if f"/{name}".endswith(f"/{_PLAN}")]
    except (OSError, zipfile.BadZipFile):
        return None
    if not names:
        return f"{where} is a zip file, and there is no phasezoo store in it"
    inside = min(names, key=len).removesuffix(_PLAN).strip("/")
    folder = where.with_suffix("") if where.suffix == ".zip" else where.with_name(f"{where.name}.d")
    store = folder / inside if inside else folder
    return (
        f"{where} is a zip file, and a store is opened as a folder; unpack it with"
        f" `python -m zipfile -e '{where}' '{folder}'`, then open '{store}'"
    )
