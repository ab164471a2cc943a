"""The sweep: a file of axes in, runs out, and back to the file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

from zoo.errors import Problem, SpecError
from zoo.spec.axes import write_value
from zoo.spec.design import Block
from zoo.spec.diet import BASELINE, random_twin
from zoo.spec.expand import unique_runs
from zoo.spec.read_sweep import parse_toml, read_sweep
from zoo.spec.record import RecordSpec
from zoo.spec.run import RunSpec

__all__ = ["Sweep", "load_sweep"]


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
        paths: data set -> path.
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
    blocks: tuple[Block, ...]
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
        self._load(tables, "sweep")

    def _load(self, raw: Mapping[str, Any], source: str) -> None:
        reading = read_sweep(raw, source)
        runs = [run for block in reading.blocks for run in block.runs]
        unique = unique_runs(runs)
        whole = unique
        if reading.parts["diet"].get("baseline", True):
            twins = [random_twin(run) for run in unique if run.keep and run.score != BASELINE]
            whole = unique_runs([*unique, *twins])
        found = {
            **reading.parts,
            "excluded": sum(block.excluded for block in reading.blocks),
            "collapsed": len(runs) - len(unique),
            "baselines": len(whole) - len(unique),
            "_runs": whole,
        }
        for name, value in found.items():
            object.__setattr__(self, name, value)

    def runs(self) -> tuple[RunSpec, ...]:
        """Return every run once, in order of the file; of equivalent runs, the first."""
        return self._runs

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any], *, source: str = "sweep") -> Sweep:
        """Build a sweep from the tables of a file.

        Raises:
            SpecError: everything wrong with it, at once.
        """
        sweep = cls.__new__(cls)
        sweep._load(raw, source)
        return sweep

    @classmethod
    def from_toml(cls, text: str, *, source: str = "sweep") -> Sweep:
        """Build a sweep from the text of a file.

        Args:
            text: TOML.
            source: where it comes from, for messages.

        Raises:
            SpecError: everything wrong with it, at once.
        """
        return cls.from_dict(parse_toml(text, source), source=source)

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
    """Read a sweep file.

    Raises:
        SpecError: no such file, not UTF-8, not TOML, or anything wrong with the sweep.
    """
    place = Path(path)
    try:
        text = place.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        problem = Problem("file", None, f"not UTF-8: {error.reason} at byte {error.start}")
        raise SpecError([problem], str(path)) from None
    except OSError as error:
        problem = Problem("file", None, f"cannot be read: {error.strerror or error}")
        raise SpecError([problem], str(path)) from error
    return Sweep.from_toml(text, source=str(path))
