"""Where the files of data sets and scores are: who may say so, and who goes before whom."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping

from zoo.errors import DataError, Problem, SpecError, nearest
from zoo.paths import absolute
from zoo.spec.diet import SCORE_FILE

__all__ = ["check_given", "chosen_paths", "score_path", "variable"]

Paths = Mapping[str, str | os.PathLike[str]]


def variable(name: str) -> str:
    """Return the environment variable that gives a path: ``ZOO_DATA_CIFAR10`` of ``cifar10``."""
    return "ZOO_DATA_" + re.sub(r"[^A-Z0-9]", "_", name.upper())


def chosen_paths(
    remembered: Paths, given: Paths | None = None, names: Iterable[str] = ()
) -> dict[str, str]:
    """Return data set or score file -> its absolute path, for every name that anybody gives one.

    An explicit argument or option goes before the environment variable, and that before what a
    sweep or a store remembers. Where none of them says anything there is the place of the system's
    package, which :func:`zoo.data.load` knows.

    Args:
        remembered: the paths of a sweep or a store.
        given: those that the caller gives now.
        names: data sets and scores that are needed, to find variables of names that nobody
            remembers.

    Raises:
        DataError: one variable that is set names the files of several sets.
    """
    whole = dict.fromkeys([*remembered, *(given or {}), *names])
    found = {name: str(absolute(path)) for name, path in remembered.items()}
    set_by: dict[str, list[str]] = {}
    for name in whole:
        value = os.environ.get(variable(name))
        if value and name not in (given or {}):
            found[name] = str(absolute(value))
            set_by.setdefault(variable(name), []).append(name)
    for key, several in set_by.items():
        if len(several) > 1:
            msg = (
                f"{key} is the variable of {' and '.join(map(repr, several))}; rename one of them,"
                " or give their paths by --data NAME=PATH (paths={...} in Python)"
            )
            raise DataError(msg)
    return found | {name: str(absolute(path)) for name, path in (given or {}).items()}


def check_given(given: Paths, names: Iterable[str], source: str) -> None:
    """Make sure that every path is given for a data set or score file that is in use.

    Raises:
        SpecError: names of nothing; all of them at once.
    """
    known = sorted(set(names))
    problems = [
        Problem("data", name, "no run uses it", ", ".join(known) or "none", _hint(name, known))
        for name in given
        if name not in known
    ]
    if problems:
        raise SpecError(problems, source)


def _hint(name: str, known: list[str]) -> str:
    close = nearest(name, known) or next((k for k in known if k.endswith(f":{name}")), None)
    return f"did you mean {close!r}?" if close else ""


def score_path(score: str, paths: Paths) -> str:
    """Return the path of a score ``file:PATH``."""
    given = paths.get(score) or os.environ.get(variable(score))
    return str(absolute(given or score.removeprefix(SCORE_FILE)))
