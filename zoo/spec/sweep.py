"""The sweep: a file of axes in, runs out, and back to the file."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

from zoo.errors import Problem, SpecError
from zoo.paths import absolute, unpack_advice
from zoo.spec.axes import write_value
from zoo.spec.design import SweepBlock
from zoo.spec.diet import BASELINE, SCORE_FILE, random_twin
from zoo.spec.expand import unique_runs
from zoo.spec.read_sweep import count_designed, parse_toml, read_sweep
from zoo.spec.record import RecordSpec
from zoo.spec.run import RunSpec

__all__ = ["Sweep", "count_runs", "load_sweep"]

_Folder = str | PathLike[str] | None


@dataclass(frozen=True, init=False)
class Sweep:
    """A family of runs, described by axes; ``docs/sweeps.md`` is the guide to the format.

    The keywords are the tables of the file: ``Sweep(name="w", grid={"width": [16, 32]})``.

    Args:
        name: names the store; letters, digits, ``.``, ``_`` and ``-``.
        description: free text.
        axes: ``{"load": field, "temperature": field}``, either may be absent.
        base: fixed fields of every run.
        grid, zip, sample, when, exclude: the design, where there is one block.
        block: several designs, each a mapping of the same keys.
        record: a mapping of :class:`RecordSpec` fields.
        paths: data set, or score ``file:...`` -> path. Relative paths, those of scores too, count
            from the folder of the sweep file; of a sweep made in Python, from the current folder
            at that time.
        run: ``workers``, ``backend``, ``task_models``.
        diet: ``baseline`` (add the random diet of each size; default true), ``allow_init`` (allow
            scores of untrained networks; default false).

    Raises:
        SpecError: everything wrong with it, at once.
    """

    name: str
    description: str
    axes: Mapping[str, str]
    base: Mapping[str, Any]
    blocks: tuple[SweepBlock, ...]
    record: RecordSpec
    paths: Mapping[str, str]
    options: Mapping[str, Any]
    diet: Mapping[str, bool]
    #: Runs left out by ``exclude``.
    excluded: int = field(compare=False)
    #: Runs dropped because an equivalent one stands before them.
    collapsed: int = field(compare=False)
    #: Random diets added, of the sizes of the others.
    baselines: int = field(compare=False)
    _runs: tuple[RunSpec, ...] = field(compare=False, repr=False)

    def __init__(self, **tables: Any) -> None:
        self._load(tables, "sweep", None)

    def _load(self, raw: Mapping[str, Any], source: str, folder: _Folder) -> None:
        reading = read_sweep(raw, source)
        runs = [run for block in reading.blocks for run in block.runs]
        unique = unique_runs(runs)
        whole = unique
        if reading.parts["diet"].get("baseline", True):
            twins = [random_twin(run) for run in unique if run.keep and run.score != BASELINE]
            whole = unique_runs([*unique, *twins])
        found = {
            **reading.parts,
            "paths": _absolute_paths(reading.parts["paths"], whole, folder),
            "excluded": sum(block.excluded for block in reading.blocks),
            "collapsed": len(runs) - len(unique),
            "baselines": len(whole) - len(unique),
            "_runs": whole,
        }
        for name, value in found.items():
            object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        axes = "".join(f", {axis} {name}" for axis, name in self.axes.items())
        return f"<Sweep {self.name!r}: {len(self._runs):,} runs{axes}>"

    def runs(self) -> tuple[RunSpec, ...]:
        """Return every run once, in order of the file; of equivalent runs, the first."""
        return self._runs

    @classmethod
    def from_dict(
        cls, raw: Mapping[str, Any], *, source: str = "sweep", folder: _Folder = None
    ) -> Sweep:
        """Build a sweep from the tables of a file.

        Args:
            raw: the tables.
            source: where they come from, for messages.
            folder: what relative paths in it count from; None = the current folder.

        Raises:
            SpecError: everything wrong with it, at once.
        """
        sweep = cls.__new__(cls)
        sweep._load(raw, source, folder)
        return sweep

    @classmethod
    def from_toml(cls, text: str, *, source: str = "sweep", folder: _Folder = None) -> Sweep:
        """Build a sweep from the text of a file.

        Args:
            text: TOML.
            source: where it comes from, for messages.
            folder: what relative paths in it count from; None = the current folder.

        Raises:
            SpecError: everything wrong with it, at once.
        """
        return cls.from_dict(parse_toml(text, source), source=source, folder=folder)

    def with_paths(self, paths: Mapping[str, str]) -> Sweep:
        """Return the same sweep with other paths of its data sets and score files."""
        sweep = copy.copy(self)
        object.__setattr__(sweep, "paths", dict(paths))
        return sweep

    def to_dict(self) -> dict[str, Any]:
        """Return the tables of a file; :meth:`from_dict` gives an equal sweep back."""
        raw: dict[str, Any] = {"name": self.name}
        if self.description:
            raw["description"] = self.description
        if self.axes:
            raw["axes"] = dict(self.axes)
        if self.base:
            raw["base"] = {name: write_value(value) for name, value in self.base.items()}
        if len(self.blocks) == 1 and not self.blocks[0].base:
            raw |= self.blocks[0].to_raw()
        else:
            raw["block"] = [block.to_raw() for block in self.blocks]
        raw["record"] = self.record.to_dict()
        if self.paths:
            raw["paths"] = dict(self.paths)
        if self.options:
            raw["run"] = dict(self.options)
        if self.diet:
            raw["diet"] = dict(self.diet)
        return raw

    def to_toml(self) -> str:
        """Return the text of a file; :meth:`from_toml` gives an equal sweep back."""
        import tomli_w

        return tomli_w.dumps(self.to_dict())


def load_sweep(path: str | PathLike[str]) -> Sweep:
    """Read a sweep file; relative paths in it count from its own folder.

    Raises:
        SpecError: no such file, not UTF-8, not TOML, or anything wrong with the sweep.
    """
    return Sweep.from_toml(_read_text(path), source=str(path), folder=absolute(path).parent)


def count_runs(path: str | PathLike[str]) -> int:
    """Return about how many runs a sweep file has, without making them: quick for any number.

    Exclusions are not subtracted, and conditional parts count as if they held for every run.

    Raises:
        SpecError: no such file, not UTF-8 or not TOML.
    """
    return count_designed(parse_toml(_read_text(path), str(path)))


def _read_text(path: str | PathLike[str]) -> str:
    place = absolute(path)
    if advice := unpack_advice(place):
        raise SpecError([Problem("file", None, advice)], str(path))
    try:
        return place.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        problem = Problem("file", None, f"not UTF-8: {error.reason} at byte {error.start}")
        raise SpecError([problem], str(path)) from None
    except OSError as error:
        problem = Problem("file", None, f"cannot be read: {error.strerror or error}")
        raise SpecError([problem], str(path)) from error


def _absolute_paths(
    paths: Mapping[str, str], runs: Iterable[RunSpec], folder: _Folder
) -> dict[str, str]:
    """Return every path made absolute, with those of relative score files among them."""
    found = {name: str(absolute(path, folder)) for name, path in paths.items()}
    for score in dict.fromkeys(run.score for run in runs if run.score.startswith(SCORE_FILE)):
        path = score.removeprefix(SCORE_FILE)
        if score not in found and not Path(path).is_absolute():
            found[score] = str(absolute(path, folder))
    return found
