"""Gathered batches: the bits of indexing, normalising and zoo.data.augment."""

from __future__ import annotations

import pytest
import torch
from bounds import same_bits

from zoo.kernels.gather import Draw, Reading, gather, gather_torch

SHAPES = [(5,), (3, 7), (1, 4, 6), (3, 5, 5), (1, 1, 1), (2, 33, 40)]


def batch(random, shape, *, G=2, B=3, N=11, bytes_=False):
    if bytes_:
        x = torch.randint(0, 256, (N, *shape), generator=random, dtype=torch.uint8)
    else:
        x = torch.randn(N, *shape, generator=random)
    labels = torch.randint(0, 10, (G, N), generator=random)
    return x, labels, torch.randint(0, N, (G, B), generator=random)


def drawn(name, G=2, strength=2.0):
    seed = torch.tensor([3, 2**32 - 1, 9])[:G]
    step = torch.tensor([0, 2**33 + 5, 70])[:G]
    return Draw(name, seed, step, torch.tensor([strength, 1.0, 0.0])[:G])


def agree(*arguments, **more):
    found, labels = gather(*arguments, Reading(**more))
    wanted, wanted_labels = gather_torch(*arguments, Reading(**more))
    assert found.shape == wanted.shape
    assert torch.equal(labels, wanted_labels)
    assert torch.equal(found, wanted)
    assert found.dtype == wanted.dtype
    return found


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("flatten", [True, False])
def test_gathers(random, shape, flatten):
    if len(shape) == 1 and not flatten:
        shape = (5, 1)
    agree(*batch(random, shape), flatten=flatten)


@pytest.mark.parametrize("shape", [(3, 7), (2, 5, 6)], ids=str)
def test_bytes_are_normalised_with_the_bits_of_division(random, shape):
    mean, scale = torch.rand(shape[0], generator=random) * 100, torch.tensor([3.0, 7.0, 0.1])
    x, labels, ids = batch(random, shape, bytes_=True)
    found = agree(x, labels, ids, mean=mean, scale=scale[: shape[0]], flatten=False)
    assert found.abs().max() > 1


@pytest.mark.parametrize("name", ["flip", "shift"])
@pytest.mark.parametrize("flatten", [True, False])
def test_moves_with_the_random_numbers_of_the_reference(random, name, flatten):
    data = batch(random, (2, 5, 6), B=9)
    found = agree(*data, draw=drawn(name), flatten=flatten)
    assert not torch.equal(found, gather(*data, Reading(flatten))[0])


def test_moves_along_one_axis_and_out_of_the_picture(random):
    found = agree(*batch(random, (2, 4), B=20), draw=drawn("shift", strength=6.0), flatten=False)
    assert (found[0] == 0).flatten(1).all(1).any()


def test_zeros_come_in_after_normalisation(random):
    x, labels, ids = batch(random, (1, 6, 6), B=8, bytes_=True)
    more = {"mean": torch.tensor([77.0]), "scale": torch.tensor([9.0])}
    agree(x, labels, ids, draw=drawn("shift"), flatten=True, **more)


def test_a_model_does_not_depend_on_its_neighbours(random):
    x, labels, ids = batch(random, (2, 5, 6), G=3, B=5)
    draw = drawn("shift", 3)
    together = gather(x, labels, ids, Reading(flatten=False, draw=draw))[0]
    for g in (2, 1):
        own = Draw("shift", *(v[g : g + 1] for v in (draw.seed, draw.step, draw.strength)))
        alone = gather(x, labels[g : g + 1], ids[g : g + 1], Reading(flatten=False, draw=own))[0]
        assert same_bits(alone, together[g : g + 1])


def test_bfloat16_and_broken_values(random):
    x, labels, ids = batch(random, (4, 1))
    x[ids[0, 0], 0] = torch.nan
    found = gather(x, labels, ids, Reading(flatten=True))[0]
    assert torch.isnan(found[0, 0, 0, 0])
    assert torch.isfinite(found[0, 0, 0, 1:]).all()
    half = gather(x, labels, ids, Reading(flatten=True, dtype=torch.bfloat16))[0]
    assert half.dtype == torch.bfloat16
    good = torch.isfinite(found)
    assert ((half.float() - found).abs() <= 2.0**-7 * found.abs())[good].all()
