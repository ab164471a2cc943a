"""The report: one self-contained HTML page, and the same pictures as PNG files."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.dataset import Zoo
from zoo.errors import MissingDataError, StoreError
from zoo.paths import absolute
from zoo.phases import PHASES
from zoo.report.metric_maps import metric_figure
from zoo.report.page_html import Picture, page_of
from zoo.report.phase_curves import curves_figure, paths_figure, pooled_by_phase
from zoo.report.phase_data import PhaseData, phase_data
from zoo.report.phase_plot import MOST_GRIDS, phase_figure
from zoo.report.picture_file import PAGE, PICTURE, check_picture, png_bytes
from zoo.report.plain_page import has_phases, plain_page, plain_pictures
from zoo.report.pooling import pooled_words
from zoo.report.surface import POINTS
from zoo.report.surface_plot import surface_figure, surfaces_of
from zoo.store.outputs import check_output, write_output

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["ReportFiles", "write_report"]

_DPI = 150


@dataclass(frozen=True, slots=True)
class ReportFiles:
    """What a report wrote.

    Args:
        page: the HTML file.
        pictures: the PNG files.
        notes: what could not be shown, and why.
    """

    page: Path
    pictures: tuple[Path, ...]
    notes: tuple[str, ...]


def write_report(
    zoo: Zoo,
    path: str | os.PathLike[str],
    *,
    table: str | None = None,
    surfaces: bool = True,
    points: int = POINTS,
    progress: Callable[[str], None] | None = None,
) -> ReportFiles:
    """Write the report of a labelled zoo: the page, and its pictures as ``<page>-<name>.png``.

    A zoo whose models fit floats has no phases: its page shows what was recorded, and needs no
    labels. The page needs nothing else: pictures are in it, and nothing is fetched from anywhere.

    Args:
        zoo: the zoo.
        path: of the page (``.html``).
        table: of labels; None = the current one.
        surfaces: whether to compute loss surfaces, which takes some seconds.
        points: a side of a loss surface.
        progress: told the name of each part before it is made.

    Raises:
        ImportError: matplotlib is not installed.
        StoreError: the zoo has no labels yet.
        UnknownNameError: there is no such table of labels.
        QueryError: there is no folder for the page.
        NameTakenError: something else than an earlier page or picture of ours is there.
        StoreError: the files cannot be written.
    """
    target = absolute(path)
    check_output(target, PAGE)
    check_picture(_picture_file(target, "phases"))
    if zoo.path is None:
        msg = "a report is made of a store on disk; open it with zoo.open(path)"
        raise StoreError(msg)
    notes: list[str] = []
    tell = progress or (lambda _: None)
    if has_phases(zoo):
        data = phase_data(zoo.path, table)
        pictures = _pictures(zoo, data, notes, surfaces=surfaces, points=points, tell=tell)
        page = page_of(zoo, data, pictures, notes)
    else:
        pictures = plain_pictures(zoo, tell)
        page = plain_page(zoo, pictures)
    files = [_picture_file(target, picture.name) for picture in pictures]
    for file in files:
        check_picture(file)
    for file, picture in zip(files, pictures, strict=True):
        write_output(file, picture.png, PICTURE)
    write_output(target, page.encode(), PAGE)
    return ReportFiles(target, tuple(files), tuple(notes))


def _picture_file(page: Path, name: str) -> Path:
    return page.with_name(f"{page.stem}-{name}.png")


def _picture(
    name: str, title: str, caption: str, draw: Callable[..., Figure | None], columns: int
) -> Picture:
    """Return a picture in both of its forms; ``draw`` takes ``columns``, the panels in a row."""
    wide, narrow = draw(columns=columns), draw(columns=1)
    assert wide is not None
    assert narrow is not None
    return Picture(name, title, caption, png_bytes(wide, _DPI), png_bytes(narrow, _DPI))


def _left_out(data: PhaseData) -> list[str]:
    """Return what the pictures do not show, in words."""
    notes = []
    if len(data.grids) > MOST_GRIDS:
        notes.append(
            f"There are {len(data.grids)} diagrams; pictures show the first {MOST_GRIDS}, curves"
            " and medians all of them."
        )
    if data.hidden:
        notes.append(
            f"Cells not in the diagrams, because others are at the same place: {data.hidden} of"
            f" {len(data)}. All are in the list of cells."
        )
    unknown = sum(phase not in PHASES for phase in data.phases)
    if unknown:
        cells = "cell is" if unknown == 1 else "cells are"
        notes.append(f"{unknown} undetermined {cells} not in the curves, paths and surfaces.")
    return notes


def _pictures(
    zoo: Zoo,
    data: PhaseData,
    notes: list[str],
    *,
    surfaces: bool,
    points: int,
    tell: Callable[[str], None],
) -> list[Picture]:
    tell("phase diagram")
    title = f"{zoo.name}: phases"
    found = [_picture("phases", "", _PHASES, partial(phase_figure, data, title), 2)]
    for index, grid in enumerate(data.grids[:MOST_GRIDS]):
        tell(f"metrics {grid.title}".strip())
        if metric_figure(data, grid) is not None:
            name = "metrics" if len(data.grids) == 1 else f"metrics-{index}"
            heading, caption = (_METRICS_TITLE, _METRICS) if index == 0 else ("", "")
            draw = partial(metric_figure, data, grid)
            found.append(_picture(name, heading, caption, draw, 3))
    notes += _left_out(data)
    tell("trajectories")
    caption = _CURVES.format(pooled_words(pooled_by_phase(zoo, data)) or "nothing")
    draw_curves, draw_paths = partial(curves_figure, zoo, data), partial(paths_figure, zoo, data)
    found.append(_picture("curves", "How they got there", caption, draw_curves, 3))
    found.append(_picture("paths", "", _PATHS, draw_paths, len(PHASES)))
    if surfaces:
        tell("loss surfaces")
        try:
            cells = surfaces_of(zoo, data, points=points)
        except MissingDataError as error:
            notes.append(f"no loss surfaces: {error}")
        else:
            draw_cells = partial(surface_figure, data, cells)
            if cells:
                found.append(_picture("surfaces", "Loss surfaces", _SURFACES, draw_cells, 2))
    return found


_METRICS_TITLE = "What the phases rest on"
_PHASES = (
    "Each square is one cell with all its seeds; dark lines part the phases. Below: medians over"
    " the cells of a phase, of all diagrams."
)
_METRICS = (
    "Means over the seeds of a cell, or over their pairs, with the borders of the phases. A colour"
    " means the same number in all diagrams; the two errors share a scale, as do the two barriers."
    " Hatched: no value, for example because the models collapsed."
)
_CURVES = (
    "Median over all models of a phase, and their middle 80 %; the number of models is in the"
    " legend. Pooled over {}. Models are taken together checkpoint by checkpoint, diverged ones up"
    " to their last."
)
_PATHS = (
    "The seeds of one cell per phase, from the initialisation (pale) to the end (disc), in the"
    " plane that shows most of their paths. Each plane has a scale of its own."
)
_SURFACES = (
    "Training loss of one cell per phase, on one logarithmic scale. Above: around one model, along"
    " two random directions of filter-normalised length (Li et al. 2018); a wide dark basin is a"
    " flat one. Below, or to the right on a narrow screen: the plane through three seeds of the"
    " same cell (Garipov et al. 2018): ridges between the discs are barriers of straight lines;"
    " curves may still go around them."
)
