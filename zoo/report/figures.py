"""What every picture shares: empty figures, text as it is written, and axes of epochs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoo.report.colours import PAPER

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["NARROW", "epoch_axis", "epoch_ticks", "literal", "new_figure"]

#: Inches of a picture for a phone.
NARROW = 4.4
#: Ticks of a logarithmic axis in each decade.
_STEPS = (1, 2, 5)


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure that no global state knows of; sizes in inches.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        msg = "pictures need matplotlib: pip install 'phasezoo[plot]'"
        raise ImportError(msg) from error
    figure = Figure(figsize=(width, height), layout="constrained", facecolor=PAPER)
    FigureCanvasAgg(figure)
    return figure


def literal(text: str) -> str:
    """Return text that matplotlib draws as it is: ``$`` would begin a formula."""
    return text.replace("$", r"\$")


def epoch_ticks(last: float) -> list[float]:
    """Return the ticks of a symmetric-logarithmic axis up to an epoch: 0, 1, 2, 5, 10, ...

    Whole epochs, unless training ends within the first.
    """
    if last < 1:
        return [0.0, last / 2, last]
    ticks = [0.0]
    decade = 1.0
    while decade <= last:
        ticks += [step * decade for step in _STEPS if step * decade <= last]
        decade *= 10
    # at most a dozen: without the twos and fives where they would crowd
    return ticks if len(ticks) <= 9 else [t for t in ticks if f"{t:g}"[0] in "01"]


def epoch_axis(axes: Axes, last: float, *, log: bool) -> None:
    """Set the x axis to epochs, with a tick only where an epoch ends.

    Args:
        axes: the axes.
        last: the last epoch shown.
        log: linear up to the first epoch and logarithmic from there, for checkpoints spread so.
    """
    from matplotlib.ticker import MaxNLocator

    if log:
        axes.set_xscale("symlog", linthresh=1.0)
        axes.set_xticks(epoch_ticks(last))
        axes.set_xticks([], minor=True)
        axes.set_xlim(left=0)
    elif last >= 1:
        axes.xaxis.set_major_locator(MaxNLocator(nbins="auto", integer=True, min_n_ticks=1))
    axes.xaxis.set_major_formatter("{x:g}")
