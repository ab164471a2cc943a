"""What keeps named arrays from being a data set: every problem, each with its remedy."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.data.splits import DOMAIN, INPUTS, MOST, SPLITS, TARGETS, by_split, target_kind
from zoo.errors import Problem, listed

__all__ = ["split_problems"]

Array = NDArray[Any]


def split_problems(
    arrays: Mapping[str, Array],
    classes: int | None = None,
    *,
    there: Iterable[str] | None = None,
    lost: Collection[str] = (),
) -> list[Problem]:
    """Return everything that keeps named arrays from being a data set.

    Args:
        arrays: of :func:`ordered`.
        classes: C, where the data set is known.
        there: what the source has, for messages; by default the arrays.
        lost: arrays that the source has and that cannot be read.
    """
    roles = by_split(arrays)
    held = listed(arrays if there is None else there) or "nothing"
    problems = [
        Problem(name, None, f"is missing; there is {held}") for name in _missing(roles, lost)
    ]
    for split, found in roles.items():
        problems += _of_split(split, found, classes)
    if "train" in roles:
        for split in (s for s in roles if s != "train"):
            problems += _unlike(split, roles[split], roles["train"])
    return [*problems, *_of_domain(arrays)]


def _missing(roles: Mapping[str, Mapping[str, Array]], lost: Collection[str]) -> Iterator[str]:
    """Yield what each split lacks: an input, and targets if any split has some."""
    known = {split: set(held) for split, held in roles.items()}
    for name in lost:
        split, _, role = name.rpartition("_")
        known.setdefault(split, set()).add(role)
    whole = [role for held in known.values() for role in held]
    targets = any(role in TARGETS for role in whole) and "sequence" not in whole
    for split in dict.fromkeys((*SPLITS, *known)):
        held = known.get(split, set())
        if not held & set(INPUTS):
            yield f"{split}_{next((r for r in INPUTS if r in whole), 'x')}"
        if targets and not held & set(TARGETS):
            yield f"{split}_{next(r for r in TARGETS if r in whole)}"


def _of_split(split: str, held: Mapping[str, Array], classes: int | None) -> Iterator[Problem]:
    inputs = [role for role in INPUTS if role in held]
    targets = [role for role in TARGETS if role in held]
    for group in (inputs, targets):
        if len(group) > 1:
            name, other = f"{split}_{group[1]}", f"{split}_{group[0]}"
            yield Problem(name, None, f"is given beside {other}", f"one of {', '.join(group)}")
    if "sequence" in inputs:
        for role in (*targets, *({"mask", "weight"} & held.keys())):
            message = "a sequence brings its own targets: what comes next"
            yield Problem(f"{split}_{role}", None, message)
        yield from _sequence_problems(f"{split}_sequence", held["sequence"])
        return
    count = None
    for role in inputs[:1]:
        check = _token_problems if role == "tokens" else _example_problems
        yield from check(f"{split}_{role}", held[role])
        count = len(held[role]) if held[role].ndim else None
    for role in targets[:1]:
        y = held[role]
        if role == "labels":
            yield from _label_problems(f"{split}_labels", y, MOST if classes is None else classes)
        else:
            yield from _target_problems(f"{split}_y", y, classes, "mask" in held)
        if count is not None and y.ndim and len(y) != count:
            yield Problem(f"{split}_{role}", len(y), "one target per example", f"{count} targets")
    if "weight" in held:
        yield from _weight_problems(f"{split}_weight", held["weight"], count)
    if "mask" in held:
        yield from _mask_problems(f"{split}_mask", held["mask"], held.get(*targets[:1] or ("",)))


def _unlike(split: str, held: Mapping[str, Array], train: Mapping[str, Array]) -> Iterator[Problem]:
    """Yield what a split differs in from the training set."""
    for group in (INPUTS, TARGETS):
        if any(sum(role in part for role in group) > 1 for part in (held, train)):
            continue  # which is a problem of its own
        own, theirs = (next((r for r in group if r in part), "") for part in (held, train))
        if own and theirs and own != theirs:
            yield Problem(f"{split}_{own}", own, f"unlike train_{theirs}", theirs)
        elif own and theirs and group == TARGETS:
            yield from _unlike_targets(f"{split}_{own}", train[own], held[own], own)
        elif own and theirs:
            yield from _unlike_inputs(f"{split}_{own}", train[own], held[own], own)


def _unlike_inputs(name: str, train: Array, other: Array, role: str) -> Iterator[Problem]:
    a, b = train.shape[1:], other.shape[1:]
    if role == "sequence":
        given, like = (f"{y.dtype} {list(y.shape[1:])}" for y in (other, train))
        if a != b or (train.dtype.kind == "f") != (other.dtype.kind == "f"):
            yield Problem(name, given, "unlike train_sequence", like)
    elif min(train.ndim, other.ndim) > 1 and a != b:
        yield Problem(name, b, f"unlike train_{role}", str(a))


def _unlike_targets(name: str, train: Array, other: Array, role: str) -> list[Problem]:
    """Return what two parts' targets differ in, with the remedy where one of them has labels."""
    if not {train.dtype.kind, other.dtype.kind} <= set("buif"):
        return []  # which says so itself
    kinds = ("class",) * 2 if role == "labels" else (target_kind(train), target_kind(other))
    plain = role == "y" and kinds[0] == "class"
    if kinds[0] == kinds[1] and (plain or train.shape[1:] == other.shape[1:]):
        return []
    fix = ""
    if "class" in kinds and role == "y":
        which, kind = ("train_y", kinds[0]) if kinds[1] == "class" else (name, kinds[1])
        how = "argmax(1)" if kind == "binary" else "astype(int)"
        fix = f"if they are labels: {which}.{how}"
    given, like = (f"{y.dtype} {list(y.shape[1:])}" for y in (other, train))
    return [Problem(name, given, f"unlike train_{role}", like, fix)]


def _example_problems(name: str, x: Array) -> list[Problem]:
    if x.dtype.kind not in "buif":
        return [Problem(name, str(x.dtype), "bad dtype", "uint8, an integer or a float type")]
    problems = []
    if x.ndim not in (2, 3, 4):
        allowed = "[N, D], [N, channels, length] or [N, channels, height, width]"
        problems.append(Problem(name, x.shape, "bad shape", allowed))
    if x.size == 0:
        problems.append(Problem(name, x.shape, "is empty", "at least one example and one feature"))
    return [*problems, *_finite_problems(name, x)]


def _token_problems(name: str, x: Array) -> list[Problem]:
    if x.dtype.kind not in "ui":
        return [Problem(name, str(x.dtype), "bad dtype", "integers, 0 to V - 1")]
    if x.ndim != 2 or x.size == 0:
        return [Problem(name, x.shape, "bad shape", "[N, T], T tokens per example")]
    return _range_problems(name, x, MOST, "token")


def _sequence_problems(name: str, x: Array) -> list[Problem]:
    if x.dtype.kind in "ui" and x.ndim == 1 and x.size:
        return _range_problems(name, x, MOST, "token")
    if x.dtype.kind == "f" and x.ndim == 2 and x.size:
        return _finite_problems(name, x)
    given = f"{x.dtype} {list(x.shape)}"
    return [Problem(name, given, "is no sequence", "integers [L], or floats [L, D]")]


def _label_problems(name: str, y: Array, classes: int) -> list[Problem]:
    if y.dtype.kind not in "ui":
        return [Problem(name, str(y.dtype), "bad dtype", "integers, 0 to C - 1")]
    if y.ndim < 2 or y.size == 0:
        allowed = "[N, ...], a label at every position"
        return [Problem(name, y.shape, "bad shape", allowed, "one label per example is train_y")]
    return _range_problems(name, y, classes, "label")


def _target_problems(name: str, y: Array, classes: int | None, masked: bool) -> list[Problem]:  # noqa: FBT001
    """Return what is wrong with targets; a data set with known classes has labels."""
    if y.dtype.kind not in "buif":
        allowed = "integers 0 to C - 1, zeros and ones, or floats"
        return [Problem(name, str(y.dtype), "bad dtype", allowed)]
    if classes is not None and target_kind(y) != "class":
        given = f"{y.dtype} {list(y.shape)}"
        return [Problem(name, given, "not class labels", f"integers [N], 0 to {classes - 1}")]
    if y.ndim == 0:
        return [Problem(name, y.shape, "bad shape", "[N], one target per example")]
    if y.size == 0:
        return [Problem(name, y.shape, "is empty", "at least one target")] if y.ndim > 1 else []
    if target_kind(y) == "vector":
        return [] if masked else _finite_problems(name, y)
    if target_kind(y) == "binary":
        low, high = int(y.min()), int(y.max())
        if low >= 0 and high <= 1:
            return []
        fix = f"if they are labels: {name}[:, 0]" if y.shape[1:] == (1,) else ""
        if not fix:
            fix = f"if they are labels of positions, name them {name.removesuffix('y')}labels"
        allowed = "zeros and ones; or integers [N], the labels of classes; or floats"
        message = f"integers of shape {list(y.shape)}"
        return [Problem(name, f"{low} to {high}", message, allowed, fix)]
    return _range_problems(name, y, classes - 1 if classes is not None else MOST, "label")


def _weight_problems(name: str, weight: Array, count: int | None) -> list[Problem]:
    if weight.dtype.kind not in "buif" or weight.ndim != 1 or count not in (None, len(weight)):
        given = f"{weight.dtype} {list(weight.shape)}"
        return [Problem(name, given, "is no list of weights", f"numbers [{count or 'N'}]")]
    if not np.isfinite(weight).all() or (weight < 0).any() or not (weight > 0).any():
        return [Problem(name, None, "weights are finite and not negative, one of them above zero")]
    return []


def _mask_problems(name: str, mask: Array, targets: Array | None) -> list[Problem]:
    if targets is None:
        return [Problem(name, None, "there are no targets to mask")]
    if mask.dtype.kind != "b" or mask.shape != targets.shape or mask.ndim < 2:
        given = f"{mask.dtype} {list(mask.shape)}"
        allowed = f"truth values of the shape of the targets, {list(targets.shape)}, [N, ...]"
        return [Problem(name, given, "is no mask", allowed)]
    empty = np.flatnonzero(~mask.reshape(len(mask), -1).any(1))
    if len(empty):
        message = f"examples without any target, the first is {int(empty[0])}"
        return [Problem(name, len(empty), message, "at least one target per example",
                        "leave these examples out")]  # fmt: skip
    return _finite_problems(name, np.where(mask, targets, 0)) if targets.dtype.kind == "f" else []


def _of_domain(arrays: Mapping[str, Array]) -> Iterator[Problem]:
    held = {name: arrays[name] for name in DOMAIN if name in arrays}
    x = arrays.get("train_x")
    if not held or x is None:
        return
    for name in DOMAIN:
        if name not in held:
            yield Problem(name, None, "is missing: a domain has both bounds")
        elif held[name].shape != x.shape[1:] or held[name].dtype.kind not in "uif":
            given = f"{held[name].dtype} {list(held[name].shape)}"
            yield Problem(name, given, "unlike an example", f"numbers {list(x.shape[1:])}")
    if len(held) == len(DOMAIN) and np.shape(held["low"]) == np.shape(held["high"]):
        wide = np.isfinite(held["low"]) & np.isfinite(held["high"]) & (held["low"] < held["high"])
        if not wide.all():
            yield Problem("high", None, "is not above low everywhere, or is not finite")


def _range_problems(name: str, values: Array, limit: int, what: str) -> list[Problem]:
    problems = []
    low, high = int(values.min(initial=0)), int(values.max(initial=0))
    if low < 0:
        problems.append(Problem(name, low, f"negative {what}", f"0 to {limit}"))
    if high > limit:
        problems.append(Problem(name, high, f"{what} too large", f"0 to {limit}"))
    return problems


def _finite_problems(name: str, values: Array) -> list[Problem]:
    if values.dtype.kind != "f" or values.size == 0:
        return []
    with np.errstate(over="ignore"):
        bad = np.argwhere(~np.isfinite(values.astype(np.float32)))
    if not len(bad):
        return []
    message = f"values are not finite, the first in example {int(bad[0, 0])}"
    return [Problem(name, len(bad), message, "finite float32 numbers")]
