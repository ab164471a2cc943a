"""Training-time augmentation, stacked over models.

Each model's random numbers come from (augment_seed, its own step) alone, so a model sees the same
examples whoever trains beside it. Everything here is pure tensor code that compiles whole. The
examples are augmented after normalisation; a pixel moved in from outside is zero.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from zoo.fields import Field, Fields, named
from zoo.registry import Registry
from zoo.seeds import Stream, torch_bits, torch_normal, torch_uniform

__all__ = ["AUGMENTATIONS", "STRENGTH", "Augmentation", "Flip", "NoAugmentation", "Noise", "Shift"]

STRENGTH = Field("augment_strength", "float", 1.0, "strength, in the augmentation's unit", low=0)


class Augmentation(ABC):
    """A random change of the training examples; a namespace of pure functions, never an object."""

    #: Run-spec fields that it reads.
    fields: ClassVar[Fields] = {}

    @staticmethod
    @abstractmethod
    def apply(x: Tensor, seed: Tensor, step: Tensor, strength: Tensor) -> Tensor:
        """Return the changed examples.

        Args:
            x: ``[G, B, *example_shape]`` examples of G models.
            seed: ``[G]`` int64 augmentation seeds.
            step: ``[G]`` int64, each model's own step.
            strength: ``[G]`` strengths, in the augmentation's unit.

        Returns:
            The shape and dtype of ``x``.
        """

    @staticmethod
    def check(example_shape: tuple[int, ...]) -> str | None:
        """Return why examples of this shape cannot be augmented so, or None."""
        del example_shape
        return None


AUGMENTATIONS: Registry[type[Augmentation]] = Registry("augmentation", field="augmentation")


def _per_model(values: Tensor, like: Tensor) -> Tensor:
    """Return ``[G]`` values shaped to broadcast with ``[G, B, ...]``."""
    return values.reshape(-1, *(1,) * (like.ndim - 1))


@AUGMENTATIONS.register("none", doc="the examples as they are")
class NoAugmentation(Augmentation):
    """The examples as they are."""

    @staticmethod
    def apply(x: Tensor, seed: Tensor, step: Tensor, strength: Tensor) -> Tensor:
        """Return ``x``."""
        del seed, step, strength
        return x


@AUGMENTATIONS.register("flip", doc="each picture is mirrored left to right with probability 1/2")
class Flip(Augmentation):
    """Each picture is mirrored left to right with probability 1/2."""

    @staticmethod
    def apply(x: Tensor, seed: Tensor, step: Tensor, strength: Tensor) -> Tensor:
        """Return ``x`` with example b of a model mirrored where its uniform b is below 1/2."""
        del strength
        drawn = torch_uniform(seed, Stream.AUGMENT, step, x.shape[1]) < 0.5
        return torch.where(drawn.reshape(*x.shape[:2], 1, 1, 1), x.flip(-1), x)

    @staticmethod
    def check(example_shape: tuple[int, ...]) -> str | None:
        """Only pictures have a left and a right."""
        if len(example_shape) == 3:
            return None
        return f"flip needs pictures (channels, height, width), not examples of {example_shape}"


@AUGMENTATIONS.register(
    "shift",
    doc="each example moves by up to augment_strength pixels along every axis, zeros coming in",
)
class Shift(Augmentation):
    """Each example is moved by a whole number of pixels along every axis, zeros coming in.

    The distance along an axis is uniform on −s..s with s = ⌊strength⌋; positive moves to a higher
    index. Example b takes the words b·A..b·A + A − 1 of its model for its A axes: ((2s + 1)·word)
    div 2³² − s.
    """

    fields: ClassVar[Fields] = named(STRENGTH.at(1.0))

    @staticmethod
    def apply(x: Tensor, seed: Tensor, step: Tensor, strength: Tensor) -> Tensor:
        """Return ``x`` moved."""
        axes = x.ndim - 3
        words = torch_bits(seed, Stream.AUGMENT, step, x.shape[1] * axes)
        most = strength.to(torch.int64).reshape(-1, 1)
        moves = (((2 * most + 1) * words) >> 32) - most
        moves = moves.reshape(*x.shape[:2], axes)
        for axis in range(axes):
            x = _moved(x, moves[..., axis], 3 + axis)
        return x

    @staticmethod
    def check(example_shape: tuple[int, ...]) -> str | None:
        """A flat list of features has no neighbours to move to."""
        if len(example_shape) in (2, 3):
            return None
        return (
            "shift needs (channels, length) or (channels, height, width), "
            f"not examples of {example_shape}"
        )


def _moved(x: Tensor, moves: Tensor, dim: int) -> Tensor:
    """Return ``x`` with example [g, b] moved by ``moves[g, b]`` along ``dim``, zeros coming in."""
    length = x.shape[dim]
    line = [1] * x.ndim
    line[dim] = length
    example = (*moves.shape, *(1,) * (x.ndim - 2))
    source = torch.arange(length, device=x.device).reshape(line) - moves.reshape(example)
    inside = (source >= 0) & (source < length)
    taken = x.gather(dim, source.clamp(0, length - 1).expand(x.shape))
    return torch.where(inside, taken, torch.zeros_like(taken))


@AUGMENTATIONS.register(
    "noise", doc="Gaussian noise of standard deviation augment_strength on every value"
)
class Noise(Augmentation):
    """Gaussian noise with standard deviation ``strength`` on every value."""

    fields: ClassVar[Fields] = named(STRENGTH.at(0.1))

    @staticmethod
    def apply(x: Tensor, seed: Tensor, step: Tensor, strength: Tensor) -> Tensor:
        """Return ``x`` + strength · N(0, 1)."""
        drawn = torch_normal(seed, Stream.AUGMENT, step, x[0].numel()).reshape(x.shape)
        return x + (_per_model(strength, x) * drawn).to(x.dtype)
