"""Steps of a group that are taken in one call: what changes from step to step, laid out ahead.

Data order and schedules are functions of the step number, so a whole block of steps can be drawn
before any of them is taken, and one compiled loop can take them with no Python in between.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from torch import Tensor

from zoo.train.step import Inputs, State, StepRow

__all__ = ["Span", "Take", "TakeSpan", "in_turn", "spans"]


@dataclass(frozen=True, slots=True, eq=False)
class Span:
    """Steps ``first`` to ``stop`` of a block of T.

    Args:
        ids: ``[T, G, B]`` example ids.
        table: ``[T, n, G, 1]`` coefficients of the optimizer.
        live: ``[T, G]`` bool, false for models that are done.
        number: ``[T, G]`` int64, each model's own step.
        first, stop: the steps that are meant; those from ``stop`` on may be padding.
    """

    ids: Tensor
    table: Tensor
    live: Tensor
    number: Tensor
    first: int
    stop: int

    @property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The four tensors, in the order in which a step takes their rows."""
        return self.ids, self.table, self.live, self.number

    def between(self, first: int, stop: int) -> Span:
        """Return other steps of the same block."""
        return replace(self, first=first, stop=stop)


#: Takes one step of a group.
Take: TypeAlias = Callable[[State, Inputs, StepRow], None]
#: Takes the steps of a span.
TakeSpan: TypeAlias = Callable[[State, Inputs, Span], None]


def in_turn(take: Take) -> TakeSpan:
    """Return what takes a span's steps one call after another."""

    def take_span(state: State, inputs: Inputs, span: Span) -> None:
        rows = (t[span.first : span.stop].unbind() for t in span.tensors)
        for row in zip(*rows, strict=True):
            take(state, inputs, StepRow(*row))

    return take_span


def spans(ends: Sequence[bool]) -> Iterator[tuple[int, int]]:
    """Yield (first, stop) over a block: a step at which a model ends is alone, others together."""
    first = 0
    for step, alone in enumerate(ends):
        if alone:
            if first < step:
                yield first, step
            yield step, step + 1
            first = step + 1
    if first < len(ends):
        yield first, len(ends)
