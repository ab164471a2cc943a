"""Normalisation layers, one file per method; importing this package registers them all."""

from zoo.architectures.norms import batch, evonorm_s0, frn, ghost_batch, group, none, rms
from zoo.architectures.norms.base import NORMS, Norm

__all__ = ["NORMS", "Norm", "batch", "evonorm_s0", "frn", "ghost_batch", "group", "none", "rms"]
