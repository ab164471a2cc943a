"""The dynamic diets, one file each; importing this registers them."""

from zoo.diets.dynamic import importance, infobatch, loss_reweighting, selective_backprop

__all__ = ["importance", "infobatch", "loss_reweighting", "selective_backprop"]
