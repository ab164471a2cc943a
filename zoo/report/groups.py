"""Group tables: the mean of each group of checkpoints, with its spread and its count."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.dataset import View
from zoo.dataset.table import group_codes, structured

__all__ = ["group_table"]


def group_table(view: View, by: str | Sequence[str], value: str | None = None) -> NDArray[Any]:
    """Return n, mean, standard deviation, minimum and maximum of a column in each group.

    Fields of the structured array: the columns ``by`` (groups in their order), ``n``, ``mean``,
    ``std`` (of a sample, divided by n - 1; NaN for one row), ``min``, ``max``. Missing values do
    not count; a group without any value has n = 0 and NaN. What else differs among the rows of a
    group is pooled over: :func:`zoo.report.pooled_fields` names it.

    Args:
        view: the checkpoints, for example each run's last: ``zoo.query("epoch == -1")``.
        by: the columns whose values make a group.
        value: a numeric column; None = the zoo's headline.

    Raises:
        QueryError: an unknown column.
        ValueError: ``value`` is text, or no column to group by.
    """
    names = [by] if isinstance(by, str) else list(by)
    if not names:
        msg = "group_table needs at least one column to group by"
        raise ValueError(msg)
    value = value or view.zoo.headline()
    numbers = view.column(value)
    if numbers.dtype.kind not in "iufb":
        msg = f"column {value!r} is text; group_table needs a numeric value"
        raise ValueError(msg)
    keys = {name: view.column(name) for name in names}
    codes, first = group_codes(list(keys.values()))
    stats = _statistics(numbers.astype(np.float64), codes, len(first))
    return structured({**{k: v[first] for k, v in keys.items()}, **stats}, len(first))


def _statistics(
    values: NDArray[np.float64], codes: NDArray[np.intp], groups: int
) -> dict[str, NDArray[Any]]:
    present = ~np.isnan(values)
    values, codes = values[present], codes[present]
    n = np.bincount(codes, minlength=groups)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.bincount(codes, values, minlength=groups) / n
        squares = np.bincount(codes, (values - mean[codes]) ** 2, minlength=groups)
        std = np.sqrt(squares / (n - 1))
    std[n < 2] = np.nan
    low, high = np.full(groups, np.inf), np.full(groups, -np.inf)
    np.minimum.at(low, codes, values)
    np.maximum.at(high, codes, values)
    low[n == 0] = high[n == 0] = np.nan
    return {"n": n.astype(np.int64), "mean": mean, "std": std, "min": low, "max": high}
