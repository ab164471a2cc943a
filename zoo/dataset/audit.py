"""Leakage: what the parts of a split share and should not.

Every published way to leak a weight-space benchmark is a check: a row on two sides, a run's other
checkpoints, runs that start from the same weights, copies, near copies, copies hidden by a
permutation, rescaling or signs, models that answer alike, and a normalisation that has seen the
test part. A check compares what is in the files; it believes no seed and no name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.dataset.batches import rows_at_once
from zoo.dataset.nearest import Match, nearest_behaviour, nearest_canonical, nearest_weights
from zoo.dataset.normalization import Normalization
from zoo.dataset.view import View
from zoo.errors import QueryError
from zoo.seeds import Stream, permutation

__all__ = ["CHECKS", "AuditReport", "Finding", "audit"]

#: Check → what it means where it finds something, and how to mend it.
CHECKS = {
    "same_row": "checkpoints that are on both sides",
    "trajectory": "runs with checkpoints on both sides; split by run",
    "same_init": "runs that start from kernel values of a run on the other side; split by seed",
    "copy": "rows with the bits of another run's row on the other side",
    "near_copy": "rows within the tolerance of another run's row on the other side",
    "hidden_copy": "rows that are another run's row but for a permutation, scale or sign",
    "same_answers": "rows whose logits on the probe are those of another run's row",
    "normalization": "runs that the normalisation was fitted on, outside of the training part",
    "same_cell": "runs whose hyper-parameters, but for seeds, occur on the other side",
}
#: Found in every honest split by run or seed; said, and no leak.
_NOTES = frozenset({"same_cell"})
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that two parts share.

    Args:
        check: one of :data:`CHECKS`.
        parts: the two parts.
        unit: what is counted: ``"rows"`` or ``"runs"`` of the second part.
        count: how many of them.
        share: of all compared of the second part, 0 to 1.
        examples: some pairs of (run id, checkpoint), first part first; checkpoint −1 = the run.
        worst: smallest relative distance, NaN where there is none.
    """

    check: str
    parts: tuple[str, str]
    unit: str
    count: int
    share: float
    examples: tuple[tuple[tuple[str, int], tuple[str, int]], ...]
    worst: float = float("nan")

    @property
    def leak(self) -> bool:
        """False for what is worth knowing and no leak."""
        return self.check not in _NOTES

    def __str__(self) -> str:
        first, second = self.parts
        text = f"{self.check}: {self.count} {self.unit} of {second!r} ({self.share:.1%}): "
        text += f"{CHECKS[self.check]} ({first!r})"
        if self.worst == self.worst:
            text += f"; smallest distance {self.worst:.2g}"
        if self.examples:
            (run_a, k_a), (run_b, k_b) = self.examples[0]
            text += f"; for example {_name(run_b, k_b)} and {_name(run_a, k_a)}"
        return text


@dataclass(frozen=True, slots=True)
class AuditReport:
    """What an audit found.

    Args:
        findings: leaks first.
        rows: part → rows.
        compared: part → rows whose weights were compared; fewer where the limit cut them.
        skipped: checks that could not be made, and why.
    """

    findings: tuple[Finding, ...]
    rows: Mapping[str, int]
    compared: Mapping[str, int]
    skipped: Mapping[str, str]

    @property
    def clean(self) -> bool:
        """Whether there is no leak."""
        return not any(finding.leak for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        """Return everything, JSON-ready."""
        return {
            "clean": self.clean,
            "rows": dict(self.rows),
            "compared": dict(self.compared),
            "skipped": dict(self.skipped),
            "findings": [
                {
                    "check": f.check,
                    "leak": f.leak,
                    "parts": list(f.parts),
                    "unit": f.unit,
                    "count": f.count,
                    "share": f.share,
                    "smallest_distance": None if f.worst != f.worst else f.worst,
                    "examples": [[list(a), list(b)] for a, b in f.examples],
                    "meaning": CHECKS[f.check],
                }
                for f in self.findings
            ],
        }

    def __str__(self) -> str:
        cut = {name: n for name, n in self.compared.items() if n < self.rows[name]}
        sizes = ", ".join(f"{name} {n}" for name, n in self.rows.items())
        lines = [f"rows: {sizes}"]
        lines += [f"only {n} rows of {name!r} were compared by weights" for name, n in cut.items()]
        lines += [f"{'LEAK' if f.leak else 'note'}  {f}" for f in self.findings]
        lines += [f"skipped  {check}: {why}" for check, why in self.skipped.items()]
        lines.append("no leak found" if self.clean else "this split leaks")
        return "\n".join(lines)


def audit(
    parts: Mapping[str, View],
    *,
    normalization: Normalization | None = None,
    tolerance: float = 0.05,
    limit: int = 20_000,
    seed: int = 0,
) -> AuditReport:
    """Look for what each pair of parts shares.

    Args:
        parts: ``{"train": ..., "test": ...}``, at least two; see :meth:`Split.views`.
        normalization: what the weights are to be normalised with.
        tolerance: relative distance ‖a − b‖ / ‖b‖ from which two rows are no copies. Independent
            runs lie beyond 1; logits are held to a fifth of it.
        limit: rows of a part whose weights are compared; more are drawn at random.
        seed: of the drawing.

    Raises:
        QueryError: fewer than two parts.
    """
    if len(parts) < 2:
        msg = f"an audit compares at least two parts, not {list(parts)}"
        raise QueryError(msg)
    drawn = {name: _drawn(view, limit, seed) for name, view in parts.items()}
    kernels = _initial_kernels(parts.values())
    findings: list[Finding] = []
    skipped: dict[str, str] = {}
    for first, second in combinations(parts, 2):
        names = (first, second)
        a, b = parts[first], parts[second]
        findings += _runs_and_rows(names, a, b)
        findings += _same_values("same_init", names, a, b, kernels)
        findings += _copies(names, drawn[first], drawn[second], tolerance, skipped)
        findings += _same_values("same_cell", names, a, b, _cells(a, b))
    if normalization is not None:
        findings += _normalization(parts, normalization)
    findings.sort(key=lambda f: not f.leak)
    return AuditReport(
        tuple(findings),
        {name: len(view) for name, view in parts.items()},
        {name: len(view) for name, view in drawn.items()},
        skipped,
    )


def _drawn(view: View, limit: int, seed: int) -> View:
    if len(view) <= limit:
        return view
    return view.take(np.sort(permutation(seed, Stream.SAMPLE, 2, len(view))[:limit]))


def _runs_and_rows(names: tuple[str, str], a: View, b: View) -> list[Finding]:
    """Return the rows on both sides, and the runs with different rows on both."""
    left = set(zip(a["run_id"].tolist(), a["checkpoint"].tolist(), strict=True))
    right = list(zip(b["run_id"].tolist(), b["checkpoint"].tolist(), strict=True))
    rows = [row for row in right if row in left]
    shared = sorted({run for run, _ in left} & {run for run, _ in right})
    only = [run for run in shared if any(r == run and (r, k) not in left for r, k in right)]
    found = []
    if rows:
        pairs = tuple((row, row) for row in rows[:_SHOWN])
        found.append(Finding("same_row", names, "rows", len(rows), len(rows) / len(right), pairs))
    if only:
        runs = len({run for run, _ in right})
        examples = tuple(((run, -1), (run, -1)) for run in only[:_SHOWN])
        found.append(Finding("trajectory", names, "runs", len(only), len(only) / runs, examples))
    return found


def _initial_kernels(views: Iterable[View]) -> dict[str, frozenset[str]]:
    """Return run id → a hash of the first unit of each kernel at checkpoint 0.

    Units, not whole kernels: a wider network that starts from the same seed has the narrower one's
    first units among its own.
    """
    found: dict[str, frozenset[str]] = {}
    for view in views:
        for index in np.unique(view.cohort_index).tolist():
            source = view.zoo.source.cohorts[index]
            cohort = source.cohort
            rows = np.unique(view["row"][view.cohort_index == index])
            rows = rows[source.recorded[rows, 0]]
            kernels = [s for s in cohort.layout.segments if s.role == "kernel"]
            units = [slice(s.offset, s.offset + s.size // s.shape[0]) for s in kernels]
            step = rows_at_once(view, 256)
            for start in range(0, len(rows), step):
                some = rows[start : start + step]
                weights = source.read_weights(some, np.zeros_like(some))
                for row, values in zip(some.tolist(), weights, strict=True):
                    firsts = [values[unit] for unit in units]
                    found[cohort.run_ids[row]] = frozenset(
                        hashlib.sha256(f.tobytes()).hexdigest() for f in firsts if np.ptp(f) > 0
                    )
    return found


def _cells(a: View, b: View) -> dict[str, frozenset[str]]:
    """Return run id → its cell."""
    found: dict[str, frozenset[str]] = {}
    for view in (a, b):
        pairs = zip(view["run_id"].tolist(), view["cell"].tolist(), strict=True)
        found |= {run: frozenset([cell]) for run, cell in pairs}
    return found


def _same_values(
    check: str, names: tuple[str, str], a: View, b: View, values: Mapping[str, frozenset[str]]
) -> list[Finding]:
    """Return the runs of b that share a value with some other run of a."""
    left: dict[str, list[str]] = {}
    for run in np.unique(a["run_id"]).tolist():
        for value in values.get(run, ()):
            left.setdefault(value, []).append(run)
    runs = np.unique(b["run_id"]).tolist()
    pairs = []
    for run in runs:
        others = {other for value in values.get(run, ()) for other in left.get(value, ())} - {run}
        if others:
            pairs.append(((min(others), -1), (run, -1)))
    if not pairs:
        return []
    share = len(pairs) / len(runs)
    return [Finding(check, names, "runs", len(pairs), share, tuple(pairs[:_SHOWN]))]


def _copies(
    names: tuple[str, str], a: View, b: View, tolerance: float, skipped: dict[str, str]
) -> list[Finding]:
    """Return the copies among rows of different runs; a row counts once, as the plainest kind."""
    seen = np.zeros(len(b), dtype=np.bool_)
    found = []
    for check, search in (
        ("near_copy", nearest_weights),
        ("hidden_copy", nearest_canonical),
        ("same_answers", nearest_behaviour),
    ):
        if check == "same_answers" and a.zoo.plan.record.probe_size == 0:
            skipped[check] = "the zoo recorded no probe"
            continue
        match = search(a, b)
        limit = tolerance / 5 if check == "same_answers" else tolerance
        close = (match.distance <= limit) & ~seen
        exact = close & (match.distance == 0) if check == "near_copy" else np.zeros_like(close)
        seen |= close
        for kind, at in (("copy", exact), (check, close & ~exact)):
            if at.any():
                found.append(_finding(kind, names, a, b, match, np.flatnonzero(at)))
    return found


def _finding(
    check: str, names: tuple[str, str], a: View, b: View, match: Match, at: NDArray[np.int64]
) -> Finding:
    at = at[np.argsort(match.distance[at], kind="stable")]
    some = at[:_SHOWN]
    pairs = tuple(zip(_places(a, match.index[some]), _places(b, some), strict=True))
    worst = float(match.distance[at[0]])
    return Finding(check, names, "rows", len(at), len(at) / len(b), pairs, worst)


def _places(view: View, at: Sequence[int] | NDArray[np.int64]) -> list[tuple[str, int]]:
    part = view.take(at)
    return list(zip(part["run_id"].tolist(), part["checkpoint"].tolist(), strict=True))


def _normalization(parts: Mapping[str, View], normalization: Normalization) -> list[Finding]:
    fitted = set(normalization.runs)
    found = []
    for name, view in parts.items():
        runs = set(view["run_id"].tolist())
        shared = sorted(runs & fitted)
        if name != "train" and shared:
            pairs = tuple(((run, -1), (run, -1)) for run in shared[:_SHOWN])
            share = len(shared) / len(runs)
            found.append(
                Finding("normalization", ("train", name), "runs", len(shared), share, pairs)
            )
    return found


def _name(run: str, checkpoint: int) -> str:
    return f"run {run}" if checkpoint < 0 else f"run {run} checkpoint {checkpoint}"
