"""NAdam (Dozat 2016, "Incorporating Nesterov momentum into Adam"), in torch's form.

With μₜ = β₁(1 − ½·0.96^(tψ)) and Πₜ = μ₁⋯μₜ, ψ = ``momentum_decay``, and Adam's moments:
p ← p − η·((1−μₜ)/(1−Πₜ)·g + μₜ₊₁/(1−Πₜ₊₁)·m) / (√v/√(1−β₂ᵗ) + ε), where g has λp added first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zoo.architectures.layout import Layout
from zoo.fields import Field, Fields, named
from zoo.optim.adam import Adam, torch_arguments
from zoo.optim.base import OPTIMIZERS, Coefficients, TorchParams
from zoo.spec.run import RunSpec

__all__ = ["NAdam"]


class NAdam(Adam):
    """As ``torch.optim.NAdam``."""

    fields: ClassVar[Fields] = {
        **Adam.fields,
        **named(
            Field("momentum_decay", "float", 4e-3, "decay of NAdam's momentum schedule", low=0)
        ),
    }
    coefficients: ClassVar[tuple[str, ...]] = (
        "now",
        "ahead",
        "inverse_root",
        "gain1",
        "beta2",
        "gain2",
        "eps",
        "weight_decay",
    )

    def table(
        self, runs: Sequence[RunSpec], lr: NDArray[np.float64], step: NDArray[np.int64]
    ) -> dict[str, NDArray[np.float64]]:
        """Return Adam's coefficients, and the steps along the gradient and the momentum."""
        found = super().table(runs, lr, step)
        now = np.zeros(lr.shape)
        ahead = np.zeros(lr.shape)
        for column, run in enumerate(runs):
            t, beta1, psi = step[:, column], run.beta1 or 0.0, run.momentum_decay or 0.0
            products = _products(beta1, psi, _rounded_up(int(t.max()) + 1))
            mu, after = _mu(beta1, psi, t), _mu(beta1, psi, t + 1)
            now[:, column] = lr[:, column] * (1 - mu) / (1 - products[t])
            ahead[:, column] = lr[:, column] * after / (1 - products[t] * after)
        return {**found, "now": now, "ahead": ahead}

    def update(
        self,
        p: Tensor,
        g: Tensor,
        moments: Sequence[Tensor],
        c: Coefficients,
        run: Mapping[str, Any],
        layout: Layout,
    ) -> tuple[Tensor, list[Tensor]]:
        """Return the stepped parameters and both moments."""
        p, g = self._decay(p, g, c)
        m = torch.addcmul(moments[0], c["gain1"], g - moments[0])
        v = torch.addcmul(moments[1] * c["beta2"], c["gain2"] * g, g)
        denominator = torch.addcmul(c["eps"], v.sqrt(), c["inverse_root"])
        direction = torch.addcmul(c["now"] * g, c["ahead"], m)
        return p - direction / denominator, [m, v]

    def torch(self, params: TorchParams, run: RunSpec) -> torch.optim.Optimizer:
        """Return ``torch.optim.NAdam``."""
        decay = run.momentum_decay or 0.0
        return torch.optim.NAdam(params, **torch_arguments(run), momentum_decay=decay)

    def torch_state(self, run: RunSpec, step: int) -> dict[str, Tensor]:
        """Return the step and the product of the momenta so far."""
        products = _products(run.beta1 or 0.0, run.momentum_decay or 0.0, _rounded_up(step))
        product = torch.tensor(products[step], dtype=torch.float32)
        return {**super().torch_state(run, step), "mu_product": product}


def _mu(beta1: float, psi: float, t: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.asarray(beta1 * (1 - 0.5 * 0.96 ** (t * psi)), dtype=np.float64)


def _rounded_up(steps: int) -> int:
    """Return the next power of two, so that a training run works the products out a few times."""
    return 1 << max(10, steps.bit_length())


@lru_cache(maxsize=64)
def _products(beta1: float, psi: float, steps: int) -> NDArray[np.float64]:
    """Return Π₀ = 1, Π₁, …, Π_steps."""
    return np.concatenate([[1.0], np.cumprod(_mu(beta1, psi, np.arange(1, steps + 1)))])


OPTIMIZERS.register(
    "nadam",
    doc="Adam with Nesterov momentum",
    source="Dozat 2016, Incorporating Nesterov momentum into Adam",
)(NAdam())
