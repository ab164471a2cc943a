"""Where a data set's files are, and what to say when they are not there."""

from __future__ import annotations

import gzip
import io
import lzma
import os
import tarfile
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from zoo.data.base import DataSource
from zoo.errors import DataError, MissingDataError
from zoo.paths import absolute

__all__ = ["find_path", "missing", "read_members"]

#: Bytes of one file of a data set, and of all files in an archive, decompressed: ten times what any
#: of the data sets has. A few megabytes can decompress to terabytes.
_MOST, _MOST_OF_ARCHIVE = 2 << 30, 8 << 30


def missing(about: DataSource, why: str) -> MissingDataError:
    """Return the error that says how to get a data set."""
    ways = [f"install it: `{about.install}`"] if about.install else []
    ways.append(
        f"give the path that holds {about.files}: --data '{about.name}=PATH' on the command line,"
        f" the environment variable {about.variable}, paths={{{about.name!r}: ...}} in Python"
        f" (zoo.data.load: path=...), or [paths] in a sweep file that has no store yet"
    )
    return MissingDataError(f"data set {about.name!r}: {why}; " + "; or ".join(ways))


def find_path(about: DataSource, path: str | os.PathLike[str] | None) -> Path | None:
    """Return where a data set's files are, None for a set that needs none.

    Tried in order: ``path``, the environment variable, the system package. The first that is given
    decides, so that a wrong path is an error and never quietly another data set.

    Raises:
        DataError: a path is given for a set that needs none.
        MissingDataError: nothing is given, or nothing is there.
    """
    if not about.files:
        if path is not None:
            msg = f"data set {about.name!r} is {about.source} and takes no path, but got {path!r}"
            raise DataError(msg)
        return None
    given = path if path is not None else os.environ.get(about.variable) or None
    if given is not None:
        found = absolute(given)
        if not found.exists():
            raise missing(about, f"nothing is at {found}")
        return found
    system = Path(about.system_path) if about.system_path else None
    if system is None or not system.exists():
        raise missing(about, "not on this machine" if about.system_path else "no path is given")
    return system


def read_members(
    root: Path, choices: Sequence[Sequence[str]], folders: Iterable[str] = ()
) -> list[bytes] | str:
    """Read files by name from a folder or from a ``.tar``/``.tar.gz`` archive.

    Nothing is extracted. A name that ends in ``.gz`` is decompressed.

    Args:
        root: the folder or the archive.
        choices: for each file wanted, the names it may have, the first one found is taken.
        folders: subfolders of ``root`` to look into as well.

    Returns:
        The contents in the order of ``choices``, or the missing names in words.

    Raises:
        DataError: a file is there but cannot be read.
    """
    try:
        if root.is_dir():
            places = [root, *(root / folder for folder in folders)]
            held = [_first(choice, places) for choice in choices]
            contents = {p.name: _from_file(p) for p in held if p is not None}
        else:
            contents = _archive(root, {name for choice in choices for name in choice})
    except (OSError, EOFError, zlib.error, lzma.LZMAError, tarfile.TarError) as error:
        msg = f"{root}: cannot be read: {error}"
        raise DataError(msg) from error
    lacking = [choice[0] for choice in choices if not any(n in contents for n in choice)]
    if lacking:
        return f"{root} lacks {', '.join(lacking)}"
    return [next(contents[n] for n in choice if n in contents) for choice in choices]


def _first(choice: Sequence[str], places: Sequence[Path]) -> Path | None:
    """Return the first file that is there, or None."""
    return next((p / n for p in places for n in choice if (p / n).is_file()), None)


def _from_file(path: Path) -> bytes:
    _check_size(path.name, path.stat().st_size, _MOST)
    return _plain(path.name, path.read_bytes())


def _plain(name: str, content: bytes) -> bytes:
    if not name.endswith(".gz"):
        return content
    with gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
        content = file.read(_MOST + 1)
    _check_size(name, len(content), _MOST)
    return content


def _check_size(name: str, size: int, most: int) -> None:
    if size > most:
        msg = f"{name} has more than {most >> 30} GiB decompressed, so it is no data set"
        raise DataError(msg)


def _archive(root: Path, names: set[str]) -> dict[str, bytes]:
    """Return the regular files of an archive whose last path part is one of ``names``."""
    contents = {}
    total = 0
    with tarfile.open(root, "r:*") as archive:
        for member in archive:
            name = PurePosixPath(member.name).name
            total += member.size
            _check_size(name, member.size, _MOST)
            _check_size(root.name, total, _MOST_OF_ARCHIVE)
            stream = archive.extractfile(member) if member.isreg() and name in names else None
            if stream is not None:
                contents[name] = _plain(name, stream.read())
    return contents
