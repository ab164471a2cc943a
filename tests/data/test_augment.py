"""Augmentation against plain references, model by model."""

import shutil

import numpy as np
import pytest
import torch

from zoo.data import AUGMENTATIONS
from zoo.seeds import Stream, normal, random_bits, uniform

COMPILER = any(shutil.which(name) for name in ("g++", "clang++"))
G, B = 4, 33
SHAPES = {"flat": (6,), "1-d": (2, 9), "2-d": (3, 8, 7)}
SEEDS = torch.tensor([0, 1, 2**31 + 5, 2**32 - 1])
STEPS = torch.tensor([0, 17, 2**33, 4])
STRENGTH = torch.tensor([1.0, 2.9, 0.0, 30.0])
CASES = [
    (name, label)
    for name in AUGMENTATIONS
    for label, shape in SHAPES.items()
    if AUGMENTATIONS[name].check(shape) is None
]


def examples(shape):
    return torch.randn((G, B, *shape), generator=torch.Generator().manual_seed(0))


def run(name, x, rows=slice(None)):
    return AUGMENTATIONS[name].apply(x[rows], SEEDS[rows], STEPS[rows], STRENGTH[rows])


def test_which_shapes_each_takes():
    taken = {name: [s for n, s in CASES if n == name] for name in AUGMENTATIONS}
    assert taken == {
        "none": ["flat", "1-d", "2-d"],
        "flip": ["2-d"],
        "shift": ["1-d", "2-d"],
        "noise": ["flat", "1-d", "2-d"],
    }
    assert "pictures" in str(AUGMENTATIONS["flip"].check((64,)))
    assert "(64,)" in str(AUGMENTATIONS["shift"].check((64,)))


def test_the_fields_that_each_reads():
    fields = {
        name: {key: field.default for key, field in AUGMENTATIONS[name].fields.items()}
        for name in AUGMENTATIONS
    }
    assert fields == {
        "none": {},
        "flip": {},
        "shift": {"augment_strength": 1.0},
        "noise": {"augment_strength": 0.1},
    }


@pytest.mark.parametrize(("name", "label"), CASES)
def test_neighbours_do_not_matter(name, label):
    x = examples(SHAPES[label])
    before = x.clone()
    together = run(name, x)
    assert together.shape == x.shape
    assert together.dtype == x.dtype
    assert torch.equal(x, before), "the input is not changed in place"
    for g in range(G):
        assert torch.equal(run(name, x, slice(g, g + 1))[0], together[g])
    order = torch.tensor([2, 0, 3, 1])
    assert torch.equal(run(name, x, order), together[order])


@pytest.mark.parametrize(("name", "label"), [c for c in CASES if c[0] != "none"])
def test_seed_and_step_decide(name, label):
    x = examples(SHAPES[label])[:1].expand(2, -1, *SHAPES[label])
    apply, s = AUGMENTATIONS[name].apply, torch.tensor([2.0, 2.0])
    same = apply(x, torch.tensor([3, 3]), torch.tensor([5, 5]), s)
    assert torch.equal(same[0], same[1])
    for seeds, steps in (([3, 4], [5, 5]), ([3, 3], [5, 6])):
        other = apply(x, torch.tensor(seeds), torch.tensor(steps), s)
        assert not torch.equal(other[0], other[1])


def test_flip_is_torch_flip_on_the_chosen():
    x = examples(SHAPES["2-d"])
    out = run("flip", x)
    flipped = 0
    for g in range(G):
        chosen = uniform(int(SEEDS[g]), Stream.AUGMENT, int(STEPS[g]), B) < 0.5
        for b in range(B):
            assert torch.equal(out[g, b], torch.flip(x[g, b], [-1]) if chosen[b] else x[g, b])
        flipped += chosen.sum()
    assert 0.35 < flipped / (G * B) < 0.65


def moved(example, moves):
    """Return [C, ...] moved by whole pixels, one value at a time."""
    out = np.zeros_like(example)
    for place in np.ndindex(*example.shape[1:]):
        source = tuple(p - m for p, m in zip(place, moves, strict=True))
        if all(0 <= s < n for s, n in zip(source, example.shape[1:], strict=True)):
            out[(slice(None), *place)] = example[(slice(None), *source)]
    return out


@pytest.mark.parametrize("label", ["1-d", "2-d"])
def test_shift_is_the_numpy_reference(label):
    x = examples(SHAPES[label])
    axes = len(SHAPES[label]) - 1
    out = run("shift", x)
    seen = set()
    for g in range(G):
        words = random_bits(int(SEEDS[g]), Stream.AUGMENT, int(STEPS[g]), B * axes)
        most = int(STRENGTH[g])
        moves = [(2 * most + 1) * int(w) // 2**32 - most for w in words]
        for b in range(B):
            own = moves[b * axes : (b + 1) * axes]
            np.testing.assert_array_equal(out[g, b].numpy(), moved(x[g, b].numpy(), own))
        if g == 0:
            seen = set(moves)
    assert seen == {-1, 0, 1}
    assert torch.equal(out[2], x[2]), "strength 0 moves nothing"


def test_noise_has_the_documented_numbers():
    x = examples(SHAPES["1-d"])
    out = run("noise", x)
    for g in range(G):
        drawn = normal(int(SEEDS[g]), Stream.AUGMENT, int(STEPS[g]), x[g].numel())
        expected = x[g].numpy() + STRENGTH[g].item() * drawn.reshape(x[g].shape)
        np.testing.assert_allclose(out[g].numpy(), expected, rtol=1e-6, atol=1e-5)
    assert torch.equal(out[2], x[2]), "strength 0 adds nothing"


def test_augmentation_leaves_the_global_generator_alone():
    state = torch.get_rng_state()
    for name, label in CASES:
        run(name, examples(SHAPES[label]))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.compile
@pytest.mark.skipif(not COMPILER, reason="no C++ compiler")
@pytest.mark.parametrize(("name", "label"), [c for c in CASES if c[1] == "2-d"])
def test_augmentation_compiles_whole(name, label):
    x = examples(SHAPES[label])
    apply = torch.compile(AUGMENTATIONS[name].apply, fullgraph=True)
    out = apply(x, SEEDS, STEPS, STRENGTH)
    torch.testing.assert_close(out, run(name, x), rtol=1e-6, atol=1e-5)
    if name != "noise":
        assert torch.equal(out, run(name, x))
