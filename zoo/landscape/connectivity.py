"""Connectivity of two models: a quadratic Bézier curve, trained, and the straight chord.

Garipov et al. 2018 (arXiv 1802.10026): θ(t) = (1−t)² θ_a + 2t(1−t) β + t² θ_b with one bend β,
which starts at the midpoint and minimises the loss at a uniformly drawn t a step. The measure and
its sign are those of Yang et al. 2021 (arXiv 2107.11228): mc < 0 is a barrier. The chord's barrier
is that of Entezari et al. 2022 (arXiv 2110.06296), ≥ 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from zoo.architectures.network import Network
from zoo.architectures.norms.ghost_batch import GhostBatchNorm
from zoo.architectures.op import Mode
from zoo.landscape.batch_stats import with_fresh_statistics
from zoo.landscape.random import uniforms
from zoo.landscape.stacked import Probe, logits
from zoo.train.batches import taken

__all__ = [
    "CHORD_OPTIONS",
    "CURVE_OPTIONS",
    "Along",
    "PairData",
    "along_chord",
    "along_curve",
    "barrier",
    "curve_steps",
    "mode_connectivity",
    "train_bends",
]

#: What the values of a curve depend on besides its ends: the rate is ``lr_share`` of the ends' own
#: peak rate, and no less than ``least_lr``.
CURVE_OPTIONS: Mapping[str, Any] = {
    "epochs": 20,
    "min_steps": 200,
    "max_steps": 1000,
    "batch": 128,
    "momentum": 0.9,
    "least_lr": 0.01,
    "lr_share": 0.1,
    "points": 11,
    "statistics": 2048,
}
#: The same of a chord, which nothing is trained on.
CHORD_OPTIONS: Mapping[str, Any] = {"chord_points": 25, "statistics": 2048}


@dataclass(frozen=True, slots=True, eq=False)
class PairData:
    """What G pairs are trained and measured on.

    Args:
        x: ``[N, T, C_in]`` training examples in the stacked form.
        targets: ``[1 or G, N]`` int64 labels, or ``[1 or G, N, C]`` floats.
        ids: ``[1 or G, n]`` examples to train on.
        probe: the training probe.
        seeds: ``[G]`` int64, of each pair.
        ends_lr: ``[G]`` float64, the larger peak learning rate of each pair's ends.
        weight: ``[N]`` of each example in the loss, or None: all alike.
    """

    x: Tensor
    targets: Tensor
    ids: Tensor
    probe: Probe
    seeds: Tensor
    ends_lr: Tensor
    weight: Tensor | None = None

    def batch(self, step: int, size: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return examples ``[G, B, T, C]``, targets, weights over B; drawn with replacement."""
        G = self.seeds.shape[0]
        u = uniforms(self.seeds, "curve", 2 * step + 1, size).double()
        ids = self.ids.expand(G, -1).gather(1, (u * self.ids.shape[1]).long())
        weight = torch.full((1, size), 1 / size)
        if self.weight is not None:
            weight = self.weight[ids] / size
        return self.x[ids], taken(self.targets, ids), weight

    def statistics(self, size: int) -> Tensor:
        """Return up to ``size`` training examples ``[1 or G, n, T, C]`` for BatchNorm."""
        return self.x[self.ids[:, :size]]


@dataclass(frozen=True, slots=True, eq=False)
class Along:
    """Values at the points of a path.

    Args:
        t: ``[points]``.
        loss: ``[G, points]`` float64.
        error: ``[G, points]`` float64, percent; NaN where predictions are neither right nor wrong.
    """

    t: Tensor
    loss: Tensor
    error: Tensor


def curve_steps(examples: int, options: Mapping[str, Any] = CURVE_OPTIONS) -> int:
    """Return how many steps the bend of a curve takes."""
    steps = options["epochs"] * (examples // options["batch"])
    return int(min(max(steps, options["min_steps"]), options["max_steps"]))


def bezier(a: Tensor, bend: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """Return θ(t) ``[G, P]``; t ``[G, 1]``."""
    return (1 - t).square() * a + 2 * t * (1 - t) * bend + t.square() * b


def _batch_size(network: Network, wanted: int) -> int:
    """Return about the wanted batch, a multiple of what ghost batch norm cuts it into."""
    cuts = [op.size for op in network.ops_of(GhostBatchNorm)]
    cut = max(cuts, default=1)
    return max(wanted // cut, 1) * cut


def _rate(step: int, steps: int) -> float:
    """Return the share of the peak rate: 1 to half, then linear to 1 % at 90 %."""
    done = step / steps
    if done <= 0.5:
        return 1.0
    return 0.01 if done >= 0.9 else 1.0 - 0.99 * (done - 0.5) / 0.4


def train_bends(
    network: Network,
    a: Tensor,
    b: Tensor,
    data: PairData,
    options: Mapping[str, Any] = CURVE_OPTIONS,
) -> Tensor:
    """Return the bends ``[G, P]`` of the curves between rows a and b ``[G, P]``.

    SGD with momentum, batches of the training set, BatchNorm on batch statistics, no weight decay.
    Buffers of a bend are those of the midpoint and mean nothing.
    """
    trained = network.layout.trained
    bend = torch.lerp(a, b, 0.5)
    lr = (options["lr_share"] * data.ends_lr).clamp_min(options["least_lr"]).float()
    steps = curve_steps(data.ids.shape[1], options)
    velocity = torch.zeros_like(bend[:, :trained])
    size = _batch_size(network, options["batch"])
    for step in range(steps):
        t = uniforms(data.seeds, "curve", 2 * step, 1)
        x, y, weight = data.batch(step, size)
        point = bezier(a, bend, b, t)
        p = network.views(point)
        mode = Mode(training=True, conv="grouped")
        z, saved = network.forward(p, x, mode)
        dz = data.probe.objective.gradient(z, y) * weight.unsqueeze(-1)
        g = network.flat_gradient(network.backward(p, saved, dz, mode))
        velocity = options["momentum"] * velocity + 2 * t * (1 - t) * g
        bend[:, :trained] -= _rate(step, steps) * lr[:, None] * velocity
    return bend


def measure(network: Network, slab: Tensor, data: PairData, size: int) -> tuple[Tensor, Tensor]:
    """Return loss and error (percent) ``[G]`` on the training probe, statistics fresh."""
    slab = with_fresh_statistics(network, slab, data.statistics(size))
    probe = data.probe
    z = logits(network, slab, probe.x)
    loss = probe.mean_loss(z)
    if not probe.objective.classifies:
        return loss, torch.full_like(loss, torch.nan)
    wrong = 1 - probe.objective.correct(z, probe.targets(slab.shape[0]))
    return loss, 100 * (wrong * probe.weight.double()).sum(1)


def _walk(network: Network, points: list[Tensor], t: Tensor, data: PairData, size: int) -> Along:
    found = [measure(network, point, data, size) for point in points]
    return Along(
        t, torch.stack([loss for loss, _ in found], 1), torch.stack([e for _, e in found], 1)
    )


def along_curve(
    network: Network,
    a: Tensor,
    bend: Tensor,
    b: Tensor,
    data: PairData,
    options: Mapping[str, Any] = CURVE_OPTIONS,
) -> Along:
    """Return the training loss and error along the curve, both ends included."""
    t = torch.linspace(0, 1, options["points"])
    points = [bezier(a, bend, b, value.view(1, 1)) for value in t]
    return _walk(network, points, t, data, options["statistics"])


def along_chord(
    network: Network,
    a: Tensor,
    b: Tensor,
    data: PairData,
    options: Mapping[str, Any] = CHORD_OPTIONS,
) -> Along:
    """Return the training loss and error along the chord, both ends included."""
    t = torch.linspace(0, 1, options["chord_points"])
    # lerp of equal ends is that end, bit for bit
    points = [torch.lerp(a, b, float(value)) for value in t]
    return _walk(network, points, t, data, options["statistics"])


def mode_connectivity(values: Tensor) -> Tensor:
    """Return mc = m − v(t*) ``[G]`` of values ``[G, points]``, with m the mean of the two ends.

    t* is where |v − m| is largest. mc < 0: a barrier; mc > 0: the curve is better than its ends.
    """
    middle = (values[:, :1] + values[:, -1:]) / 2
    away = middle - values
    place = away.abs().argmax(1, keepdim=True)
    return away.gather(1, place).squeeze(1)


def barrier(values: Tensor, t: Tensor) -> Tensor:
    """Return max_t [v(t) − ((1−t) v(0) + t v(1))] ``[G]`` of values ``[G, points]``, ≥ 0."""
    t = t.double()
    chord = (1 - t) * values[:, :1] + t * values[:, -1:]
    return (values - chord).amax(1).clamp_min(0.0)
