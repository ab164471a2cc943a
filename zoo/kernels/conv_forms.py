"""Which form of the stacked convolution is quickest on a device: a recorded table, not a guess.

``benchmarks/bench_kernels.py --record-conv`` times forward plus backward of every form over a set
of shapes on the device at hand, and writes what it found into ``conv_forms.json`` beside this file.
A layer takes the form of the nearest recorded shape of its device. The table is part of the source
and the choice a function of one model's shape, so that bits do not depend on a timing of the day,
nor on how many models there are.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

__all__ = [
    "FORMS",
    "TABLE",
    "UNMEASURED",
    "ConvCase",
    "Measured",
    "best_form",
    "form_on",
    "recorded_form",
]

#: One grouped convolution; stored patches and batched products; :func:`zoo.kernels.conv.conv`.
FORMS = ("grouped", "im2col", "implicit")
#: What a device takes of which nothing has been recorded.
UNMEASURED = "im2col"
#: Where the measurements are.
TABLE = Path(__file__).with_name("conv_forms.json")


@dataclass(frozen=True, slots=True)
class ConvCase:
    """One convolution on one device.

    Args:
        device: name of the device, as torch gives it.
        dtype: ``"float32"`` or ``"bfloat16"``.
        inputs, outputs: channels.
        positions: T', output positions of an example.
        batch: B.
    """

    device: str
    dtype: str
    inputs: int
    outputs: int
    positions: int
    batch: int

    def distance(self, other: ConvCase) -> float:
        """Return how unlike another shape is: the squares of the logarithms of ratios."""
        sizes = ((a.inputs, a.outputs, a.positions, a.batch) for a in (self, other))
        return sum(math.log(a / b) ** 2 for a, b in zip(*sizes, strict=True))


@dataclass(frozen=True, slots=True)
class Measured(ConvCase):
    """Times of one convolution, forward and backward.

    Args:
        seconds: of each form, over a group of models.
    """

    seconds: Mapping[str, float]

    @property
    def quickest(self) -> str:
        """The form that took the least time; the first of :data:`FORMS` among equals."""
        return min((f for f in FORMS if f in self.seconds), key=lambda form: self.seconds[form])


@cache
def recorded_form() -> tuple[Measured, ...]:
    """Return what has been measured, of all devices."""
    rows = json.loads(TABLE.read_text(encoding="utf-8"))["measured"]
    return tuple(Measured(**row) for row in rows)


def best_form(rows: Sequence[Measured], case: ConvCase) -> str:
    """Return the quickest form of the recorded shape that is nearest, by ratios of sizes."""
    known = [row for row in rows if (row.device, row.dtype) == (case.device, case.dtype)]
    return min(known, key=case.distance).quickest if known else UNMEASURED


def form_on(x: Tensor, *, inputs: int, outputs: int, positions: int) -> str:
    """Return the form on the GPU, in the type and at the batch size of ``x [G, B, ...]``."""
    case = ConvCase(
        device=torch.cuda.get_device_name(x.device),
        dtype=str(x.dtype).removeprefix("torch."),
        inputs=inputs,
        outputs=outputs,
        positions=positions,
        batch=x.shape[1],
    )
    return best_form(recorded_form(), case)
