"""Normalisation of weights: mean and deviation, fitted on the training part and shipped with it."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zoo.architectures.layout import Layout
from zoo.arithmetic import pinned
from zoo.arrays import open_npz
from zoo.dataset.any_view import AnyView
from zoo.dataset.batches import rows_at_once
from zoo.errors import QueryError, StoreError
from zoo.paths import absolute
from zoo.store.files import read_bytes
from zoo.store.outputs import FileKind, write_output

__all__ = ["SCOPES", "Normalization", "fit_normalization"]

#: What shares one mean and one deviation.
SCOPES = ("parameter", "tensor", "global")

_SMALLEST = 1e-8
_NORMALIZATION = FileKind(
    "a normalisation", lambda data: data[:2] == b"PK" and b"meta.npy" in data and b"mean_0" in data
)


@dataclass(frozen=True, slots=True, eq=False)
class Normalization:
    """(w − mean) / deviation for each layout, and which runs they were fitted on.

    Args:
        scope: one of :data:`SCOPES`.
        mean: layout → ``[P]`` float32.
        deviation: layout → ``[P]`` float32, positive.
        runs: ids of the runs that it was fitted on, sorted; ``zoo audit`` holds them against the
            test part.
    """

    scope: str
    mean: Mapping[Layout, NDArray[np.float32]]
    deviation: Mapping[Layout, NDArray[np.float32]]
    runs: tuple[str, ...]

    def __repr__(self) -> str:
        layouts = f"{len(self.mean)} layout{'' if len(self.mean) == 1 else 's'}"
        return f"<Normalization by {self.scope}: {layouts}, fitted on {len(self.runs)} runs>"

    @pinned(gradients="as they are")
    def apply(self, rows: Tensor, layout: Layout) -> Tensor:
        """Return normalised rows ``[B, P]``.

        Raises:
            QueryError: the layout was not among the training rows.
        """
        mean, deviation = self._of(layout)
        return (rows - mean) / deviation

    @pinned(gradients="as they are")
    def invert(self, rows: Tensor, layout: Layout) -> Tensor:
        """Return rows ``[B, P]`` in their own scale again.

        Raises:
            QueryError: the layout was not among the training rows.
        """
        mean, deviation = self._of(layout)
        return rows * deviation + mean

    def _of(self, layout: Layout) -> tuple[Tensor, Tensor]:
        if layout not in self.mean:
            msg = (
                f"the normalisation was not fitted on rows of this layout ({layout.params} "
                "parameters); fit it on training rows that have it, or use scope='global'"
            )
            if self.scope != "global":
                raise QueryError(msg)
            first = next(iter(self.mean))
            mean = torch.from_numpy(self.mean[first][:1])
            return mean, torch.from_numpy(self.deviation[first][:1])
        return torch.from_numpy(self.mean[layout]), torch.from_numpy(self.deviation[layout])

    @property
    def hash(self) -> str:
        """Sixteen hexadecimal digits of the sha256 over the values and the runs."""
        digest = hashlib.sha256(json.dumps([self.scope, *self.runs]).encode())
        for layout in self.mean:
            digest.update(json.dumps(layout.to_json()).encode())
            digest.update(self.mean[layout].tobytes() + self.deviation[layout].tobytes())
        return digest.hexdigest()[:16]

    def save(self, path: str | PathLike[str]) -> None:
        """Write it as one ``.npz`` of plain arrays.

        Raises:
            NameTakenError: something else than an earlier normalisation is there.
            StoreError: the file cannot be written.
        """
        layouts = [layout.to_json() for layout in self.mean]
        meta = {"scope": self.scope, "runs": self.runs, "layouts": layouts, "hash": self.hash}
        arrays: dict[str, Any] = {"meta": np.frombuffer(json.dumps(meta).encode(), dtype=np.uint8)}
        for i, layout in enumerate(self.mean):
            arrays[f"mean_{i}"] = self.mean[layout]
            arrays[f"deviation_{i}"] = self.deviation[layout]
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)
        write_output(path, buffer.getvalue(), _NORMALIZATION)

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Normalization:
        """Read what :meth:`save` wrote.

        Raises:
            StoreError: the file is damaged, or not a normalisation.
        """
        try:
            with open_npz(io.BytesIO(read_bytes(absolute(path)))) as arrays:
                meta = json.loads(arrays["meta"].tobytes())
                layouts = [Layout.from_json(rows) for rows in meta["layouts"]]
                mean = {lay: arrays[f"mean_{i}"] for i, lay in enumerate(layouts)}
                deviation = {lay: arrays[f"deviation_{i}"] for i, lay in enumerate(layouts)}
            found = cls(meta["scope"], mean, deviation, tuple(meta["runs"]))
            if found.hash == meta["hash"]:
                return found
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            msg = f"{path} is no normalisation that this version can read: {error}"
            raise StoreError(msg) from error
        msg = f"{path} does not match its hash {meta['hash']}"
        raise StoreError(msg)


@pinned()
def fit_normalization(
    view: AnyView, scope: str = "tensor", *, batch: int | None = None
) -> Normalization:
    """Fit mean and deviation on the rows of a view: give it the training part, nothing else.

    Deviations are over rows (``parameter``), over rows and the values of a tensor (``tensor``) or
    over everything (``global``), in float64 by the pairwise update of Chan et al. (1979). A
    deviation of zero becomes 1.

    Args:
        view: training rows; every row must be finite.
        scope: one of :data:`SCOPES`.
        batch: rows read at a time; None = as many as fit into 256 MB.

    Raises:
        QueryError: an unknown scope, or a view without rows.
    """
    if scope not in SCOPES or not len(view):
        msg = f"scope = {scope!r} over {len(view)} rows; allowed: {', '.join(SCOPES)}, some rows"
        raise QueryError(msg)
    count: dict[Layout, int] = {}
    mean: dict[Layout, NDArray[np.float64]] = {}
    square: dict[Layout, NDArray[np.float64]] = {}
    for part, weights in view.iter(batch or rows_at_once(view)):
        layout = view.zoo.plan.cohorts[int(part.cohort_index[0])].layout
        rows = weights.astype(np.float64)
        n, m = count.get(layout, 0), rows.mean(0)
        s = np.square(rows - m).sum(0)
        if n:
            gap = m - mean[layout]
            s += square[layout] + gap**2 * (n * len(rows) / (n + len(rows)))
            m = mean[layout] + gap * (len(rows) / (n + len(rows)))
        count[layout], mean[layout], square[layout] = n + len(rows), m, s
    moments = {lay: (count[lay], mean[lay], square[lay]) for lay in count}
    if scope == "tensor":
        moments = {lay: _pooled_tensors(lay, *moments[lay]) for lay in moments}
    elif scope == "global":
        moments = _pooled(moments)
    means, deviations = {}, {}
    for layout, (n, m, s) in moments.items():
        deviation = np.sqrt(s / n)
        means[layout] = m.astype(np.float32)
        deviations[layout] = np.where(deviation > _SMALLEST, deviation, 1.0).astype(np.float32)
    runs = tuple(sorted(set(view["run_id"].tolist())))
    return Normalization(scope, means, deviations, runs)


_Moments = tuple[int, NDArray[np.float64], NDArray[np.float64]]


def _pooled_tensors(
    layout: Layout, n: int, mean: NDArray[np.float64], square: NDArray[np.float64]
) -> _Moments:
    pooled_mean, pooled_square = mean.copy(), square.copy()
    for s in layout.segments:
        at = slice(s.offset, s.stop)
        centre = mean[at].mean()
        pooled_mean[at] = centre
        pooled_square[at] = (square[at] + n * np.square(mean[at] - centre)).mean()
    return n, pooled_mean, pooled_square


def _pooled(moments: Mapping[Layout, _Moments]) -> dict[Layout, _Moments]:
    total = sum(n * len(m) for n, m, _ in moments.values())
    centre = sum(n * m.sum() for n, m, _ in moments.values()) / total
    square = sum((s + n * np.square(m - centre)).sum() for n, m, s in moments.values()) / total
    return {
        lay: (1, np.full(len(m), centre), np.full(len(m), square))
        for lay, (_, m, _) in moments.items()
    }
