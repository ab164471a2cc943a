"""``@plugin.activation``: a user's own activation function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn

from zoo.architectures.activations import ACTIVATIONS, ActivationKind
from zoo.errors import RegistryError
from zoo.plugin.signature import check_loading
from zoo.registry import first_sentence

__all__ = ["activation"]

F = TypeVar("F", bound=Callable[[Tensor], Tensor])


class FunctionModule(nn.Module):
    """A function as a module.

    Args:
        function: what it computes.
    """

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        """Return f(x)."""
        return self.function(x)


def activation(
    name: str,
    *,
    doc: str = "",
    source: str = "",
    symmetry: Literal["scale", "sign", "linear"] | None = None,
    flops: int = 4,
) -> Callable[[F], F]:
    """Register a function of a tensor, element by element, as an activation.

    Its derivative comes from ``torch.func``.

    Args:
        name: in sweeps: ``activation = "NAME"``.
        doc: one line; by default the first of the docstring.
        source: author, year, arXiv.
        symmetry: ``"scale"`` if f(ax) = a·f(x) for a > 0, ``"sign"`` if f(-x) = -f(x),
            ``"linear"`` if both; tried before anything is trained.
        flops: operations an element, roughly.

    Raises:
        RegistryError: the name is taken, or the function changes the shape of a tensor.
    """
    check_loading(f"activation {name!r}")

    def enter(function: F) -> F:
        x = torch.linspace(-2, 2, 12).reshape(3, 4)
        y = function(x)
        alone = torch.stack([function(row) for row in x])
        if y.shape != x.shape or not torch.allclose(y, alone, equal_nan=True):
            msg = f"activation {name!r}: must work element by element and keep the shape"
            raise RegistryError(msg)

        def slope(x: Tensor, y: Tensor) -> Tensor:
            back = torch.func.vjp(function, x)[1]
            found: Tensor = back(torch.ones_like(y))[0]
            return found

        kind = ActivationKind(
            value=function, slope=slope, module=lambda: FunctionModule(function),
            symmetry=symmetry, flops=flops,
        )  # fmt: skip
        ACTIVATIONS.register(name, doc=doc or first_sentence(function), source=source)(kind)
        return function

    return enter
