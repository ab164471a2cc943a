"""What hidden weights go through before use, one file per method; importing registers them all."""

from zoo.architectures.weights import plain, standardized
from zoo.architectures.weights.base import WEIGHT_TRANSFORMS, WeightTransform
from zoo.architectures.weights.transformed import Transformed, transformed

__all__ = [
    "WEIGHT_TRANSFORMS",
    "Transformed",
    "WeightTransform",
    "plain",
    "standardized",
    "transformed",
]
