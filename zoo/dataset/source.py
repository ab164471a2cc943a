"""What a zoo is read from: the part of the store's reader that queries and views use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from zoo.train.plan import Cohort, Plan

__all__ = ["CohortSource", "StoreSource"]


class CohortSource(Protocol):
    """One cohort of a store: M models, K checkpoints, P parameters, Q probe examples, C classes."""

    @property
    def cohort(self) -> Cohort:
        """The planned cohort."""

    @property
    def recorded(self) -> NDArray[np.bool_]:
        """``[M, K]``: which checkpoints of which models are there to be read."""

    @property
    def status(self) -> NDArray[Any]:
        """``[M]`` strings: planned, running, done, diverged or failed."""

    @property
    def reason(self) -> NDArray[Any]:
        """``[M]`` strings: why a model diverged or failed, empty otherwise."""

    @property
    def diverged_step(self) -> NDArray[np.int64]:
        """``[M]``: the step at which a model diverged, -1 for the others."""

    @property
    def wall_s(self) -> NDArray[np.float64]:
        """``[M]`` seconds of wall time, NaN where nothing is known."""

    @property
    def derived(self) -> Mapping[str, Mapping[str, Any]]:
        """Zarr metadata of the arrays that stages added, by name."""

    def read_derived(self, name: str) -> NDArray[Any]:
        """Return one of these arrays, ``[M, ...]``."""

    def metric(self, name: str) -> NDArray[np.floating[Any]]:
        """Return ``[M, K]`` of one of the cohort's metrics."""

    def read_weights(self, rows: NDArray[np.int64], ks: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the slab rows ``[n, P]`` of n pairs (model, checkpoint)."""

    def weight_checksums(self, rows: NDArray[np.int64], ks: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return a checksum of the weights of n pairs, ``[n]``, by which caches know them."""

    def read_probe(self, rows: NDArray[np.int64], ks: NDArray[np.int64]) -> NDArray[np.float16]:
        """Return the probe logits ``[n, Q, C]`` of n pairs (model, checkpoint)."""


class StoreSource(Protocol):
    """A store: a plan and a reader for each of its cohorts, in plan order."""

    @property
    def plan(self) -> Plan:
        """The plan of the store."""

    @property
    def cohorts(self) -> Sequence[CohortSource]:
        """One reader a cohort."""

    def refresh(self) -> None:
        """Read again what has been committed since the store was opened."""
