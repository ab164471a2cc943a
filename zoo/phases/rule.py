"""The phase rule: from the numbers of a cell to its phase, by thresholds that are in the open.

The taxonomy is that of Yang et al. 2021 (arXiv 2107.11228), where boundaries are drawn by hand; the
thresholds were recovered from its published grid.

    X     diverged, collapsed, or no better than guessing
    I     unfinished, and the curve between two models meets a barrier
    II    unfinished, and the curve is no worse than its ends
    III   finished, and there is a barrier
    IV-A  finished, connected, dissimilar outputs
    IV-B  finished, connected, similar outputs
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from zoo.phases.cells import Cells
from zoo.phases.otsu import otsu_cut
from zoo.phases.thresholds import Thresholds

__all__ = ["PHASES", "UNDETERMINED", "Cut", "Decision", "decide", "find_cuts", "label_codes"]

UNDETERMINED = "undetermined"

#: Code → phase; -1 is undetermined.
PHASES = ("X", "I", "II", "III", "IV-A", "IV-B")
_X, _I, _II, _III, _IVA, _IVB = range(6)

_F64 = NDArray[np.float64]
_Codes = NDArray[np.int8]


@dataclass(frozen=True, slots=True, eq=False)
class Cut:
    """The threshold on output similarity of each cell.

    Args:
        cka: ``[N]``; NaN where the data do not give one.
        source: ``[N]`` where it comes from.
    """

    cka: _F64
    source: NDArray[np.str_]


@dataclass(frozen=True, slots=True, eq=False)
class Decision:
    """What the rule says of N cells.

    Args:
        codes: ``[N]`` index into :data:`PHASES`; -1 = undetermined.
        hard_by: ``[N]`` the test that said whether training is finished; empty where none could.
        candidates: ``[N]`` every phase that the missing numbers leave open, as ``"IV-A|IV-B"``.
        margin: ``[N]`` the least of ``|value - threshold| / standard error`` over the tests that
            the label depends on; NaN where a standard error is not known.
        boundary: ``[N]`` 1 where the margin is below the threshold ``boundary``, 0 where it is
            not, NaN where the margin is not known.
        names: code → phase.
    """

    codes: _Codes
    hard_by: NDArray[np.str_]
    candidates: NDArray[np.str_]
    margin: _F64
    boundary: _F64
    names: tuple[str, ...] = PHASES

    @property
    def phases(self) -> NDArray[np.str_]:
        """``[N]`` names of the phases."""
        return np.array([*self.names, UNDETERMINED])[self.codes]


def hardness(
    values: Mapping[str, _F64], limits: Thresholds, tests: tuple[str, ...]
) -> tuple[_F64, NDArray[np.intp]]:
    """Return 1 (unfinished), 0 (finished) or NaN, and which test said so (-1: none).

    Args:
        values: input → ``[..., N]``.
        limits: the thresholds.
        tests: in order; the first that has a value decides.
    """
    some = next(iter(values.values()))
    hard, by = np.full(some.shape, np.nan), np.full(some.shape, -1)
    for index, name in enumerate(tests):
        x = values.get(name, np.full(some.shape, np.nan))
        new = np.isnan(hard) & ~np.isnan(x)
        hard[new] = x[new] > getattr(limits, name)
        by[new] = index
    return hard, by


def label_codes(hard: _F64, mc: _F64, cka: _F64, cut: _F64, limits: Thresholds) -> _Codes:
    """Return the phase of cells that are not X; -1 where a number that counts is missing.

    Args:
        hard: ``[..., N]`` 1, 0 or NaN.
        mc: mode connectivity ``[..., N]``, percent of training error.
        cka: output similarity ``[..., N]``.
        cut: ``[N]`` threshold on it.
        limits: the other thresholds.
    """
    codes = np.full(np.shape(hard), -1, dtype=np.int8)
    codes[(hard == 1) & (mc < limits.optimised)] = _I
    codes[(hard == 1) & (mc >= limits.optimised)] = _II
    codes[(hard == 0) & (mc < -limits.connected)] = _III
    easy = (hard == 0) & (mc >= -limits.connected)
    codes[easy & (cka > cut)] = _IVB
    codes[easy & (cka <= cut)] = _IVA
    return codes


def bad_cells(loss: _F64, bad_share: _F64, chance: _F64, limits: Thresholds) -> NDArray[np.bool_]:
    """Return ``[..., N]`` which cells are X."""
    above = loss > limits.collapse * chance  # False where either is not known
    return np.isinf(loss) | above | (bad_share > limits.bad_share)


def decide(cells: Cells, limits: Thresholds, cut: Cut) -> Decision:
    """Return the phase of each cell, its margin and whether it stands on a boundary.

    Args:
        cells: the numbers.
        limits: the thresholds.
        cut: the one on output similarity, from :func:`find_cuts`.
    """
    tests = limits.active
    hard, by = hardness(cells.values, limits, tests)
    mc, cka = cells.value("mode_connectivity"), cells.value("cka")
    bad = bad_cells(cells.value("train_loss"), cells.bad_share, cells.chance_loss, limits)
    codes = np.where(bad, np.int8(_X), label_codes(hard, mc, cka, cut.cka, limits))
    margin = _margins(cells, limits, cut, codes, by)
    return Decision(
        codes=codes,
        hard_by=np.array([*tests, ""])[by],
        candidates=_candidates(codes, hard, mc, cka, cut.cka, limits),
        margin=margin,
        boundary=np.where(np.isnan(margin), np.nan, margin < limits.boundary),
    )


def find_cuts(cells: Cells, limits: Thresholds) -> Cut:
    """Return the threshold on output similarity: the given one, or Otsu's of each pool.

    Otsu's cut is taken over the cells of a pool that are finished and connected. Where these are
    fewer than four there is none, and such cells stay undetermined between IV-A and IV-B.
    """
    if limits.cka is not None:
        given = limits.sources.get("cka", "")
        return Cut(np.full(len(cells), limits.cka), np.full(len(cells), given))
    hard, _ = hardness(cells.values, limits, limits.active)
    bad = bad_cells(cells.value("train_loss"), cells.bad_share, cells.chance_loss, limits)
    easy = (hard == 0) & ~bad & (cells.value("mode_connectivity") >= -limits.connected)
    easy &= np.isfinite(cells.value("cka"))
    cut = np.full(len(cells), np.nan)
    source: list[str] = [""] * len(cells)
    for pool in np.unique(cells.pool):
        here = cells.pool == pool
        found = otsu_cut(cells.value("cka")[here & easy])
        count = int((here & easy).sum())
        of = f" of {pool}" if pool else ""
        if found is None:
            told = f"none: {count} finished, connected cells{of} are too few for a cut"
        else:
            cut[here] = found
            told = f"Otsu's cut of the {count} finished, connected cells{of}"
        for n in np.flatnonzero(here):
            source[n] = told
    return Cut(cut, np.array(source, dtype=np.str_))


def _margins(
    cells: Cells, limits: Thresholds, cut: Cut, codes: _Codes, by: NDArray[np.intp]
) -> _F64:
    """Return the distance to the nearest threshold that decides the label, in standard errors."""
    tests = limits.active
    hard = np.full(len(cells), np.nan)
    for index, name in enumerate(tests):
        here = by == index
        distance = _distance(cells, name, getattr(limits, name))
        hard[here] = distance[here]
    optimised = _distance(cells, "mode_connectivity", limits.optimised)
    connected = _distance(cells, "mode_connectivity", -limits.connected)
    similar = _distance(cells, "cka", cut.cka)
    guessing = _distance(cells, "train_loss", limits.collapse * cells.chance_loss)
    guessing[~(cells.value("train_loss") > limits.collapse * cells.chance_loss)] = np.nan
    used = {
        _X: [guessing],
        _I: [hard, optimised],
        _II: [hard, optimised],
        _III: [hard, connected],
        _IVA: [hard, connected, similar],
        _IVB: [hard, connected, similar],
    }
    margin = np.full(len(cells), np.nan)
    for code, distances in used.items():
        least = np.minimum.reduce(distances)  # NaN where any is not known
        margin[codes == code] = least[codes == code]
    return margin


def _distance(cells: Cells, name: str, threshold: float | _F64) -> _F64:
    gap = np.abs(cells.value(name) - threshold)
    error = cells.error(name)
    with np.errstate(divide="ignore", invalid="ignore"):
        distance = gap / error
    # without spread between seeds a value is off its threshold or on it
    exact = error == 0
    distance[exact] = np.where(gap[exact] > 0, np.inf, 0.0)
    distance[~np.isfinite(gap)] = np.nan
    return distance


def _candidates(
    codes: _Codes, hard: _F64, mc: _F64, cka: _F64, cut: _F64, limits: Thresholds
) -> NDArray[np.str_]:
    """Return the label, or every label that some values of the missing numbers give."""
    far = np.inf
    middle = (limits.optimised - limits.connected) / 2  # between the two thresholds on it
    possible = np.zeros((len(PHASES), len(codes)), dtype=np.bool_)
    for h, m, c in itertools.product((0.0, 1.0), (-far, middle, far), (-far, far)):
        tried = label_codes(
            np.where(np.isnan(hard), h, hard),
            np.where(np.isnan(mc), m, mc),
            np.where(np.isnan(cka) | np.isnan(cut), c, cka),
            np.where(np.isnan(cka) | np.isnan(cut), 0.0, cut),
            limits,
        )
        for code in range(len(PHASES)):
            possible[code] |= tried == code
    known = codes >= 0
    possible[:, known] = np.arange(len(PHASES))[:, None] == codes[known]
    return np.array(["|".join(np.array(PHASES)[p]) for p in possible.T], dtype=np.str_)
