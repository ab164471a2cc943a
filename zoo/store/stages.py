"""A stage's finished parts: what makes a long stage resumable, until its results are published.

Settings are hashed into the stage's id, so parts of other settings are never mixed up. A part is a
file, written whole or not at all; whoever works on a part holds its lock.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.errors import StoreCorruptError, StoreError
from zoo.paths import is_clutter
from zoo.store.create import existing
from zoo.store.files import STRAY_SUFFIX, read_bytes, store_errors, write_atomic
from zoo.store.locks import hold
from zoo.store.resume import open_bytes, pack, seal_bytes, unpack

__all__ = ["StageFolder", "part_problem", "settings_damage", "stage_id", "stage_settings"]

_LOG = logging.getLogger(__name__)

_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_FACTS = "__facts__"
_STAGE = "__stage__"
#: Bytes of the record that ends a zip archive.
_ZIP_END = 22


def stage_id(name: str, settings: Mapping[str, Any]) -> str:
    """Return the id of a stage with its settings: twelve hexadecimal digits of a sha256.

    Raises:
        StoreError: settings that JSON cannot carry.
    """
    try:
        text = json.dumps([name, settings], sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        msg = f"settings of stage {name!r} must be JSON: {error}"
        raise StoreError(msg) from error
    return hashlib.sha256(text.encode()).hexdigest()[:12]


class StageFolder:
    """The parts of one stage with one choice of settings, in one store.

    Args:
        path: the store.
        name: of the stage.
        settings: JSON-ready; everything that the results depend on besides the store.

    Raises:
        StoreMissingError: no store is there.
        StoreError: settings that JSON cannot carry.
    """

    def __init__(self, path: str | PathLike[str], name: str, settings: Mapping[str, Any]) -> None:
        self.paths = existing(path)
        self.name = name
        self.settings = dict(settings)
        self.id = stage_id(name, settings)
        self.folder = self.paths.stage(f"{name}-{self.id}")

    @property
    def _locks(self) -> Path:
        return self.paths.locks / "stages" / f"{self.name}-{self.id}"

    def _file(self, part: str) -> Path:
        if not _KEY.fullmatch(part):
            msg = f"{part!r} cannot name a part; allowed: letters, digits, dot, hyphen, underscore"
            raise StoreError(msg)
        return self.folder / f"{part}.npz"

    def parts_done(self) -> frozenset[str]:
        """Return the keys of the finished parts; a damaged one is not finished."""
        files = self.folder.glob("*.npz")
        return frozenset(f.stem for f in files if not is_clutter(f) and self.done(f.stem))

    def done(self, part: str) -> bool:
        """Return whether a part is finished; a damaged one is not."""
        file = self._file(part)
        if not file.exists():
            return False
        what = part_problem(file)
        if what is not None:
            _LOG.warning("%s %s; it is computed again", file, what)
        return what is None

    @contextlib.contextmanager
    def claim(self, part: str) -> Iterator[bool]:
        """Own a part for the block.

        Yields:
            True if this process owns it now, False if another live process does.
        """
        self._file(part)
        with hold(self._locks / f"{part}.lock") as owned:
            yield owned

    def _write_settings(self, file: Path, data: bytes) -> None:
        """Write the settings, unless another process is about to, and clear what a kill left."""
        with hold(self._locks / ".settings.lock") as owned:
            if owned:
                for stray in self.folder.glob(f"{file.name}.*{STRAY_SUFFIX}"):
                    stray.unlink(missing_ok=True)
                write_atomic(file, data)

    def write(
        self,
        part: str,
        arrays: Mapping[str, NDArray[Any]],
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        """Write a finished part; durable when this returns.

        Args:
            part: its key.
            arrays: plain arrays.
            facts: JSON-ready, returned with them.

        Raises:
            StoreError: an array of objects, facts that JSON cannot carry, or the disk refuses.
        """
        file = self._file(part)
        self.paths.check_inside(file)
        settings, data = self.folder / "settings.json", _settings_bytes(self.name, self.settings)
        with store_errors("write", self.folder):
            if not (settings.exists() and settings.read_bytes() == data):
                self._write_settings(settings, data)
        try:
            text = json.dumps(dict(facts or {}), allow_nan=False)
        except (TypeError, ValueError) as error:
            msg = f"facts of part {part!r} must be JSON: {error}"
            raise StoreError(msg) from error
        about = {_FACTS: text, _STAGE: json.dumps([self.name, self.settings])}
        texts = {name: np.frombuffer(t.encode(), dtype=np.uint8) for name, t in about.items()}
        write_atomic(file, seal_bytes(pack({**arrays, **texts}), _part_name(file)))

    def read(self, part: str) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Return the arrays and the facts of a finished part.

        Raises:
            StoreCorruptError: it is missing, torn or altered.
        """
        file = self._file(part)
        data = read_bytes(file)
        try:
            arrays = _unpack_part(file, data)
            arrays.pop(_STAGE, None)
            facts = json.loads(arrays.pop(_FACTS).tobytes())
        except (StoreCorruptError, ValueError, KeyError) as error:
            msg = f"{file} is damaged ({error}); run the stage again, which computes it anew"
            raise StoreCorruptError(msg) from error
        return arrays, facts


def _settings_bytes(name: str, settings: Mapping[str, Any]) -> bytes:
    return json.dumps({"stage": name, "settings": dict(settings)}, indent=1).encode() + b"\n"


def _part_name(file: Path) -> str:
    return f"{file.parent.name}/{file.stem}"


def _unpack_part(file: Path, data: bytes) -> dict[str, NDArray[Any]]:
    """Return the members of a part.

    Raises:
        StoreCorruptError: it is not as it was written, or another part.
    """
    if data[-_ZIP_END:].startswith(b"PK\x05\x06"):  # of an earlier version, without a name
        return unpack(data)
    return unpack(open_bytes(data, _part_name(file)))


def part_problem(file: Path) -> str | None:
    """Return what is wrong with a finished part, a clause; None if it is sound."""
    try:
        _unpack_part(file, file.read_bytes())
    except FileNotFoundError:
        return None
    except (StoreCorruptError, OSError) as error:
        return str(error)
    return None


def stage_settings(folder: Path) -> tuple[str, dict[str, Any]] | None:
    """Return name and settings of the stage that a folder is of, or None if nothing there says so.

    Where ``settings.json`` is damaged, a part says so.
    """
    for found in _told(folder):
        with contextlib.suppress(ValueError, KeyError, TypeError, RecursionError, StoreError):
            name, settings = found()
            if f"{name}-{stage_id(name, settings)}" == folder.name:
                return str(name), dict(settings)
    return None


def _told(folder: Path) -> Iterator[Callable[[], tuple[Any, Any]]]:
    def of_file() -> tuple[Any, Any]:
        body = json.loads(read_bytes(folder / "settings.json"))
        return body["stage"], body["settings"]

    def of_part(file: Path) -> tuple[Any, Any]:
        name, settings = json.loads(_unpack_part(file, read_bytes(file))[_STAGE].tobytes())
        return name, settings

    yield of_file
    for file in sorted(folder.glob("*.npz")):
        yield functools.partial(of_part, file)


def settings_damage(folder: Path) -> tuple[str, bytes | None] | None:
    """Return what is wrong with the settings of a stage's folder; None if nothing is.

    Returns:
        A clause, and the right content if anything in the folder has it.
    """
    file, known = folder / "settings.json", stage_settings(folder)
    right = None if known is None else _settings_bytes(*known)
    with contextlib.suppress(OSError):
        if file.read_bytes() == right:
            return None
    return "is not as it was written" if file.exists() else "is missing", right
