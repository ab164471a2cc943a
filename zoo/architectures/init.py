"""Initialisation schemes: one model's row from its seed, whatever else is in the cohort."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from zoo.architectures.layout import Layout, Segment
from zoo.architectures.network import Network
from zoo.arithmetic import pinned
from zoo.registry import Registry
from zoo.seeds import Stream, normal, uniform
from zoo.spec.run import RunSpec

__all__ = ["FIXED_SPREAD", "INITS", "initial_row", "initial_row_of"]

#: Returns the values of one kernel from (segment, seed, index of the segment's random stream).
Scheme = Callable[[Segment, int, int], NDArray[np.float64]]

INITS: Registry[Scheme] = Registry("initialisation", field="init")

#: Spread of the fixed-width schemes at init_scale 1 (the customary Keras default).
FIXED_SPREAD = 0.05


def _uniform(segment: Segment, seed: int, index: int, bound: float) -> NDArray[np.float64]:
    return (2 * uniform(seed, Stream.INIT, index, segment.size) - 1) * bound


def _normal(segment: Segment, seed: int, index: int, std: float) -> NDArray[np.float64]:
    return normal(seed, Stream.INIT, index, segment.size) * std


def _fan_out(segment: Segment) -> int:
    return segment.shape[0] * math.prod(segment.shape[2:])


@INITS.register(
    "default", doc="U(±1/√fan_in), biases too: what torch gives linear and convolution layers"
)
def default(segment: Segment, seed: int, index: int) -> NDArray[np.float64]:
    """U(±1/√fan_in), what torch gives linear and convolution layers."""
    return _uniform(segment, seed, index, 1 / math.sqrt(segment.fan_in))


@INITS.register("kaiming_uniform", doc="U(±√(6/fan_in))", source="He et al. 2015, arXiv 1502.01852")
def kaiming_uniform(segment: Segment, seed: int, index: int) -> NDArray[np.float64]:
    """U(±√(6/fan_in)) (He et al. 2015, arXiv 1502.01852)."""
    return _uniform(segment, seed, index, math.sqrt(6 / segment.fan_in))


@INITS.register("kaiming_normal", doc="N(0, 2/fan_in)", source="He et al. 2015, arXiv 1502.01852")
def kaiming_normal(segment: Segment, seed: int, index: int) -> NDArray[np.float64]:
    """N(0, 2/fan_in) (He et al. 2015, arXiv 1502.01852)."""
    return _normal(segment, seed, index, math.sqrt(2 / segment.fan_in))


@INITS.register(
    "xavier_uniform", doc="U(±√(6/(fan_in + fan_out)))", source="Glorot and Bengio 2010"
)
def xavier_uniform(segment: Segment, seed: int, index: int) -> NDArray[np.float64]:
    """U(±√(6/(fan_in + fan_out))) (Glorot and Bengio 2010)."""
    fans = segment.fan_in + _fan_out(segment)
    return _uniform(segment, seed, index, math.sqrt(6 / fans))


@INITS.register("xavier_normal", doc="N(0, 2/(fan_in + fan_out))", source="Glorot and Bengio 2010")
def xavier_normal(segment: Segment, seed: int, index: int) -> NDArray[np.float64]:
    """N(0, 2/(fan_in + fan_out)) (Glorot and Bengio 2010)."""
    fans = segment.fan_in + _fan_out(segment)
    return _normal(segment, seed, index, math.sqrt(2 / fans))


@INITS.register("normal", doc="N(0, 0.05²), whatever the fan; init_scale sets the spread")
def fixed_normal(segment: Segment, seed: int, index: int) -> NDArray[np.float64]:
    """N(0, 0.05²), whatever the fan; init_scale sets the spread."""
    return _normal(segment, seed, index, FIXED_SPREAD)


@INITS.register("uniform", doc="U(±0.05), whatever the fan; init_scale sets the spread")
def fixed_uniform(segment: Segment, seed: int, index: int) -> NDArray[np.float64]:
    """U(±0.05), whatever the fan; init_scale sets the spread."""
    return _uniform(segment, seed, index, FIXED_SPREAD)


@INITS.register(
    "orthogonal",
    doc="a random (semi-)orthogonal matrix over [out, fan_in]",
    source="Saxe et al. 2013, arXiv 1312.6120",
)
def orthogonal(segment: Segment, seed: int, index: int) -> NDArray[np.float64]:
    """A random (semi-)orthogonal matrix over [out, fan_in] (Saxe et al. 2013, arXiv 1312.6120)."""
    rows, cols = segment.shape[0], segment.size // segment.shape[0]
    draw = normal(seed, Stream.INIT, index, segment.size).reshape(rows, cols)
    q, r = np.linalg.qr(draw if rows >= cols else draw.T)
    q = q * np.sign(np.diagonal(r))
    flat: NDArray[np.float64] = (q if rows >= cols else q.T).reshape(-1)
    return flat


@pinned()
def initial_row(layout: Layout, *, init: str, scale: float, seed: int) -> NDArray[np.float32]:
    """Return the row ``[P]`` at step 0.

    Kernels follow the scheme times ``scale``. Biases are U(±1/√fan_in) under ``"default"`` and
    zero otherwise; norm weights are one and norm biases zero; running variances are one.
    """
    row = np.zeros(layout.params, dtype=np.float32)
    for index, segment in enumerate(layout.segments):
        part = row[segment.offset : segment.stop]
        if segment.role == "kernel":
            part[:] = (INITS[init](segment, seed, index) * scale).reshape(-1)
        elif segment.role == "bias" and init == "default":
            part[:] = default(segment, seed, index)
        elif segment.role == "norm_weight" or segment.name.endswith("running_var"):
            part[:] = 1
    return row


def initial_row_of(network: Network, run: RunSpec) -> NDArray[np.float32]:
    """Return the row ``[P]`` that a run begins with.

    Tensors of an op that brings values of its own begin with those, and kernels under another
    scheme than ``"default"`` with what the scheme draws; ``init_scale`` multiplies kernels.
    """
    seed, layout = int(run.init_seed or 0), network.layout
    row = initial_row(layout, init=run.init, scale=run.init_scale, seed=seed)
    own = {op.key(n): v for op in network.ops for n, v in op.initial(seed).items()}
    own |= {} if network.source is None else network.source.initial(seed)
    for name, values in own.items():
        segment = layout[name]
        kernel = segment.role == "kernel"
        if kernel and run.init != "default":
            continue
        scale = run.init_scale if kernel else 1.0
        row[segment.offset : segment.stop] = (values * np.float32(scale)).reshape(-1)
    return row
