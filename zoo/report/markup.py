"""HTML whose text is escaped by construction: nothing but :func:`element` makes a tag."""

from __future__ import annotations

import html

__all__ = ["Html", "element", "join"]

#: Elements without an end.
_VOID = ("img", "meta", "source")

_UNKNOWN = "\N{REPLACEMENT CHARACTER}"


class Html(str):
    """Text that is HTML already, made by :func:`element` or :func:`join`."""

    __slots__ = ()


def element(tag: str, *children: object, **attributes: str) -> Html:
    """Return an element; every child but :class:`Html` is text, and is escaped.

    Args:
        tag: its name.
        children: text, numbers or HTML.
        attributes: escaped too; ``class_`` is ``class``.
    """
    given = "".join(f' {k.rstrip("_")}="{join(str(v))}"' for k, v in attributes.items())
    if tag in _VOID:
        return Html(f"<{tag}{given}>")
    return Html(f"<{tag}{given}>{join(*children)}</{tag}>")


def join(*children: object, between: str = "") -> Html:
    """Return children one after the other, escaped where they are text."""
    parts = [c if isinstance(c, Html) else html.escape(_printable(str(c))) for c in children]
    return Html(html.escape(between).join(parts))


def _printable(text: str) -> str:
    """Return text without what HTML and UTF-8 do not allow: control characters, surrogates."""
    return "".join(
        c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text
    )
