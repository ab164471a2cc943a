"""Optimizers, one file a family; importing this package registers them all."""

from zoo.optim import adam, adamp, lamb, lars, lion, muon, rmsprop, sgd, sgdp
from zoo.optim.base import OPTIMIZERS, Optimizer
from zoo.optim.masks import DECAY_MASKS

__all__ = [
    "DECAY_MASKS",
    "OPTIMIZERS",
    "Optimizer",
    "adam",
    "adamp",
    "lamb",
    "lars",
    "lion",
    "muon",
    "rmsprop",
    "sgd",
    "sgdp",
]
