"""The layout of the Small CNN Zoo (Unterthiner et al. 2020, arXiv 2002.11448).

It is what the loaders of nfn, neural-graphs, ScaleGMN and ProbeGen read: ``weights.npy``,
``metrics.csv.gz``, ``layout.csv`` and a split file. These loaders take rows of ``step == 86`` as
final, the first half of them (in the order of the split file) to train and validate, the second to
test, and expect plain convolutions and dense layers with biases; so that is what is written.
"""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.architectures.layout import Layout, Segment
from zoo.dataset.batches import rows_at_once
from zoo.dataset.exports.base import EXPORTS, Export, ExportFormat
from zoo.dataset.exports.small_cnn_columns import FINAL_STEP, metrics_columns, penalty_weights
from zoo.dataset.splits import Split
from zoo.dataset.structure import Structure, by_structure
from zoo.dataset.tokens import layers_of
from zoo.dataset.view import View
from zoo.errors import QueryError
from zoo.paths import absolute
from zoo.store.outputs import new_folder, refuse_existing

__all__ = ["FINAL_STEP", "tf_layout", "write_small_cnn_zoo"]


def tf_layout(layout: Layout) -> list[tuple[str, tuple[int, ...], NDArray[np.int64]]]:
    """Return each variable as (name, shape, columns of our row), in their order.

    For each layer the bias, then the kernel with axes (height, width, in, out) or (in, out).
    """
    found = []
    for number, names in enumerate(layers_of(layout).values()):
        roles = {layout[name].role: layout[name] for name in names}
        found.append(_variable(f"sequential/layer_{number}/bias:0", roles["bias"]))
        found.append(_variable(f"sequential/layer_{number}/kernel:0", roles["kernel"]))
    return found


def _variable(name: str, s: Segment) -> tuple[str, tuple[int, ...], NDArray[np.int64]]:
    columns = np.arange(s.offset, s.stop).reshape(s.shape)
    axes = {1: (0,), 2: (1, 0), 4: (2, 3, 1, 0)}[len(s.shape)]
    moved = columns.transpose(axes)
    return name, moved.shape, moved.reshape(-1)


def write_small_cnn_zoo(view: View, path: Path, split: Split | None = None) -> Export:
    """Write a view as a folder in the layout of the Small CNN Zoo.

    A run's last row in the view gets step 86, the others their epoch, which must be below that.
    :mod:`zoo.dataset.exports.small_cnn_columns` says what the columns of the metrics are.

    Args:
        view: the rows; of one structure, without norms, dense or with two-dimensional kernels.
        path: the folder; made.
        split: its test part must have half of the runs, rounded up; None = half of them, by hash.

    Raises:
        QueryError: rows that the loaders cannot read, or a split that they would cut elsewhere.
        StoreError: the folder is there, or cannot be written.
    """
    path = absolute(path)
    refuse_existing(path)
    structure = _fitting(view)
    order = _order(view, split)
    variables = tf_layout(structure.layout)
    columns = np.concatenate([c for _, _, c in variables])
    lines = "".join(f"{i}\n" for i in order.tolist())
    with new_folder(path) as part:
        penalty = _write_weights(view, structure.layout, columns, part / "weights.npy")
        metrics = metrics_columns(view, structure, penalty)
        (part / "metrics.csv.gz").write_bytes(_metrics(metrics))
        (part / "layout.csv").write_text(_layout_csv(variables), encoding="utf-8")
        (part / "split.csv").write_text(lines, encoding="utf-8")
    files = sorted(path.iterdir())
    return Export(path, len(files), sum(f.stat().st_size for f in files))


def _fitting(view: View) -> Structure:
    """Return the one structure of the rows.

    Raises:
        QueryError: there are several, or it has parts that the loaders do not know.
    """
    found = list(by_structure(view))
    problems = []
    if len(found) != 1:
        problems.append(f"{len(found)} structures; query one width, depth, activation and norm")
    for structure in found[:1]:
        roles = {s.role for s in structure.layout.segments}
        if roles - {"kernel", "bias"} or structure.norm != "none":
            problems.append(f"norm {structure.norm!r}; query norm == 'none'")
        if any("weight_transform" in op for op in structure.ops):
            problems.append("weight transforms; query weight_transform == 'none'")
        if any(len(s.shape) == 3 for s in structure.layout.segments):
            problems.append("one-dimensional convolutions")
    if problems:
        msg = f"the layout of the Small CNN Zoo cannot hold: {'; '.join(problems)}"
        raise QueryError(msg)
    return found[0]


def _order(view: View, split: Split | None) -> NDArray[np.int64]:
    """Return all rows, those of training and validation runs first.

    Raises:
        QueryError: the loaders would cut within a part.
    """
    from zoo.dataset.splits import split_by

    chosen = split or split_by(view, "run", fractions={"train": 0.5, "test": 0.5})
    views = chosen.views(view)
    first = {run for name, part in views.items() if name != "test" for run in part["run_id"]}
    runs = view["run_id"].tolist()
    here = len(first & set(runs))
    every = len(set(runs))
    if here != every // 2:
        msg = (
            f"the loaders train on the first half of {every} runs, but the split has {here} runs "
            f"outside of its test part; make one with {every // 2}"
        )
        raise QueryError(msg)
    late = np.array([run not in first for run in runs], dtype=np.bool_)
    return np.argsort(late, kind="stable").astype(np.int64)


def _metrics(columns: Mapping[str, Sequence[Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    return gzip.compress(text.getvalue().encode(), mtime=0)


def _write_weights(
    view: View, layout: Layout, columns: NDArray[np.int64], file: Path
) -> NDArray[np.float64]:
    """Write ``weights.npy``, and return the penalty of each row, ``[n]``.

    Through the file and not through a memory map: on a full disk that is an error, not a signal.
    """
    shape = (len(view), len(columns))
    penalty = np.zeros(len(view))
    runs, first, inverse = np.unique(view["run_id"], return_index=True, return_inverse=True)
    factors = [penalty_weights(view.spec(int(at)), layout) for at in first[: len(runs)]]
    step = rows_at_once(view, 512)
    with file.open("xb") as out:
        header = {"descr": "<f4", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(out, header)
        for start in range(0, len(view), step):
            rows = view[start : start + step].stacked_weights()
            out.write(np.ascontiguousarray(rows[:, columns], dtype="<f4").data.cast("B"))
            factor = np.stack([factors[i] for i in inverse[start : start + step]])
            penalty[start : start + step] = (factor * rows.astype(np.float64) ** 2).sum(1)
    return penalty


def _layout_csv(variables: list[tuple[str, tuple[int, ...], NDArray[np.int64]]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["varname", "start_idx", "end_idx", "shape"])
    start = 0
    for name, shape, columns in variables:
        writer.writerow([name, start, start + len(columns), str(tuple(shape))])
        start += len(columns)
    return text.getvalue()


EXPORTS.register(
    "small-cnn-zoo",
    doc="the layout of the Small CNN Zoo, for loaders of nfn, neural-graphs, ScaleGMN, ProbeGen",
    source="Unterthiner et al. 2020, arXiv 2002.11448",
)(ExportFormat(write_small_cnn_zoo, "loaders of nfn, neural-graphs, ScaleGMN, ProbeGen"))
