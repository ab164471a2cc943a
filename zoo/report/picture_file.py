"""Pictures and pages as files: drawn in memory, written whole, only over earlier ones of ours."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.errors import QueryError
from zoo.paths import absolute
from zoo.report.markup import element
from zoo.store.outputs import FileKind, check_output, write_output

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["GENERATOR", "PAGE", "PICTURE", "check_picture", "png_bytes", "save_figure"]

#: What a page says of its origin, in its head.
GENERATOR = element("meta", name="generator", content="phasezoo")

#: Metadata of each format: our name, and nothing that changes from one run to the next.
_METADATA: Mapping[str, Mapping[str, Any]] = {
    "png": {"Software": "phasezoo"},
    "pdf": {"Creator": "phasezoo", "CreationDate": None},
    "svg": {"Creator": "phasezoo", "Date": None},
}
#: How this metadata looks in a file.
_MARKS = (b"tEXtSoftware\0phasezoo", b"/Creator (phasezoo)", b"<dc:title>phasezoo</dc:title>")

PICTURE = FileKind("a picture", lambda data: any(mark in data for mark in _MARKS))
PAGE = FileKind("a page", lambda data: str(GENERATOR).encode() in data)


def check_picture(path: str | os.PathLike[str]) -> None:
    """Refuse a path that a picture cannot be written to; to be called before the work is done.

    Raises:
        QueryError: an ending that is not .png, .pdf or .svg, or no such folder.
        NameTakenError: something else than a picture of ours is there.
    """
    where = absolute(path)
    _format(where)
    if not where.parent.is_dir():
        msg = f"cannot draw {where}: there is no folder {where.parent}; make it first"
        raise QueryError(msg)
    check_output(where, PICTURE)


def _format(path: Path) -> str:
    name = path.suffix.removeprefix(".").lower()
    if name in _METADATA:
        return name
    if path.exists() and not path.is_file():  # a device or a pipe
        return "png"
    msg = f"cannot draw {path}: the name of a picture ends in .png, .pdf or .svg"
    raise QueryError(msg)


def png_bytes(figure: Figure, dpi: int) -> bytes:
    """Return a figure as a PNG file; equal figures give equal bytes."""
    return _bytes(figure, "png", dpi)


def _bytes(figure: Figure, form: str, dpi: int) -> bytes:
    out = io.BytesIO()
    figure.savefig(out, format=form, dpi=dpi, metadata=dict(_METADATA[form]))
    return out.getvalue()


def save_figure(figure: Figure, path: str | os.PathLike[str], *, dpi: int) -> Path:
    """Write a figure to a file, and return its path; the ending decides the format.

    Raises:
        QueryError: an ending that is not .png, .pdf or .svg, or no such folder.
        NameTakenError: something else than a picture of ours is there.
        StoreError: it cannot be written.
    """
    where = absolute(path)
    check_picture(where)
    write_output(where, _bytes(figure, _format(where), dpi), PICTURE)
    return where
