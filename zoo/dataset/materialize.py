"""A view's weights as memory-mapped arrays: read once from the store, then at memory speed.

A map is known by what it holds: the data sets' fingerprints, the runs, and a checksum of each row's
weights. Its own checksum is in a record beside it and is checked when a process maps it first.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.dataset.any_view import AnyView
from zoo.dataset.source import CohortSource, StoreSource
from zoo.errors import StoreCorruptError, StoreError
from zoo.paths import absolute
from zoo.store.files import checksum, file_checksum
from zoo.store.outputs import output_errors, remove_dead, replaced_file
from zoo.store.records import parse_record, record_bytes
from zoo.train.plan import Cohort, Plan

__all__ = ["MapFile", "MappedCohort", "mapped_source"]

_LOG = logging.getLogger(__name__)
_AT_ONCE_BYTES = 64 << 20
#: What earlier versions left unfinished beside a map when they were killed: part of it, its record.
_OLD_STRAY = re.compile(r".+-[0-9a-f]{16}\.(\d+|json\.[0-9a-f]{32})\.tmp")
#: Seconds without a change after which nobody is writing such a file any more.
_IDLE_S = 3600.0

#: Maps that this process has checked: (device, inode, size, time of change) and the checksum.
_CHECKED: set[tuple[int, int, int, int, int]] = set()


@dataclass(frozen=True, slots=True)
class MapFile:
    """A ``.npy`` file of weights, and what it must be.

    Args:
        path: the file.
        shape: (n, P).
        crc32c: of the whole file.
    """

    path: Path
    shape: tuple[int, int]
    crc32c: int

    def open(self) -> NDArray[np.float32]:
        """Return the values as a memory map; the first time, read and check the whole file.

        Raises:
            StoreCorruptError: they are not what was written.
            OSError: the file cannot be read.
        """
        facts = self.path.stat()
        seen = (facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns, self.crc32c)
        if seen not in _CHECKED and file_checksum(self.path) != self.crc32c:
            msg = f"{self.path} does not match its checksum"
            raise StoreCorruptError(msg)
        _CHECKED.add(seen)
        found: NDArray[np.float32] = np.load(self.path, mmap_mode="r")
        if found.shape != self.shape or found.dtype != np.float32:
            msg = f"{self.path} is an array of another form"
            raise StoreCorruptError(msg)
        return found


class MappedCohort:
    """A cohort whose materialised rows come from a memory map, all else from the store.

    Args:
        source: the cohort's reader.
        rows, checkpoints: ``[n]``, which pairs the map holds.
        file: the map.
        weights: ``[n, P]``, its values.
    """

    def __init__(
        self,
        source: CohortSource,
        rows: NDArray[np.int64],
        checkpoints: NDArray[np.int64],
        file: MapFile,
        weights: NDArray[np.float32],
    ) -> None:
        self._source = source
        self._file = file
        self._weights: NDArray[np.float32] | None = weights
        cohort = source.cohort
        self._where: NDArray[np.int64] = np.full((cohort.models, cohort.checkpoints), -1)
        self._where[rows, checkpoints] = np.arange(len(rows))

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without the map's values: a worker maps the file again."""
        return {**self.__dict__, "_weights": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take a state over; where the map is gone or damaged, rows come from the store."""
        self.__dict__.update(state)
        try:
            self._weights = self._file.open()
        except (OSError, ValueError) as error:
            _LOG.warning("%s; weights are read from the store instead", error)

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
        if self._weights is None or (places.size and places.min() < 0):
            return self._source.read_weights(rows, ks)
        return np.asarray(self._weights[places])

    def weight_checksums(self, rows: NDArray[np.int64], ks: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return a checksum of the weights of n pairs, ``[n]``, as the store has it."""
        return self._source.weight_checksums(rows, ks)

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


def mapped_source(view: AnyView, folder: str | os.PathLike[str]) -> StoreSource:
    """Return a view's store over memory maps; see :meth:`zoo.dataset.View.materialize`."""
    where = absolute(folder)
    with output_errors(where):
        where.mkdir(parents=True, exist_ok=True)
        _remove_old_strays(where)
    sources: list[CohortSource] = list(view.zoo.source.cohorts)
    rows, ks = view["row"], view["checkpoint"]
    for index in np.unique(view.cohort_index).tolist():
        at = np.flatnonzero(view.cohort_index == index)
        pairs = np.unique(np.stack([rows[at], ks[at]], 1), axis=0)
        key = _key(view.zoo.plan, sources[index], pairs)
        file, weights = _map(sources[index], pairs, key, where)
        sources[index] = MappedCohort(sources[index], pairs[:, 0], pairs[:, 1], file, weights)
    return _MappedStore(view.zoo.plan, sources)


def _remove_old_strays(folder: Path) -> None:
    for stray in folder.glob("*.tmp"):
        with contextlib.suppress(FileNotFoundError):  # somebody else does the same
            if _OLD_STRAY.fullmatch(stray.name) and time.time() - stray.stat().st_mtime > _IDLE_S:
                stray.unlink()


def _key(plan: Plan, source: CohortSource, pairs: NDArray[np.int64]) -> str:
    """Return the sha256 of what decides the pairs' weights, and of their checksums."""
    cohort = source.cohort
    name = plan.data_key(cohort.runs[0])
    data = {name: plan.data.get(name, {}).get("fingerprint")}
    sums = source.weight_checksums(pairs[:, 0], pairs[:, 1]).tolist()
    rows = [
        [cohort.run_ids[row], int(cohort.steps[row, k]), value]
        for (row, k), value in zip(pairs.tolist(), sums, strict=True)
    ]
    return hashlib.sha256(json.dumps([data, rows]).encode()).hexdigest()


def _map(
    source: CohortSource, pairs: NDArray[np.int64], key: str, folder: Path
) -> tuple[MapFile, NDArray[np.float32]]:
    """Return the pairs' weights as a memory map; made if it is not there, whole or not at all."""
    stem = folder / f"{source.cohort.id}-{key[:16]}"
    record, array = stem.with_suffix(".json"), stem.with_suffix(".npy")
    shape = (len(pairs), source.cohort.params)
    for place in (record, array):
        remove_dead(place)
    if record.exists():
        try:
            facts = parse_record(record.read_bytes(), record, "materialized", advice="")
            if (facts["key"], facts["shape"]) != (key, list(shape)):
                msg = f"{record} is about other rows"
                raise StoreCorruptError(msg)
            file = MapFile(array, shape, int(facts["crc32c"]))
            return file, file.open()
        except (OSError, ValueError, KeyError) as error:
            _LOG.warning("%s; it is made again from the store", error)
    with replaced_file(array) as part:
        crc32c = _write(source, pairs, part)
    facts = {"key": key, "shape": list(shape), "crc32c": crc32c}
    with replaced_file(record) as part:
        part.write_bytes(record_bytes("materialized", facts))
    file = MapFile(array, shape, crc32c)
    return file, file.open()


def _write(source: CohortSource, pairs: NDArray[np.int64], file: Path) -> int:
    """Write the pairs' weights as ``.npy``, and return the file's checksum.

    Through the file and not through a memory map: on a full disk that is an error, not a signal.
    """
    params = source.cohort.params
    step = max(1, _AT_ONCE_BYTES // (4 * params))
    header = {"descr": "<f4", "fortran_order": False, "shape": (len(pairs), params)}
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, header)
    crc32c = checksum(head.getvalue())
    with file.open("xb") as out:
        out.write(head.getvalue())
        for start in range(0, len(pairs), step):
            some = pairs[start : start + step]
            weights = source.read_weights(some[:, 0], some[:, 1])
            data = np.ascontiguousarray(weights, dtype="<f4").tobytes()
            out.write(data)
            crc32c = checksum(data, crc32c)
    return crc32c
