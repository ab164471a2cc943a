"""Random numbers: the published vectors, numpy against torch, and sanity of what is drawn."""

import doctest
import itertools
import shutil

import numpy as np
import pytest
import torch
from scipy import stats

import zoo.seeds
from zoo.seeds import (
    Stream,
    normal,
    permutation,
    permutations,
    philox,
    philox_torch,
    random_bits,
    torch_bits,
    torch_normal,
    torch_uniform,
    uniform,
)

# Known answers of the Random123 distribution (kat_vectors, philox4x32-10).
KNOWN = [
    ("00000000 " * 4, "00000000 " * 2, "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff " * 4, "ffffffff " * 2, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    (
        "243f6a88 85a308d3 13198a2e 03707344",
        "a4093822 299f31d0",
        "d16cfe09 94fdcceb 5001e420 24126ea1",
    ),
]
COMPILER = any(shutil.which(name) for name in ("g++", "clang++"))
EDGES = [0, 1, 2, 2**16 - 1, 2**31 - 1, 2**31, 2**31 + 1, 2**32 - 2, 2**32 - 1]


def words(text):
    return [int(word, 16) for word in text.split()]


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN)
def test_known_answers(counter, key, answer):
    c, k, a = words(counter), words(key), words(answer)
    assert philox(c, k).tolist() == a
    assert philox(c, k).dtype == np.uint32
    assert philox_torch(torch.tensor(c), torch.tensor(k)).tolist() == a


def test_known_answers_hold_in_one_batch():
    c = np.array([words(row[0]) for row in KNOWN])
    k = np.array([words(row[1]) for row in KNOWN])
    answers = [words(row[2]) for row in KNOWN]
    assert philox(c, k).tolist() == answers
    assert philox_torch(torch.from_numpy(c), torch.from_numpy(k)).tolist() == answers
    # one key under many counters broadcasts
    assert philox(c, k[0])[0].tolist() == answers[0]
    assert philox(c[0], k)[0].tolist() == answers[0]


def test_the_docstring_examples_run():
    result = doctest.testmod(zoo.seeds)
    assert result.attempted > 0
    assert result.failed == 0


def test_torch_equals_numpy_at_the_edges_of_32_bits():
    counters = np.array(list(itertools.product(EDGES, repeat=2)))
    c = np.concatenate([counters, counters[:, ::-1]], axis=1)
    for key in itertools.product(EDGES, repeat=2):
        ours = philox_torch(torch.from_numpy(c), torch.tensor(key)).numpy()
        np.testing.assert_array_equal(ours, philox(c, key).astype(np.int64))


def test_a_block_is_the_one_that_the_layout_says():
    seed, index, n = 2**32 - 5, 2**40 + 3, 11
    counters = [[i // 4, index % 2**32, index // 2**32, 0] for i in range(n)]
    blocks = philox(counters, [seed, Stream.DROPOUT])
    expected = [blocks[i, i % 4] for i in range(n)]
    assert random_bits(seed, Stream.DROPOUT, index, n).tolist() == expected


@pytest.mark.parametrize("n", [0, 1, 3, 4, 5, 1001])
def test_torch_twins_draw_the_same_numbers(n):
    seeds = torch.tensor([0, 1, 2**31, 2**31 + 7, 2**32 - 1])
    index = torch.tensor([0, 2**31, 2**32 - 1, 2**32 + 9, 2**62 + 1])
    pairs = list(zip(seeds.tolist(), index.tolist(), strict=True))

    def stack(draw):
        return np.stack([draw(s, Stream.AUGMENT, i, n) for s, i in pairs])

    bits = torch_bits(seeds, Stream.AUGMENT, index, n)
    assert bits.dtype == torch.int64
    np.testing.assert_array_equal(bits.numpy(), stack(random_bits))
    drawn = torch_uniform(seeds, Stream.AUGMENT, index, n)
    assert drawn.dtype == torch.float32
    np.testing.assert_array_equal(drawn.numpy(), stack(uniform).astype(np.float32))
    gauss = torch_normal(seeds, Stream.AUGMENT, index, n)
    assert gauss.dtype == torch.float32
    np.testing.assert_allclose(gauss.numpy(), stack(normal), rtol=2e-7, atol=1e-9)


def test_one_index_serves_all_models():
    seeds = torch.tensor([4, 5, 6])
    one = torch_uniform(seeds, Stream.NOISE, torch.tensor([9]), 10)
    each = torch_uniform(seeds, Stream.NOISE, torch.tensor([9, 9, 9]), 10)
    assert torch.equal(one, each)
    assert torch.equal(torch_uniform(seeds, Stream.NOISE, torch.tensor(9), 10), each)


def test_longer_draws_extend_shorter_ones():
    for draw in (random_bits, uniform, normal):
        long = draw(3, Stream.INIT, 1, 1000)
        for n in (1, 2, 7, 999):
            np.testing.assert_array_equal(draw(3, Stream.INIT, 1, n), long[:n])


@pytest.mark.compile
@pytest.mark.skipif(not COMPILER, reason="no C++ compiler")
def test_the_twin_compiles_whole_to_the_same_bits():
    def draw(seed, index):
        bits = torch_bits(seed, Stream.DROPOUT, index, 999)
        return bits, torch_uniform(seed, Stream.DROPOUT, index, 999)

    seeds, index = torch.tensor(EDGES), torch.arange(len(EDGES)) + 2**31
    compiled = torch.compile(draw, fullgraph=True)
    for ours, plain in zip(compiled(seeds, index), draw(seeds, index), strict=True):
        assert torch.equal(ours, plain)


def test_uniform_is_on_the_grid_and_in_range():
    values = uniform(1, Stream.INIT, 0, 100_000)
    assert values.dtype == np.float64
    assert values.min() >= 0
    assert values.max() < 1
    np.testing.assert_array_equal(values.astype(np.float32).astype(np.float64), values)
    np.testing.assert_array_equal(values * 2**24, np.floor(values * 2**24))


def p_of_counts(counts):
    return stats.chisquare(np.ravel(counts)).pvalue


@pytest.mark.parametrize("seed", [0, 1, 2**32 - 1])
def test_uniform_fills_its_cells_evenly(seed):
    values = uniform(seed, Stream.INIT, 0, 200_000)
    assert 1e-4 < p_of_counts(np.bincount((values * 64).astype(int), minlength=64)) < 1 - 1e-4
    # every bit of a word is fair
    bits = random_bits(seed, Stream.INIT, 0, 100_000)
    shares = [(bits >> np.uint32(b) & np.uint32(1)).mean() for b in range(32)]
    assert np.abs(np.array(shares) - 0.5).max() < 5 * 0.5 / np.sqrt(len(bits))


OTHERS = {
    "seed": (1, Stream.INIT, 0),
    "stream": (0, Stream.ORDER, 0),
    "index": (0, Stream.INIT, 1),
    "high index": (0, Stream.INIT, 2**32),
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_neighbouring_draws_are_independent(other):
    n = 100_000
    a, b = uniform(0, Stream.INIT, 0, n), uniform(*other, n)
    table = np.histogram2d(a, b, bins=16, range=[[0, 1], [0, 1]])[0]
    assert p_of_counts(table) > 1e-4
    assert abs(np.corrcoef(a, b)[0, 1]) < 5 / np.sqrt(n)


def test_successive_numbers_are_independent():
    values = uniform(0, Stream.INIT, 0, 200_000)
    for lag in (1, 2, 3, 4, 5):
        table = np.histogram2d(values[:-lag], values[lag:], bins=16, range=[[0, 1], [0, 1]])[0]
        assert p_of_counts(table) > 1e-4


def test_normal_is_standard_normal():
    values = normal(0, Stream.INIT, 0, 200_000)
    assert stats.kstest(values, "norm").pvalue > 1e-3
    assert abs(np.corrcoef(values[0::2], values[1::2])[0, 1]) < 0.02
    assert np.isfinite(values).all()


def test_permutations_are_what_their_docstring_says():
    seeds, epochs, n = np.array([0, 7, 2**32 - 1]), np.array([0, 3, 2**33]), 1437
    drawn = permutations(seeds, Stream.ORDER, epochs, n)
    assert drawn.shape == (3, n)
    assert drawn.dtype == np.int64
    for row, seed, epoch in zip(drawn, seeds, epochs, strict=True):
        bits = random_bits(int(seed), Stream.ORDER, int(epoch), 2 * n).astype(np.uint64)
        keys = (bits[0::2] << np.uint64(32) | bits[1::2]) >> np.uint64((n - 1).bit_length())
        np.testing.assert_array_equal(row, np.argsort(keys, kind="stable"))
        np.testing.assert_array_equal(row, permutation(int(seed), Stream.ORDER, int(epoch), n))


@pytest.mark.parametrize("n", [0, 1, 2, 3, 4, 5, 8, 9, 64, 65])
def test_permutations_of_every_size_hold_each_number_once(n):
    drawn = permutations(np.arange(50), Stream.ORDER, np.zeros(50, dtype=np.int64), n)
    np.testing.assert_array_equal(np.sort(drawn, axis=1), np.tile(np.arange(n), (50, 1)))


def test_every_permutation_is_as_likely():
    drawn = permutations(np.arange(24_000), Stream.ORDER, 5, 4)
    counts = np.unique(drawn, axis=0, return_counts=True)[1]
    assert len(counts) == 24
    assert p_of_counts(counts) > 1e-4


def test_every_number_is_as_likely_in_every_place():
    drawn = permutations(np.arange(5000), Stream.ORDER, 0, 20)
    for place in (0, 7, 19):
        assert p_of_counts(np.bincount(drawn[:, place], minlength=20)) > 1e-4


def test_global_generators_are_left_alone():
    np_state, torch_state = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    normal(0, Stream.INIT, 0, 10)
    permutation(0, Stream.ORDER, 0, 10)
    torch_normal(torch.tensor([0]), Stream.INIT, torch.tensor([0]), 10)
    np.testing.assert_array_equal(np.random.get_state()[1], np_state)  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), torch_state)


@pytest.mark.parametrize(("seed", "index"), [(-1, 0), (2**32, 0), (0, -1), (0.5, 0)])
def test_seeds_out_of_range_are_refused(seed, index):
    with pytest.raises(ValueError, match="allowed are integers from 0 to"):
        uniform(seed, Stream.INIT, index, 4)


def test_stream_numbers_never_change():
    """A number that was ever given stays with its name; new streams are added here."""
    given = {
        "INIT": 0,
        "ORDER": 1,
        "AUGMENT": 2,
        "DROPOUT": 3,
        "NOISE": 4,
        "SUBSET": 5,
        "PROBE": 6,
        "PERMUTATION": 7,
        "SPLIT": 8,
        "SAMPLE": 9,
        "LANDSCAPE": 10,
        "PHASES": 20,
        "DIET": 30,
        "DYNAMIC_DIET": 31,
        "REPLACEMENT": 40,
        "FRESH": 41,
    }
    assert {s.name: s.value for s in Stream}.items() <= given.items()
    assert len(set(given.values())) == len(given)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("compiled", [False, True])
def test_the_twin_draws_the_same_on_a_gpu(compiled):
    draw = torch.compile(torch_bits, fullgraph=True) if compiled else torch_bits
    seeds, index = torch.tensor(EDGES), torch.arange(len(EDGES)) + 2**31
    ours = draw(seeds.cuda(), int(Stream.DROPOUT), index.cuda(), 999).cpu()
    assert torch.equal(ours, torch_bits(seeds, Stream.DROPOUT, index, 999))
