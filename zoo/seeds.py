"""Random numbers by counting: Philox4x32-10 in numpy and in torch, equal bit for bit.

A number is a pure function of (seed, stream, index, position): there is no generator state to
keep, to save or to share. Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3",
doi 10.1145/2063384.2063405. One layout serves everywhere:

    key = (seed, stream)    counter = (position // 4, index mod 2³², index div 2³², 0)

and position i takes word i mod 4 of the block. ``index`` counts whatever the stream draws anew: the
epoch of a data order, the step of a dropout mask.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

__all__ = [
    "Stream",
    "normal",
    "permutation",
    "permutations",
    "philox",
    "philox_torch",
    "random_bits",
    "torch_bits",
    "torch_normal",
    "torch_uniform",
    "torch_uniform_at",
    "uniform",
]

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10
_MASK = 0xFFFFFFFF

_U64 = NDArray[np.uint64]


class Stream(IntEnum):
    """What random numbers are for; streams of one seed are independent.

    The values are part of every zoo's meaning: never renumber, only add.
    """

    INIT = 0
    ORDER = 1
    AUGMENT = 2
    DROPOUT = 3
    NOISE = 4
    SUBSET = 5
    PROBE = 6
    PERMUTATION = 7
    SPLIT = 8
    SAMPLE = 9
    LANDSCAPE = 10
    PHASES = 20
    DIET = 30
    DYNAMIC_DIET = 31
    REPLACEMENT = 40
    FRESH = 41


def _rounds(c0: _U64, c1: _U64, c2: _U64, c3: _U64, k0: _U64, k1: _U64) -> tuple[_U64, ...]:
    """Return the four words of each block; arguments broadcast, all below 2³²."""
    m0, m1 = np.uint64(_MULTIPLIERS[0]), np.uint64(_MULTIPLIERS[1])
    w0, w1 = np.uint64(_WEYL[0]), np.uint64(_WEYL[1])
    mask, half = np.uint64(_MASK), np.uint64(32)
    for number in range(_ROUNDS):
        if number:
            k0, k1 = (k0 + w0) & mask, (k1 + w1) & mask
        p0, p1 = c0 * m0, c2 * m1
        c0, c1, c2, c3 = (p1 >> half) ^ c1 ^ k0, p1 & mask, (p0 >> half) ^ c3 ^ k1, p0 & mask
    return c0, c1, c2, c3


def philox(counter: ArrayLike, key: ArrayLike) -> NDArray[np.uint32]:
    """Return the Philox4x32-10 blocks of counters ``[..., 4]`` under keys ``[..., 2]``.

    Args:
        counter: four 32-bit words a block.
        key: two 32-bit words; its leading axes broadcast with those of ``counter``.

    Returns:
        ``[..., 4]`` uint32.

    Example:
        >>> [f"{int(word):08x}" for word in philox([0, 0, 0, 0], [0, 0])]
        ['6627e8d5', 'e169c58d', 'bc57ac4c', '9b00dbd8']
    """
    c = np.asarray(counter).astype(np.uint64)
    k = np.asarray(key).astype(np.uint64)
    c = np.atleast_2d(c)
    words = _rounds(c[..., 0], c[..., 1], c[..., 2], c[..., 3], k[..., 0], k[..., 1])
    out = np.stack(np.broadcast_arrays(*words), axis=-1).astype(np.uint32)
    return out[0] if np.ndim(counter) == 1 and np.ndim(key) == 1 else out


def _columns(values: ArrayLike, name: str, limit: int) -> _U64:
    array = np.atleast_1d(np.asarray(values))
    if array.dtype.kind not in "iu" or (array.size and (array.min() < 0 or array.max() > limit)):
        msg = f"{name} = {values!r}: allowed are integers from 0 to {limit}"
        raise ValueError(msg)
    return array.astype(np.uint64).reshape(-1, 1)


def _blocks(seeds: ArrayLike, stream: int, indices: ArrayLike, blocks: int) -> tuple[_U64, ...]:
    """Return the four words ``[G, blocks]`` of each block of G (seed, index) pairs."""
    seed = _columns(seeds, "seed", _MASK)
    index = _columns(indices, "index", 2**63 - 1)
    low, high = index & np.uint64(_MASK), index >> np.uint64(32)
    position = np.arange(blocks, dtype=np.uint64).reshape(1, -1)
    zero = np.zeros((1, 1), dtype=np.uint64)
    return _rounds(position, low, high, zero, seed, np.full((1, 1), stream, dtype=np.uint64))


def random_bits(seed: int, stream: int, index: int, n: int) -> NDArray[np.uint32]:
    """Return n random 32-bit words.

    Args:
        seed: 0 to 2³² − 1.
        stream: what they are for, a :class:`Stream`.
        index: which drawing of the stream, 0 to 2⁶³ − 1.
        n: how many words.

    Raises:
        ValueError: seed or index out of range.
    """
    words = _blocks(seed, stream, index, -(-n // 4))
    return np.stack(words, axis=-1).astype(np.uint32).reshape(-1)[:n]


def uniform(seed: int, stream: int, index: int, n: int) -> NDArray[np.float64]:
    """Return n numbers uniform on [0, 1): the upper 24 bits of each word times 2⁻²⁴.

    Every value is exact in float32 too, so that float32 code meets the same numbers.
    """
    return (random_bits(seed, stream, index, n) >> np.uint32(8)).astype(np.float64) * 2.0**-24


def normal(seed: int, stream: int, index: int, n: int) -> NDArray[np.float64]:
    """Return n standard normal numbers by Box-Muller (1958) on pairs of words (a, b).

    r = √(−2 ln((a + 1)·2⁻³²)), φ = 2π·b·2⁻³²; the pair gives r cos φ, then r sin φ. The words are
    the same on every machine; the last bit of ln, cos and sin is the machine's own.
    """
    words = random_bits(seed, stream, index, n + n % 2).reshape(-1, 2).astype(np.float64)
    radius = np.sqrt(-2.0 * np.log((words[:, 0] + 1.0) * 2.0**-32))
    angle = 2.0 * np.pi * (words[:, 1] * 2.0**-32)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1).reshape(-1)[:n]


def permutations(seeds: ArrayLike, stream: int, indices: ArrayLike, n: int) -> NDArray[np.int64]:
    """Return a uniformly drawn permutation of 0..n−1 for each of G (seed, index) pairs.

    Position i has the 64-bit key of words 2i (high) and 2i + 1 (low). The permutation is the order
    of the keys; only their upper 64 − b bits count, b = bits of n − 1, and ties go by position.

    Args:
        seeds: ``[G]`` seeds.
        stream: what they are for.
        indices: ``[G]`` indices, or one for all.
        n: length.

    Returns:
        ``[G, n]`` int64.
    """
    words = _blocks(seeds, stream, indices, -(-n // 2))
    half, bits = np.uint64(32), max(n - 1, 0).bit_length()
    keys = np.empty((*words[0].shape, 2), dtype=np.uint64)
    np.bitwise_or(words[0] << half, words[1], out=keys[..., 0])
    np.bitwise_or(words[2] << half, words[3], out=keys[..., 1])
    packed = keys.reshape(keys.shape[0], -1)[:, :n]
    low = np.uint64((1 << bits) - 1)
    # With the position in the low bits no two keys are equal: any sort gives the one stable order.
    packed = (packed & ~low) | np.arange(n, dtype=np.uint64)
    packed.sort(axis=1)
    return (packed & low).astype(np.int64)


def permutation(seed: int, stream: int, index: int, n: int) -> NDArray[np.int64]:
    """Return one permutation of 0..n−1, ``[n]`` int64; see :func:`permutations`."""
    drawn: NDArray[np.int64] = permutations(seed, stream, index, n)[0]
    return drawn


def _rounds_torch(c: tuple[Tensor, ...], k: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Return the four words of each block, in int64 without a single overflow.

    With a' = a − 2³² the product a·b is a'·b + b·2³²; a'·b fits in 63 bits, its low half is that
    of a·b, and its high half misses b. Overflow of int64 is undefined in compiled C++.
    """
    m0, m1 = _MULTIPLIERS[0] - 2**32, _MULTIPLIERS[1] - 2**32
    c0, c1, c2, c3 = c
    k0, k1 = k
    for number in range(_ROUNDS):
        if number:
            k0, k1 = (k0 + _WEYL[0]) & _MASK, (k1 + _WEYL[1]) & _MASK
        p0, p1 = c0 * m0, c2 * m1
        high0, high1 = (p0 >> 32) + c0, (p1 >> 32) + c2
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, p1 & _MASK, high0 ^ c3 ^ k1, p0 & _MASK
    return c0, c1, c2, c3


def philox_torch(counter: Tensor, key: Tensor) -> Tensor:
    """Return the blocks of :func:`philox` as int64 ``[..., 4]``.

    Args:
        counter: ``[..., 4]`` int64, words below 2³².
        key: ``[..., 2]`` int64, words below 2³²; leading axes broadcast.
    """
    words = _rounds_torch(counter.unbind(-1), key.unbind(-1))
    return torch.stack(torch.broadcast_tensors(*words), dim=-1)  # type: ignore[no-untyped-call]


def torch_bits(seed: Tensor, stream: int, index: Tensor, n: int) -> Tensor:
    """Return :func:`random_bits` of each model as int64 ``[G, n]``; compiles whole.

    Args:
        seed: ``[G]`` int64 seeds.
        stream: what they are for.
        index: ``[G]`` int64, or a shape that broadcasts to it.
        n: words a model.
    """
    seed = seed.reshape(-1, 1)
    index = index.reshape(-1, 1)
    zero = torch.zeros_like(seed)
    # Without the mask torch.compile folds arange and the first multiplier into one index
    # expression, whose steps it keeps in 32 bits (torch 2.13): wrong words from the third block on.
    position = (torch.arange(-(-n // 4), device=seed.device) & _MASK).unsqueeze(0)
    counter = (position, index & _MASK, index >> 32, zero)
    words = _rounds_torch(counter, (seed, zero + int(stream)))
    shape = (seed.shape[0], position.shape[1])
    return torch.stack([w.expand(shape) for w in words], dim=-1).flatten(1)[:, :n]


def torch_uniform(seed: Tensor, stream: int, index: Tensor, n: int) -> Tensor:
    """Return :func:`uniform` of each model as float32 ``[G, n]``, the same numbers exactly."""
    return (torch_bits(seed, stream, index, n) >> 8).to(torch.float32) * 2.0**-24


def torch_uniform_at(seed: Tensor, stream: int, index: Tensor, positions: Tensor) -> Tensor:
    """Return chosen entries of :func:`torch_uniform` without the others, float32 ``[G, n]``.

    Args:
        seed: ``[G]`` int64 seeds.
        stream: what they are for.
        index: ``[G]`` int64.
        positions: ``[G, n]`` int64, which entries of each model.
    """
    seed, index = seed.reshape(-1, 1), index.reshape(-1, 1)
    zero = torch.zeros_like(positions)
    counter = ((positions // 4) & _MASK, (index & _MASK) + zero, (index >> 32) + zero, zero)
    words = _rounds_torch(counter, (seed + zero, zero + int(stream)))
    blocks = torch.stack(torch.broadcast_tensors(*words), dim=-1)  # type: ignore[no-untyped-call]
    bits = blocks.gather(-1, (positions % 4).unsqueeze(-1)).squeeze(-1)
    return (bits >> 8).to(torch.float32) * 2.0**-24


def torch_normal(seed: Tensor, stream: int, index: Tensor, n: int) -> Tensor:
    """Return :func:`normal` of each model as float32 ``[G, n]``.

    Computed in float64 and rounded once, so that the last bit of a library's ln or cos does not
    show.
    """
    pairs = (n + 1) // 2
    words = torch_bits(seed, stream, index, 2 * pairs)
    words = words.reshape(words.shape[0], pairs, 2).to(torch.float64)
    radius = torch.sqrt(-2.0 * torch.log((words[..., 0] + 1.0) * 2.0**-32))
    angle = (2.0 * torch.pi) * (words[..., 1] * 2.0**-32)
    pair = torch.stack([radius * torch.cos(angle), radius * torch.sin(angle)], dim=-1)
    return pair.flatten(1)[:, :n].to(torch.float32)
