"""Output on terminals and pipes that do not take every character."""
# ruff: noqa: RUF001 - look-alikes are what this is about

from __future__ import annotations

import codecs
import io
import unicodedata
from typing import TextIO

__all__ = ["take_any_text"]

#: What is written for characters whose nearest plain letter is not their decomposition.
_PLAIN = {
    "–": "-", "—": "-", "−": "-", "‘": "'", "’": "'", "“": '"', "”": '"', "→": "->", "←": "<-",
    "≤": "<=", "≥": ">=", "≠": "!=", "≈": "~", "×": "x", "·": "*", "±": "+/-", "√": "sqrt",
    "µ": "u", "μ": "mu", "λ": "lambda", "σ": "sigma", "γ": "gamma", "β": "beta", "α": "alpha",
    "ε": "eps", "∞": "inf", "‖": "||", "⌈": "ceil(", "⌉": ")", "⌊": "floor(", "⌋": ")",
    "█": "#", "▏": "#", "▎": "#", "▍": "#", "▌": "#", "▋": "#", "▊": "#", "▉": "#",
    "ß": "ss", "ø": "o", "Ø": "O", "æ": "ae", "Æ": "AE", "ł": "l", "Ł": "L",
}  # fmt: skip


def take_any_text(stream: TextIO | None) -> None:
    """Let a stream take text that its encoding lacks: it writes the nearest plain characters.

    Under ``LANG=C`` or ``PYTHONIOENCODING=ascii`` nothing ends in an error, and a file name that is
    not text (bytes that are not UTF-8) is shown with ``?`` in it.
    """
    codecs.register_error("zoo", _nearest)
    if isinstance(stream, io.TextIOWrapper) and stream.errors in ("strict", "backslashreplace"):
        stream.reconfigure(errors="zoo")


def _nearest(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    return "".join(_plain(character) for character in text), error.end


def _plain(character: str) -> str:
    if character in _PLAIN:
        return _PLAIN[character]
    letters = unicodedata.normalize("NFKD", character)
    plain = "".join(c for c in letters if c.isascii())
    return plain or "?"
