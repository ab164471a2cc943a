"""The data of a zoo, prepared as its models saw them, and checked to be the same data."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from zoo.dataset.any_view import AnyZoo
from zoo.errors import DataError, QueryError, UnknownNameError, no_such

if TYPE_CHECKING:
    from zoo.data import PreparedData

__all__ = ["prepared_data", "probe_inputs"]


def prepared_data(
    zoo: AnyZoo, name: str | None, *, normalization: str | None, path: str | None
) -> PreparedData:
    """Return a data set of a zoo, normalised; see :meth:`zoo.dataset.Zoo.data`."""
    from zoo.data import load, prepare

    name = _choose("data set", name, list(zoo.plan.data))
    first = [cohort.runs[0] for cohort in zoo.plan.cohorts]  # both are shared by a cohort
    used = {run.normalization for run in first if zoo.plan.data_key(run) == name}
    normalization = _choose("normalization", normalization, sorted(used))
    facts = zoo.plan.data[name]
    source, planned = str(facts["name"]), facts["fingerprint"]
    place = path if path is not None else zoo.data_paths.get(source)
    dataset = load(source, path=place, **facts["options"])
    if dataset.fingerprint != planned:
        msg = (
            f"the data set {name!r} here is not the one that zoo {zoo.name!r} was trained on: "
            f"fingerprint {dataset.fingerprint[:16]}, planned {planned[:16]}; "
            f"give the path of the right files: zoo.open(..., paths={{{source!r}: ...}}), or"
            f" data({name!r}, path=...)"
        )
        raise DataError(msg)
    return prepare(dataset, normalization)


def probe_inputs(
    zoo: AnyZoo, name: str | None, *, normalization: str | None, path: str | None
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return the probe's inputs and labels; see :meth:`zoo.dataset.Zoo.probe_inputs`."""
    if zoo.plan.record.probe_size == 0:
        msg = f"zoo {zoo.name!r} recorded no probe: its sweep has record.probe_size = 0"
        raise QueryError(msg)
    name = _choose("data set", name, list(zoo.plan.data))
    data = prepared_data(zoo, name, normalization=normalization, path=path)
    at = np.asarray(zoo.plan.data[name]["probe_indices"], dtype=np.int64)
    return np.asarray(data.test_x)[at], np.asarray(data.test_y)[at]


def _choose(kind: str, given: str | None, used: list[str]) -> str:
    """Return the value that was given, or the only one that there is."""
    if given is None:
        if len(used) == 1:
            return used[0]
        msg = f"this zoo has {len(used)} values of {kind}: {', '.join(used)}; name one"
        raise UnknownNameError(msg)
    if given not in used:
        raise no_such(given, kind, used)
    return given
