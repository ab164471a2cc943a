"""Resolution of many runs at once: what only the size of a data set can tell."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from zoo.errors import Problem, SpecError
from zoo.spec.expand import counted
from zoo.spec.run import RunSpec

__all__ = ["resolve_runs"]


def resolve_runs(
    runs: Iterable[RunSpec], train_examples: Mapping[str, int], *, source: str = "sweep"
) -> tuple[RunSpec, ...]:
    """Return every run with ``train_size``, ``steps`` and ``epochs`` as numbers.

    Args:
        runs: the runs of a sweep.
        train_examples: data key -> training examples.
        source: for messages.

    Raises:
        SpecError: each different problem once, with the number of runs that have it.
    """
    out: list[RunSpec] = []
    found: dict[tuple[str, object, str], list[Problem]] = {}
    total = 0
    for run in runs:
        total += 1
        try:
            out.append(run.resolve(train_examples[run.data_key]))
        except SpecError as error:
            for problem in error.problems:
                key = (problem.field, problem.value, problem.allowed)
                found.setdefault(key, []).append(problem)
    if found:
        raise SpecError([counted(group, total) for group in found.values()], source)
    return tuple(out)
