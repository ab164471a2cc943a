"""How sure a label is: the share of resampled zoos in which the cell gets the same one."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from zoo.phases.cells import INPUTS, Cells, CellSample
from zoo.phases.rule import Cut, Decision, bad_cells, hardness, label_codes
from zoo.phases.thresholds import Thresholds
from zoo.seeds import Stream, normal, uniform

__all__ = ["DRAWS", "confidence", "resampled", "resampling"]

#: Resampled zoos.
DRAWS = 1000

_F64 = NDArray[np.float64]


def confidence(
    cells: Cells, limits: Thresholds, cut: Cut, decision: Decision, *, draws: int = DRAWS
) -> tuple[_F64, str]:
    """Return how sure each label is, in [0, 1], and how that was found.

    Where the seeds of the cells are known, each draw takes S seeds of the S with replacement;
    a mean over pairs weights each pair by the product of how often its two models were drawn (so a
    model is never compared with itself). Otherwise each draw adds normal noise of the standard
    errors to the numbers. Either way the rule is applied with each hardness test alone, and the
    confidence is the mean over tests and draws of "the same label": tests that disagree lower it.
    The thresholds stay as they are.

    Args:
        cells: the numbers.
        limits, cut: the thresholds.
        decision: the labels.
        draws: how many.

    Returns:
        ``[N]``, NaN where the label is undetermined; ``"seeds"``, ``"standard errors"`` or
        ``"tests"`` (neither seeds nor errors are known).
    """
    how = resampling(cells)
    draws = 1 if how == "tests" else draws
    out = np.full(len(cells), np.nan)
    for n in range(len(cells)):
        if decision.codes[n] < 0:
            continue
        drawn, bad_share = resampled(cells, n, draws)
        out[n] = _same(cells, limits, cut, _Draws(n, drawn, bad_share), int(decision.codes[n]))
    return out, how


def resampling(cells: Cells) -> str:
    """Return what resampled cells differ in: seeds, standard errors, or nothing but tests."""
    if len(cells.samples) == len(cells) > 0:
        return "seeds"
    known = any(np.isfinite(cells.error(name)).any() for name in INPUTS)
    return "standard errors" if known else "tests"


def resampled(cells: Cells, n: int, draws: int) -> tuple[dict[str, _F64], _F64]:
    """Return the inputs ``[draws]`` of resampled cells in place of cell n, and their bad shares."""
    if len(cells.samples) == len(cells):
        return _resample(cells.samples[n], draws, n)
    return _perturb(cells, n, draws)


class _Draws(NamedTuple):
    """Resampled inputs ``[draws]`` of cell n, and the share of bad models in each."""

    n: int
    inputs: dict[str, _F64]
    bad_share: _F64


def _same(cells: Cells, limits: Thresholds, cut: Cut, draws: _Draws, code: int) -> float:
    """Return the share of draws and tests that give a cell the phase ``code``."""
    n, drawn, bad_share = draws
    chance = np.broadcast_to(cells.chance_loss[n], bad_share.shape)
    bad = bad_cells(drawn["train_loss"], bad_share, chance, limits)
    agree = []
    for test in limits.active:
        hard, _ = hardness(drawn, limits, (test,))
        if np.isnan(cells.value(test)[n]):
            continue
        width = np.broadcast_to(cut.cka[n], hard.shape)
        found = label_codes(hard, drawn["mode_connectivity"], drawn["cka"], width, limits)
        found = np.where(bad, np.int8(0), found)
        if (found >= 0).any():  # draws without any pair say nothing
            agree.append(float(np.mean(found[found >= 0] == code)))
    if not agree:
        return float(np.mean(bad)) if code == 0 else float("nan")
    return float(np.mean(agree))


def _perturb(cells: Cells, n: int, draws: int) -> tuple[dict[str, _F64], _F64]:
    drawn = {}
    for index, name in enumerate(INPUTS):
        noise = normal(n, Stream.PHASES, index, draws)
        error = np.nan_to_num(cells.error(name)[n], nan=0.0)
        drawn[name] = cells.value(name)[n] + error * (noise if draws > 1 else 0.0)
    return drawn, np.full(draws, cells.bad_share[n])


def _resample(sample: CellSample, draws: int, n: int) -> tuple[dict[str, _F64], _F64]:
    """Return the numbers of each resampled cell ``[draws]`` and its share of bad models."""
    S = len(sample.bad)
    picks = (uniform(n, Stream.PHASES, len(INPUTS), draws * S) * S).astype(np.int64)
    times = np.zeros((draws, S))
    np.add.at(times, (np.repeat(np.arange(draws), S), picks), 1.0)
    drawn = {name: np.full(draws, np.nan) for name in INPUTS}
    for name, values in sample.members.items():
        drawn[name] = _weighted(times, values)
    for name, (a, b, values) in sample.pairs.items():
        drawn[name] = _weighted(times[:, a] * times[:, b], values)
    return drawn, times @ sample.bad / S


def _weighted(weights: _F64, values: _F64) -> _F64:
    """Return the weighted means ``[draws]`` of the values ``[n]`` that are known."""
    known = np.isfinite(values)
    total = weights[:, known].sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(weights[:, known] @ values[known] / total)
