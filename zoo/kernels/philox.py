"""Philox4x32-10 inside kernels: the numbers of :mod:`zoo.seeds`, bit for bit.

The layout of key and counter is that of :func:`zoo.seeds.torch_bits`: key = (seed, stream),
counter = (position // 4, index mod 2³², index div 2³², 0), and position i takes word i mod 4.
"""

from __future__ import annotations

from zoo.kernels.language import Value, constexpr, jit, tl

__all__ = ["philox_run", "philox_word"]


@jit
def _words(seed: Value, stream: constexpr, index: Value, block: Value) -> Value:
    """Return the four words of each block; seed and index are int64, block is any integer."""
    key = seed.to(tl.uint64) | (tl.full([], stream, tl.uint64) << 32)
    zero = tl.zeros_like(block).to(tl.uint32)
    low = zero + (index & 0xFFFFFFFF).to(tl.uint32)
    high = zero + (index >> 32).to(tl.uint32)
    return tl.philox(key, block.to(tl.uint32), low, high, zero)


@jit
def philox_word(seed: Value, stream: constexpr, index: Value, position: Value) -> Value:
    """Return the word at each position, uint32 in the shape of ``position``."""
    a, b, c, d = _words(seed, stream, index, position // 4)
    word = position % 4
    return tl.where(word == 0, a, tl.where(word == 1, b, tl.where(word == 2, c, d)))


@jit
def philox_run(
    seed: Value, stream: constexpr, index: Value, start: Value, SIZE: constexpr
) -> Value:
    """Return the words at ``start``..``start + SIZE − 1`` as uint32; both divisible by 4."""
    a, b, c, d = _words(seed, stream, index, start // 4 + tl.arange(0, SIZE // 4))
    return tl.interleave(tl.interleave(a, c), tl.interleave(b, d))
