"""Plug-ins: files of a user's own that register entries, loaded by path or by entry point.

A plug-in is a Python file, or a folder with an ``__init__.py``. Its content is hashed before it is
run; the hash goes into the identity of every run that uses one of its entries, so that an entry
with the same name and another content is another entry.
"""

from __future__ import annotations

import hashlib
import importlib.abc
import importlib.util
import os
import sys
import traceback
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from zoo.errors import RegistryError
from zoo.filling import BEFORE_PLUGINS
from zoo.paths import absolute
from zoo.registry import brought_by, take_out, vocabularies

__all__ = [
    "GROUP",
    "Plugin",
    "load_installed",
    "load_plugin",
    "load_plugins",
    "loaded_plugins",
    "places",
    "recorded_plugins",
    "reload_recorded",
    "remember_places",
    "unload_plugin",
]

#: The entry-point group by which an installed package brings entries.
GROUP = "phasezoo.plugins"

_PREFIX = "zoo_plugin_"


@dataclass(frozen=True, slots=True)
class Plugin:
    """A plug-in that is loaded.

    Args:
        path: its file or folder, absolute.
        sha256: of its content.
    """

    path: Path
    sha256: str


_LOADED: dict[Path, Plugin] = {}
#: sha256 -> path, of the plug-ins that stores name which were opened: for messages alone.
_PLACES: dict[str, str] = {}
_INSTALLED: list[bool] = []


def loaded_plugins() -> tuple[Plugin, ...]:
    """Return every plug-in that is loaded, in order."""
    return tuple(_LOADED.values())


def remember_places(recorded: Mapping[str, str]) -> None:
    """Note where a store's plug-ins were, so that a message can name the files.

    Args:
        recorded: sha256 -> path.
    """
    _PLACES.update(recorded)


def places(sha256: str) -> tuple[str, ...]:
    """Return the file of a plug-in, or all that it may be where its content is one of several."""
    if sha256 in _PLACES:
        return (_PLACES[sha256],)
    return tuple(dict.fromkeys(_PLACES.values()))


def load_plugin(path: str | os.PathLike[str]) -> Plugin:
    """Run a plug-in, which registers its entries; one that is loaded already is left alone.

    A file whose content has changed takes the place of what it brought before.

    Args:
        path: a ``.py`` file, or a folder with an ``__init__.py``.

    Raises:
        RegistryError: there is no such file, it cannot be run, or an entry of it cannot be
            registered. None of its entries is there then.

    Example:
        >>> import zoo
        >>> zoo.load_plugin("my_zoo.py")  # doctest: +SKIP
    """
    place = absolute(path)
    _fill()
    files = _files(place)
    found = Plugin(place, _sha256(place, files))
    before = _LOADED.get(place)
    if before == found:
        return found
    unload_plugin(place)
    for other in _LOADED.values():
        if other.sha256 == found.sha256:  # a copy of it; its entries are there
            return other
    with brought_by(found.sha256):
        _run(place, files, _module_name(found))
    _LOADED[place] = found
    return found


def load_plugins(paths: Iterable[str | os.PathLike[str]]) -> tuple[Plugin, ...]:
    """Load several plug-ins.

    Raises:
        RegistryError: as :func:`load_plugin`.
    """
    return tuple(load_plugin(path) for path in paths)


def unload_plugin(path: str | os.PathLike[str]) -> None:
    """Take out what a plug-in brought; one that is not loaded is left alone.

    Args:
        path: as it was loaded.
    """
    found = _LOADED.pop(absolute(path), None)
    if found is not None:
        take_out(found.sha256)
        _forget(_module_name(found))


def recorded_plugins() -> dict[str, str]:
    """Return path -> sha256 of what is loaded, for :func:`reload_recorded` elsewhere."""
    return {str(plugin.path): plugin.sha256 for plugin in _LOADED.values()}


def reload_recorded(recorded: Mapping[str, str]) -> None:
    """Load in a worker what its parent has loaded.

    Args:
        recorded: of :func:`recorded_plugins`.

    Raises:
        RegistryError: as :func:`load_plugin`, or a file has changed since.
    """
    for path, sha256 in recorded.items():
        found = load_plugin(path)
        if found.sha256 != sha256:
            msg = (
                f"plug-in {path} was changed while its runs were being trained: its sha256 was"
                f" {sha256}, is {found.sha256}; put the file back, or start the command again"
            )
            raise RegistryError(msg)


def load_installed() -> None:
    """Load what installed packages offer in the entry-point group; free after the first time.

    Raises:
        RegistryError: one of them cannot be loaded.
    """
    if _INSTALLED:
        return
    _INSTALLED.append(True)
    for point in metadata.entry_points(group=GROUP):
        _fill()
        spec = importlib.util.find_spec(point.module)
        if spec is None or spec.origin is None:
            msg = f"entry point {point.name!r} of {GROUP}: there is no module {point.module}"
            raise RegistryError(msg)
        origin = Path(spec.origin)
        place = absolute(origin.parent if origin.name == "__init__.py" else origin)
        if place in _LOADED:
            continue
        found = Plugin(place, _sha256(place, _files(place)))
        try:
            with brought_by(found.sha256):
                point.load()
        except Exception as error:
            msg = (
                f"the plug-in {point.name!r} ({point.value}) of an installed package cannot be"
                f" loaded: {type(error).__name__}: {error}; update or uninstall the package"
            )
            raise RegistryError(msg) from error
        _LOADED[place] = found


def _fill() -> None:
    """Have phasezoo's own entries registered, whose names a plug-in cannot take."""
    vocabularies()
    for fill in BEFORE_PLUGINS:
        fill()


def _module_name(plugin: Plugin) -> str:
    """Return the name that a plug-in is imported by, which no other content has."""
    return f"{_PREFIX}{plugin.sha256[:16]}"


def _files(place: Path) -> dict[str, bytes]:
    """Return name within the plug-in -> content, of every Python file of it."""
    try:
        if place.is_dir():
            paths = sorted(p for p in place.rglob("*.py") if "__pycache__" not in p.parts)
            found = {p.relative_to(place).as_posix(): p.read_bytes() for p in paths}
            if "__init__.py" in found:
                return found
            msg = f"plug-in {place}: a folder without an __init__.py; give a .py file or a package"
            raise RegistryError(msg)
        if place.suffix != ".py":
            msg = f"plug-in {place}: not a Python file; give a .py file, or a folder that is one"
            raise RegistryError(msg)
        return {place.name: place.read_bytes()}
    except OSError as error:
        msg = f"plug-in {place}: cannot be read: {error.strerror or error}"
        raise RegistryError(msg) from None


def _sha256(place: Path, files: Mapping[str, bytes]) -> str:
    """Return the hash of the content; the name of a single file is no part of it."""
    if not place.is_dir():
        return hashlib.sha256(next(iter(files.values()))).hexdigest()
    digest = hashlib.sha256()
    for name, content in files.items():
        digest.update(f"{name} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()


class _Bytes(importlib.abc.SourceLoader):
    """Loads the very bytes that were hashed, and no cached code of others.

    Args:
        name: of the module.
        file: where the bytes were read.
        content: the bytes.
    """

    def __init__(self, name: str, file: str, content: bytes) -> None:
        self.name, self.file, self.content = name, file, content

    def get_filename(self, fullname: str) -> str:
        """Return where the bytes were read."""
        return self.file

    def get_data(self, path: str | os.PathLike[str]) -> bytes:
        """Return the bytes; of code that is cached there is none."""
        if str(path) != self.file:
            raise FileNotFoundError(path)
        return self.content


def _run(place: Path, files: Mapping[str, bytes], name: str) -> None:
    """Import a plug-in under a name that no other content has."""
    package = place.is_dir()
    entry = place / "__init__.py" if package else place
    loader = _Bytes(name, str(entry), files[entry.name])
    spec = importlib.util.spec_from_file_location(
        name, entry, loader=loader,
        submodule_search_locations=[str(place)] if package else None,
    )  # fmt: skip
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        loader.exec_module(module)
    except BaseException as error:
        _forget(name)
        if not isinstance(error, Exception):
            raise
        msg = f"plug-in {place}{_where(error, str(entry))}: {_told(error)}"
        raise RegistryError(msg) from error


def _forget(name: str) -> None:
    for known in [n for n in sys.modules if n == name or n.startswith(f"{name}.")]:
        del sys.modules[known]


def _where(error: Exception, file: str) -> str:
    """Return the line of the plug-in at which it failed, as ``", line 7"``."""
    if isinstance(error, SyntaxError):
        return f", line {error.lineno}"
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == file]
    return f", line {lines[-1]}" if lines else ""


def _told(error: Exception) -> str:
    if isinstance(error, RegistryError):
        return str(error)
    return f"{type(error).__name__}: {error}"
