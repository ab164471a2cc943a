"""Symmetries of rows: nothing that claims to leave the function alone changes an output."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from zoo.architectures import ACTIVATIONS, ARCHITECTURES, NORMS, build, row_to_state_dict
from zoo.data import DataShape
from zoo.dataset.align import METHODS, AlignmentProbe, MidpointSearch, align_rows, unit_activations
from zoo.dataset.augment import (
    Canonical,
    FlipSigns,
    Mixup,
    Noise,
    Permute,
    Rescale,
    RowBatch,
    apply_transforms,
)
from zoo.dataset.canonical import canonical_rows, normal_form
from zoo.dataset.row_symmetry import permute_rows, random_orders, tensor_of
from zoo.dataset.structure import Structure
from zoo.errors import QueryError, SpecError
from zoo.registry import vocabulary
from zoo.spec.run import RunSpec

SHAPE, CLASSES, ROWS = (1, 8, 8), 10, 3


def cases():
    for architecture, activation, transform in itertools.product(
        ARCHITECTURES, ("relu", "tanh"), sorted(set(vocabulary("weight_transform")) - {"none"})
    ):
        spec = RunSpec(
            architecture=architecture, activation=activation, weight_transform=transform, width=8
        )
        yield pytest.param(spec, id=f"{architecture}-{activation}-{transform}")
    for architecture, activation, norm in itertools.product(ARCHITECTURES, ACTIVATIONS, NORMS):
        spec = RunSpec(architecture=architecture, activation=activation, norm=norm, width=8)
        try:
            build(spec, DataShape(SHAPE, CLASSES))
        except SpecError:  # a norm that cannot stand there
            continue
        yield pytest.param(spec, id=f"{architecture}-{activation}-{norm}")


CASES = list(cases())


def make_rows(spec, *, seed=0, count=ROWS):
    """Return the structure of a spec, its network and random rows with sound variances."""
    network = build(spec, DataShape(SHAPE, CLASSES))
    structure = Structure.of(spec, DataShape(SHAPE, CLASSES))
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(count, structure.params, generator=generator) * 0.3
    for s in structure.layout.segments:
        if s.name.endswith("running_var"):
            rows[:, s.offset : s.stop] = rows[:, s.offset : s.stop].abs() + 0.5
    return structure, network, rows


def outputs(network, structure, rows):
    """Return the logits of each row's plain module: not through any code of the rows' own.

    In float64: a norm of a group that hardly varies multiplies the rounding of float32 by hundreds,
    and by how much depends on the processor.
    """
    x = torch.randn(16, *SHAPE, generator=torch.Generator().manual_seed(9)).double()
    found = []
    for row in rows:
        module = network.module()
        module.load_state_dict(row_to_state_dict(structure.layout, row.numpy()))
        with torch.no_grad():
            found.append(module.double().eval()(x))
    return torch.stack(found)


def batch_of(structure, rows, *, epoch=0, targets=None):
    y = torch.arange(len(rows)).float() if targets is None else targets
    return RowBatch(rows, y, structure, 5, epoch, np.arange(len(rows)))


def assert_same_function(network, structure, before, after):
    ours, theirs = outputs(network, structure, after), outputs(network, structure, before)
    assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()


PRESERVING = {
    "permute": [Permute()],
    "rescale": [Rescale(3.0)],
    "signs": [FlipSigns()],
    "canonical": [Canonical()],
    "all": [Permute(), Rescale(), FlipSigns(), Permute()],
}


@pytest.mark.parametrize("spec", CASES)
def test_every_preserving_transform_leaves_outputs_alone(spec):
    structure, network, rows = make_rows(spec)
    for name, transforms in PRESERVING.items():
        after = apply_transforms(batch_of(structure, rows), transforms).rows
        assert_same_function(network, structure, rows, after)
        kinds = {s.kind for s in structure.units}
        moves = name in ("permute", "canonical", "all")
        moves |= (name, "scale") in {("rescale", k) for k in kinds}
        moves |= (name, "sign") in {("signs", k) for k in kinds}
        assert torch.equal(after, rows) != moves


@pytest.mark.parametrize("spec", CASES)
def test_canonical_rows_do_not_depend_on_the_representative(spec):
    structure, _, rows = make_rows(spec)
    other = apply_transforms(batch_of(structure, rows), PRESERVING["all"]).rows
    first, second = canonical_rows(rows, structure), canonical_rows(other, structure)
    torch.testing.assert_close(first, second, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(canonical_rows(first, structure), first, rtol=1e-5, atol=1e-6)
    assert (first - rows).norm() > 0.1 * rows.norm()


def test_normal_forms_are_what_they_say():
    structure, _, rows = make_rows(RunSpec(width=8, activation="relu"))
    form = normal_form(rows, structure)
    for layer in range(2):
        weight = tensor_of(form, structure.layout, f"hidden.{layer}.linear.weight")
        bias = tensor_of(form, structure.layout, f"hidden.{layer}.linear.bias")
        norms = torch.cat([weight, bias.unsqueeze(2)], 2).norm(dim=2)
        torch.testing.assert_close(norms, torch.ones_like(norms))
    structure, _, rows = make_rows(RunSpec(width=8, activation="tanh"))
    form = normal_form(rows, structure)
    weight = tensor_of(form, structure.layout, "hidden.0.linear.weight")
    bias = tensor_of(form, structure.layout, "hidden.0.linear.bias")
    assert (weight.pow(3).sum(2) + bias.pow(3) >= -1e-6).all()
    torch.testing.assert_close(form.abs(), rows.abs())


def test_a_dead_unit_keeps_its_function():
    structure, network, rows = make_rows(RunSpec(width=8, activation="relu"))
    tensor_of(rows, structure.layout, "hidden.0.linear.weight")[:, 2] = 0
    tensor_of(rows, structure.layout, "hidden.0.linear.bias")[:, 2] = 0
    assert_same_function(network, structure, rows, canonical_rows(rows, structure))


def test_orders_of_a_group_norm_keep_its_blocks():
    structure, _, _ = make_rows(RunSpec(width=12, norm="group", norm_groups=3))
    group = structure.groups[0]
    assert group.blocks == 3
    orders = random_orders(group, np.full(50, 7), np.arange(50)).numpy()
    assert (np.sort(orders, 1) == np.arange(12)).all()
    blocks = orders.reshape(50, 3, 4) // 4
    assert (blocks == blocks[:, :, :1]).all()
    assert len({tuple(o) for o in orders.tolist()}) == 50
    assert len({tuple(o) for o in blocks[:, :, 0].tolist()}) == 6


def test_drawings_depend_on_seed_epoch_and_row_alone():
    structure, _, rows = make_rows(RunSpec(width=8))
    everything = [Permute(), Rescale(), Noise(0.1)]
    whole = apply_transforms(batch_of(structure, rows), everything).rows
    again = RowBatch(rows[1:2], torch.zeros(1), structure, 5, 0, np.array([1]))
    assert torch.equal(apply_transforms(again, everything).rows[0], whole[1])
    for transform in (Permute(), Rescale(), Noise(0.1)):
        first = apply_transforms(batch_of(structure, rows), [transform]).rows
        second = apply_transforms(batch_of(structure, rows, epoch=1), [transform]).rows
        assert not torch.equal(first, second)
        twice = rows[:1].expand(3, -1).clone()
        moved = apply_transforms(batch_of(structure, twice), [transform]).rows
        assert not torch.equal(moved[0], moved[1])


def test_noise_is_relative_to_each_tensor_and_spares_buffers():
    spec = RunSpec(width=64, norm="batch")
    structure, _, rows = make_rows(spec)
    rows[:, : structure.layout.segments[0].stop] *= 100
    noise = apply_transforms(batch_of(structure, rows), [Noise(0.05)]).rows - rows
    for s in structure.layout.segments:
        part, own = noise[:, s.offset : s.stop], rows[:, s.offset : s.stop]
        if s.role == "buffer":
            assert not part.any()
        elif s.size > 1000:
            ratio = part.pow(2).mean().sqrt() / own.pow(2).mean().sqrt()
            assert 0.045 < ratio < 0.055


@pytest.mark.parametrize("align", ["canonical", "weights", "none"])
def test_mixup_of_one_function_in_many_disguises_is_that_function(align):
    """Only aligned mixing of permuted copies gives the model back."""
    structure, network, rows = make_rows(RunSpec(width=8, activation="gelu"), count=1)
    copies = rows.expand(6, -1).clone()
    disguised = apply_transforms(batch_of(structure, copies), [Permute()]).rows
    mixed = apply_transforms(batch_of(structure, disguised), [Mixup(1.0, align)])
    gap = (outputs(network, structure, mixed.rows) - outputs(network, structure, rows)).abs().max()
    assert (gap < 1e-4) == (align != "none")


def test_mixup_mixes_targets_with_the_same_share():
    structure, _, rows = make_rows(RunSpec(width=8), count=8)
    y = torch.arange(8).float()
    constant = torch.ones_like(rows) * y[:, None]
    mixed = apply_transforms(batch_of(structure, constant, targets=y), [Mixup(0.4, "none")])
    torch.testing.assert_close(mixed.rows[:, 0], mixed.targets)
    assert not torch.equal(mixed.targets, y)
    with pytest.raises(QueryError, match="classes cannot be mixed"):
        apply_transforms(batch_of(structure, rows, targets=torch.arange(8)), [Mixup()])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "spec",
    [
        RunSpec(width=8, activation="gelu"),
        RunSpec(width=8, norm="batch", activation="gelu"),  # no dead units
        RunSpec(width=8, norm="group", norm_groups=2, architecture="cnn", activation="tanh"),
    ],
    ids=["mlp", "mlp-batch", "cnn-group"],
)
def test_alignment_undoes_a_permutation(method, spec):
    structure, network, rows = make_rows(spec)
    permuted = apply_transforms(batch_of(structure, rows), [Permute()]).rows
    assert (permuted - rows).norm() > 0.5 * rows.norm()
    x = torch.randn(64, *SHAPE, generator=torch.Generator().manual_seed(1))
    for row, moved in zip(rows, permuted, strict=True):
        module = network.module()
        module.load_state_dict(row_to_state_dict(structure.layout, row.numpy()))
        labels = module.eval()(x).argmax(1)
        options = {"probe": AlignmentProbe(network, x, labels), "search": MidpointSearch(4)}
        found = align_rows(moved.unsqueeze(0), row, structure, method=method, **options)[0]
        torch.testing.assert_close(found, row, rtol=1e-5, atol=1e-5)


def test_alignment_never_changes_a_function_and_comes_nearer():
    structure, network, rows = make_rows(RunSpec(width=8), count=2)
    x = torch.randn(64, *SHAPE, generator=torch.Generator().manual_seed(1))
    labels = torch.arange(64) % CLASSES
    for method in METHODS:
        found = align_rows(
            rows[1:], rows[0], structure, method=method, probe=AlignmentProbe(network, x, labels)
        )
        assert_same_function(network, structure, rows[1:], found)
    near = align_rows(rows[1:], rows[0], structure)
    assert (near - rows[0]).norm() < (rows[1] - rows[0]).norm()
    with pytest.raises(QueryError, match="activations \\(with a probe"):
        align_rows(rows, rows[0], structure, method="activations")
    with pytest.raises(QueryError, match="allowed: weights"):
        align_rows(rows, rows[0], structure, method="weight")


def test_unit_activations_are_those_of_the_plain_module():
    spec = RunSpec(width=8, norm="layer")
    structure, network, rows = make_rows(spec)
    x = torch.randn(16, *SHAPE, generator=torch.Generator().manual_seed(9))
    module = network.module()
    module.load_state_dict(row_to_state_dict(structure.layout, rows[0].numpy()))
    seen = []
    for name in ("hidden.0.activation", "hidden.1.activation"):
        module.get_submodule(name).register_forward_hook(lambda m, i, o: seen.append(o))
    with torch.no_grad():
        module.eval()(x)
    for ours, theirs in zip(unit_activations(rows[0], network, x), seen, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_straight_through_finds_a_better_midpoint_than_the_identity():
    structure, network, rows = make_rows(RunSpec(width=16, activation="relu"), count=2)
    x = torch.randn(128, *SHAPE, generator=torch.Generator().manual_seed(3))
    labels = torch.arange(128) % CLASSES

    def midpoint_loss(row):
        middle = (0.5 * (rows[:1] + row)).reshape(1, -1)
        module = network.module()
        module.load_state_dict(row_to_state_dict(structure.layout, middle[0].numpy()))
        with torch.no_grad():
            return float(torch.nn.functional.cross_entropy(module.eval()(x), labels))

    options = {"probe": AlignmentProbe(network, x, labels), "search": MidpointSearch(40)}
    learnt = align_rows(rows[1:], rows[0], structure, method="straight_through", **options)
    matched = align_rows(rows[1:], rows[0], structure)
    assert midpoint_loss(learnt) <= midpoint_loss(matched)


def test_permutation_of_one_group_moves_exactly_its_axes():
    structure, _, rows = make_rows(RunSpec(width=8))
    group = structure.groups[0]
    order = torch.tensor([[1, 0, 2, 3, 4, 5, 6, 7]])
    moved = permute_rows(rows, structure, group, order)
    assert torch.equal(permute_rows(moved, structure, group, order), rows)
    first = tensor_of(rows, structure.layout, "hidden.0.linear.weight")
    torch.testing.assert_close(
        tensor_of(moved, structure.layout, "hidden.0.linear.weight"), first[:, order[0]]
    )
    rest = tensor_of(rows, structure.layout, "output.weight")
    assert torch.equal(tensor_of(moved, structure.layout, "output.weight"), rest)
