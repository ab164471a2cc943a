"""HDF5: one file, one group a structure, weights ``[n, P]`` beside a table of columns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from zoo.dataset.batches import plan_batches, rows_at_once
from zoo.dataset.exports.base import EXPORTS, Export, ExportFormat, plain_columns
from zoo.dataset.exports.permutation_spec import permutation_spec
from zoo.dataset.exports.sink import Sink
from zoo.dataset.splits import Split
from zoo.dataset.structure import Structure, by_structure
from zoo.dataset.view import View
from zoo.paths import absolute
from zoo.store.outputs import new_file, refuse_existing

__all__ = ["write_hdf5"]

_CHUNK_BYTES = 1 << 20


def write_hdf5(view: View, path: Path, split: Split | None = None) -> Export:
    """Write a view as one HDF5 file.

    The root has ``zoo`` and ``rows``; each group ``structure_<i>`` has ``weights`` ``[n, P]``
    (float32, chunked by rows, checksummed by Fletcher-32), one data set a column, ``part`` where
    there is a split, and the layout and the permutation specification
    (:func:`zoo.dataset.exports.permutation_spec.permutation_spec`) as JSON attributes.

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
    path = absolute(path)
    refuse_existing(path)
    if split is not None:
        split.views(view)  # every run has a part, or this says which has none
    with new_file(path) as part, Sink(part) as sink:
        with h5py.File(sink, "w") as file:
            file.attrs.update({"zoo": view.zoo.name, "rows": len(view), "format": "phasezoo"})
            if split is not None:
                file.attrs["split"] = split.hash
            for number, (structure, at) in enumerate(by_structure(view).items()):
                group = file.create_group(f"structure_{number}")
                _write_weights(group, view.take(at), structure, sink)
                _write_columns(group, view.take(at), split, h5py.string_dtype())
                _describe(group, structure)
                sink.check()
        sink.check()
    return Export(path, 1, path.stat().st_size)


def _write_weights(group: Any, view: View, structure: Structure, sink: Sink) -> None:
    P = structure.params
    rows = max(1, min(len(view), _CHUNK_BYTES // (4 * P)))
    weights = group.create_dataset(
        "weights", (len(view), P), dtype="<f4", chunks=(rows, P), fletcher32=True
    )
    done = 0
    for positions in plan_batches(view, rows_at_once(view, 256)):
        weights[done : done + len(positions)] = view.take(positions).stacked_weights()
        done += len(positions)
        sink.check()


def _write_columns(group: Any, view: View, split: Split | None, text: Any) -> None:
    columns = plain_columns(view, "weights", "part")
    if split is not None:
        columns["part"] = _parts(columns["run_id"], split)
    for name, values in columns.items():
        dtype = text if values.dtype.kind == "U" else values.dtype
        group.create_dataset(name, data=values.astype(object) if dtype is text else values)


def _describe(group: Any, structure: Structure) -> None:
    group.attrs["layout"] = json.dumps(structure.layout.to_json())
    group.attrs["permutation_spec"] = json.dumps(permutation_spec(structure))
    for name in ("family", "activation", "norm"):
        group.attrs[name] = getattr(structure, name)
    group.attrs["classes"] = structure.data_shape.outputs
    group.attrs["example_shape"] = structure.data_shape.example


def _parts(runs: Any, split: Split) -> Any:
    import numpy as np

    return np.array([split.side(run) or "" for run in runs.tolist()], dtype=np.str_)


EXPORTS.register("hdf5", doc="one .h5 file, for h5py, PyTables, MATLAB, R, Julia")(
    ExportFormat(write_hdf5, "h5py, PyTables, MATLAB, R, Julia", ".h5")
)
