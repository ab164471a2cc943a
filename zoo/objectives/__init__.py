"""The objectives, one file each; importing this registers them."""

from zoo.objectives import bce, brier, cross_entropy, mse
from zoo.objectives.base import OBJECTIVES, TARGETS, Objective, Settings, as_outputs
from zoo.objectives.positions import AtPositions, objective_for

__all__ = [
    "OBJECTIVES",
    "TARGETS",
    "AtPositions",
    "Objective",
    "Settings",
    "as_outputs",
    "bce",
    "brier",
    "cross_entropy",
    "mse",
    "objective_for",
]
