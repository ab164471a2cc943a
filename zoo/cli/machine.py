"""``zoo list data`` and ``zoo version``: what is on this machine."""

from __future__ import annotations

import argparse
from typing import Any

from zoo.cli.show import print_json

__all__ = ["data_rows", "version"]


def data_rows() -> list[dict[str, Any]]:
    """Return the data sets, whether their files are there, and how to get them if not."""
    from zoo.data import DATASETS
    from zoo.data.files import find_path
    from zoo.errors import DataError, MissingDataError

    rows = []
    for name in DATASETS.names():
        about = DATASETS[name]
        how = ""
        try:
            find_path(about, None)
        except (MissingDataError, DataError) as error:
            how = str(error).partition("; ")[2] or str(error)
        sizes: tuple[int | None, int | None] = about.sizes or (None, None)
        shape = about.example_shape
        rows.append(
            {
                "name": name,
                "there": "no" if how else "yes",
                "train": sizes[0],
                "test": sizes[1],
                "shape": " x ".join(map(str, shape)) if shape else None,
                "classes": about.classes,
                "source": about.source,
                "licence": about.licence,
                "how": how,
            }
        )
    return rows


def version(args: argparse.Namespace) -> int:
    """Show versions and the machine."""
    from zoo.provenance import fingerprint

    found = fingerprint()
    if args.json:
        print_json(found)
        return 0
    versions = found.pop("versions")
    for name, value in {**versions, **found}.items():
        print(f"{name:<14}  {value}")
    return 0
