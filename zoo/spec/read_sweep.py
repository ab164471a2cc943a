"""Reading a whole sweep file: every problem of the file is found before any is raised."""

from __future__ import annotations

import dataclasses
import math
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from zoo.errors import Problem, SpecError
from zoo.registry import vocabulary
from zoo.spec.axes import check_keys
from zoo.spec.check import check_value
from zoo.spec.design import SweepBlock
from zoo.spec.diet import INIT_REASON, SCORE_FILE, scored_at_init
from zoo.spec.effects import find_unread
from zoo.spec.expand import BlockRuns, designed_count, expand_block
from zoo.spec.limits import MAX_RUNS, MAX_WORKERS
from zoo.spec.read_block import BLOCK_KEYS, DESIGN_KEYS, read_base, read_block, table_of
from zoo.spec.record import RecordSpec
from zoo.spec.run import RunSpec, field_infos, unknown_field

__all__ = ["AXES", "BACKENDS", "Reading", "count_designed", "parse_toml", "read_sweep"]

#: The two axes of a phase diagram.
AXES = ("load", "temperature")
BACKENDS = ("auto", "compiled", "eager", "reference")
DEVICES = ("cpu", "cuda")

_KEYS = (
    "name", "description", "axes", "base", *DESIGN_KEYS, "block", "record", "paths", "run", "diet",
)  # fmt: skip
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_TOML_PLACE = re.compile(r" \(at (line \d+, column \d+|end of document)\)$")


@dataclass(frozen=True, slots=True)
class Reading:
    """Everything that a sweep file says.

    Args:
        parts: the attributes of a sweep, as :class:`zoo.spec.sweep.Sweep` names them.
        blocks: the runs of each block.
    """

    parts: Mapping[str, Any]
    blocks: tuple[BlockRuns, ...]


def parse_toml(text: str, source: str) -> dict[str, Any]:
    """Return the tables of a TOML text.

    Raises:
        SpecError: not TOML; the problem names the line and the column.
    """
    try:
        return tomllib.loads(text.removeprefix("\ufeff"))
    except tomllib.TOMLDecodeError as error:
        message = str(error)
        place = _TOML_PLACE.search(message)
        where = place.group(1) if place else "file"
        if where == "end of document":
            lines = text.split("\n")
            where = f"line {len(lines)}, column {len(lines[-1]) + 1}, end of document"
        clean = _TOML_PLACE.sub("", message)
        raise SpecError([Problem(where, None, f"not TOML: {clean}")], source) from None
    except ValueError:  # Python reads no integer of more digits
        problem = Problem("file", None, "not TOML: a number of thousands of digits")
        raise SpecError([problem], source) from None
    except RecursionError:
        problem = Problem("file", None, "not TOML: nested too deeply")
        raise SpecError([problem], source) from None


def read_sweep(raw: Mapping[str, Any], source: str) -> Reading:
    """Return what ``raw`` describes.

    Args:
        raw: the tables of a sweep file.
        source: where they come from, for messages.

    Raises:
        SpecError: everything wrong with the sweep.
    """
    problems: list[Problem] = []
    check_keys(raw, _KEYS, "", problems)
    parts: dict[str, Any] = {
        "name": _read_name(raw, problems),
        "description": _read_text(raw, "description", problems),
        "axes": _read_axes(raw, problems),
        "base": read_base(table_of(raw, "base", "base", problems), "base", problems),
        "record": _read_record(table_of(raw, "record", "record", problems), problems),
        "paths": _read_paths(table_of(raw, "paths", "paths", problems), problems),
        "options": _read_options(table_of(raw, "run", "run", problems), problems),
        "diet": _read_diet(table_of(raw, "diet", "diet", problems), problems),
    }
    base_is_clean = not any(p.field.startswith("base") for p in problems)
    found = _read_blocks(raw, parts["base"], problems)
    designed = sum(designed_count(block) for _, block, _ in found)
    if len(found) > 1 and designed > MAX_RUNS:
        message = f"the blocks have {designed:,} runs"
        problems.append(Problem("block", None, message, f"up to {MAX_RUNS:,} in one sweep"))
    expanded: list[BlockRuns] = []
    for prefix, block, wrong in found:
        if base_is_clean and not wrong and (len(found) == 1 or designed <= MAX_RUNS):
            expanded.append(expand_block(block, parts["base"], prefix))
            wrong.extend(expanded[-1].problems)
        problems.extend(wrong)
    if not problems:
        problems.extend(_check_whole(parts, expanded))
    if problems:
        raise SpecError(problems, source)
    blocks = tuple(block for _, block, _ in found)
    return Reading({**parts, "blocks": blocks}, tuple(expanded))


def count_designed(raw: Mapping[str, Any]) -> int:
    """Return about how many runs a sweep has, from the lengths of its axes alone.

    Conditional parts count as if they held for every run; exclusions and repeats are not known
    before the runs are made. What is wrong with the file is left for :func:`read_sweep` to say.
    """
    return sum(
        designed_count(block)
        * math.prod(len(axis) for part in block.when for axis in part.grid.values())
        for _, block, _ in _read_blocks(raw, {}, [])
    )


def _read_blocks(
    raw: Mapping[str, Any], base: Mapping[str, Any], problems: list[Problem]
) -> list[tuple[str, SweepBlock, list[Problem]]]:
    """Return the place of each block, the block, and what is wrong with it."""
    out = []
    for prefix, table in _block_tables(raw, problems):
        wrong: list[Problem] = []
        block = read_block(table, prefix, wrong)
        if not prefix:
            wrong.extend(_fixed_and_swept(base, block))
        out.append((prefix, block, wrong))
    return out


def _block_tables(
    raw: Mapping[str, Any], problems: list[Problem]
) -> list[tuple[str, Mapping[str, Any]]]:
    """Return ``(prefix, tables)`` of each block; a file without ``[[block]]`` is one block."""
    designed = {key: raw[key] for key in DESIGN_KEYS if key in raw}
    if "block" not in raw:
        return [("", designed)]
    for key in designed:
        fix = f"move it into a block, as [block.{key}] below its [[block]]"
        problems.append(Problem(key, None, "is given beside [[block]]", "", fix))
    tables = raw["block"]
    if not isinstance(tables, list | tuple) or not all(isinstance(t, Mapping) for t in tables):
        problems.append(Problem("block", None, "is not a list of tables", "[[block]]"))
        return []
    if not tables:
        problems.append(Problem("block", None, "there is no block in it", "[[block]]"))
    for index, table in enumerate(tables):
        check_keys(table, BLOCK_KEYS, f"block[{index}]", problems)
    return [(f"block[{index}].", table) for index, table in enumerate(tables)]


def _fixed_and_swept(base: Mapping[str, Any], block: SweepBlock) -> list[Problem]:
    return [
        Problem(place, None, f"is given here and in base.{name}", "one place per field")
        for place, name in block.swept()
        if name in base
    ]


def _read_name(raw: Mapping[str, Any], problems: list[Problem]) -> str:
    name = raw.get("name")
    if isinstance(name, str) and _NAME.fullmatch(name):
        return name
    message = "is missing" if name is None else "not a name"
    allowed = "letters, digits, '.', '_' and '-', a letter or digit first"
    problems.append(Problem("name", name, message, allowed))
    return ""


def _read_text(raw: Mapping[str, Any], key: str, problems: list[Problem]) -> str:
    text = raw.get(key, "")
    if isinstance(text, str):
        return text
    problems.append(Problem(key, text, f"is {type(text).__name__}, not a string", "a string"))
    return ""


def _read_axes(raw: Mapping[str, Any], problems: list[Problem]) -> dict[str, str]:
    table = table_of(raw, "axes", "axes", problems)
    check_keys(table, AXES, "axes", problems)
    axes: dict[str, str] = {}
    for key in AXES:
        name = table.get(key)
        if name is None:
            continue
        if not isinstance(name, str) or name not in field_infos():
            problem = unknown_field(f"axes.{key}", str(name))
            problems.append(dataclasses.replace(problem, value=name, message="unknown field"))
        elif name in axes.values():
            problems.append(Problem(f"axes.{key}", name, "is both axes", "two fields"))
        else:
            axes[key] = name
    return axes


def _read_record(table: Mapping[str, Any], problems: list[Problem]) -> RecordSpec:
    names = tuple(item.name for item in dataclasses.fields(RecordSpec))
    check_keys(table, names, "record", problems)
    try:
        return RecordSpec(**{key: value for key, value in table.items() if key in names})
    except SpecError as error:
        problems.extend(error.problems)
        return RecordSpec()


def _read_paths(table: Mapping[str, Any], problems: list[Problem]) -> dict[str, str]:
    out = {}
    for name, path in table.items():
        problem = None
        if vocabulary("data") is not None and not name.startswith(SCORE_FILE):
            problem = check_value(field_infos()["data"], name, f"paths.{name}")[1]
        if problem is None and (not isinstance(path, str) or not path):
            problem = Problem(f"paths.{name}", path, "not a path", "a string")
        if problem is not None:
            problems.append(problem)
        else:
            out[name] = path
    return out


_OPTIONS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "workers": (
        f"an integer from 1 to {MAX_WORKERS}",
        lambda v: type(v) is int and 1 <= v <= MAX_WORKERS,
    ),
    "backend": (", ".join(BACKENDS), lambda v: v in BACKENDS),
    "device": (", ".join(DEVICES), lambda v: v in DEVICES),
    "task_models": (
        f"an integer from 1 to {MAX_RUNS}",
        lambda v: type(v) is int and 1 <= v <= MAX_RUNS,
    ),
}


def _read_options(table: Mapping[str, Any], problems: list[Problem]) -> dict[str, Any]:
    check_keys(table, tuple(_OPTIONS), "run", problems)
    out = {}
    for key, (allowed, accepts) in _OPTIONS.items():
        if key not in table:
            continue
        if accepts(table[key]):
            out[key] = table[key]
        else:
            problems.append(Problem(f"run.{key}", table[key], "not allowed", allowed))
    return out


def _read_diet(table: Mapping[str, Any], problems: list[Problem]) -> dict[str, bool]:
    """Return what holds for all diets of a sweep: the switches that are given."""
    switches = ("baseline", "allow_init")
    check_keys(table, switches, "diet", problems)
    given = {key: table[key] for key in switches if key in table}
    problems.extend(
        Problem(f"diet.{key}", value, "not allowed", "true, false")
        for key, value in given.items()
        if type(value) is not bool
    )
    return given


def _check_whole(parts: Mapping[str, Any], expanded: Sequence[BlockRuns]) -> list[Problem]:
    """Return what only shows when every block is there."""
    runs: list[RunSpec] = [run for block in expanded for run in block.runs]
    problems: list[Problem] = []
    if len(runs) > MAX_RUNS:  # conditional parts multiply
        allowed = f"up to {MAX_RUNS:,} in one sweep"
        problems.append(Problem("block", None, f"the blocks have {len(runs):,} runs", allowed))
    problems.extend(find_unread(parts["base"], runs, "base"))
    early = [run for run in runs if scored_at_init(run)]
    if early and not parts["diet"].get("allow_init", False):
        message = f"{early[0].score} of untrained networks (in {len(early)} runs): {INIT_REASON}"
        fix = "to show just that, write allow_init = true in [diet]"
        problems.append(Problem("score_epoch", 0.0, message, "> 0", fix))
    for key, name in parts["axes"].items():
        values = {getattr(run, name) for run in runs}
        if len(values) < 2:
            message = "has one value in every run"
            fix = "give it a grid, or name another field"
            problems.append(Problem(f"axes.{key}", name, message, "a field that varies", fix))
    return problems
