"""Fashion-MNIST: 28×28 pictures of clothes, from the Debian package or a user's path."""

from __future__ import annotations

from zoo.data.base import DATASETS, DataSource
from zoo.data.idx import FILES, idx_reader

__all__: list[str] = []

DATASETS.register("fashion_mnist", doc="28x28 pictures of clothes")(
    DataSource(
        name="fashion_mnist",
        source="system-package",
        licence="MIT",
        citation=(
            "Xiao, Rasul and Vollgraf 2017, Fashion-MNIST: a novel image dataset for "
            "benchmarking machine learning algorithms, arXiv 1708.07747"
        ),
        example_shape=(1, 28, 28),
        classes=10,
        sizes=(60_000, 10_000),
        read=idx_reader("fashion_mnist", ("raw", "FashionMNIST/raw")),
        files=FILES,
        system_path="/usr/share/datasets/fashion-mnist",
        install="apt-get install dataset-fashion-mnist",
    )
)
