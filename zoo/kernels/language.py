"""Triton if it is there and wanted, and the one way in which kernels are launched.

Rules that every kernel here keeps, so that a model's bits depend on its own shapes alone:

* tiles follow from the shape of one model; there is no autotuning and no argument counts models;
* a sum has one fixed order; there are no atomics;
* arithmetic is float32 from the load on, and products are not contracted with sums;
* nothing waits for the device.

Triton is imported where torch is built for a GPU, with ``TRITON_INTERPRET=1`` (kernels then run
on CPU tensors, slowly, for tests) and with ``ZOO_KERNELS=compile`` (ahead-of-time compilation).
Everywhere else the plain-torch references run, and Triton's import is not paid for.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor

__all__ = [
    "HAVE_TRITON",
    "INTERPRETED",
    "Launch",
    "Value",
    "blocks",
    "constexpr",
    "jit",
    "launch",
    "on_device",
    "power_of_two",
    "recorded_launches",
    "tl",
    "without_kernels",
]

INTERPRETED = os.environ.get("TRITON_INTERPRET", "0") == "1"
_BUILT_FOR_GPU = torch.version.cuda is not None or torch.version.hip is not None
_WANTED = INTERPRETED or _BUILT_FOR_GPU or os.environ.get("ZOO_KERNELS") == "compile"
#: Whether kernels can be compiled in this process.
HAVE_TRITON = _WANTED and importlib.util.find_spec("triton") is not None

#: The module ``triton.language``, or None.
tl: Any = None
_triton: Any = None
if HAVE_TRITON:
    _triton = importlib.import_module("triton")
    tl = importlib.import_module("triton.language")

# Annotations of a kernel's arguments, run-time and compile-time: Triton looks these names up.
if TYPE_CHECKING:
    Value: TypeAlias = Any
    constexpr: TypeAlias = Any
else:
    Value = object if tl is None else tl.tensor
    constexpr = object if tl is None else tl.constexpr


@dataclass(frozen=True, slots=True, eq=False)
class Launch:
    """One recorded launch: what to compile, without running it."""

    kernel: Any
    arguments: tuple[Any, ...]
    constants: dict[str, Any]
    warps: int


_RECORD: list[Launch] | None = None
_PLAIN = False


def jit(function: Callable[..., Any]) -> Any:
    """Return the function as a Triton kernel, or as it is where there is no Triton."""
    return function if _triton is None else _triton.jit(function)


def on_device(*tensors: Tensor | None) -> bool:
    """Return whether an operation on these tensors runs as a Triton kernel.

    It does on a GPU, and on a CPU under the interpreter; within ``torch.compile`` the plain torch
    form is traced instead, since the compiler fuses it into what stands around it. The plain form
    also serves what no kernel does: float64, and tensors that autograd follows.
    """
    if not HAVE_TRITON or _PLAIN or torch.compiler.is_compiling():
        return False
    given = [t for t in tensors if t is not None]
    if any(t.dtype == torch.float64 for t in given):
        return False
    if torch.is_grad_enabled() and any(t.requires_grad for t in given):
        return False
    return INTERPRETED or _RECORD is not None or all(t.is_cuda for t in given)


def power_of_two(n: int, *, least: int = 1, most: int = 1 << 20) -> int:
    """Return the smallest power of two that is at least n, within ``[least, most]``."""
    return min(max(1 << max(n - 1, 0).bit_length(), least), most)


def blocks(n: int, size: int) -> int:
    """Return ⌈n / size⌉."""
    return -(-n // size)


def launch(
    kernel: Any, grid: Sequence[int], *arguments: Any, warps: int = 4, **constants: Any
) -> None:
    """Run a kernel over a grid; contraction of products and sums is off, as bits need it.

    Args:
        kernel: from :func:`jit`.
        grid: one to three extents; an empty one launches nothing.
        arguments: tensors (None where a compile-time flag says that it is not read) and integers.
        warps: of 32 threads, a program.
        constants: the compile-time arguments.
    """
    if _RECORD is not None:
        _RECORD.append(Launch(kernel, arguments, constants, warps))
        return
    if 0 in grid:
        return
    kernel[tuple(grid)](*arguments, **constants, num_warps=warps, enable_fp_fusion=False)


@contextmanager
def recorded_launches() -> Iterator[list[Launch]]:
    """Collect launches instead of running them; what operations return meanwhile is unset."""
    global _RECORD
    before, _RECORD = _RECORD, []
    try:
        yield _RECORD
    finally:
        _RECORD = before


@contextmanager
def without_kernels() -> Iterator[None]:
    """Run the plain-torch references everywhere: what kernels are measured and tested against."""
    global _PLAIN
    before, _PLAIN = _PLAIN, True
    try:
        yield
    finally:
        _PLAIN = before
