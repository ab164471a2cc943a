"""What an optimizer is: a pure update of slabs, every hyper-parameter a vector over models."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zoo.registry import Registry
from zoo.spec.run import RunSpec

__all__ = ["OPTIMIZERS", "Coefficients", "Optimizer"]

#: Named coefficients of one step, each ``[G, 1]`` float32.
Coefficients = Mapping[str, Tensor]


class Optimizer(ABC):
    """One optimizer family, stateless: state lives in moment slabs ``[G, trained]``."""

    #: Conditional run-spec fields that it reads, with their defaults.
    fields: ClassVar[Mapping[str, Any]] = {}
    #: The moment slabs, under the names of torch's own optimizer state.
    moments: ClassVar[tuple[str, ...]] = ()
    #: Names of the coefficients that :meth:`update` reads.
    coefficients: ClassVar[tuple[str, ...]] = ()

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
            for name in self.coefficients
            if name in RunSpec.__dataclass_fields__ and name != "lr"
        }
        return {**fixed, "lr": lr}

    @abstractmethod
    def update(
        self,
        p: Tensor,
        g: Tensor,
        moments: Sequence[Tensor],
        c: Coefficients,
        run: Mapping[str, Any],
    ) -> tuple[Tensor, list[Tensor]]:
        """Return new parameters and moments.

        Args:
            p: ``[G, trained]`` parameters.
            g: gradients of the same shape.
            moments: one slab of that shape for each name of ``moments``.
            c: coefficients of this step.
            run: the cohort's shared fields (``nesterov``).
        """

    @abstractmethod
    def torch(self, params: Iterable[Tensor], run: RunSpec) -> torch.optim.Optimizer:
        """Return torch's own optimizer with the same hyper-parameters."""


OPTIMIZERS: Registry[Optimizer] = Registry("optimizer", field="optimizer")
