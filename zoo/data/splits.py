"""The parts of a data set, and how named arrays become them.

An array is named after its split and its role: ``train_x``, ``test_y``, ``val_weight``. ``train``
and ``test`` are always there; every further split is measured at each checkpoint as the test set
is. Roles: of the input ``x`` (numbers), ``tokens`` (integers that stand for symbols) or
``sequence`` (one long row that windows are cut from); of the target ``y`` (see
:func:`target_kind`) or ``labels`` (classes at positions of any shape); ``weight`` of each example
in the loss; ``mask``, true where a target counts. ``low`` and ``high`` bound the domain that fresh
examples are drawn from.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "DOMAIN", "INPUTS", "MISSING", "MOST", "ROLES", "SPLITS", "TARGETS", "DataSplit", "by_split",
    "named_splits", "ordered", "target_kind",
]  # fmt: skip

Array = NDArray[Any]

INPUTS = ("x", "tokens", "sequence")
TARGETS = ("y", "labels")
ROLES = (*INPUTS, *TARGETS, "weight", "mask")
#: Names without a split.
DOMAIN = ("low", "high")
#: The label of a target that is missing; of floats it is NaN.
MISSING = -1
_NAME = re.compile(rf"([a-z][a-z0-9]*)_({'|'.join(ROLES)})\Z")
#: The splits that every data set has.
SPLITS = ("train", "test")
#: The largest label or token.
MOST = 65_535


@dataclass(frozen=True, slots=True, eq=False)
class DataSplit:
    """The examples of one part of a data set. Windows share the memory of their sequence.

    Args:
        x: ``[N, *example_shape]`` uint8 or float32; tokens are int64.
        y: ``[N, ...]``: int64 labels, or float32 values ``[N, C]``; a missing one is −1 or NaN.
        weight: ``[N]`` float32, mean 1; None = all alike.
        sequence: what windows are cut from, ``[L]`` tokens or ``[L, D]``; None = there are none.
        context: T of a window.
        stride: from the start of a window to that of the next.
    """

    x: Array
    y: Array
    weight: NDArray[np.float32] | None = None
    sequence: Array | None = None
    context: int = 0
    stride: int = 0

    def __len__(self) -> int:
        return len(self.x)

    def mapped(self, change: Callable[[Array], Array]) -> DataSplit:
        """Return the split with its input changed, value by value or channel by channel."""
        if self.sequence is None:
            return replace(self, x=change(self.x), y=self.y.copy())
        if self.sequence.ndim == 1:
            return windows(self.sequence.copy(), self.context, self.stride)
        whole = change(self.sequence[:, :, None])[:, :, 0]
        return windows(whole, self.context, self.stride, self.sequence)


def windows(sequence: Array, context: int, stride: int, targets: Array | None = None) -> DataSplit:
    """Return the windows of a sequence as views, each with what follows it.

    Of tokens ``[L]`` the examples are ``[N, T]``, and the targets are the tokens one place on; of
    vectors ``[L, D]`` the examples are ``[N, D, T]``, and the target is the vector that comes next.

    Args:
        sequence: what windows are cut from.
        context: T.
        stride: from the start of a window to that of the next.
        targets: the sequence that targets are taken from; by default the same.
    """
    after = sequence if targets is None else targets
    x = np.lib.stride_tricks.sliding_window_view(sequence[:-1], context, axis=0)[::stride]
    if sequence.ndim == 1:
        y = np.lib.stride_tricks.sliding_window_view(after[1:], context)[::stride]
    else:
        y = after[context:][::stride]
    return DataSplit(x, y, sequence=sequence, context=context, stride=stride)


def ordered(arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Return the arrays that mean something, split by split and role by role."""
    names = {_NAME.match(name)[1] for name in arrays if _NAME.match(name)}  # type: ignore[index]
    splits = (*SPLITS, *sorted(names - set(SPLITS)))
    keys = [f"{split}_{role}" for split in splits for role in ROLES]
    return {key: arrays[key] for key in (*keys, *DOMAIN) if key in arrays}


def by_split(arrays: Mapping[str, Array]) -> dict[str, dict[str, Array]]:
    """Return split -> role -> array."""
    found: dict[str, dict[str, Array]] = {}
    for name, array in arrays.items():
        split, _, role = name.rpartition("_")
        if split:
            found.setdefault(split, {})[role] = array
    return found


def target_kind(y: Array) -> str:
    """Return what targets are, by type and shape.

    ``"class"``: integers ``[N]``, the labels of classes. ``"binary"``: integers or truth values
    ``[N, ...]`` with further axes, zeros and ones. ``"vector"``: floats ``[N, ...]``.
    """
    if y.dtype.kind == "f":
        return "vector"
    return "binary" if y.ndim > 1 or y.dtype.kind == "b" else "class"


def named_splits(
    arrays: Mapping[str, Array], kind: str, *, context: int, stride: int
) -> dict[str, DataSplit]:
    """Return the splits of arrays that were checked, in the types that they are kept in.

    Args:
        arrays: of :func:`ordered`, read-only.
        kind: what the targets are.
        context, stride: of the windows of a sequence.
    """
    found = {}
    for name, held in by_split(arrays).items():
        if "sequence" in held:
            found[name] = windows(held["sequence"], context, stride)
            continue
        x = held["tokens"] if "tokens" in held else held["x"]
        targets = held["labels"] if "labels" in held else held.get("y")
        y = _kept_targets(targets, kind, held.get("mask"), len(x))
        found[name] = DataSplit(x, y, _mean_one(held.get("weight")))
    return found


def _kept_targets(y: Array | None, kind: str, mask: Array | None, count: int) -> Array:
    """Return labels as int64, values as float32 ``[N, C]``, missing ones marked."""
    if y is None:
        kept: Array = np.zeros((count, 0), dtype=np.float32)
    elif kind == "class":
        kept = y if mask is None else np.where(mask, y, MISSING)
    else:
        values = y.astype(np.float32)
        kept = (values if mask is None else np.where(mask, values, np.nan)).reshape(len(y), -1)
    kept.setflags(write=False)
    return kept


def _mean_one(weight: Array | None) -> NDArray[np.float32] | None:
    if weight is None:
        return None
    found: NDArray[np.float32] = (weight / weight.mean(dtype=np.float64)).astype(np.float32)
    found.setflags(write=False)
    return found
