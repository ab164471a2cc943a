"""What an optimizer is: a pure update of slabs, every hyper-parameter a vector over models."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.optim.optimizer import ParamsT as TorchParams

from zoo.architectures.layout import Layout
from zoo.fields import Fields
from zoo.optim.masks import DECAY_MASKS, column_mask
from zoo.optim.segments import whole_norm
from zoo.registry import Registry
from zoo.spec.run import RunSpec, field_infos

__all__ = ["CLIP", "OPTIMIZERS", "Coefficients", "Optimizer", "TorchParams", "clip_by_norm"]

#: Named coefficients of one step, each ``[G, 1]`` float32 (``[G, trained]`` under a decay mask).
Coefficients = Mapping[str, Tensor]

#: The coefficient that a cohort with gradient clipping has besides the optimizer's own.
CLIP = "clip_norm"
#: Added to the norm that clipping divides by, as torch does.
_CLIP_EPS = 1e-6


class Optimizer(ABC):
    """One optimizer family, stateless: state lives in moment slabs ``[G, trained]``."""

    #: Conditional run-spec fields that it reads, with their defaults.
    fields: ClassVar[Fields] = {}
    #: The moment slabs, under the names of the state of :meth:`torch`.
    moments: ClassVar[tuple[str, ...]] = ()
    #: Names of the coefficients that :meth:`update` reads.
    coefficients: ClassVar[tuple[str, ...]] = ()
    #: Coefficients that decay weights, with the value that means no decay.
    decays: ClassVar[Mapping[str, float]] = {"weight_decay": 0.0}

    def names(self, *, clipped: bool) -> tuple[str, ...]:
        """Return the names of the coefficients that :meth:`step` reads, in table order."""
        return (*self.coefficients, CLIP) if clipped else self.coefficients

    def table(
        self, runs: Sequence[RunSpec], lr: NDArray[np.float64], step: NDArray[np.int64]
    ) -> dict[str, NDArray[np.float64]]:
        """Return every coefficient as ``[T, G]`` (or ``[G]`` where it never changes).

        By default each is the run-spec field of that name, and ``lr``.

        Args:
            runs: G specs.
            lr: ``[T, G]`` learning rate of each step.
            step: ``[T, G]`` number of each step, counted from 1.
        """
        fixed = {
            name: np.array([float(getattr(run, name) or 0.0) for run in runs])
            for name in (*self.coefficients, CLIP)
            if name in field_infos() and name != "lr"
        }
        return {**fixed, "lr": lr}

    def step(
        self,
        p: Tensor,
        g: Tensor,
        moments: Sequence[Tensor],
        c: Coefficients,
        run: Mapping[str, Any],
        layout: Layout,
    ) -> tuple[Tensor, list[Tensor]]:
        """Clip the gradients and mask the decay where the cohort does so, then :meth:`update`.

        Arguments and result as :meth:`update`.
        """
        if run.get(f"has_{CLIP}"):
            g = clip_by_norm(g, c[CLIP])
        mask = str(run.get("decay_mask", "all"))
        if mask != "all":
            on = column_mask(layout, DECAY_MASKS[mask], p)
            masked = {n: torch.where(on, c[n], off) for n, off in self.decays.items() if n in c}
            c = {**c, **masked}
        return self.update(p, g, moments, c, run, layout)

    @abstractmethod
    def update(
        self,
        p: Tensor,
        g: Tensor,
        moments: Sequence[Tensor],
        c: Coefficients,
        run: Mapping[str, Any],
        layout: Layout,
    ) -> tuple[Tensor, list[Tensor]]:
        """Return new parameters and moments.

        Args:
            p: ``[G, trained]`` parameters.
            g: gradients of the same shape.
            moments: one slab of that shape for each name of ``moments``.
            c: coefficients of this step.
            run: the cohort's shared fields (``nesterov``).
            layout: where each tensor is in a row, for what is worked out tensor by tensor.
        """

    @abstractmethod
    def torch(self, params: TorchParams, run: RunSpec) -> torch.optim.Optimizer:
        """Return the readable twin: torch's own optimizer, or the published loop over tensors.

        Args:
            params: tensors or groups of them, in the order of the layout.
            run: the hyper-parameters.
        """

    def torch_state(self, run: RunSpec, step: int) -> dict[str, Tensor]:
        """Return what the twin's state of each tensor holds after ``step`` steps, but moments."""
        return {"step": torch.tensor(float(step))}


def clip_by_norm(g: Tensor, limit: Tensor) -> Tensor:
    """Return gradients ``[G, trained]`` with each model's 2-norm at most ``limit [G, 1]``.

    As ``torch.nn.utils.clip_grad_norm_``: g · min(1, limit/(‖g‖ + 1e-6)).
    """
    return g * (limit / (whole_norm(g) + _CLIP_EPS)).clamp(max=1.0)


OPTIMIZERS: Registry[Optimizer] = Registry("optimizer", field="optimizer")
