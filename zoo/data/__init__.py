"""Data sets, their normalisation, label noise, subsets and augmentation.

Importing this room registers every data set and loads none.
"""

from zoo.data import cifar, digits, fashion_mnist, mnist, mnist1d, npz
from zoo.data.augment import AUGMENTATIONS, Augmentation
from zoo.data.base import DATASETS, Dataset, DataSource
from zoo.data.labels import noisy_labels, training_subset
from zoo.data.load import load
from zoo.data.normalize import NORMALIZATIONS, PreparedData, prepare
from zoo.data.shape import DataShape

__all__ = [
    "AUGMENTATIONS",
    "DATASETS",
    "NORMALIZATIONS",
    "Augmentation",
    "DataShape",
    "DataSource",
    "Dataset",
    "PreparedData",
    "cifar",
    "digits",
    "fashion_mnist",
    "load",
    "mnist",
    "mnist1d",
    "noisy_labels",
    "npz",
    "prepare",
    "training_subset",
]
