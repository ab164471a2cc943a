"""Optimizers, one file a family; importing this package registers them all."""

from zoo.optim import adam, rmsprop, sgd
from zoo.optim.base import OPTIMIZERS, Optimizer

__all__ = ["OPTIMIZERS", "Optimizer", "adam", "rmsprop", "sgd"]
