"""Readable twins: one published update at a time, one tensor at a time, under torch's interface."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

__all__ = ["TensorLoop"]


class TensorLoop(torch.optim.Optimizer):
    """A loop over tensors with state ``moments``, zero before the first step.

    Args:
        params: tensors, or groups of them.
        options: hyper-parameters; ``lr`` and ``weight_decay`` among them.
    """

    moments: ClassVar[Iterable[str]] = ()

    def __init__(self, params: ParamsT, **options: Any) -> None:
        super().__init__(params, options)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Take one step on every tensor that has a gradient."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state["step"] = torch.tensor(0.0)
                    for name in self.moments:
                        state[name] = torch.zeros_like(p)
                state["step"] += 1
                self.move(p, p.grad, state, group)

    @abstractmethod
    def move(self, p: Tensor, g: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        """Step one tensor and its state in place.

        Args:
            p: the tensor.
            g: its gradient.
            state: its ``step``, counted from 1, and its moments.
            group: its hyper-parameters.
        """
