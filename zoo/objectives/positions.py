"""An objective on examples that have several targets, of which some may be missing.

The loss of an example is the mean over its targets that are there; a target that is missing has the
label −1, or is NaN. A network's outputs are flat, ``[..., B, T·C]``: C of position 1 first. An
objective that is a mean over outputs, such as the squared error, takes missing values likewise,
each output as a position of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zoo.data.shape import DataShape
from zoo.objectives.base import OBJECTIVES, Objective, Settings
from zoo.spec.run import RunSpec

__all__ = ["AtPositions", "objective_for"]


def objective_for(name: str, data: DataShape) -> Objective:
    """Return an objective for the targets of a data set.

    Raises:
        UnknownNameError: no such objective.
    """
    inner = OBJECTIVES[name](data.target)
    if not data.positions and not data.masked:
        return inner
    if data.target != "class":
        return AtPositions(data.target, inner, channels=1, axes=1)
    return AtPositions(data.target, inner, channels=data.outputs, axes=len(data.positions))


@dataclass(frozen=True, slots=True)
class AtPositions(Objective):
    """The mean of an objective over the positions of each example.

    Args:
        target: what the targets are.
        inner: the objective at one position.
        channels: outputs of a position: C of labels, 1 of values.
        axes: of the positions.
    """

    inner: Objective
    channels: int
    axes: int

    # what an entry declares is that of the objective at one position
    takes = property(lambda self: self.inner.takes)
    doc = property(lambda self: self.inner.doc)
    source = property(lambda self: self.inner.source)
    loss_name = property(lambda self: self.inner.loss_name)
    unit = property(lambda self: self.inner.unit)
    fields = property(lambda self: self.inner.fields)

    def lack(self, needs: str) -> str:
        """Return why something does not apply, as a clause; empty where it does."""
        if needs in ("labels", "probabilities") and not self.inner.lack(needs):
            return f"needs one {'label' if self.target == 'class' else 'target'} per example"
        return "" if needs == "no probabilities" else self.inner.lack(needs)

    # -- the loss -------------------------------------------------------------------------

    def losses(self, z: Tensor, targets: Tensor) -> Tensor:
        """Return the mean loss over the targets that are there, ``[..., B]``."""
        at, y, there = self._spread(z, targets)
        return self._mean(self.inner.losses(at, y), there)

    def gradient(self, z: Tensor, targets: Tensor) -> Tensor:
        """Return its gradient at the outputs."""
        at, y, there = self._spread(z, targets)
        return (self.inner.gradient(at, y) * _share(there, z).unsqueeze(-1)).view_as(z)

    def hessian(self, z: Tensor, targets: Tensor) -> Callable[[Tensor], Tensor]:
        """Return its Hessian product; positions do not mix."""
        at, y, there = self._spread(z, targets)
        bend, share = self.inner.hessian(at, y), _share(there, z).unsqueeze(-1)
        return lambda v: (bend(v.reshape(at.shape)) * share).view(v.shape)

    def _spread(self, z: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return outputs ``[..., B, T, C]``, targets with stand-ins, and which are there.

        Labels come back ``[..., B, T]``, values ``[..., B, T, 1]``.
        """
        at = z.reshape(*z.shape[:-1], -1, self.channels)
        y = targets.reshape(*at.shape[:-1])
        if self.target == "class":
            return at, y.clamp_min(0), y >= 0
        there = ~torch.isnan(y)
        return at, torch.where(there, y, 0.0).unsqueeze(-1), there

    @staticmethod
    def _mean(each: Tensor, there: Tensor) -> Tensor:
        return (torch.where(there, each, 0.0) * _share(there, each)).sum(-1)

    def as_values(self, targets: Tensor, outputs: int) -> Tensor:
        """Return targets as values of all outputs; what is missing counts as zero."""
        if self.target != "class":
            return torch.nan_to_num(targets.double())
        one_hot = self.inner.as_values(targets.clamp_min(0), outputs)
        return (one_hot * (targets >= 0).unsqueeze(-1)).flatten(targets.ndim - self.axes)

    # -- training -------------------------------------------------------------------------

    def settings(self, runs: Sequence[RunSpec]) -> Settings:
        """Return the hyper-parameters of the objective at one position."""
        return self.inner.settings(runs)

    def trained(self, z: Tensor, targets: Tensor, settings: Settings) -> Tensor:
        """Return what training minimises the mean of, ``[G, B]``."""
        at, y, there = self._spread(z, targets)
        each = self.inner.trained(at.flatten(1, 2), y.flatten(1, 2), settings)
        return self._mean(each.view(there.shape), there)

    # -- predictions and what is recorded ---------------------------------------------------

    def predictions(self, z: Tensor) -> Tensor:
        """Return the prediction at each position, ``[..., B, T]``."""
        found = self.inner.predictions(z.reshape(*z.shape[:-1], -1, self.channels))
        return found if self.target == "class" else found.squeeze(-1)

    def correct(self, z: Tensor, targets: Tensor) -> Tensor:
        """Return the share of each example's targets that is predicted right."""
        at, y, there = self._spread(z, targets)
        return self._mean(self.inner.correct(at, y), there)

    @property
    def measures(self) -> Mapping[str, str]:
        """What is recorded of a set."""
        return self.inner.measures

    def sums(self, z: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Return for each example what :meth:`measured` wants the sums of."""
        found = {"loss": self.losses(z, targets)}
        if self.classifies:
            return {**found, "accuracy": self.correct(z, targets)}
        at, y, there = self._spread(z, targets)
        values, y = at.squeeze(-1).double(), y.squeeze(-1).double()
        return {
            **found,
            "residual": torch.where(there, (y - values).square(), 0.0).sum(-1),
            "target": y,
            "square": y.square().sum(-1),
            "present": there.double(),
        }

    def measured(self, sums: Mapping[str, Tensor], count: Tensor) -> dict[str, Tensor]:
        """Return the value of every measure; R² is over the targets that are there."""
        if self.classifies:
            return self.inner.measured(sums, count)
        mean = sums["target"] / sums["present"].clamp_min(1e-300)
        spread = sums["square"] - (sums["present"] * mean.square()).sum(-1)
        known = spread > 1e-12 * sums["square"]
        r2 = torch.where(known, 1 - sums["residual"] / spread, torch.nan)
        return {"loss": sums["loss"] / count, "r2": r2}

    # -- guessing -------------------------------------------------------------------------

    def guessing(self, targets: NDArray[Any], outputs: int) -> float:
        """Return the mean loss of outputs that do not depend on the input.

        Of values it is the mean over the outputs of that of each, on the targets that are there.
        """
        if self.target == "class":
            return self.inner.guessing(targets, outputs)
        columns = [column[~np.isnan(column)] for column in targets.T]
        found = [self.inner.guessing(column[:, None], 1) for column in columns if len(column)]
        return float(np.mean(found))


def _share(there: Tensor, like: Tensor) -> Tensor:
    """Return the weight of each target in the loss of its example, ``[..., B, T]``."""
    kept = there.to(like.dtype)
    return kept / kept.sum(-1, keepdim=True)
