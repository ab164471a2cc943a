"""The colours of the phases, the same in every picture and in the page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["BASIN", "INK", "PAPER", "PHASE_STYLES", "PhaseStyle", "blend", "ink_on", "style_of"]

#: Text and lines; ground.
INK, PAPER = "#22262e", "#ffffff"

#: Low to high loss, as depth to height on a chart.
BASIN = ("#0b1f3f", "#15486b", "#2d7f8f", "#7db79b", "#d9d9a5", "#f6efdc")


@dataclass(frozen=True, slots=True)
class PhaseStyle:
    """How a phase is drawn.

    Args:
        colour: of its area.
        short: its name in a cell.
        words: what it is.
    """

    colour: str
    short: str
    words: str


#: Warm is unfinished, cool is finished; told apart by lightness too.
PHASE_STYLES: Mapping[str, PhaseStyle] = {
    "X": PhaseStyle("#54565c", "X", "diverged or collapsed"),
    "I": PhaseStyle("#a63d40", "I", "unfinished, barrier"),
    "II": PhaseStyle("#e9a045", "II", "unfinished, no barrier"),
    "III": PhaseStyle("#7f6bb3", "III", "finished, barrier"),
    "IV-A": PhaseStyle("#4e9bc4", "IV-A", "finished, connected, dissimilar"),
    "IV-B": PhaseStyle("#2f8f6f", "IV-B", "finished, connected, similar"),
    "undetermined": PhaseStyle("#d5d6d8", "?", "undetermined: numbers are missing"),
}


def style_of(phase: str) -> PhaseStyle:
    """Return how a phase is drawn; a name that is not known is drawn as undetermined."""
    return PHASE_STYLES.get(phase, PHASE_STYLES["undetermined"])


def _channels(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def blend(colour: str, other: str, share: float) -> str:
    """Return ``share`` of a colour on another one; colours as ``"#rrggbb"``."""
    pairs = zip(_channels(colour), _channels(other), strict=True)
    return "#" + "".join(f"{round(share * a + (1 - share) * b):02x}" for a, b in pairs)


def ink_on(colour: str) -> str:
    """Return the colour of text that can be read on a ground (luminance of sRGB, 0.299 ...)."""
    r, g, b = _channels(colour)
    return INK if 0.299 * r + 0.587 * g + 0.114 * b > 150 else PAPER
