"""Entries of your own: what a plug-in file imports.

``from zoo import plugin``, then one decorator an entry. ``zoo run my.toml --plugin my_zoo.py``
loads the file; docs/extend.md has one with an entry of every kind.
"""

from zoo.fields import Field
from zoo.objectives.base import Objective
from zoo.optim.base import Optimizer
from zoo.plugin.activation import activation
from zoo.plugin.architecture import architecture
from zoo.plugin.augmentation import augmentation
from zoo.plugin.data import data
from zoo.plugin.measures import Model, metric, score
from zoo.plugin.norm import norm
from zoo.plugin.objective import objective
from zoo.plugin.optimizer import optimizer
from zoo.plugin.rule import phase_rule

__all__ = [
    "Field",
    "Model",
    "Objective",
    "Optimizer",
    "activation",
    "architecture",
    "augmentation",
    "data",
    "metric",
    "norm",
    "objective",
    "optimizer",
    "phase_rule",
    "score",
]
