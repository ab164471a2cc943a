"""HDF5: one file, one group a structure, weights ``[n, P]`` beside a table of columns."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.dataset.batches import plan_batches, rows_at_once
from zoo.dataset.exports.base import EXPORTS, Export, ExportFormat, plain_columns, refuse_existing
from zoo.dataset.exports.permutation_spec import permutation_spec
from zoo.dataset.structure import Structure, by_structure
from zoo.store.files import store_errors

if TYPE_CHECKING:
    from zoo.dataset.splits import Split
    from zoo.dataset.view import View

__all__ = ["write_hdf5"]

_CHUNK_BYTES = 1 << 20


def write_hdf5(view: View, path: Path, split: Split | None = None) -> Export:
    """Write a view as one HDF5 file.

    The root has ``zoo`` and ``rows``; each group ``structure_<i>`` has ``weights`` ``[n, P]``
    (float32, chunked by rows, checksummed by Fletcher-32), one data set a column, ``part`` where
    there is a split, and the layout and permutation specification as JSON attributes.

    Args:
        view: the rows.
        path: the file.
        split: gives each row its part.

    Raises:
        ImportError: h5py is not installed.
        StoreError: the file is there, or cannot be written.
        QueryError: runs that the split does not have.
    """
    try:
        import h5py
    except ImportError as error:
        msg = "the hdf5 export needs h5py: pip install 'phasezoo[hdf5]'"
        raise ImportError(msg) from error
    refuse_existing(path)
    if split is not None:
        split.views(view)  # every run has a part, or this says which has none
    part = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with store_errors("write", path):
        try:
            with h5py.File(part, "w") as file:
                file.attrs.update({"zoo": view.zoo.name, "rows": len(view), "format": "phasezoo"})
                if split is not None:
                    file.attrs["split"] = split.hash
                for number, (structure, at) in enumerate(by_structure(view).items()):
                    group = file.create_group(f"structure_{number}")
                    _write_group(group, view.take(at), structure, split, h5py.string_dtype())
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    return Export(path, 1, path.stat().st_size)


def _write_group(
    group: Any, view: View, structure: Structure, split: Split | None, text: Any
) -> None:
    P = structure.params
    rows = max(1, min(len(view), _CHUNK_BYTES // (4 * P)))
    weights = group.create_dataset(
        "weights", (len(view), P), dtype="<f4", chunks=(rows, P), fletcher32=True
    )
    done = 0
    for positions in plan_batches(view, rows_at_once(view, 256)):
        weights[done : done + len(positions)] = view.take(positions).stacked_weights()
        done += len(positions)
    columns = plain_columns(view)
    if split is not None:
        columns["part"] = _parts(columns["run_id"], split)
    for name, values in columns.items():
        dtype = text if values.dtype.kind == "U" else values.dtype
        group.create_dataset(name, data=values.astype(object) if dtype is text else values)
    group.attrs["layout"] = json.dumps(structure.layout.to_json())
    group.attrs["permutation_spec"] = json.dumps(permutation_spec(structure))
    for name in ("family", "activation", "norm", "classes"):
        group.attrs[name] = getattr(structure, name)
    group.attrs["example_shape"] = structure.example_shape


def _parts(runs: Any, split: Split) -> Any:
    import numpy as np

    return np.array([split.side(run) or "" for run in runs.tolist()], dtype=np.str_)


EXPORTS.register("hdf5")(ExportFormat(write_hdf5, "h5py, PyTables, MATLAB, R, Julia", ".h5"))
