"""One step as a CUDA graph: captured once a group, then replayed without the host's launches.

A step of small models is dozens of kernels of a few microseconds each; launched one by one, the
host is the bottleneck. Shapes are fixed through a group's training, so its second step is recorded
and every later one replays the recording. What changes from step to step (ids, coefficients,
which models are live, their step numbers) is copied into tensors that the recording reads.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from zoo.train.step import Inputs, State

__all__ = ["graphed"]

#: Takes one step of a group in place, as :data:`zoo.train.backends.Take`.
Take = Callable[[State, Inputs, Tensor, Tensor, Tensor, Tensor], None]


#: Returns what runs a function again, at the addresses that it works on now.
Capture = Callable[[Callable[[], None]], Callable[[], None]]


@dataclass(frozen=True, slots=True, eq=False)
class _Recording:
    """A captured step of one group.

    Args:
        replay: runs it.
        places: addresses of the state that it reads and writes.
        arguments: the tensors that stand for ids, table, live and number.
    """

    replay: Callable[[], None]
    places: tuple[int, ...]
    arguments: tuple[Tensor, ...]


def graphed(take: Take, *, capture: Capture | None = None) -> Take:
    """Return ``take`` captured: the first step of a group runs as it is, the second is recorded.

    Args:
        take: one step, without a wait for the device. What it makes of ``active`` and
            ``diverged`` may be new tensors: they are copied back, since a recording works at fixed
            addresses.
        capture: what records; a CUDA graph unless given.

    Returns:
        The same step. A group whose state has moved, or whose batch has another shape, is recorded
        anew.
    """
    capture = capture or _cuda_graph
    recordings: dict[Inputs, _Recording] = {}
    warm: set[Inputs] = set()

    def record(state: State, inputs: Inputs, arguments: tuple[Tensor, ...]) -> _Recording:
        own = tuple(a.clone() for a in arguments)
        replay = capture(lambda: _in_place(take, state, inputs, own))
        return _Recording(replay, _places(state), own)

    def step(
        state: State, inputs: Inputs, ids: Tensor, table: Tensor, live: Tensor, number: Tensor
    ) -> None:
        arguments = (ids, table, live, number)
        if inputs not in warm:  # compiles kernels and settles libraries, which a capture may not
            warm.add(inputs)
            _in_place(take, state, inputs, arguments)
            return
        known = recordings.get(inputs)
        if known is None or not _fits(known, state, arguments):
            known = recordings[inputs] = record(state, inputs, arguments)
        for own, given in zip(known.arguments, arguments, strict=True):
            own.copy_(given)
        known.replay()

    return step


def _tensors(state: State) -> tuple[Tensor, ...]:
    return (state.slab, state.active, state.diverged, *state.moments, *state.memory)


def _places(state: State) -> tuple[int, ...]:
    return tuple(t.data_ptr() for t in _tensors(state))


def _fits(known: _Recording, state: State, arguments: tuple[Tensor, ...]) -> bool:
    shapes = [a.shape for a in arguments]
    return known.places == _places(state) and [a.shape for a in known.arguments] == shapes


def _in_place(take: Take, state: State, inputs: Inputs, arguments: tuple[Tensor, ...]) -> None:
    """Take a step and leave its result in the tensors that ``state`` had before."""
    old = _tensors(state)
    moments, memory = state.moments, state.memory
    take(state, inputs, *arguments)
    for before, after in zip(old, _tensors(state), strict=True):
        if after is not before:
            before.copy_(after)
    state.slab, state.active, state.diverged = old[:3]
    state.moments, state.memory = moments, memory


def _cuda_graph(function: Callable[[], None]) -> Callable[[], None]:
    graph: Any = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        function()
    replay: Callable[[], None] = graph.replay
    return replay
