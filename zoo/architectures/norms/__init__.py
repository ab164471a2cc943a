"""Normalisation layers, one file a method; importing this package registers them all."""

from zoo.architectures.norms import batch, group, none, rms
from zoo.architectures.norms.base import NORMS, Norm

__all__ = ["NORMS", "Norm", "batch", "group", "none", "rms"]
