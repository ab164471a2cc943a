"""MNIST: 28×28 handwritten digits, from the idx files at a user's path."""

from __future__ import annotations

from zoo.data.base import DATASETS, DataSource
from zoo.data.idx import FILES, idx_reader

__all__: list[str] = []

DATASETS.register("mnist", doc="28x28 handwritten digits")(
    DataSource(
        name="mnist",
        source="user-path",
        licence="CC-BY-SA-3.0",
        citation=(
            "LeCun, Bottou, Bengio and Haffner 1998, Gradient-based learning applied to "
            "document recognition, doi 10.1109/5.726791"
        ),
        example_shape=(1, 28, 28),
        classes=10,
        sizes=(60_000, 10_000),
        read=idx_reader("mnist", ("raw", "MNIST/raw")),
        files=FILES,
    )
)
