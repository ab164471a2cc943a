"""The recorded choice of the convolution's form, and the forms in the architecture's op."""

from __future__ import annotations

import pytest
import torch

from zoo.architectures.conv import Conv, Window
from zoo.architectures.op import Mode, Shape
from zoo.kernels.conv_forms import (
    FORMS,
    TABLE,
    UNMEASURED,
    ConvCase,
    Measured,
    best_form,
    recorded_form,
)

SMALL = {"device": "A", "dtype": "float32", "inputs": 3, "outputs": 16, "positions": 64, "batch": 8}
LARGE = {**SMALL, "inputs": 64, "outputs": 64, "positions": 1024}
ROWS = (
    Measured(**SMALL, seconds={"grouped": 2.0, "im2col": 1.0, "implicit": 3.0}),
    Measured(**LARGE, seconds={"grouped": 1.0, "im2col": 1.0, "implicit": 0.5}),
)


@pytest.mark.parametrize(
    ("change", "form"),
    [
        ({}, "im2col"),
        ({"inputs": 4, "batch": 16}, "im2col"),
        ({"inputs": 32, "outputs": 128, "positions": 900}, "implicit"),
        ({"device": "B"}, UNMEASURED),
        ({"dtype": "bfloat16", "inputs": 64, "positions": 1024}, UNMEASURED),
    ],
)
def test_the_nearest_recorded_shape_decides(change, form):
    assert best_form(ROWS, ConvCase(**{**SMALL, **change})) == form


def test_equal_times_go_to_the_first_form():
    row = Measured(**SMALL, seconds=dict.fromkeys(reversed(FORMS), 1.0))
    assert row.quickest == FORMS[0]


def test_the_recorded_table_is_whole():
    assert TABLE.is_file()
    for row in recorded_form():
        assert set(row.seconds) == set(FORMS)
        assert min(row.seconds.values()) > 0


@pytest.mark.parametrize("spatial", [(7,), (5, 6)], ids=str)
@pytest.mark.parametrize("stride", [1, 2])
def test_every_form_is_the_same_map(spatial, stride):
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    op = Conv("c", Shape(spatial, 3), 4, Window(stride))
    x = draw(2, 3, op.inputs.positions, 3)
    p = {op.key(q.suffix): draw(2, *q.shape) for q in op.params()}
    dy = draw(2, 3, op.out_shape().positions, 4)
    found = {}
    for form in FORMS:
        mode = Mode(training=True, dtype=torch.float64, conv=form)
        y, saved = op.forward(p, x, mode)
        dx, grads = op.backward(p, saved, dy, mode, need_dx=True)
        found[form] = (y, dx, *(grads[k].double() for k in sorted(grads)))
    for form in FORMS[1:]:
        for one, other in zip(found[FORMS[0]], found[form], strict=True):
            torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)
