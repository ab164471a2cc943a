"""A view's weights as memory-mapped arrays: read once from the store, then at memory speed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from zoo.dataset.source import CohortSource
from zoo.errors import StoreError
from zoo.store.files import store_errors
from zoo.store.records import read_record, write_record
from zoo.train.plan import Cohort, Plan

if TYPE_CHECKING:
    from zoo.dataset.view import View

__all__ = ["MappedCohort", "materialize"]

_AT_ONCE_BYTES = 128 << 20


class MappedCohort:
    """A cohort whose materialised rows come from a memory map, all else from the store.

    Args:
        source: the cohort's reader.
        rows, checkpoints: ``[n]``, which pairs the map holds.
        weights: ``[n, P]``.
    """

    def __init__(
        self,
        source: CohortSource,
        rows: NDArray[np.int64],
        checkpoints: NDArray[np.int64],
        weights: NDArray[np.float32],
    ) -> None:
        self._source = source
        self._weights = weights
        cohort = source.cohort
        self._where: NDArray[np.int64] = np.full((cohort.models, cohort.checkpoints), -1)
        self._where[rows, checkpoints] = np.arange(len(rows))

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without the map's values: a worker maps the file again."""
        state = dict(self.__dict__)
        if isinstance(self._weights, np.memmap) and self._weights.filename is not None:
            state["_weights"] = Path(self._weights.filename)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take a state over."""
        self.__dict__.update(state)
        if isinstance(state["_weights"], Path):
            self._weights = np.load(state["_weights"], mmap_mode="r")

    @property
    def cohort(self) -> Cohort:
        """The planned cohort."""
        return self._source.cohort

    @property
    def recorded(self) -> NDArray[np.bool_]:
        """``[M, K]``: which checkpoints are recorded in the store."""
        return self._source.recorded

    @property
    def status(self) -> NDArray[Any]:
        """``[M]`` strings."""
        return self._source.status

    @property
    def reason(self) -> NDArray[Any]:
        """``[M]`` strings."""
        return self._source.reason

    @property
    def diverged_step(self) -> NDArray[np.int64]:
        """``[M]``."""
        return self._source.diverged_step

    @property
    def wall_s(self) -> NDArray[np.float64]:
        """``[M]`` seconds."""
        return self._source.wall_s

    @property
    def derived(self) -> Mapping[str, Mapping[str, Any]]:
        """Zarr metadata of the arrays that stages added."""
        return self._source.derived

    def read_derived(self, name: str) -> NDArray[Any]:
        """Return one of these arrays."""
        return self._source.read_derived(name)

    def metric(self, name: str) -> NDArray[np.float32]:
        """Return ``[M, K]`` of a metric."""
        return self._source.metric(name)

    def read_weights(self, rows: NDArray[np.int64], ks: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return rows ``[n, P]``: from the map where it has them."""
        places = self._where[rows, ks]
        if places.size and places.min() < 0:
            return self._source.read_weights(rows, ks)
        return np.asarray(self._weights[places])

    def read_probe(self, rows: NDArray[np.int64], ks: NDArray[np.int64]) -> NDArray[np.float16]:
        """Return probe logits ``[n, Q, C]``."""
        return self._source.read_probe(rows, ks)


class _MappedStore:
    """A store whose cohorts are mapped where there is a map."""

    def __init__(self, plan: Plan, cohorts: Sequence[CohortSource]) -> None:
        self.plan = plan
        self.cohorts = cohorts

    def refresh(self) -> None:
        msg = "a materialised view is frozen; open the store again"
        raise StoreError(msg)


def materialize(view: View, folder: str | os.PathLike[str]) -> View:
    """Return the same rows over memory maps; see :meth:`zoo.dataset.View.materialize`."""
    from zoo.dataset.view import View
    from zoo.dataset.zoo import Zoo

    where = Path(folder)
    with store_errors("create", where):
        where.mkdir(parents=True, exist_ok=True)
    sources: list[CohortSource] = list(view.zoo.source.cohorts)
    rows, ks = view["row"], view["checkpoint"]
    for index in np.unique(view.cohort_index).tolist():
        at = np.flatnonzero(view.cohort_index == index)
        pairs = np.unique(np.stack([rows[at], ks[at]], 1), axis=0)
        weights = _map(sources[index], pairs, where)
        sources[index] = MappedCohort(sources[index], pairs[:, 0], pairs[:, 1], weights)
    zoo = Zoo(
        _MappedStore(view.zoo.plan, sources), path=view.zoo.path, data_paths=view.zoo.data_paths
    )
    return View(zoo, view.cohort_index.copy(), rows.astype(np.int64), ks.astype(np.int64))


def _map(source: CohortSource, pairs: NDArray[np.int64], folder: Path) -> NDArray[np.float32]:
    """Return the pairs' weights as a memory map; made if it is not there, whole or not at all."""
    cohort = source.cohort
    ids = ",".join(f"{cohort.run_ids[row]}:{k}" for row, k in pairs.tolist())
    key = hashlib.sha256(ids.encode()).hexdigest()
    stem = folder / f"{cohort.id}-{key[:16]}"
    record, array = stem.with_suffix(".json"), stem.with_suffix(".npy")
    shape = (len(pairs), cohort.params)
    if record.exists() and read_record(record, "materialized") == _facts(key, array, shape):
        mapped: NDArray[np.float32] = np.load(array, mmap_mode="r")
        return mapped
    part = array.with_suffix(f".{os.getpid()}.tmp")
    with store_errors("write", array):
        out = np.lib.format.open_memmap(part, mode="w+", dtype=np.float32, shape=shape)
        step = max(1, _AT_ONCE_BYTES // (4 * cohort.params))
        for start in range(0, len(pairs), step):
            some = pairs[start : start + step]
            out[start : start + step] = source.read_weights(some[:, 0], some[:, 1])
        out.flush()
        del out
        part.replace(array)
    write_record(record, "materialized", _facts(key, array, shape))
    found: NDArray[np.float32] = np.load(array, mmap_mode="r")
    return found


def _facts(key: str, array: Path, shape: tuple[int, int]) -> dict[str, Any]:
    size = array.stat().st_size if array.exists() else -1
    return {"rows": key, "shape": list(shape), "bytes": size}
