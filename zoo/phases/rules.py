"""The registry of phase rules: that of the taxonomy, and those of plug-ins."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from zoo.errors import StoreError
from zoo.phases.cells import Cells
from zoo.phases.confidence import resampled, resampling
from zoo.phases.rule import PHASES, UNDETERMINED, Cut, Decision
from zoo.registry import Registry

__all__ = ["RULES", "TAXONOMY", "PhaseRule", "apply_rule"]

#: The rule of :mod:`zoo.phases.rule`, which alone has thresholds.
TAXONOMY = "taxonomy"


@dataclass(frozen=True, slots=True)
class PhaseRule:
    """A rule.

    Args:
        phases: what it says of cells.
        decide: from cells to the name of a phase of each, ``"undetermined"`` where it cannot tell;
            None = the rule of the taxonomy.
        floats: whether it also takes cells of models that fit floats.
        columns: further columns of the table of cells that it reads.
    """

    phases: tuple[str, ...]
    decide: Callable[[Cells], NDArray[np.str_]] | None = field(default=None)
    floats: bool = False
    columns: tuple[str, ...] = ()


RULES: Registry[PhaseRule] = Registry("phase rule")
RULES.register(
    TAXONOMY,
    doc="X, I, II, III, IV-A, IV-B by thresholds on loss, connectivity and similarity",
    source="Yang et al. 2021, arXiv 2107.11228",
)(PhaseRule(PHASES))


def apply_rule(
    name: str, cells: Cells, *, draws: int
) -> tuple[Cut, Decision, NDArray[np.float64], str]:
    """Return the decision of a plug-in's rule, and the share of draws that agree with it.

    Args:
        name: in :data:`RULES`.
        cells: the numbers.
        draws: of the resampling.

    Raises:
        StoreError: the rule names phases that it does not declare.
    """
    rule = RULES[name]
    codes = _codes(name, rule, cells)
    N = len(cells)
    nothing = np.full(N, np.nan)
    names = np.array([*rule.phases, UNDETERMINED])
    decision = Decision(
        codes=codes,
        hard_by=np.full(N, ""),
        candidates=names[codes],
        margin=nothing,
        boundary=nothing.copy(),
        names=rule.phases,
    )
    sure = nothing.copy()
    for n in range(N):
        if codes[n] >= 0:
            drawn = _codes(name, rule, _drawn(cells, n, draws))
            sure[n] = float(np.mean(drawn == codes[n]))
    return Cut(nothing.copy(), np.full(N, "")), decision, sure, resampling(cells)


def _codes(name: str, rule: PhaseRule, cells: Cells) -> NDArray[np.int8]:
    assert rule.decide is not None
    found = np.asarray(rule.decide(cells))
    index = {phase: code for code, phase in enumerate(rule.phases)} | {UNDETERMINED: -1}
    if found.shape != (len(cells),):
        msg = f"phase rule {name!r} returns {list(found.shape)} for {len(cells)} cells"
        raise StoreError(msg)
    strange = sorted({str(phase) for phase in found.tolist()} - set(index))
    if strange:
        msg = f"phase rule {name!r} says {strange[0]!r}; its phases: {', '.join(index)}"
        raise StoreError(msg)
    return np.array([index[str(phase)] for phase in found.tolist()], dtype=np.int8)


def _drawn(cells: Cells, n: int, draws: int) -> Cells:
    """Return resampled cells in place of cell n."""
    values, bad = resampled(cells, n, draws)
    many = np.full(draws, n)
    return replace(
        cells,
        load=cells.load[many],
        temperature=cells.temperature[many],
        values={**{k: v[many] for k, v in cells.values.items()}, **values},
        errors={k: v[many] for k, v in cells.errors.items()},
        chance_loss=cells.chance_loss[many],
        bad_share=bad,
        ids=cells.ids[many],
        pool=cells.pool[many],
        samples=(),
    )
