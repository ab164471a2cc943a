"""``@plugin.augmentation``: a user's own random change of training examples."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from zoo.data.augment import AUGMENTATIONS, STRENGTH, Augmentation
from zoo.fields import named
from zoo.plugin.signature import check_loading, own_class
from zoo.registry import first_sentence
from zoo.seeds import Stream, torch_uniform

__all__ = ["augmentation"]

F = TypeVar("F", bound=Callable[[Tensor, Tensor, Tensor], Tensor])


def augmentation(
    name: str,
    *,
    draws: int = 1,
    strength: float = 1.0,
    dims: tuple[int, ...] = (1, 2, 3),
    doc: str = "",
    source: str = "",
) -> Callable[[F], F]:
    """Register a function that changes the batch of one model.

    ``change(x, u, strength)``: ``x`` is ``[B, *example_shape]``, after normalisation; ``u`` is
    ``[B, draws]``, uniform in [0, 1), the only random numbers that it may use, which follow from
    the model's seed and step; ``strength`` is the model's ``augment_strength``. It returns the
    shape of ``x``. It is mapped over models by ``torch.func.vmap``.

    Args:
        name: in sweeps: ``augmentation = "NAME"``.
        draws: random numbers for each example.
        strength: default of ``augment_strength``.
        dims: numbers of axes of an example that it takes: 1 features, 2 signals, 3 images.
        doc: one line; by default the first of the docstring.
        source: author, year, arXiv.

    Raises:
        RegistryError: the name is taken.
    """
    check_loading(f"augmentation {name!r}")

    def enter(change: F) -> F:
        def apply(x: Tensor, seed: Tensor, step: Tensor, strength: Tensor) -> Tensor:
            G, B = x.shape[:2]
            u = torch_uniform(seed, Stream.AUGMENT, step, B * draws).reshape(G, B, draws)
            found: Tensor = torch.vmap(change)(x, u.to(x.dtype), strength.to(x.dtype))
            return found.to(x.dtype)

        def check(example_shape: tuple[int, ...]) -> str | None:
            if len(example_shape) in dims:
                return None
            wanted = " or ".join(map(str, dims))
            return f"{name} takes examples of {wanted} axes, and these are {list(example_shape)}"

        members = {
            "fields": named(STRENGTH.at(float(strength))),
            "apply": staticmethod(apply),
            "check": staticmethod(check),
            "__doc__": change.__doc__,
        }
        kind: type[Augmentation] = own_class(Augmentation, name, members)  # type: ignore[type-abstract]
        AUGMENTATIONS.register(name, doc=doc or first_sentence(change), source=source)(kind)
        return change

    return enter
