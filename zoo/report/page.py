"""The report: one self-contained HTML page, and the same pictures as PNG files."""

from __future__ import annotations

import base64
import html
import io
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo.dataset import Zoo
from zoo.errors import MissingDataError, StoreError
from zoo.phases import PHASES, UNDETERMINED
from zoo.phases.thresholds import PUBLISHED
from zoo.report.colours import PHASE_STYLES, ink_on
from zoo.report.metric_maps import metric_figure
from zoo.report.page_style import STYLE
from zoo.report.phase_curves import curves_figure, paths_figure
from zoo.report.phase_data import PhaseData, phase_data
from zoo.report.phase_plot import phase_figure
from zoo.report.surface import POINTS
from zoo.report.surface_plot import surface_figure
from zoo.report.tables import json_rows

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Picture", "ReportFiles", "write_report"]

_DPI = 150
_MOST_GRIDS = 6
_LISTED = ("load", "temperature", "rest", "phase", "confidence", "margin", "boundary", "train_loss",
           "train_error", "test_error", "lambda_max", "hessian_trace", "mode_connectivity", "cka",
           "bad_share")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture of the page.

    Args:
        name: of its file, without the ending.
        title: its heading; empty where it goes on under the one before.
        caption: how to read it.
        png: the file.
    """

    name: str
    title: str
    caption: str
    png: bytes


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

    The page needs nothing else: pictures are in it, and nothing is fetched from anywhere.

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
        OSError: the files cannot be written.
    """
    if zoo.path is None:
        msg = "a report is made of a store on disk; open it with zoo.open(path)"
        raise StoreError(msg)
    data = phase_data(zoo.path, table)
    notes: list[str] = []
    pictures = _pictures(
        zoo, data, notes, surfaces=surfaces, points=points, tell=progress or (lambda _: None)
    )
    target = Path(path)
    files = []
    for picture in pictures:
        file = target.with_name(f"{target.stem}-{picture.name}.png")
        file.write_bytes(picture.png)
        files.append(file)
    target.write_text(page_of(zoo, data, pictures, notes), encoding="utf-8")
    return ReportFiles(target, tuple(files), tuple(notes))


def png_bytes(figure: Figure) -> bytes:
    """Return a figure as a PNG file; equal figures give equal bytes."""
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=_DPI, metadata={"Software": None})
    return out.getvalue()


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
    found = [Picture("phases", "", _PHASES, png_bytes(phase_figure(data, f"{zoo.name}: phases")))]
    for index, grid in enumerate(data.grids[:_MOST_GRIDS]):
        tell(f"metrics {grid.title}".strip())
        figure = metric_figure(data, grid)
        if figure is not None:
            name = "metrics" if len(data.grids) == 1 else f"metrics-{index}"
            title, caption = (_METRICS_TITLE, _METRICS) if index == 0 else ("", "")
            found.append(Picture(name, title, caption, png_bytes(figure)))
    if len(data.grids) > _MOST_GRIDS:
        notes.append(f"{len(data.grids)} diagrams; pictures show the first {_MOST_GRIDS}")
    tell("trajectories")
    curves = png_bytes(curves_figure(zoo, data))
    found.append(Picture("curves", "How they got there", _CURVES, curves))
    found.append(Picture("paths", "", _PATHS, png_bytes(paths_figure(zoo, data))))
    if surfaces:
        tell("loss surfaces")
        try:
            surface = surface_figure(zoo, data, points=points)
        except MissingDataError as error:
            notes.append(f"no loss surfaces: {error}")
        else:
            if surface is not None:
                found.append(Picture("surfaces", "Loss surfaces", _SURFACES, png_bytes(surface)))
    return found


_METRICS_TITLE = "What the phases rest on"
_PHASES = (
    "Each square is one cell, all its seeds together; dark lines part the phases. Below: medians"
    " over the cells of a phase."
)
_METRICS = (
    "Means over the seeds of a cell (or over their pairs), with the borders of the phases. Hatched:"
    " no value, for example since the models collapsed."
)
_CURVES = "Median over all models of a phase, and their middle 80 %."
_PATHS = (
    "The seeds of one cell a phase, from the initialisation (pale) to the end (disc), in the plane"
    " that shows most of their paths."
)
_SURFACES = (
    "Training loss on one logarithmic scale. Above: around one model, along two random directions"
    " of filter-normalised length (Li et al. 2018); a wide dark basin is a flat one. Below: the"
    " plane through three seeds of the same cell (Garipov et al. 2018): ridges between the discs"
    " are barriers of straight lines; curves may still go around them."
)


def page_of(zoo: Zoo, data: PhaseData, pictures: list[Picture], notes: list[str]) -> str:
    """Return the whole page as text."""
    body = [_head(zoo, data)]
    for picture in pictures:
        if picture.title:
            body.append(f"<h2>{_text(picture.title)}</h2>")
        image = base64.b64encode(picture.png).decode()
        alt = _text(picture.title or picture.name)
        body.append(
            f'<figure><img alt="{alt}" src="data:image/png;base64,{image}">'
            f"<figcaption>{_text(picture.caption)}</figcaption></figure>"
        )
        if picture.name == "phases":
            body.append(_key(data))
    body += [_thresholds(data), _cells(data)]
    body += [f'<p class="note">{_text(note)}</p>' for note in notes]
    title = _text(f"{zoo.name}: phases")
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{STYLE}</style></head>\n<body><main>\n"
        + "\n".join(body)
        + "\n</main></body></html>\n"
    )


def _text(value: object) -> str:
    return html.escape(str(value))


def _head(zoo: Zoo, data: PhaseData) -> str:
    states = ", ".join(f"{n:,} {state}" for state, n in zoo.status().items() if n)
    recorded = sum(int(table.recorded.sum()) for table in zoo.tables)
    axes = " by ".join(data.axes[k].replace("_", " ") for k in ("load", "temperature"))
    facts = {
        "models": f"{len(zoo):,} ({states})",
        "checkpoints": f"{recorded:,}",
        "cells": f"{len(data):,}",
        "load by temperature": axes,
        "data": ", ".join(zoo.plan.data),
        "labels": data.table,
    }
    items = "".join(f"<div><dt>{_text(k)}</dt><dd>{_text(v)}</dd></div>" for k, v in facts.items())
    return f"<header><h1>{_text(zoo.name)}</h1><dl>{items}</dl></header>"


def _key(data: PhaseData) -> str:
    """Return the phases with what they mean, how many cells have them, and the means there."""
    rows = []
    phases = np.array(data.phases)
    for name in (*PHASES, UNDETERMINED):
        here = phases == name
        if not here.any():
            continue
        style = PHASE_STYLES[name]
        cells = [f'<td><b style="background:{style.colour};color:{ink_on(style.colour)}">'
                 f"{_text(style.short)}</b></td><td>{_text(style.words)}</td>",
                 f"<td>{int(here.sum())}</td>"]  # fmt: skip
        cells += [f"<td>{_mean(data, c, here)}</td>" for c in _MEANS]
        rows.append("<tr>" + "".join(cells) + "</tr>")
    head = "".join(f"<th>{_text(t)}</th>" for t in ("phase", "", "cells", *_MEANS.values()))
    return (
        f'<table class="key"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
    )


#: Columns whose means a phase is described by.
_MEANS = {
    "train_loss": "training loss",
    "train_error": "training error %",
    "test_error": "test error %",
    "lambda_max": "sharpness",
    "mode_connectivity": "connectivity %",
    "cka": "CKA",
}


def _mean(data: PhaseData, column: str, here: np.ndarray[Any, Any]) -> str:
    values = data.number(column)[here]
    values = values[np.isfinite(values)]
    return _number(float(np.median(values))) if len(values) else "-"


def _number(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else ""
    if value is None:
        return "-"
    return f"{value:.3g}" if isinstance(value, float) else _text(value)


def _thresholds(data: PhaseData) -> str:
    facts = data.facts
    limits: dict[str, Any] = facts["thresholds"]
    sources = limits["sources"]
    rows = []
    for name, value in limits.items():
        if name in ("setting", "sources"):
            continue
        shown = ", ".join(value) if isinstance(value, list) else _number(value)
        if name == "cka" and value is None:
            rows += _cuts(data)
        elif value is not None:
            rows.append(
                f"<tr><td>{_text(name)}</td><td>{shown}</td>"
                f"<td>{_text(sources.get(name, ''))}</td></tr>"
            )
    return (
        "<h2>Thresholds</h2><p>Unfinished cells are I below <i>optimised</i> and II from it on;"
        " finished ones are III below minus <i>connected</i>, IV-B above <i>cka</i>, IV-A"
        f" otherwise. Setting: {_text(limits['setting'])}. Confidence from"
        f" {_text(facts['confidence-from'])}. Published grid: {_text(PUBLISHED)}.</p>"
        "<table><thead><tr><th>threshold</th><th>value</th>"
        f"<th>where it comes from</th></tr></thead><tbody>{''.join(rows)}</tbody></table>"
    )


def _cuts(data: PhaseData) -> list[str]:
    """Return a line for each cut that was found from the data."""
    sources = data.columns["cka_cut_source"].tolist()
    found = dict(zip(sources, data.number("cka_cut").tolist(), strict=True))
    return [
        f"<tr><td>cka</td><td>{cut:.4g}</td><td>{_text(source)}</td></tr>"
        for source, cut in found.items()
    ]


def _cells(data: PhaseData) -> str:
    names = [n for n in _LISTED if n in data.columns and not _empty(data.columns[n])]
    columns = [data.columns[n].tolist() for n in names]
    rows = json_rows([dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)])
    lines = []
    for row in rows:
        style = PHASE_STYLES[str(row["phase"])]
        cells = "".join(
            f'<td style="color:{style.colour}"><b>{_text(v)}</b></td>'
            if k == "phase"
            else f"<td>{_number(v)}</td>"
            for k, v in row.items()
        )
        lines.append(f"<tr>{cells}</tr>")
    heads = {**{k: data.axes[k].replace("_", " ") or k for k in ("load", "temperature")}}
    head = "".join(f"<th>{_text(heads.get(n, n.replace('_', ' ')))}</th>" for n in names)
    return (
        f"<details><summary>All {len(data)} cells</summary><table><thead><tr>{head}</tr></thead>"
        f"<tbody>{''.join(lines)}</tbody></table></details>"
    )


def _empty(column: np.ndarray[Any, Any]) -> bool:
    if column.dtype.kind == "f":
        return not bool(np.isfinite(column).any())
    return column.dtype.kind in "UT" and not any(column.tolist())
