"""Fresh examples: points of a domain, drawn anew at every step.

Collocation points of physics-informed networks, and training in one pass, where no example comes
twice. A batch is a pure function of (order_seed, step), so that a model meets the same points
whoever trains beside it, and after an interruption.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from zoo.data import PreparedData
from zoo.errors import DataError
from zoo.seeds import Stream, torch_uniform

__all__ = ["FreshExamples", "fresh_examples"]


@dataclass(frozen=True, slots=True, eq=False)
class FreshExamples:
    """A uniform distribution over a box, and the targets that belong to its points.

    Args:
        low, width: float32, of the shape of an example.
        mean, scale: of the normalisation, broadcastable to an example.
        function: from points ``[N, *example_shape]`` to targets ``[N, ...]``; None = no targets.
    """

    low: Tensor
    width: Tensor
    mean: Tensor
    scale: Tensor
    function: Callable[[Tensor], Tensor] | None

    def draw(self, seed: Tensor, step: Tensor, batch: int) -> tuple[Tensor, Tensor]:
        """Return normalised points ``[G, B, *example_shape]`` and their targets.

        Coordinate i of point b takes the word b·D + i of its model and step.

        Args:
            seed: ``[G]`` order seeds.
            step: ``[G]`` each model's own step.
            batch: B.
        """
        count = batch * self.low.numel()
        u = torch_uniform(seed, Stream.FRESH, step, count)
        points = self.low + self.width * u.view(len(seed), batch, *self.low.shape).float()
        return (points - self.mean) / self.scale, self._targets(points)

    def _targets(self, points: Tensor) -> Tensor:
        G, B = points.shape[:2]
        if self.function is None:
            return points.new_zeros(G, B, 0)
        y = self.function(points.flatten(0, 1))
        if y.is_floating_point():
            return y.reshape(G, B, -1).float()
        return y.view(G, B, *y.shape[1:])


def fresh_examples(data: PreparedData, device: torch.device) -> FreshExamples:
    """Return where fresh examples of a data set come from.

    Raises:
        DataError: its function makes other targets than the training set has.
    """
    domain = data.domain
    assert domain is not None, "planning refuses the sampler 'fresh' without a domain"
    low, high, mean, scale = (
        torch.from_numpy(part.copy()).to(device)
        for part in (domain.low, domain.high, data.mean, data.scale)
    )
    found = FreshExamples(low, high - low, mean, scale, domain.function)
    start = torch.zeros(1, dtype=torch.int64, device=device)
    _, y = found.draw(start, start, 2)
    wanted = data.train_y.shape[1:]
    if tuple(y.shape[2:]) != wanted or y.is_floating_point() != (data.train_y.dtype.kind == "f"):
        msg = (
            f"the function of fresh examples makes {y.dtype} {list(y.shape[2:])} per example, and"
            f" the training set has {data.train_y.dtype} {list(wanted)}"
        )
        raise DataError(msg)
    return found
