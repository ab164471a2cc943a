"""Zoos as datasets: open a store, query its checkpoints, split, load, audit and benchmark them.

``docs/query.md`` and ``docs/dataset.md`` are the tutorials.
"""

from zoo.dataset.audit import audit
from zoo.dataset.benchmark import benchmark
from zoo.dataset.columns import ColumnInfo
from zoo.dataset.features import layer_statistics, raw_weights
from zoo.dataset.groups import Groups
from zoo.dataset.normalization import Normalization, fit_normalization
from zoo.dataset.pair_dataset import PairDataset
from zoo.dataset.rows import Rows
from zoo.dataset.splits import Split, split_by, split_where
from zoo.dataset.structure import only_structure
from zoo.dataset.torch_dataset import WeightDataset
from zoo.dataset.view import View
from zoo.dataset.zoo import STATUSES, Run, Zoo, open  # noqa: A004

__all__ = [
    "STATUSES",
    "ColumnInfo",
    "Groups",
    "Normalization",
    "PairDataset",
    "Rows",
    "Run",
    "Split",
    "View",
    "WeightDataset",
    "Zoo",
    "audit",
    "benchmark",
    "fit_normalization",
    "layer_statistics",
    "only_structure",
    "open",
    "raw_weights",
    "split_by",
    "split_where",
]
