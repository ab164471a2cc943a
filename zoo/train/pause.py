"""Saving between two checkpoints: an interrupted segment resumes at its own step, bit for bit.

Checkpoints are far apart where a sweep records few of them. So the engine can be asked, between
any two blocks of steps, for everything that it holds; the next run starts from that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = [
    "PausePoint",
    "Pauses",
    "SegmentProgress",
    "Tick",
    "pack_parts",
    "pack_progress",
    "unpack_parts",
    "unpack_progress",
]

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True, eq=False)
class PausePoint:
    """Everything that the engine holds between two checkpoints of a task (R rows).

    Args:
        index: k, the checkpoint that is being worked towards.
        group: the group that is at work; those before it have reached k, those after it not begun.
        offset: steps that it has taken since checkpoint k - 1.
        arrays: ``weights [R, P]``, ``diverged [R]``, ``moment.* [R, trained]``; of the groups that
            have reached k ``metric.*`` and ``probe``; of the one at work ``segment.*``.
    """

    index: int
    group: int
    offset: int
    arrays: Mapping[str, NDArray[Any]]

    @property
    def progress(self) -> tuple[int, int, int]:
        """Return what grows with every step."""
        return (self.index, self.group, self.offset)


class Pauses(Protocol):
    """Who decides when to save, and does it."""

    def due(self) -> bool:
        """Return whether it is time; asked after each block of steps."""

    def save(self, point: PausePoint) -> None:
        """Make a point durable."""


@dataclass(frozen=True, slots=True, eq=False)
class SegmentProgress:
    """How far one group is within a segment.

    Args:
        offset: steps taken.
        before: ``[G, P]`` each model's row before its own last step, as far as it has come.
        early: ``[G, P]`` and the moments ``[G, trained]`` of models that are done before others;
            empty where all are equally long.
    """

    offset: int
    before: Tensor
    early: tuple[Tensor, ...] = ()


#: Called by a segment after each block of steps.
Tick = Callable[[Callable[[], SegmentProgress]], None]


def pack_progress(progress: SegmentProgress, real: int) -> Arrays:
    """Return the arrays of a group's progress, its ``real`` rows only."""
    found = {"segment.before": progress.before[:real].cpu().numpy()}
    for number, tensor in enumerate(progress.early):
        found[f"segment.early.{number}"] = tensor[:real].cpu().numpy()
    return found


def unpack_progress(
    point: PausePoint, slab: Tensor, moments: tuple[Tensor, ...]
) -> SegmentProgress:
    """Return the progress of the group at work; rows of dummies are those of its state.

    Args:
        point: where training resumes.
        slab, moments: the group's state.
    """

    def whole(name: str, like: Tensor) -> Tensor:
        out = like.clone()
        rows = torch.from_numpy(np.array(point.arrays[name]))
        out[: len(rows)] = rows.to(out.device)
        return out

    early = tuple(
        whole(f"segment.early.{number}", tensor)
        for number, tensor in enumerate((slab, *moments))
        if f"segment.early.{number}" in point.arrays
    )
    return SegmentProgress(point.offset, whole("segment.before", slab), early)


Part = tuple[dict[str, Tensor], Tensor | None]


def pack_parts(parts: list[Part], real: list[int]) -> Arrays:
    """Return the arrays of the groups that have reached the checkpoint, rows after rows.

    Args:
        parts: metric columns ``[G]`` and probe logits of each of them.
        real: their numbers of real rows.
    """
    found: Arrays = {}
    if not parts:
        return found
    for name in parts[0][0]:
        columns = [p[0][name][:n].cpu() for p, n in zip(parts, real, strict=True)]
        found[f"metric.{name}"] = torch.cat(columns).numpy()
    probes = [p[1][:n].cpu() for p, n in zip(parts, real, strict=True) if p[1] is not None]
    if probes:
        found["probe"] = torch.cat(probes).numpy()
    return found


def unpack_parts(point: PausePoint, real: list[int]) -> list[Part]:
    """Return what :func:`pack_parts` packed, a group at a time.

    Args:
        point: where training resumes.
        real: numbers of real rows of the groups that have reached the checkpoint.
    """
    parts: list[Part] = []
    start = 0
    for count in real:
        rows = slice(start, start + count)
        columns = {
            name.removeprefix("metric."): torch.from_numpy(np.array(values[rows]))
            for name, values in point.arrays.items()
            if name.startswith("metric.")
        }
        probe = point.arrays.get("probe")
        parts.append((columns, None if probe is None else torch.from_numpy(np.array(probe[rows]))))
        start += count
    return parts
