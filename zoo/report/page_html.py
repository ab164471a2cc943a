"""The report page as HTML: facts, pictures, thresholds and the list of cells."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.dataset import Zoo
from zoo.phases import PHASES, UNDETERMINED
from zoo.phases.thresholds import PUBLISHED
from zoo.report.colours import ink_on, style_of
from zoo.report.markup import Html, element, join
from zoo.report.page_style import NARROW_SCREEN, STYLE
from zoo.report.phase_data import PhaseData
from zoo.report.picture_file import GENERATOR
from zoo.report.tables import json_rows

__all__ = ["Picture", "document", "facts_list", "figure", "number", "page_of", "table"]

_LISTED = ("load", "temperature", "rest", "phase", "confidence", "margin", "boundary", "train_loss",
           "train_error", "test_error", "lambda_max", "hessian_trace", "mode_connectivity", "cka",
           "bad_share")  # fmt: skip

#: Columns whose medians a phase is described by.
_MEDIANS = {
    "train_loss": "training loss",
    "train_error": "training error %",
    "test_error": "test error %",
    "lambda_max": "sharpness",
    "mode_connectivity": "connectivity %",
    "cka": "CKA",
}


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture of the page.

    Args:
        name: of its file, without the ending.
        title: its heading; empty where it belongs to the one before.
        caption: how to read it.
        png: the file.
        narrow: the same picture for a phone, as a PNG file.
    """

    name: str
    title: str
    caption: str
    png: bytes
    narrow: bytes


def page_of(zoo: Zoo, data: PhaseData, pictures: Sequence[Picture], notes: Sequence[str]) -> str:
    """Return the whole page as text."""
    body = [_head(zoo, data)]
    for picture in pictures:
        if picture.title:
            body.append(element("h2", picture.title))
        body.append(figure(picture))
        if picture.name == "phases":
            body.append(_key(data))
    body += [_thresholds(data), _cells(data)]
    body += [element("p", note, class_="note") for note in notes]
    return document(f"{zoo.name}: phases", body)


def document(title: str, body: Sequence[Html]) -> str:
    """Return a whole page as text, with our style and nothing fetched from anywhere."""
    head = join(
        element("meta", charset="utf-8"),
        GENERATOR,
        element("title", title),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("style", Html(STYLE)),
    )
    main = element("main", join(*body, between="\n"))
    whole = element("html", element("head", head), "\n", element("body", main), lang="en")
    return f"<!doctype html>\n{whole}\n"


def figure(picture: Picture) -> Html:
    """Return a picture, in its narrow form where the screen is narrow, and its caption."""
    wide, narrow = (
        "data:image/png;base64," + base64.b64encode(png).decode()
        for png in (picture.png, picture.narrow)
    )
    image = element("img", alt=picture.title or picture.caption or picture.name, src=wide)
    source = element("source", media=f"(max-width: {NARROW_SCREEN}px)", srcset=narrow)
    caption = [element("figcaption", picture.caption)] if picture.caption else []
    return element("figure", element("picture", source, image), *caption)


def table(heads: Iterable[object], rows: Iterable[Iterable[object]], kind: str = "") -> Html:
    """Return a table that scrolls where it is too wide."""
    head = element("thead", element("tr", *(element("th", text) for text in heads)))
    lines = [
        element("tr", *(c if isinstance(c, Html) else element("td", c) for c in row))
        for row in rows
    ]
    attributes = {"class_": kind} if kind else {}
    whole = element("table", head, element("tbody", *lines), **attributes)
    return element("div", whole, class_="scroll")


def _head(zoo: Zoo, data: PhaseData) -> Html:
    states = ", ".join(f"{n:,} {state}" for state, n in zoo.status().items() if n)
    recorded = sum(int(table.recorded.sum()) for table in zoo.tables)
    facts = {
        "models": f"{len(zoo):,} ({states})",
        "checkpoints": f"{recorded:,}",
        "cells": f"{len(data):,}",
        "load by temperature": " by ".join(_axis_names(data)),
        "data": ", ".join(zoo.plan.data),
        "labels": data.table,
    }
    return facts_list(zoo.name, facts)


def facts_list(title: str, facts: Mapping[str, str]) -> Html:
    """Return the head of a page: its title, and facts by name."""
    items = [element("div", element("dt", k), element("dd", v)) for k, v in facts.items()]
    return element("header", element("h1", title), element("dl", *items))


def _axis_names(data: PhaseData) -> list[str]:
    return [data.axes[k].replace("_", " ") or k for k in ("load", "temperature")]


def _key(data: PhaseData) -> Html:
    """Return the phases with what they mean, how many cells have them, and the medians there."""
    rows = []
    phases = np.array(data.phases)
    for name in (*PHASES, UNDETERMINED):
        here = phases == name
        if not here.any():
            continue
        style = style_of(name)
        colours = f"background:{style.colour};color:{ink_on(style.colour)}"
        chip = element("td", element("b", style.short, style=colours))
        medians = [_median(data.number(column)[here]) for column in _MEDIANS]
        rows.append([chip, style.words, int(here.sum()), *medians])
    return table(["phase", "", "cells", *_MEDIANS.values()], rows, "key")


def _median(values: NDArray[np.float64]) -> str:
    values = values[np.isfinite(values)]
    return number(float(np.median(values))) if len(values) else "-"


def number(value: object) -> str:
    """Return a value as text, not escaped."""
    if value is None or value != value:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(number(inner) for inner in value)
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _thresholds(data: PhaseData) -> Html:
    facts = data.facts
    limits: Mapping[str, Any] = facts.get("thresholds", {})
    sources: Mapping[str, Any] = limits.get("sources", {})
    rows: list[list[object]] = []
    for name, value in limits.items():
        if name in ("setting", "sources"):
            continue
        if name == "cka" and value is None:
            rows += _cuts(data)
        elif value is not None:
            rows.append([name, number(value), sources.get(name, "")])
    words = element(
        "p",
        "Unfinished cells are I below ", element("i", "optimised"), " and II from it on; finished"
        " ones are III below minus ", element("i", "connected"), ", IV-B above ",
        element("i", "cka"), f", IV-A otherwise. Setting: {limits.get('setting', '-')}. Confidence"
        f" from {facts.get('confidence-from', '-')}. Published grid: {PUBLISHED}.",
    )  # fmt: skip
    lines = table(["threshold", "value", "where it comes from"], rows)
    return join(element("h2", "Thresholds"), words, lines)


def _cuts(data: PhaseData) -> list[list[object]]:
    """Return a line for each cut that was found from the data."""
    sources = data.columns["cka_cut_source"].tolist()
    found = dict(zip(sources, data.number("cka_cut").tolist(), strict=True))
    return [["cka", number(cut), source] for source, cut in found.items()]


def _cells(data: PhaseData) -> Html:
    names = [n for n in _LISTED if n in data.columns and not _empty(data.columns[n])]
    columns = [data.columns[n].tolist() for n in names]
    if "boundary" in names:  # yes, no, or not known
        near = data.number("boundary").tolist()
        columns[names.index("boundary")] = [None if v != v else bool(v) for v in near]
    rows = json_rows([dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)])
    heads = dict(zip(("load", "temperature"), _axis_names(data), strict=True))
    lines = [[_cell(name, value) for name, value in row.items()] for row in rows]
    whole = table([heads.get(n, n.replace("_", " ")) for n in names], lines)
    return element("details", element("summary", f"All {len(data):,} cells"), whole)


def _cell(name: str, value: object) -> Html:
    if name == "phase":
        return element("td", element("b", value), style=f"color:{style_of(str(value)).colour}")
    return element("td", number(value))


def _empty(column: NDArray[Any]) -> bool:
    if column.dtype.kind == "f":
        return not bool(np.isfinite(column).any())
    return column.dtype.kind in "UT" and not any(column.tolist())
