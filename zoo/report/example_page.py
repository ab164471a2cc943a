"""A page of the easiest and the hardest training examples, shown as images."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from zoo.report.figures import literal, new_figure
from zoo.report.picture_file import check_picture, save_figure
from zoo.report.score_tables import ScoreTable, find_scores, load_scored

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["example_page"]

#: Class names of the data sets that have some.
NAMES = {
    "fashion_mnist": (
        "T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag",
        "boot",
    ),
    "cifar10": (
        "airplane", "car", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
    ),
}  # fmt: skip
_COLUMNS = 12


def example_page(
    path: str | os.PathLike[str],
    file: str | os.PathLike[str],
    *,
    score: str | None = None,
    epoch: float | None = None,
    count: int = 24,
    paths: Mapping[str, str] | None = None,
) -> Path:
    """Draw the examples with the lowest and the highest score of a store; return the file's path.

    Above each image stands its label as trained on; where label noise changed it, in red with the
    true label behind it. Images are drawn as such, other examples as curves.

    Args:
        path: the store.
        file: the picture (``.png``, ``.pdf``, ``.svg``).
        score: which score; None = EL2N if it is there.
        epoch: at which epoch; None = the last.
        count: examples of either kind.
        paths: data set -> path, before what the environment and the store say.

    Raises:
        ImportError: matplotlib is not installed.
        QueryError: the store has no such scores, or a path that cannot be drawn to.
        NameTakenError: something else than a picture of ours is at the path.
    """
    check_picture(file)
    table, name, at = find_scores(path, score, epoch)
    dataset, labels = load_scored(path, table, paths=paths)
    order = np.argsort(table.mean(name, at), kind="stable")
    count = min(count, len(order) // 2)
    rows = -(-count // _COLUMNS)
    figure = new_figure(_COLUMNS * 0.95, 2.35 * rows + 1.4)
    halves: Any = figure.subfigures(2, 1)
    figure.suptitle(literal(_title(table, name, at)), fontsize=11)
    for half, title, ids in (
        (halves[0], "easiest", order[:count]),
        (halves[1], "hardest", order[::-1][:count]),
    ):
        half.suptitle(title, fontsize=10)
        cells = half.subplots(rows, _COLUMNS, squeeze=False).ravel()
        for cell in cells:
            cell.set_axis_off()
        for cell, example in zip(cells, ids.tolist(), strict=False):
            _draw(cell, np.asarray(dataset.train_x[example]))
            own, true = int(labels[example]), int(dataset.train_y[example])
            shown = _name(dataset.name, own)
            if own != true:
                shown += f"\n({_name(dataset.name, true)})"
            cell.set_title(
                literal(shown), fontsize=7, color="#c00000" if own != true else "black", pad=2
            )
    return save_figure(figure, file, dpi=130)


def _title(table: ScoreTable, score: str, epoch: float) -> str:
    """Return what was scored, and by which models: a store may have several tables of a score."""
    scorer = table.job.scorer
    noise = f", label noise {scorer.label_noise:g}" if scorer.label_noise else ""
    return (
        f"{scorer.data}{noise}: {score} at epoch {epoch:g}\nmean of {table.job.seeds} models"
        f" ({scorer.architecture} of width {scorer.width}), table {table.name}"
    )


def _name(data: str, label: int) -> str:
    return NAMES[data][label] if data in NAMES else str(label)


def _draw(cell: Axes, example: NDArray[Any]) -> None:
    if example.ndim == 3 and example.shape[0] in (1, 3):
        image = np.moveaxis(example.astype(np.float64), 0, -1)
        image = (image - image.min()) / max(float(np.ptp(image)), 1e-9)
        cell.imshow(image.squeeze(), cmap="gray_r", interpolation="nearest")
    else:
        cell.plot(example.reshape(-1), linewidth=1, color="#0072b2")
