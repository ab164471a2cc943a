"""The three ways to run the same step: plain torch loop, stacked eager, stacked and compiled."""

from __future__ import annotations

import os
import shutil
import types
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple

import torch
import torch._higher_order_ops as higher_order
from torch import Tensor

from zoo.errors import TrainError
from zoo.objectives import Settings
from zoo.registry import Registry
from zoo.train.dynamic import DietRuns
from zoo.train.graph import graphed
from zoo.train.span import Span, Take, TakeSpan, in_turn
from zoo.train.step import Inputs, Recipe, State, StepRow, advance

__all__ = [
    "BACKENDS",
    "DEVICES",
    "PRECISIONS",
    "can_compile",
    "check_compiler",
    "check_device",
    "conv_form",
    "eager_recipe",
    "eager_step",
    "reachable",
    "step_function",
]

BACKENDS = ("eager", "compiled", "reference")
#: Types of devices that a cohort can be planned for.
DEVICES = ("cpu", "cuda")

PRECISIONS: Registry[torch.dtype] = Registry("precision", field="precision")
PRECISIONS.register("float32", doc="single precision throughout")(torch.float32)
PRECISIONS.register(
    "bfloat16",
    doc="forward and backward in bfloat16; weights, statistics and loss in float32",
    source="Kalamkar et al. 2019, arXiv 1905.12322",
)(torch.bfloat16)

_VERSION = tuple(map(int, torch.__version__.split(".")[:2]))
#: Torch 2.11 checks the indices of patches with C++ that no compiler takes; 2.13 does it well.
_CHECKS_INDICES = _VERSION >= (2, 13)
#: Torch compiles loops over steps for CPUs.
_LOOPS = _VERSION >= (2, 13)

_COUNTER = iter(range(1 << 62))


@cache
def can_compile() -> bool:
    """Return whether this machine has the C++ compiler that a compiled step needs."""
    named = os.environ.get("CXX")
    return any(shutil.which(name) for name in (named, "g++", "clang++") if name)


def reachable(device: str) -> bool:
    """Return whether torch reaches a device of this type here."""
    return torch.device(device).type != "cuda" or torch.cuda.is_available()


def check_device(device: str) -> None:
    """Make sure that torch reaches a device.

    Raises:
        TrainError: it does not.
    """
    if not reachable(device):
        built = torch.version.cuda
        why = "this build of torch is for CPUs alone"
        if built:
            why = f"its build is for CUDA {built}, but no driver or card answers"
        msg = (
            f"the cohorts are planned for {device!r}, and torch {torch.__version__} finds no GPU"
            f" here: {why}; run where there is one, or plan a new store with device 'cpu'"
        )
        raise TrainError(msg)


def check_compiler() -> None:
    """Make sure that this machine can compile steps for its CPU.

    Raises:
        TrainError: it has no C++ compiler.
    """
    if not can_compile():
        msg = (
            "the backend 'compiled' needs a C++ compiler, and this machine has none: install g++ or"
            " clang++, name one in CXX, or take the backend 'eager'"
        )
        raise TrainError(msg)


def conv_form(backend: str, *, device: str = "cpu") -> str:
    """Return the form of the convolution that is quickest on a backend.

    A compiler fuses patches into the matrix products around them; run op by op on a CPU, the copies
    that patches need cost more than one grouped convolution does (benchmarks/bench_train.py). On a
    GPU each layer takes what was measured (:mod:`zoo.kernels.conv_forms`).
    """
    if backend == "compiled":
        return "im2col"
    return "measured" if device == "cuda" else "grouped"


def eager_recipe(recipe: Recipe) -> Recipe:
    """Return the recipe as eager evaluation runs it."""
    measured = recipe.conv == "measured"
    return recipe if measured else replace(recipe, conv=conv_form("eager"))


def step_function(recipe: Recipe, backend: str, *, device: str = "cpu") -> TakeSpan:
    """Return what takes a recipe's steps on the ``"eager"`` or ``"compiled"`` backend.

    Args:
        recipe: what the models share.
        backend: how to run it.
        device: type of the device that it will run on.
    """
    if backend == "compiled":
        return _compiled(recipe, device)
    # What dynamic diets do on the host between operations cannot be captured.
    capturable = device == "cuda" and recipe.dynamic is None
    return in_turn(graphed(eager_step(recipe)) if capturable else eager_step(recipe))


def eager_step(recipe: Recipe) -> Take:
    """Return one step run op by op."""

    def take(state: State, inputs: Inputs, row: StepRow) -> None:
        new = advance(recipe, state, inputs, row)
        state.slab, state.moments = new.slab, new.moments
        state.active, state.diverged = new.active, new.diverged
        state.memory = new.memory

    return take


def _compiled(recipe: Recipe, device: str) -> TakeSpan:
    """Return compiled steps: on a CPU one loop over a span, else one call per step."""
    program = _Program(recipe)
    looped = device == "cpu" and _LOOPS
    compiled: Any = torch.compile(
        _own_code(program.loop if looped else program.step),
        dynamic=False,
        fullgraph=True,
        options={"cpp_wrapper": device == "cpu", "assert_indirect_indexing": _CHECKS_INDICES},
    )

    def take(state: State, inputs: Inputs, row: StepRow) -> None:
        compiled(*program.arguments(state, inputs), row)

    def take_span(state: State, inputs: Inputs, span: Span) -> None:
        bounds = torch.tensor(span.first), torch.tensor(span.stop)
        compiled(*program.arguments(state, inputs), span.tensors, *bounds)

    return take_span if looped else in_turn(take)


#: A state as a compiled program takes it: slab, active, diverged, moments, memory.
_Flat = tuple[Tensor, ...]


class _Fixed(NamedTuple):
    """A group's inputs as a compiled program takes them: of the diet, the objective, the rest."""

    diet: _Flat
    settings: Settings
    given: _Flat


class _Program:
    """What is compiled for a cohort, as functions of tensors alone.

    Args:
        recipe: what the models share.
    """

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self._moments = len(recipe.optimizer.moments)
        self._known: dict[Inputs, _Fixed] = {}
        # which inputs there are is the same in every step of a cohort
        self._names: tuple[str, ...] = ()

    def arguments(self, state: State, inputs: Inputs) -> tuple[_Flat, _Fixed]:
        """Return the state and the inputs as :meth:`step` and :meth:`loop` take them."""
        if inputs not in self._known:
            named, diet = inputs.tensors(), inputs.diet
            self._names = tuple(named)
            counted = () if diet is None else (diet.counts, diet.options)
            self._known[inputs] = _Fixed(counted, dict(inputs.settings), tuple(named.values()))
        flat = (state.slab, state.active, state.diverged, *state.moments, *state.memory)
        return flat, self._known[inputs]

    def _after(self, flat: _Flat, fixed: _Fixed, row: StepRow) -> _Flat:
        slab, active, diverged, *rest = flat
        moments, memory = rest[: self._moments], rest[self._moments :]
        state = State(slab, tuple(moments), active, diverged, tuple(memory))
        named = dict(zip(self._names, fixed.given, strict=True))
        runs = DietRuns(*fixed.diet) if fixed.diet else None
        inputs = Inputs(**named, diet=runs, settings=fixed.settings)
        new = advance(self.recipe, state, inputs, row)
        return (new.slab, new.active, new.diverged, *new.moments, *new.memory)

    def step(self, flat: _Flat, fixed: _Fixed, row: StepRow) -> None:
        """Take one step in place: inside the graph the copies fuse with what they copy."""
        for old, value in zip(flat, self._after(flat, fixed, row), strict=True):
            old.copy_(value)

    def loop(self, flat: _Flat, fixed: _Fixed, rows: _Flat, first: Tensor, stop: Tensor) -> None:
        """Take the steps ``first`` to ``stop`` of ``rows`` in place."""

        def more(at: Tensor, *carried: Tensor) -> Tensor:
            return at < stop

        def body(at: Tensor, *carried: Tensor) -> tuple[Tensor, ...]:
            # plain indexing by a tensor does not trace inside a loop
            row = StepRow(*(t.index_select(0, at.view(1))[0] for t in rows))
            after = self._after(carried, fixed, row)
            # a loop may not hand on what it was given
            own = (a.clone() if a is c else a for a, c in zip(after, carried, strict=True))
            return (at + 1, *own)

        loop: Any = higher_order.while_loop
        _, *after = loop(more, body, (first, *flat))
        for old, value in zip(flat, after, strict=True):
            old.copy_(value)


def _own_code(method: Callable[..., None]) -> Callable[..., None]:
    """Return a method of a program with a code object of its own.

    Dynamo counts recompilations by code object and silently falls back to eager after a few;
    every cohort's program shares one code object, so each gets a copy.
    """
    assert isinstance(method, types.MethodType)
    function = method.__func__
    code = function.__code__.replace(co_name=f"{function.__name__}_{next(_COUNTER)}")
    own = types.FunctionType(
        code, function.__globals__, code.co_name, function.__defaults__, function.__closure__
    )
    return types.MethodType(own, method.__self__)
