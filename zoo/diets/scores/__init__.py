"""The scores, one file each; importing this registers them."""

from zoo.diets.scores import (
    aum,
    chance,
    el2n,
    entropy,
    forgetting,
    from_file,
    grand,
    grand_last,
    input_norm,
    loss,
    margin,
    memorization,
    prototype,
)
from zoo.diets.scores.base import FROM_MODELS, SCORES, EpochTrail, Outputs, Score

__all__ = [
    "FROM_MODELS",
    "SCORES",
    "EpochTrail",
    "Outputs",
    "Score",
    "aum",
    "chance",
    "el2n",
    "entropy",
    "forgetting",
    "from_file",
    "grand",
    "grand_last",
    "input_norm",
    "loss",
    "margin",
    "memorization",
    "prototype",
]
