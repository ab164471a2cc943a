"""Layer tokens: one token a unit, as sequence models over weights read them.

After Schürholt et al. 2024, "SANE" (arXiv 2406.09997): a kernel ``[out, in, ...]`` gives a row of
its values for each output unit, the bias behind it; a norm gives (weight, bias, running mean,
running variance) for each channel. Rows longer than the token size are cut into several tokens,
shorter ones padded with zeros; the mask is True where a value is. A token's position is (number in
the sequence, layer, unit).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zoo.architectures.layout import Layout
from zoo.arithmetic import pinned
from zoo.dataset.tensor_record import TensorRecord
from zoo.errors import QueryError

__all__ = ["TokenLayout", "Tokens", "layers_of", "rows_from_tokens", "token_layout", "tokenize"]


@dataclass(frozen=True, slots=True, eq=False)
class TokenLayout:
    """Where each value of a row is in the tokens.

    Args:
        layout: of the rows.
        source: ``[T, D]`` int64, column of the row, −1 for padding.
        position: ``[T, 3]`` int64: number in the sequence, layer, unit.
        layers: path of each layer.
    """

    layout: Layout
    source: NDArray[np.int64]
    position: NDArray[np.int64]
    layers: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Tokens(TensorRecord):
    """Tokens of B rows; of one row, without the axis B, as an item of a data set.

    Args:
        token: ``[B, T, D]`` float32, zero where there is no value.
        mask: ``[T, D]`` bool, True where a value is; ``[B, T, D]`` where lengths differ.
        position: ``[T, 3]`` int64, or ``[B, T, 3]``.
    """

    token: Tensor
    mask: Tensor
    position: Tensor


def layers_of(layout: Layout) -> dict[str, list[str]]:
    """Return layer path → the names of its tensors, layers as they follow one another."""
    order = {s.name: i for i, s in enumerate(layout.segments)}
    found: dict[str, list[str]] = {}
    for name in order:
        found.setdefault(name.rpartition(".")[0], []).append(name)
    return found


@lru_cache(maxsize=4096)
def token_layout(layout: Layout, size: int = 0) -> TokenLayout:
    """Return the token layout of a row.

    Args:
        layout: of the row.
        size: D, values of a token; 0 = the longest row of any layer, so that nothing is cut.

    Raises:
        QueryError: a negative size.
    """
    if size < 0:
        msg = f"token size {size}: must be 0 (the longest) or positive"
        raise QueryError(msg)
    layers = layers_of(layout)
    units: list[NDArray[np.int64]] = []
    for names in layers.values():
        parts: list[NDArray[np.int64]] = []
        for name in names:
            s = layout[name]
            flat = np.arange(s.offset, s.stop, dtype=np.int64)
            parts.append(flat.reshape(s.shape[0], -1))
        units.append(np.concatenate(parts, 1))
    size = size or max(u.shape[1] for u in units)
    blocks: list[NDArray[np.int64]] = []
    positions: list[NDArray[np.int64]] = []
    for number, columns in enumerate(units):
        pieces = -(-columns.shape[1] // size)
        padded = np.full((len(columns), pieces * size), -1, dtype=np.int64)
        padded[:, : columns.shape[1]] = columns
        blocks.append(padded.reshape(-1, size))
        unit = np.repeat(np.arange(len(columns), dtype=np.int64), pieces)
        positions.append(np.stack([np.full_like(unit, number), unit], 1))
    source, place = np.concatenate(blocks), np.concatenate(positions)
    number_of = np.arange(len(place), dtype=np.int64)[:, None]
    return TokenLayout(layout, source, np.concatenate([number_of, place], 1), tuple(layers))


@pinned(gradients="as they are")
def tokenize(rows: Tensor, layout: Layout, size: int = 0) -> Tokens:
    """Return the tokens of rows ``[B, P]``.

    Args:
        rows: of one layout.
        layout: of the rows.
        size: D; see :func:`token_layout`.
    """
    form = token_layout(layout, size)
    source = torch.from_numpy(form.source)
    mask = source >= 0
    token = rows[:, source.clamp(min=0).flatten()].view(len(rows), *source.shape) * mask
    return Tokens(token, mask, torch.from_numpy(form.position))


@pinned(gradients="as they are")
def rows_from_tokens(tokens: Tokens, layout: Layout) -> Tensor:
    """Return the rows ``[B, P]`` that tokens were made of, exactly."""
    form = token_layout(layout, tokens.token.shape[-1])
    there = torch.from_numpy(form.source >= 0)
    rows = torch.empty(len(tokens.token), layout.params, dtype=tokens.token.dtype)
    rows[:, torch.from_numpy(form.source)[there]] = tokens.token[:, there]
    return rows
