"""The three ways to run the same step: plain torch loop, stacked eager, stacked and compiled."""

from __future__ import annotations

import os
import shutil
import types
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import torch
from torch import Tensor

from zoo.errors import TrainError
from zoo.registry import Registry
from zoo.train.dynamic import DietRuns
from zoo.train.graph import graphed
from zoo.train.step import Inputs, Recipe, State, advance

__all__ = [
    "BACKENDS",
    "DEVICES",
    "PRECISIONS",
    "can_compile",
    "check_compiler",
    "check_device",
    "conv_form",
    "eager_recipe",
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

#: Takes one step of a group, as :data:`zoo.train.step.StepFunction`.
Take = Callable[[State, Inputs, Tensor, Tensor, Tensor, Tensor], None]

#: Torch 2.11 checks the indices of patches with C++ that no compiler takes; 2.13 does it well.
_CHECKS_INDICES = tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 13)

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


def step_function(recipe: Recipe, backend: str, *, device: str = "cpu") -> Take:
    """Return the step of a recipe on the ``"eager"`` or ``"compiled"`` backend.

    Args:
        recipe: what the models share.
        backend: how to run it.
        device: type of the device that it will run on.
    """
    if backend == "compiled":
        return _compiled(recipe, device)
    # What dynamic diets do on the host between operations cannot be captured.
    capturable = device == "cuda" and recipe.dynamic is None
    return graphed(_eager(recipe)) if capturable else _eager(recipe)


def _eager(recipe: Recipe) -> Take:
    def take(
        state: State, inputs: Inputs, ids: Tensor, table: Tensor, live: Tensor, number: Tensor
    ) -> None:
        new = advance(recipe, state, inputs, ids, table, live, number)
        state.slab, state.moments = new.slab, new.moments
        state.active, state.diverged = new.active, new.diverged
        state.memory = new.memory

    return take


def _compiled(recipe: Recipe, device: str) -> Take:
    count = len(recipe.optimizer.moments)

    # which inputs there are is the same in every step of a cohort
    names: list[str] = []

    def flat(diet: tuple[Tensor, ...], settings: dict[str, Tensor], *tensors: Tensor) -> None:
        slab, active, diverged, *rest = tensors
        runs, memory = (DietRuns(*diet[:2]), diet[2:]) if diet else (None, ())
        state = State(slab, tuple(rest[:count]), active, diverged, memory)
        given = dict(zip(names, rest[count:], strict=False))
        inputs = Inputs(**given, diet=runs, settings=settings)
        new = advance(recipe, state, inputs, *rest[count + len(names) :])
        # Written in place inside the graph, where the copies fuse with what they copy.
        slab.copy_(new.slab)
        active.copy_(new.active)
        diverged.copy_(new.diverged)
        for old, moment in zip(state.moments, new.moments, strict=True):
            old.copy_(moment)
        for old, value in zip(state.memory, new.memory, strict=True):
            old.copy_(value)

    flattened: dict[Inputs, dict[str, Tensor]] = {}
    compiled: Any = torch.compile(
        _own_code(flat),
        dynamic=False,
        fullgraph=True,
        options={"cpp_wrapper": device == "cpu", "assert_indirect_indexing": _CHECKS_INDICES},
    )

    def take(
        state: State, inputs: Inputs, ids: Tensor, table: Tensor, live: Tensor, number: Tensor
    ) -> None:
        if inputs not in flattened:
            flattened[inputs] = inputs.tensors()
            names[:] = flattened[inputs]
        runs = inputs.diet
        diet = () if runs is None else (runs.counts, runs.options, *state.memory)
        compiled(
            diet, inputs.settings, state.slab, state.active, state.diverged, *state.moments,
            *flattened[inputs].values(), ids, table, live, number,
        )  # fmt: skip

    return take


def _own_code(function: Callable[..., None]) -> Callable[..., None]:
    """Return the function with a code object of its own.

    Dynamo counts recompilations by code object and silently falls back to eager after a few;
    every cohort's closure shares one code object, so each gets a copy.
    """
    code = function.__code__.replace(co_name=f"step_{next(_COUNTER)}")
    return types.FunctionType(
        code, function.__globals__, code.co_name, function.__defaults__, function.__closure__
    )
