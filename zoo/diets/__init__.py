"""Data diets: scores, selections and dynamic methods; importing this registers them."""

from zoo.diets import dynamic, scores, selection

__all__ = ["dynamic", "scores", "selection"]
