"""Optimizers, one file per family; importing this package registers them all."""

from zoo.optim import (
    adabelief,
    adadelta,
    adagrad,
    adam,
    adamax,
    adamp,
    amsgrad,
    lamb,
    lars,
    lion,
    muon,
    nadam,
    radam,
    rmsprop,
    sgd,
    sgdp,
    signum,
    yogi,
)
from zoo.optim.base import OPTIMIZERS, Optimizer
from zoo.optim.masks import DECAY_MASKS

__all__ = [
    "DECAY_MASKS",
    "OPTIMIZERS",
    "Optimizer",
    "adabelief",
    "adadelta",
    "adagrad",
    "adam",
    "adamax",
    "adamp",
    "amsgrad",
    "lamb",
    "lars",
    "lion",
    "muon",
    "nadam",
    "radam",
    "rmsprop",
    "sgd",
    "sgdp",
    "signum",
    "yogi",
]
