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
from zoo.report.figures import literal, new_figure
from zoo.report.grid import level_text
from zoo.report.picture_file import check_picture, save_figure
from zoo.report.pooling import (
    all_diet_fields,
    is_seed,
    pooled_values,
    pooled_words,
    split_fields,
    split_order,
)
from zoo.spec.run import RunSpec

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "DietCell",
    "accuracy_by_keep",
    "keep_plot",
    "mean_interval",
    "pooled_by_diet",
    "rule_name",
]  # fmt: skip

#: Level of the confidence intervals.
LEVEL = 0.95
_COLUMNS = 3


@dataclass(frozen=True, slots=True)
class DietCell:
    """All seeds of one rule and size.

    Args:
        rule: the rule in words (``"el2n@5 hardest"``); ``"full"`` without a diet.
        keep: share kept.
        label_noise: share of wrong labels.
        rest: what else tells it from other cells (``"lr = 0.1, width = 16"``); empty if nothing.
        values: one per run.
        mean: of them.
        half: half the width of the 95 % confidence interval of the mean (Student's t); NaN for
            one run.
    """

    rule: str
    keep: float
    label_noise: float
    rest: str
    values: tuple[float, ...]
    mean: float
    half: float


def mean_interval(values: Sequence[float] | NDArray[np.float64]) -> tuple[float, float]:
    """Return mean and half width of its 95 % confidence interval (Student's t)."""
    from scipy.stats import t

    numbers = np.asarray(values, dtype=np.float64)
    n = len(numbers)
    if n < 2:
        return float(numbers.mean()), float("nan")
    half = t.ppf(0.5 + LEVEL / 2, n - 1) * numbers.std(ddof=1) / np.sqrt(n)
    return float(numbers.mean()), float(half)


def rule_name(run: RunSpec, more: Sequence[str] = ()) -> str:
    """Return the diet of a run in a few words, without its size.

    Args:
        run: the run.
        more: fields of diets to name besides, where the run has them.
    """
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
    words += [f"{f} {getattr(run, f):g}" for f in more if getattr(run, f) is not None]
    return " ".join(words) or "full"


@dataclass(frozen=True, slots=True, eq=False)
class _Runs:
    """The last checkpoints of a zoo, and what tells their diets apart.

    Args:
        specs: of each run.
        values: of each run.
        more: fields of diets that :func:`rule_name` does not name by itself.
        rest: other fields that differ within one rule, size and label noise.
        columns: name -> one value per run, of those fields and of rule, size and noise.
    """

    specs: Sequence[RunSpec]
    values: Sequence[float]
    more: tuple[str, ...]
    rest: tuple[str, ...]
    columns: Mapping[str, NDArray[Any]]


#: Fields that :func:`rule_name` names, and the size.
_NAMED = ("score", "keep", "select", "offset", "trim", "score_epoch", "scorer", "balance", "budget",
          "dynamic")  # fmt: skip
_GROUPS = ("label_noise", "rule", "keep")


def _runs(zoo: Zoo, value: str) -> _Runs:
    view = zoo.query("epoch == -1")
    specs = [zoo.run(run_id).spec for run_id in view.column("run_id").tolist()]
    names = [f for f in zoo.varying if f not in (*_NAMED, "label_noise") and not is_seed(f)]
    more = tuple(f for f in names if f in all_diet_fields())
    others = [f for f in names if f not in more]
    columns = {f: view.column(f) for f in (*others, *filter(is_seed, zoo.varying))}
    columns["rule"] = np.array([rule_name(run, more) for run in specs])
    columns["label_noise"] = view.column("label_noise")
    columns["keep"] = np.array([1.0 if run.keep is None else run.keep for run in specs])
    rest = tuple(split_order(columns, _GROUPS, others))
    return _Runs(specs, view.column(value).tolist(), more, rest, columns)


def accuracy_by_keep(
    zoo: Zoo, *, value: str | None = None, by: Sequence[str] | None = None
) -> list[DietCell]:
    """Return a cell for each rule, size and label noise, of each run's last checkpoint.

    Runs of one cell differ in seeds alone, unless ``by`` says otherwise.

    Args:
        zoo: the zoo.
        value: the column; None = the zoo's headline.
        by: other fields that tell cells apart; None = all that differ.

    Raises:
        QueryError: an unknown column.
    """
    return _cells(_runs(zoo, value or zoo.headline()), by)


def _cells(runs: _Runs, by: Sequence[str] | None) -> list[DietCell]:
    fields = runs.rest if by is None else by
    found: dict[tuple[float, str, str, float], list[float]] = {}
    for run, number in zip(runs.specs, runs.values, strict=True):
        rest = ", ".join(f"{name} = {level_text(getattr(run, name, None))}" for name in fields)
        keep = run.keep if run.keep is not None else 1.0
        key = (run.label_noise, rest, rule_name(run, runs.more), keep)
        found.setdefault(key, []).append(float(number))
    cells = []
    for (noise, rest, rule, keep), values in sorted(found.items()):
        mean, half = mean_interval(values)
        cells.append(DietCell(rule, keep, noise, rest, tuple(values), mean, half))
    return cells


def keep_plot(zoo: Zoo, path: str | os.PathLike[str], *, value: str | None = None) -> Path:
    """Draw accuracy against the share kept, a line per rule with its 95 % band; return the path.

    The grey line is the whole training set with its band. There is a panel for each label noise,
    and for each value of what else differs, as long as these are few; the last line of the picture
    says what is pooled over.

    Raises:
        ImportError: matplotlib is not installed.
        QueryError: no run of the zoo is on a diet, an unknown column, or a path that cannot be
            drawn to.
        NameTakenError: something else than a picture of ours is at the path.
    """
    check_picture(path)
    value = value or zoo.headline()
    runs = _runs(zoo, value)
    split = split_fields(runs.columns, _GROUPS, runs.rest)
    cells = _cells(runs, split)
    panels = sorted({(cell.rest, cell.label_noise) for cell in cells if cell.keep < 1})
    if not panels:
        msg = "no run of this zoo is on a static diet, so there is nothing to draw against keep"
        raise QueryError(msg)
    columns = min(len(panels), _COLUMNS)
    lines = -(-len(panels) // columns)
    figure = new_figure(5.6 * columns + 0.4, 4.4 * lines + 0.3)
    places = figure.subplots(lines, columns, squeeze=False, sharey=True).ravel()
    styles = _styles([cell.rule for cell in cells if cell.keep < 1])
    noises = {noise for _, noise in panels}
    for axes, (rest, noise) in zip(places, panels, strict=False):
        _panel(axes, [c for c in cells if (c.rest, c.label_noise) == (rest, noise)], styles, value)
        title = [f"label noise {noise:g}"] if noise or len(noises) > 1 else []
        axes.tick_params(labelleft=True)
        axes.set_title(literal(", ".join([*title, *([rest] if rest else [])]) or "data diets"))
    for axes in places[len(panels) :]:
        axes.set_visible(False)
    words = pooled_words(_pooled(runs, split)) or "one run"
    text = f"Mean of each run's last checkpoint over {words}; bands: 95 % interval of the mean."
    figure.supxlabel(literal(text), fontsize=8.5, color="0.25", x=0.01, ha="left")
    return save_figure(figure, path, dpi=150)


def _pooled(runs: _Runs, split: Sequence[str]) -> dict[str, list[Any]]:
    names = [f for f in runs.columns if f not in (*_GROUPS, *split)]
    return pooled_values(runs.columns, [*_GROUPS, *split], names)


def pooled_by_diet(zoo: Zoo) -> dict[str, list[Any]]:
    """Return what the cells of :func:`accuracy_by_keep` pool over: field -> its values."""
    runs = _runs(zoo, "step")
    return _pooled(runs, runs.rest)


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
