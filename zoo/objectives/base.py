"""What an objective is: the loss that training minimises, and all that follows from it.

An objective says which targets it takes, the loss of an example, its first and second derivatives
at the network's outputs, what the outputs predict, what is recorded and what guessing costs. Only
the loss must be written; the derivatives come from ``torch.func`` where an entry has no faster
form of its own. Nothing outside this room and the kernels spells out a loss.

To add one: a file of its own with one registered class.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from zoo.fields import Fields
from zoo.registry import Registry
from zoo.spec.run import RunSpec

__all__ = [
    "OBJECTIVES",
    "TARGETS",
    "Objective",
    "Settings",
    "as_outputs",
    "values_like",
]

#: Kinds of targets, in words; :func:`zoo.data.splits.target_kind` tells them apart.
TARGETS: Mapping[str, str] = {
    "class": "class labels",
    "binary": "zeros and ones",
    "vector": "floats",
    "none": "absent",
}

#: Hyper-parameters of the loss, each ``[G]``; one that no model of a cohort uses is absent.
Settings = Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class Objective(ABC):
    """One objective on one kind of targets.

    Targets are int64 labels ``[..., B]`` if ``target`` is ``"class"``, otherwise floats
    ``[..., B, C]``. Every method works in the type of the outputs, float32 or float64.

    Args:
        target: a key of :data:`TARGETS`.
    """

    target: str

    #: Kinds of targets that it takes.
    takes: ClassVar[tuple[str, ...]]
    #: One line, with the formula.
    doc: ClassVar[str]
    #: Author, year, arXiv.
    source: ClassVar[str]
    #: The loss in words, for the descriptions of what is recorded.
    loss_name: ClassVar[str]
    #: Unit of the loss, for axes and tables; empty where it is that of the targets, squared.
    unit: ClassVar[str] = ""
    #: Whether softmax(outputs) are the probabilities of the classes.
    softmax: ClassVar[bool] = False
    #: Whether the loss of values is a mean over outputs, so that some of them may be missing.
    elementwise: ClassVar[bool] = False
    #: Its hyper-parameters: numbers that training reads, as vectors over the models of a cohort.
    fields: ClassVar[Fields] = {}

    @property
    def classifies(self) -> bool:
        """Whether a prediction is right or wrong."""
        return self.target in ("class", "binary")

    def lack(self, needs: str) -> str:
        """Return why something does not apply, as a clause; empty where it does.

        Args:
            needs: what it needs: ``""``, ``"labels"`` of classes, ``"right"`` and wrong
                predictions, ``"probabilities"`` of classes, ``"floats"`` as targets; or
                ``"no probabilities"``, of what stands in for something of theirs.
        """
        if needs == "labels" and self.target != "class":
            return f"needs class labels, and the targets are {TARGETS[self.target]}"
        if needs == "right" and not self.classifies:
            return (
                f"needs predictions that are right or wrong, and these are {TARGETS[self.target]}"
            )
        if needs == "probabilities" and not self.softmax:
            return f"needs probabilities of classes, and the {self.loss_name} makes none"
        if needs == "floats" and self.target != "vector":
            return f"needs targets that are floats, and these are {TARGETS[self.target]}"
        if needs == "no probabilities" and self.softmax:
            return f"stands in where there are no probabilities; the {self.loss_name} makes some"
        return ""

    # -- the loss -------------------------------------------------------------------------

    @abstractmethod
    def losses(self, z: Tensor, targets: Tensor) -> Tensor:
        """Return the plain loss of each example ``[..., B]``; ``z`` is ``[..., B, C]``."""

    def gradient(self, z: Tensor, targets: Tensor) -> Tensor:
        """Return ∂ℓ_i/∂z_i ``[..., B, C]``, each example's own."""
        found: Tensor = torch.func.grad(lambda u: self.losses(u, targets).sum())(z)
        return found

    def hessian(self, z: Tensor, targets: Tensor) -> Callable[[Tensor], Tensor]:
        """Return the function from v ``[..., B, C]`` to (∂²ℓ_i/∂z_i²) v_i, of the same shape."""

        def product(v: Tensor) -> Tensor:
            found: Tensor = torch.func.jvp(lambda u: self.gradient(u, targets), (z,), (v,))[1]
            return found

        return product

    # -- training -------------------------------------------------------------------------

    def settings(self, runs: Sequence[RunSpec]) -> Settings:
        """Return the hyper-parameters of G runs that share a cohort, without those switched off."""
        used = [
            n for n, field in self.fields.items() if field.per != "switch" or runs[0].departs(n)
        ]
        return {n: torch.tensor([float(getattr(run, n)) for run in runs]) for n in used}

    def trained(self, z: Tensor, targets: Tensor, settings: Settings) -> Tensor:
        """Return what training minimises the mean of, ``[G, B]``; z is ``[G, B, C]``."""
        return self.losses(z, targets)

    def step(self, z: Tensor, targets: Tensor, settings: Settings) -> tuple[Tensor, Tensor]:
        """Return the mean over a batch of :meth:`trained` and its gradient.

        Args:
            z: ``[G, B, C]`` float32 outputs.
            targets: ``[G, B]`` or ``[G, B, C]``.
            settings: of the G models.

        Returns:
            ``[G]``, and ``[G, B, C]`` in a buffer of its own.
        """

        def mean(u: Tensor) -> tuple[Tensor, Tensor]:
            each = self.trained(u, targets, settings).mean(1)
            return each.sum(), each

        dz, loss = torch.func.grad(mean, has_aux=True)(z)
        return loss, dz

    # -- predictions and what is recorded ---------------------------------------------------

    def predictions(self, z: Tensor) -> Tensor:
        """Return the predicted labels ``[..., B]`` or values ``[..., B, C]``."""
        if self.target == "class":
            return z.argmax(-1)
        return (z > 0).to(z.dtype) if self.target == "binary" else z

    def correct(self, z: Tensor, targets: Tensor) -> Tensor:
        """Return the share of each example that is predicted right, ``[..., B]`` float64.

        It is 0 or 1, or a share of the outputs where each has a binary target.
        """
        right = (self.predictions(z) == targets).double()
        return right.mean(-1) if self.target == "binary" else right

    def as_values(self, targets: Tensor, outputs: int) -> Tensor:
        """Return targets as values of the outputs, ``[..., B, C]`` float64; labels are one-hot.

        Args:
            targets: labels or values; what is missing counts as zero.
            outputs: C of a label.
        """
        return as_outputs(targets, outputs, torch.float64)

    def said(self, z: Tensor) -> Tensor:
        """Return what outputs say: the probabilities of the classes, or else the outputs."""
        return torch.softmax(z, -1) if self.softmax else z

    def log_probabilities(self, z: Tensor) -> Tensor:
        """Return the logarithms of the probabilities of the classes, where ``softmax`` is true."""
        return torch.log_softmax(z, -1)

    @property
    def measures(self) -> Mapping[str, str]:
        """What is recorded of a set: name -> description, ``{}`` standing for the set."""
        unit = f" ({self.unit})" if self.unit else ""
        found = {"loss": f"mean {self.loss_name} over {{}}, eval mode{unit}"}
        if self.classifies:
            what = "share of outputs" if self.target == "binary" else "share"
            found["accuracy"] = f"{what} correct on {{}}, eval mode"
        elif self.target == "vector":
            found["r2"] = "R²: 1 - squared error over squared distance from the mean, on {}"
        return found

    def sums(self, z: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Return for each example ``[..., B, ...]`` what :meth:`measured` wants the sums of."""
        found = {"loss": self.losses(z, targets)}
        if self.classifies:
            return {**found, "accuracy": self.correct(z, targets)}
        if self.target == "none":
            return found
        y = targets.double()
        residual = (y - z.double()).square().sum(-1)
        return {**found, "residual": residual, "target": y, "square": y.square().sum(-1)}

    def measured(self, sums: Mapping[str, Tensor], count: Tensor) -> dict[str, Tensor]:
        """Return the value of every measure, ``[G]`` float64.

        R² = 1 − Σ‖y − f‖² / Σ‖y − ȳ‖², over all outputs together; NaN where all targets are equal.

        Args:
            sums: of :meth:`sums` over the examples of a set, in float64.
            count: ``[G]`` examples of each model's set.
        """
        found = {"loss": sums["loss"] / count}
        if self.classifies:
            return {**found, "accuracy": sums["accuracy"] / count}
        if self.target == "none":
            return found
        mean = sums["target"] / count.unsqueeze(-1)
        spread = sums["square"] - count * mean.square().sum(-1)
        # what rounding leaves of equal targets is no spread
        known = spread > 1e-12 * sums["square"]
        return {**found, "r2": torch.where(known, 1 - sums["residual"] / spread, torch.nan)}

    # -- guessing -------------------------------------------------------------------------

    @abstractmethod
    def guessing(self, targets: NDArray[Any], outputs: int) -> float:
        """Return the mean loss of outputs that do not depend on the input.

        Of class labels, which count as equally frequent, only the number matters.

        Args:
            targets: ``[N]`` labels or ``[N, C]`` values of the training set.
            outputs: C.
        """


OBJECTIVES: Registry[type[Objective]] = Registry("objective", field="objective")


def as_outputs(targets: Tensor, outputs: int, dtype: torch.dtype) -> Tensor:
    """Return targets as values ``[..., B, C]`` of a type: those of labels are one-hot."""
    return (targets if targets.is_floating_point() else F.one_hot(targets, outputs)).to(dtype)


def values_like(targets: Tensor, z: Tensor) -> Tensor:
    """Return targets in the shape and type of the outputs ``z [..., B, C]``."""
    return as_outputs(targets, z.shape[-1], z.dtype)
