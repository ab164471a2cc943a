"""A stage's finished parts: what makes a long stage resumable, until its results are published.

Settings are hashed into the stage's id, so parts of other settings are never mixed up. A part is a
file, written whole or not at all; whoever works on a part holds its lock.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import re
import zipfile
from collections.abc import Iterator, Mapping
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.errors import StoreCorruptError, StoreError
from zoo.store.create import existing
from zoo.store.files import read_bytes, store_errors, write_atomic
from zoo.store.locks import hold
from zoo.store.resume import pack

__all__ = ["StageFolder", "stage_id"]

_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_FACTS = "__facts__"


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

    def _file(self, part: str) -> Any:
        if not _KEY.fullmatch(part):
            msg = f"{part!r} cannot name a part; allowed: letters, digits, dot, hyphen, underscore"
            raise StoreError(msg)
        return self.folder / f"{part}.npz"

    def parts_done(self) -> frozenset[str]:
        """Return the keys of the finished parts."""
        return frozenset(file.stem for file in self.folder.glob("*.npz"))

    def done(self, part: str) -> bool:
        """Return whether a part is finished."""
        return bool(self._file(part).exists())

    @contextlib.contextmanager
    def claim(self, part: str) -> Iterator[bool]:
        """Own a part for the block.

        Yields:
            True if this process owns it now, False if another live process does.
        """
        self._file(part)
        lock = self.paths.records / "locks" / "stages" / f"{self.name}-{self.id}" / f"{part}.lock"
        with hold(lock) as owned:
            yield owned

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
        settings = self.folder / "settings.json"
        with store_errors("write", self.folder):
            if not settings.exists():
                text = json.dumps({"stage": self.name, "settings": self.settings}, indent=1)
                write_atomic(settings, text.encode() + b"\n")
        try:
            text = json.dumps(dict(facts or {}), allow_nan=False)
        except (TypeError, ValueError) as error:
            msg = f"facts of part {part!r} must be JSON: {error}"
            raise StoreError(msg) from error
        data = np.frombuffer(text.encode(), dtype=np.uint8)
        write_atomic(self._file(part), pack({**arrays, _FACTS: data}))

    def read(self, part: str) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Return the arrays and the facts of a finished part.

        Raises:
            StoreCorruptError: it is missing, torn or altered.
        """
        file = self._file(part)
        data = read_bytes(file)
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
            facts = json.loads(arrays.pop(_FACTS).tobytes())
        except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
            msg = f"{file} is damaged ({error}); delete it and run the stage again"
            raise StoreCorruptError(msg) from error
        return arrays, facts
