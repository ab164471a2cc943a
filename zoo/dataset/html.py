"""Zoos and views in notebooks: a heading and a small table, with every value escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from zoo.dataset.any_view import AnyView, AnyZoo
from zoo.dataset.summary import describe_view, describe_zoo

__all__ = ["view_html", "zoo_html"]

_ROWS = 8


def zoo_html(zoo: AnyZoo) -> str:
    """Return the contents of a zoo as HTML: what ``print(zoo)`` shows, line by line."""
    head, *lines = describe_zoo(zoo, brief=True).splitlines()
    rows = [line.strip().split(maxsplit=1) for line in lines]
    return f"<p><b>{escape(head)}</b></p>{_table(('', ''), rows)}"


def view_html(view: AnyView) -> str:
    """Return a view as HTML: its size, and its first rows in the columns that tell them apart."""
    text = describe_view(view).splitlines()
    if not len(view):
        return f"<p>{'<br>'.join(map(escape, text))}</p>"
    part = view[:_ROWS]
    names = list(dict.fromkeys(["run_id", *view.zoo.varying, "epoch", view.zoo.headline()]))
    rows = zip(*(part[name].tolist() for name in names), strict=True)
    more = len(view) - len(part)
    tail = f"<p>and {more:,} more row{'' if more == 1 else 's'}</p>" if more else ""
    return f"<p><b>{escape(text[0])}</b></p>{_table(names, rows)}{tail}"


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    top = "".join(f"<th>{escape(name)}</th>" for name in head)
    top = f"<thead><tr>{top}</tr></thead>" if any(head) else ""
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(_shown(value))}</td>" for value in row) + "</tr>"
        for row in rows
    )
    return f"<table>{top}<tbody>{body}</tbody></table>"


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return "" if value != value else f"{value:.4g}"
    return str(value)
