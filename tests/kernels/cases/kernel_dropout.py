"""Dropout: the bits of plain torch, which are those of zoo.seeds."""

from __future__ import annotations

import pytest
import torch
from bounds import same_bits

from zoo.kernels.dropout import dropout, dropout_torch
from zoo.seeds import Stream, uniform

SHAPES = [(3, 2, 1, 10), (1, 1, 1, 1), (2, 5, 3, 7), (2, 3, 1, 1025)]


def of_models(G):
    seed = torch.tensor([0, 2**32 - 1, 12345])[:G]
    index = torch.tensor([7, 2**40 + 3, 0])[:G]
    return torch.tensor([0.0, 0.5, 0.3])[:G], seed, index


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_bits_are_those_of_the_reference(normal, shape):
    x = normal(*shape)
    found = dropout(x, *of_models(shape[0]))
    assert same_bits(found, dropout_torch(x, *of_models(shape[0])))


def test_mask_is_that_of_the_counter(normal):
    x = torch.ones(3, 1, 1, 4099)
    rate, seed, index = of_models(3)
    found = dropout(x, rate, seed, index)
    for g in range(3):
        u = uniform(int(seed[g]), Stream.DROPOUT, int(index[g]), 4099)
        assert torch.equal(found[g].flatten() > 0, torch.from_numpy(u >= float(rate[g])))
    assert 0.4 < (found[1] == 0).float().mean() < 0.6


def test_bfloat16_is_rounded_once(normal):
    x = normal(3, 4, 1, 33).bfloat16()
    found = dropout(x, *of_models(3))
    assert found.dtype == torch.bfloat16
    wanted = dropout_torch(x, *of_models(3))
    assert torch.equal(found == 0, wanted == 0)
    # The interpreter cuts digits off where a GPU rounds: one unit in the last place.
    assert ((found - wanted).abs() <= 2.0**-7 * wanted.abs()).all()


def test_a_model_does_not_depend_on_its_neighbours(normal):
    x = normal(3, 4, 1, 50)
    together = dropout(x, *of_models(3))
    for g in (2, 1):
        alone = [v[g : g + 1] for v in (x, *of_models(3))]
        assert same_bits(dropout(*alone), together[g : g + 1])


def test_broken_values_stay_where_they_are():
    x = torch.zeros(2, 1, 1, 8)
    x[0, 0, 0, :3] = torch.tensor([torch.inf, -torch.inf, torch.nan])
    found = dropout(x, torch.zeros(2), *of_models(2)[1:])
    assert same_bits(found[0, 0, 0, :2], x[0, 0, 0, :2])
    assert torch.isnan(found[0, 0, 0, 2])
    assert (found[1] == 0).all()
