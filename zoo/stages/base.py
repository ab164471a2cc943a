"""What a stage is, and which there are; how its parts are handed out is the executors' affair."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from zoo.registry import Registry

__all__ = ["ALMOST", "BUSY", "DONE", "STAGES", "Part", "Talk", "Work", "open_stage"]

#: A part is done, now or before.
DONE = "done"
#: Another live process owns a part.
BUSY = "busy"
#: A part of which every result is durable, but which has not ended, counts as this share of one.
ALMOST = 0.999


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a stage, done by one process.

    Args:
        key: its name in the stage: letters, digits, dots, hyphens and underscores.
        models: the models that it is about, for the progress bar.
        cost: of what is left of the part, in any unit; the most expensive are done first.
        commits: results that it makes durable one by one, the last of which ends it.
        done: share that is there already; 1 = all of it.
    """

    key: str
    models: int
    cost: float = 1.0
    commits: int = 1
    done: float = 0.0


@dataclass(frozen=True, slots=True)
class Talk:
    """What a part says while it is being done, and how it is asked to save.

    Args:
        committed: told how many of its results are durable, at the start and after each.
        saved: told of every save that was asked for.
        requests: what a signal to save calls.
    """

    committed: Callable[[int], None] = lambda count: None
    saved: Callable[[], None] = lambda: None
    requests: list[Callable[[], None]] = field(default_factory=list)


class Work(Protocol):
    """A stage on one store: all that an executor knows of it.

    Another process opens the same work by the four words ``name``, ``store``, ``settings`` and
    ``paths`` (:func:`open_stage`).
    """

    @property
    def name(self) -> str:
        """The stage's name in :data:`STAGES`."""

    @property
    def phase(self) -> str:
        """What is going on, for people: ``"training"``, ``"landscape"``."""

    @property
    def store(self) -> Path:
        """Where the store is."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """The settings of the stage, JSON-ready."""

    @property
    def paths(self) -> Mapping[str, str]:
        """Data set or score file → where it is."""

    @property
    def keeps_failures(self) -> bool:
        """Whether the store keeps why a part was given up.

        Where it does not, a fault in the caller's own process is the caller's to see.
        """

    def parts(self) -> Sequence[Part]:
        """Return every part, those that are done included."""

    def worker(self, talk: Talk) -> Callable[[str], str]:
        """Return what does a part by its key, and returns :data:`DONE` or :data:`BUSY`."""

    def give_up(self, key: str, reason: str, traceback: str) -> None:
        """Write down why a part was given up, unless it is somebody else's by now."""

    def finish(self) -> None:
        """Publish the results, once every part is done; doing it again does nothing new."""


#: Stage name → function of store, settings and data paths that opens it. What a stage needs is
#: imported when it is opened: a worker that trains has no use for the libraries of the landscape.
STAGES: Registry[Callable[[Path, Mapping[str, Any], Mapping[str, str]], Work]] = Registry("stage")


def open_stage(
    name: str, store: Path, settings: Mapping[str, Any], paths: Mapping[str, str]
) -> Work:
    """Return a stage on a store.

    Args:
        name: of the stage.
        store: the store.
        settings: of the stage.
        paths: data set or score file → where it is.

    Raises:
        UnknownNameError: there is no such stage.
        StoreError: the store cannot be read.
    """
    return STAGES[name](store, settings, paths)
