"""Splits: which runs train and which test, decided once, written down and hashed.

A run is never on two sides. What else must stay together is the choice of the split: all runs of a
seed (so that no initialisation is on two sides), of a cell, of an architecture, or any columns; or
a region of hyper-parameters is held out whole. Nothing depends on the order of files or rows:
groups are ordered by the sha256 of (seed, values).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.dataset.any_view import AnyView, V
from zoo.dataset.selection import column_names
from zoo.errors import Problem, QueryError, SpecError, StoreError
from zoo.paths import absolute
from zoo.store.files import disk_message
from zoo.store.outputs import FileKind, write_output
from zoo.store.records import parse_record, record_bytes

__all__ = [
    "FRACTIONS",
    "Split",
    "group_keys",
    "group_names",
    "read_fractions",
    "split_by",
    "split_where",
]

#: Parts of a split and their shares where nothing is said.
FRACTIONS: Mapping[str, float] = {"train": 0.7, "val": 0.15, "test": 0.15}

#: What a part is called where only shares are given, by how many there are.
_PARTS = {2: ("train", "test"), 3: ("train", "val", "test")}

#: Shares of the parts: by name, or in the order train, val, test.
Fractions = Mapping[str, float] | Sequence[float]

_AGAIN = "remove it, and make it again with the same options and seed"
_SPLIT = FileKind("a split", lambda data: b'"encoding-type":"phasezoo-split"' in data[:200])

#: Columns that decide the architecture.
_ARCHITECTURE = ("architecture", "width", "depth", "activation", "norm", "norm_groups")


@dataclass(frozen=True, slots=True)
class Split:
    """Disjoint sets of runs, frozen.

    Args:
        parts: part → run ids, sorted; ``train`` and ``test`` as a rule, and ``val``.
        by: what was kept together: columns, or the predicates of a region.
        seed: of the assignment; -1 for regions.
        unused: runs that are in no part, as they would be between two.

    Raises:
        SpecError: a run in two parts, or in one twice.
    """

    parts: Mapping[str, tuple[str, ...]]
    by: tuple[str, ...] = ("run_id",)
    seed: int = 0
    unused: tuple[str, ...] = ()
    _side: Mapping[str, str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        side: dict[str, str] = {}
        problems = []
        for name, runs in self.parts.items():
            for run in runs:
                if run in side:
                    message = f"is in {side[run]!r} and in {name!r}"
                    problems.append(
                        Problem(f"parts.{name}", run, message, "each run once", "make a new split")
                    )
                side[run] = name
        if problems:
            raise SpecError(problems, "split")
        object.__setattr__(self, "parts", {k: tuple(sorted(v)) for k, v in self.parts.items()})
        object.__setattr__(self, "_side", side)

    @property
    def hash(self) -> str:
        """Sixteen hexadecimal digits of the sha256 over the parts: equal splits, equal hashes."""
        body = {name: list(runs) for name, runs in sorted(self.parts.items())}
        text = json.dumps(body, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def side(self, run_id: str) -> str | None:
        """Return the part that a run is in, None if it is in none."""
        return self._side.get(run_id)

    def rows(self, view: AnyView, *, drop_unknown: bool = False) -> dict[str, NDArray[np.int64]]:
        """Return the positions of a view's rows by part, in the view's order.

        Args:
            view: any rows.
            drop_unknown: leave out rows of runs that the split does not have (a zoo that was
                extended since); otherwise they are an error.

        Raises:
            QueryError: runs that the split does not have.
        """
        runs = view["run_id"]
        distinct, inverse = np.unique(runs, return_inverse=True)
        sides = np.array([self._side.get(run, "") for run in distinct.tolist()], dtype=np.str_)
        lost = np.setdiff1d(distinct[sides == ""], self.unused)
        if len(lost) and not drop_unknown:
            msg = (
                f"{len(lost)} runs of the view are not in the split (the first: {lost[0]}); make a"
                " new split, or leave them out with drop_unknown=True"
            )
            raise QueryError(msg)
        at = sides[inverse] if len(runs) else sides
        return {name: np.flatnonzero(at == name) for name in self.parts}

    def views(self, view: V, *, drop_unknown: bool = False) -> dict[str, V]:
        """Return the rows of a view by part, as views; see :meth:`rows`."""
        found = self.rows(view, drop_unknown=drop_unknown)
        return {name: view[at] for name, at in found.items()}

    def __repr__(self) -> str:
        return f"<{self}>"

    def __str__(self) -> str:
        sizes = ", ".join(f"{name} {len(runs)}" for name, runs in self.parts.items())
        sizes += f", unused {len(self.unused)}" if self.unused else ""
        return f"Split {self.hash} by {', '.join(self.by)} (runs: {sizes})"

    def save(self, path: str | PathLike[str]) -> None:
        """Write the split as one checksummed JSON file.

        Raises:
            NameTakenError: something else than an earlier split is there.
            StoreError: the file cannot be written.
        """
        parts = {name: list(runs) for name, runs in self.parts.items()}
        body = {"by": list(self.by), "seed": self.seed, "parts": parts, "hash": self.hash}
        data = record_bytes("split", {**body, "unused": list(self.unused)})
        write_output(path, data, _SPLIT)

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Split:
        """Read a split.

        Raises:
            StoreCorruptError: the file is not as it was written.
            StoreError: it cannot be read.
            SpecError: a run is in two parts.
        """
        where = absolute(path)
        try:
            data = where.read_bytes()
        except OSError as error:
            raise StoreError(disk_message("read", where, error)) from error
        body = parse_record(data, where, "split", advice=_AGAIN)
        split = cls(
            {name: tuple(runs) for name, runs in body["parts"].items()},
            tuple(body["by"]),
            int(body["seed"]),
            tuple(body["unused"]),
        )
        if split.hash != body["hash"]:
            msg = f"{path}: the runs do not match the hash {body['hash']}"
            raise StoreError(msg)
        return split


def group_keys(view: AnyView, by: str | Sequence[str]) -> NDArray[np.int64]:
    """Return a number for each row of a view; rows with one number must stay together, ``[n]``.

    Args:
        view: any rows.
        by: ``"run"``, ``"seed"`` (of the initialisation), ``"cell"`` (runs of equal
            specs but for their seeds), ``"architecture"``, or names of columns.

    Raises:
        QueryError: an unknown column.
    """
    codes = np.zeros(len(view), dtype=np.int64)
    for name in _columns(by):
        inverse = np.unique(view[name], return_inverse=True)[1]
        codes = np.unique(codes * (len(view) + 1) + inverse, return_inverse=True)[1]
    return codes.astype(np.int64)


def group_names(view: AnyView, by: str | Sequence[str]) -> list[str]:
    """Return the same as texts: the values of the columns, which no other row changes."""
    columns = [view[name].tolist() for name in _columns(by)]
    return [json.dumps([str(v) for v in values]) for values in zip(*columns, strict=True)]


def split_by(
    view: AnyView,
    by: str | Sequence[str] = "run",
    *,
    apart: str | Sequence[str] | None = None,
    fractions: Fractions = FRACTIONS,
    seed: int = 0,
) -> Split:
    """Split the runs of a view at random, keeping together what shares a value.

    The groups are ordered by a hash of (seed, their values) and dealt out in that order, so the
    result is a function of the runs, ``by``, ``fractions`` and ``seed`` alone.

    Args:
        view: the runs to split are those with a row here.
        by: as in :func:`group_keys`.
        apart: what must not be shared either: ``by="cell", apart="seed"`` tests new cells from new
            initialisations. Runs that are new in one and known in the other are in no part, so a
            part has about the square of its share.
        fractions: part → share of the groups; the shares add up to 1. Two shares alone are those
            of train and test, three those of train, val and test.
        seed: of the assignment.

    Raises:
        SpecError: shares that do not add up to 1, fewer groups than parts, or an empty part.
        QueryError: an unknown column.
    """
    shares, problems = read_fractions(fractions)
    for keys in [by] if apart is None else [by, apart]:
        problems += _too_few(view, keys, shares)
    if problems:
        raise SpecError(problems, "split")
    side = _dealt(view, by, shares, seed)
    names = _columns(by)
    unused: set[str] = set()
    if apart is not None:
        other = _dealt(view, apart, shares, seed)
        unused = {run for run, name in side.items() if other[run] != name}
        names = (*names, "apart:", *_columns(apart))
    parts: dict[str, list[str]] = {name: [] for name, share in shares.items() if share > 0}
    for run, name in side.items():
        if run not in unused:
            parts[name].append(run)
    empty = [
        Problem("apart", apart, f"no run is left for {name!r}", fix="fewer parts, or larger ones")
        for name, runs in parts.items()
        if not runs
    ]
    if empty:
        raise SpecError(empty, "split")
    return Split({k: tuple(v) for k, v in parts.items()}, names, seed, tuple(sorted(unused)))


def read_fractions(given: Any) -> tuple[dict[str, float], list[Problem]]:
    """Return part → share, from a mapping or from two or three shares in their usual order.

    Beside them what is wrong: other things, or shares that do not add up to 1.
    """
    allowed = '{"train": 0.8, "test": 0.2}, (0.8, 0.2) or (0.7, 0.15, 0.15), adding up to 1'
    problem: str | None = None
    shares: dict[Any, Any] = {}
    if isinstance(given, Mapping):
        shares = dict(given)
    elif isinstance(given, Sequence) and not isinstance(given, str) and len(given) in _PARTS:
        shares = dict(zip(_PARTS[len(given)], given, strict=True))
    else:
        problem = "are no shares of parts"
    wrong = [
        name
        for name, share in shares.items()
        if isinstance(share, bool)
        or not isinstance(share, int | float | np.number)
        or not 0 <= share <= 1
    ]
    if wrong:
        problem = f"{wrong[0]!r} has no share from 0 to 1"
    elif shares and abs(sum(shares.values()) - 1) > 1e-9:
        problem = f"add up to {sum(shares.values()):g}"
    elif not problem and not shares:
        problem = "are no shares of parts"
    shown = dict(given) if isinstance(given, Mapping) else given
    problems = [Problem("fractions", shown, problem, allowed)] if problem else []
    return {str(n): float(s) for n, s in shares.items() if n not in wrong}, problems


def _groups(view: AnyView, by: str | Sequence[str]) -> dict[str, set[str]]:
    """Return what must stay together → the runs."""
    groups: dict[str, set[str]] = {}
    for run, name in zip(view["run_id"].tolist(), group_names(view, by), strict=True):
        groups.setdefault(name, set()).add(run)
    return groups


def _too_few(view: AnyView, by: str | Sequence[str], shares: Mapping[str, float]) -> list[Problem]:
    groups, parts = len(_groups(view, by)), sum(share > 0 for share in shares.values())
    if groups >= parts:
        return []
    columns = ", ".join(_columns(by))
    message = f"{groups} groups by {columns} for {parts} parts"
    return [Problem("by", by, message, fix="split by something that varies more")]


def _dealt(
    view: AnyView, by: str | Sequence[str], fractions: Mapping[str, float], seed: int
) -> dict[str, str]:
    """Return run id → part."""
    groups = _groups(view, by)
    wanted = {name: share for name, share in fractions.items() if share > 0}
    order = sorted(groups, key=lambda k: hashlib.sha256(f"{seed}:{k}".encode()).digest())
    side: dict[str, str] = {}
    start = 0
    for name, stop in _cuts(wanted, len(order)).items():
        side |= {run: name for key in order[start:stop] for run in groups[key]}
        start = stop
    return side


def split_where(view: AnyView, **parts: str) -> Split:
    """Split by regions: each part is a predicate over the columns of a run, the rest trains.

    ``split_where(view, test="width >= 64")`` holds out the wide models; a predicate for ``train``
    leaves what meets none out of the split.

    Args:
        view: the runs to split are those with a row here.
        parts: part → predicate.

    Raises:
        QueryError: an unknown column, or a part without a run.
        SpecError: a run that meets two predicates.
    """
    present = set(view["run_id"].tolist())
    found: dict[str, tuple[str, ...]] = {}
    for name, predicate in parts.items():
        runs = view.zoo.runs(predicate, columns=["run_id"])["run_id"].tolist()
        found[name] = tuple(run for run in runs if run in present)
        if not found[name]:
            msg = f"no run of the view meets {predicate!r}, the region of {name!r}"
            raise QueryError(msg)
    if "train" not in parts:
        taken = {run for runs in found.values() for run in runs}
        found = {"train": tuple(present - taken), **found}
    return Split(found, tuple(f"{k}: {v}" for k, v in parts.items()), -1)


def _cuts(fractions: Mapping[str, float], n: int) -> dict[str, int]:
    """Return where each part ends, every part with at least one of the n groups."""
    cuts: dict[str, int] = {}
    share, done = 0.0, 0
    for place, (name, fraction) in enumerate(fractions.items()):
        share += fraction
        left = len(fractions) - place - 1
        done = min(max(round(share * n), done + 1), n - left)
        cuts[name] = n if left == 0 else done
    return cuts


def _columns(by: str | Iterable[str]) -> tuple[str, ...]:
    if not isinstance(by, str):
        return column_names(by, "by")
    named = {
        "run": ("run_id",),
        "seed": ("init_seed",),
        "cell": ("cell",),
        "architecture": _ARCHITECTURE,
    }
    return named.get(by, (by,))
