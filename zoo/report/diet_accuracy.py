"""Accuracy of diets: means with confidence intervals by rule and size, and their picture."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from zoo.dataset import Zoo
from zoo.errors import QueryError
from zoo.spec.run import RunSpec

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["DietCell", "accuracy_by_keep", "confidence", "keep_plot", "rule_name"]

#: Level of the confidence intervals.
LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class DietCell:
    """All seeds of one rule and size.

    Args:
        rule: the rule in words (``"el2n@5 hardest"``); ``"full"`` without a diet.
        keep: share kept.
        label_noise: share of wrong labels.
        values: one a run.
        mean: of them.
        half: half the width of the 95 % confidence interval of the mean (Student's t); NaN for
            one run.
    """

    rule: str
    keep: float
    label_noise: float
    values: tuple[float, ...]
    mean: float
    half: float


def confidence(values: Sequence[float] | NDArray[np.float64]) -> tuple[float, float]:
    """Return mean and half width of its 95 % confidence interval (Student's t)."""
    from scipy.stats import t

    numbers = np.asarray(values, dtype=np.float64)
    n = len(numbers)
    if n < 2:
        return float(numbers.mean()), float("nan")
    half = t.ppf(0.5 + LEVEL / 2, n - 1) * numbers.std(ddof=1) / np.sqrt(n)
    return float(numbers.mean()), float(half)


def rule_name(run: RunSpec) -> str:
    """Return the diet of a run in a few words, without its size."""
    words = []
    if run.keep is not None:
        at = "" if run.score_epoch is None else f"@{run.score_epoch:g}"
        words.append(f"{run.score}{at}")
        words += [run.select] if run.select else []
        words += [f"trim {run.trim:g}"] if run.trim else []
        words += [f"from {run.offset:g}"] if run.offset else []
        words += ["balanced"] if run.balance == "class" else []
        words += [f"by {run.scorer}"] if run.scorer not in (None, "self") else []
        words += ["epochs"] if run.budget == "epochs" else []
    words += [run.dynamic] if run.dynamic != "none" else []
    return " ".join(words) or "full"


def accuracy_by_keep(zoo: Zoo, *, value: str = "test_accuracy") -> list[DietCell]:
    """Return a cell for each rule, size and label noise, of each run's last checkpoint.

    Runs that differ in anything else but seeds are taken together.

    Raises:
        QueryError: an unknown column.
    """
    view = zoo.query("epoch == -1")
    numbers = view.column(value)
    found: dict[tuple[float, str, float], list[float]] = {}
    for run_id, number in zip(view.column("run_id").tolist(), numbers.tolist(), strict=True):
        run = zoo.run(run_id).spec
        key = (run.label_noise, rule_name(run), run.keep if run.keep is not None else 1.0)
        found.setdefault(key, []).append(float(number))
    cells = []
    for (noise, rule, keep), values in sorted(found.items()):
        mean, half = confidence(values)
        cells.append(DietCell(rule, keep, noise, tuple(values), mean, half))
    return cells


def keep_plot(zoo: Zoo, path: str | os.PathLike[str], *, value: str = "test_accuracy") -> Path:
    """Draw accuracy against the share kept, a line a rule with its 95 % band; return the path.

    The grey line is the whole training set with its band. A panel for each label noise.

    Raises:
        ImportError: matplotlib is not installed.
        QueryError: no run of the zoo is on a diet, or an unknown column.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        msg = "keep_plot needs matplotlib: pip install 'phasezoo[plot]'"
        raise ImportError(msg) from error
    cells = accuracy_by_keep(zoo, value=value)
    noises = sorted({cell.label_noise for cell in cells if cell.keep < 1})
    if not noises:
        msg = "no run of this zoo is on a static diet, so there is nothing to draw against keep"
        raise QueryError(msg)
    figure = Figure(figsize=(5.6 * len(noises) + 0.4, 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(noises), squeeze=False)[0]
    styles = _styles([cell.rule for cell in cells if cell.keep < 1])
    for axis, noise in zip(axes, noises, strict=True):
        _panel(axis, [c for c in cells if c.label_noise == noise], styles, value)
        axis.set_title(f"label noise {noise:g}" if noise or len(noises) > 1 else "data diets")
    target = Path(path)
    figure.savefig(target, dpi=150)
    return target


def _styles(rules: Sequence[str]) -> Mapping[str, dict[str, Any]]:
    """Return colour and marker of each rule: told apart without colour too."""
    colours = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
    markers = "osD^vP*X"
    names = sorted(set(rules), key=lambda rule: (rule != "random", rule))
    grey = {"random": {"color": "0.35", "marker": "x", "linestyle": "--"}}
    out = {}
    for index, name in enumerate(n for n in names if n != "random"):
        out[name] = {
            "color": colours[index % len(colours)],
            "marker": markers[index % len(markers)],
        }
    return grey | out


def _panel(
    axis: Axes, cells: Sequence[DietCell], styles: Mapping[str, dict[str, Any]], value: str
) -> None:
    for cell in cells:
        if cell.keep == 1:
            axis.axhline(cell.mean, color="0.6", linewidth=1, label=cell.rule)
            if np.isfinite(cell.half):
                axis.axhspan(cell.mean - cell.half, cell.mean + cell.half, color="0.9", zorder=0)
    for rule, style in styles.items():
        line = sorted((c for c in cells if c.rule == rule), key=lambda c: c.keep)
        if not line:
            continue
        x = [c.keep for c in line]
        y = np.array([c.mean for c in line])
        half = np.nan_to_num([c.half for c in line])
        axis.plot(x, y, label=rule, markersize=5, linewidth=1.5, **style)
        if len(line) == 1:  # a band of no width would not be seen
            axis.errorbar(x, y, half, color=style["color"], capsize=3)
        axis.fill_between(x, y - half, y + half, color=style["color"], alpha=0.18, linewidth=0)
    kept = sorted({c.keep for c in cells if c.keep < 1})
    axis.set_xscale("log")
    axis.set_xticks(kept, [f"{k:g}" for k in kept])
    axis.minorticks_off()
    axis.set_xlabel("share of the training set kept")
    axis.set_ylabel(value.replace("_", " "))
    axis.grid(visible=True, alpha=0.25)
    axis.legend(fontsize=8)
