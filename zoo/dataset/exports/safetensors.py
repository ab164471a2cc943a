"""safetensors: one file per model with its state dict, and an index of all columns.

The format is a length (uint64), a JSON header and the raw values: it is written here, without the
library; https://huggingface.co/docs/safetensors has the specification. ``load_state_dict`` takes
what ``safetensors.torch.load_file`` returns, and ``torch.save`` of that is what loaders of pickled
checkpoints expect.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.architectures.layout import Layout
from zoo.dataset.batches import rows_at_once
from zoo.dataset.exports.base import EXPORTS, Export, ExportFormat, plain_columns
from zoo.dataset.splits import Split
from zoo.dataset.structure import by_structure
from zoo.dataset.view import View
from zoo.paths import absolute
from zoo.store.outputs import new_folder, refuse_existing

__all__ = ["safetensors_bytes", "write_safetensors"]

_ALIGNMENT = 8


def safetensors_bytes(row: NDArray[np.float32], layout: Layout, facts: dict[str, str]) -> bytes:
    """Return the content of one model's file.

    Args:
        row: ``[P]``.
        layout: of the row.
        facts: metadata, text only, as the format wants it.
    """
    header: dict[str, Any] = {"__metadata__": facts}
    values: list[bytes] = []
    offset = 0
    for s in layout.segments:
        data = np.ascontiguousarray(row[s.offset : s.stop], dtype="<f4").tobytes()
        header[s.name] = {
            "dtype": "F32",
            "shape": list(s.shape),
            "data_offsets": [offset, offset + len(data)],
        }
        values.append(data)
        offset += len(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return len(text).to_bytes(8, "little") + text + b"".join(values)


def write_safetensors(view: View, path: Path, split: Split | None = None) -> Export:
    """Write a view as a folder: ``index.csv`` and ``models/<run id>-<checkpoint>.safetensors``.

    The index has one line per row, in the view's order, with every column, the file, and the part
    of the split. The metadata of a file are the run's columns that are not empty, and ``format``,
    ``"pt"``, which transformers asks for.

    Args:
        view: the rows.
        path: the folder; made.
        split: gives each row its part.

    Raises:
        StoreError: the folder is there, or cannot be written.
        QueryError: runs that the split does not have.
    """
    path = absolute(path)
    refuse_existing(path)
    columns = plain_columns(view, "file", "part", "format")
    runs, ks = columns["run_id"].tolist(), columns["checkpoint"].tolist()
    columns["file"] = np.array([f"models/{r}-{k}.safetensors" for r, k in zip(runs, ks)])  # noqa: B905
    if split is not None:
        split.views(view)
        columns["part"] = np.array([split.side(run) or "" for run in runs])
    names = tuple(columns)
    table = [
        ["" if v is None or v != v else v for v in row]
        for row in zip(*(columns[name].tolist() for name in names), strict=True)
    ]
    size, step = 0, rows_at_once(view, 256)
    with new_folder(path) as part:
        (part / "models").mkdir()
        for structure, at in by_structure(view).items():
            for start in range(0, len(at), step):
                some = at[start : start + step]
                for place, row in zip(some, view.take(some).stacked_weights(), strict=True):
                    facts = {n: str(v) for n, v in zip(names, table[place], strict=True) if v != ""}
                    data = safetensors_bytes(row, structure.layout, {**facts, "format": "pt"})
                    (part / str(columns["file"][place])).write_bytes(data)
                    size += len(data)
        index = part / "index.csv"
        with index.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(names)
            writer.writerows(table)
        size += index.stat().st_size
    return Export(path, len(view) + 1, size)


EXPORTS.register(
    "safetensors", doc="one .safetensors file, for safetensors, transformers, any torch code"
)(ExportFormat(write_safetensors, "safetensors, transformers, any torch code"))
