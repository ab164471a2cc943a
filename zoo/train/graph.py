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

from zoo.train.span import Take
from zoo.train.step import Inputs, State, StepRow

__all__ = ["graphed"]

#: Returns what runs a function again, at the addresses that it works on now.
Capture = Callable[[Callable[[], None]], Callable[[], None]]


@dataclass(slots=True, eq=False)
class _Recording:
    """A captured step of one group.

    Args:
        arguments: the tensors that stand for ids, table, live and number.
        places: addresses of the state that it reads and writes.
        replay: runs it; None until the second step.
    """

    arguments: StepRow
    places: tuple[int, ...] = ()
    replay: Callable[[], None] | None = None


def graphed(take: Take, *, capture: Capture | None = None) -> Take:
    """Return ``take`` captured: the first step of a group runs as it is, the second is recorded.

    Args:
        take: one step, without a wait for the device. What it makes of ``active`` and
            ``diverged`` may be new tensors: they are copied back, since a recording works at fixed
            addresses.
        capture: what records; CUDA graphs that share their memory unless given.

    Returns:
        The same step. A group whose state has moved, or whose batch has another shape, is recorded
        anew.
    """
    run_captured = capture or _cuda_graphs()
    recordings: dict[Inputs, _Recording] = {}

    def step(state: State, inputs: Inputs, given: StepRow) -> None:
        known = recordings.get(inputs)
        if known is None or [a.shape for a in known.arguments] != [a.shape for a in given]:
            known = recordings[inputs] = _Recording(StepRow(*(a.clone() for a in given)))
            # As it is, but on the recording's own arguments: every kernel is compiled for what the
            # capture will launch, since within one nothing can be loaded.
            _in_place(take, state, inputs, known.arguments)
            return
        arguments = known.arguments
        for own, value in zip(arguments, given, strict=True):
            own.copy_(value)
        if known.replay is None or known.places != _places(state):
            known.places = _places(state)
            known.replay = run_captured(lambda: _in_place(take, state, inputs, arguments))
        known.replay()

    return step


def _tensors(state: State) -> tuple[Tensor, ...]:
    return (state.slab, state.active, state.diverged, *state.moments, *state.memory)


def _places(state: State) -> tuple[int, ...]:
    return tuple(t.data_ptr() for t in _tensors(state))


def _in_place(take: Take, state: State, inputs: Inputs, row: StepRow) -> None:
    """Take a step and leave its result in the tensors that ``state`` had before."""
    old = _tensors(state)
    moments, memory = state.moments, state.memory
    take(state, inputs, row)
    for before, after in zip(old, _tensors(state), strict=True):
        if after is not before:
            before.copy_(after)
    state.slab, state.active, state.diverged = old[:3]
    state.moments, state.memory = moments, memory


def _cuda_graphs() -> Capture:
    """Return what captures CUDA graphs out of one pool of memory.

    Nothing that a replay leaves in the pool is read afterwards, so that the graphs can share it.
    """
    pool: list[Any] = []

    def capture(function: Callable[[], None]) -> Callable[[], None]:
        if not pool:
            pool.append(torch.cuda.graph_pool_handle())
        graph: Any = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=pool[0]):
            function()
        replay: Callable[[], None] = graph.replay
        return replay

    return capture
