"""Stages whose parts are files: each computed by whoever claims it, and written whole.

Such a stage is a pure function of the store and its settings, so it can be killed at any moment and
run again, by several processes and on several machines; the end publishes from the parts alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from zoo.arithmetic import pinned
from zoo.stages.base import BUSY, DONE, Part, Talk
from zoo.store import StageFolder

__all__ = ["FolderWork", "Stage"]


class Stage(Protocol):
    """What a stage of this kind reads, does and publishes."""

    @property
    def name(self) -> str:
        """The name in :data:`zoo.stages.STAGES`."""

    def parts(self, path: Path, settings: Mapping[str, Any]) -> Sequence[Part]:
        """Return the parts; a pure function of the store's plan and the settings."""

    def run_part(
        self, path: Path, settings: Mapping[str, Any], key: str, paths: Mapping[str, str]
    ) -> tuple[Mapping[str, NDArray[np.generic]], Mapping[str, Any]]:
        """Return a part's arrays and JSON-ready facts; ``paths``: data set → where it is."""

    def finish(
        self,
        path: Path,
        settings: Mapping[str, Any],
        folder: StageFolder,
        paths: Mapping[str, str],
    ) -> None:
        """Publish the results, from the parts in ``folder``; doing it again does nothing new."""


@dataclass(frozen=True, slots=True)
class FolderWork:
    """Such a stage on a store, as :class:`zoo.stages.Work`.

    Args:
        stage: the stage.
        store: the store.
        settings: of the stage.
        paths: data set or score file → where it is.
    """

    stage: Stage
    store: Path
    settings: Mapping[str, Any]
    paths: Mapping[str, str]
    keeps_failures: bool = False

    @property
    def name(self) -> str:
        """The stage's name."""
        return self.stage.name

    @property
    def phase(self) -> str:
        """The stage's name, for people."""
        return self.name.replace("-", " ")

    @property
    def folder(self) -> StageFolder:
        """Where the parts are."""
        return StageFolder(self.store, self.name, self.settings)

    def parts(self) -> Sequence[Part]:
        """Return every part; one is done when its file is there."""
        there = self.folder.parts_done()
        parts = self.stage.parts(self.store, self.settings)
        return [replace(part, done=float(part.key in there)) for part in parts]

    def worker(self, talk: Talk) -> Callable[[str], str]:
        """Return what computes and writes a part; it has nothing to save before its end."""
        return self._do

    def _do(self, key: str) -> str:
        folder = self.folder
        with folder.claim(key) as owned:
            if not owned:
                return BUSY
            if not folder.done(key):
                start = time.monotonic()
                with pinned():
                    arrays, facts = self.stage.run_part(self.store, self.settings, key, self.paths)
                folder.write(key, arrays, {**facts, "wall_s": time.monotonic() - start})
        return DONE

    def give_up(self, key: str, reason: str, traceback: str) -> None:
        """Leave no trace: the next call of the stage tries again."""

    def finish(self) -> None:
        """Publish the results."""
        with pinned():
            self.stage.finish(self.store, self.settings, self.folder, self.paths)
