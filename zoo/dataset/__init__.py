"""Zoos as datasets: open a store, query its checkpoints, load weights and models."""

from zoo.dataset.columns import ColumnInfo
from zoo.dataset.view import View
from zoo.dataset.zoo import STATUSES, Run, Zoo, open  # noqa: A004

__all__ = ["STATUSES", "ColumnInfo", "Run", "View", "Zoo", "open"]
