"""Pairs of models: CKA, divergences, curves, chords and weight matching."""

from __future__ import annotations

from dataclasses import replace

import cases
import numpy as np
import pytest
import torch
from scipy.spatial.distance import jensenshannon

from zoo.architectures import row_to_state_dict
from zoo.architectures.symmetry import permutation_groups, random_permutation
from zoo.landscape.batch_stats import with_fresh_statistics
from zoo.landscape.cells import CellBlock, all_pairs, pair_mean, ring_pairs
from zoo.landscape.connectivity import (
    CHORD_OPTIONS,
    CURVE_OPTIONS,
    PairData,
    along_chord,
    along_curve,
    barrier,
    bezier,
    mode_connectivity,
    train_bends,
)
from zoo.landscape.pairs import chords, curves, similarities
from zoo.landscape.random import uniforms
from zoo.landscape.similarity import cka, cosine_and_distance, disagreement, jensen_shannon
from zoo.landscape.stacked import mean_gradient
from zoo.landscape.weight_matching import match_rows, permute_row

FIRST, SECOND = torch.tensor([0, 0, 1]), torch.tensor([1, 2, 2])
QUICK = {
    **CHORD_OPTIONS,
    **CURVE_OPTIONS,
    "min_steps": 20,
    "max_steps": 60,
    "batch": 32,
    "statistics": 64,
}


def features_of(models=3, n=64, d=12, *, seed=0):
    rng = np.random.default_rng(seed)
    common = rng.normal(size=(n, d))
    own = rng.normal(size=(models, n, d))
    return torch.from_numpy((common + own).astype(np.float32))


# -- similarity ------------------------------------------------------------------------------


def test_cka_against_pytorch_cka():
    oracle = pytest.importorskip("cka", reason="needs pytorch-cka")
    x = features_of()
    found = cka(x, FIRST, SECOND)
    for value, a, b in zip(found, FIRST, SECOND, strict=True):
        expected = oracle.cka_from_features(x[a].double(), x[b].double())
        assert float(value) == pytest.approx(float(expected), abs=1e-5)
    wide = features_of(n=40, d=90)
    expected = oracle.cka_from_features(wide[0].double(), wide[1].double())
    assert float(cka(wide, FIRST, SECOND)[0]) == pytest.approx(float(expected), abs=1e-5)


def test_cka_is_symmetric_and_blind_to_what_it_should_be():
    x = features_of()
    base = cka(x, FIRST, SECOND)
    torch.testing.assert_close(cka(x, SECOND, FIRST), base)
    turn, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(12, 12)))
    moved = x.double().clone()
    moved[1] = 7 * moved[1] @ torch.from_numpy(turn) + 3
    torch.testing.assert_close(cka(moved, FIRST, SECOND), base, rtol=1e-5, atol=1e-7)
    assert float(cka(x, torch.tensor([1]), torch.tensor([1]))) == pytest.approx(1.0)


def test_cka_of_independent_features_is_zero_on_average():
    """The biased form would be 0.3 here."""
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.normal(size=(20, 96, 48)))
    first, second = zip(*all_pairs(20), strict=True)
    values = cka(x, torch.tensor(first), torch.tensor(second))
    assert abs(float(values.mean())) < 0.01
    assert (values < 0).any()


def test_constant_or_infinite_features_have_no_cka():
    x = features_of()
    x[1] = 0.25
    x[2, 0, 0] = torch.inf
    assert torch.isnan(cka(x, FIRST, SECOND)).all()


def test_divergence_and_disagreement_against_scipy():
    z = torch.from_numpy(np.random.default_rng(0).normal(size=(3, 50, 4)) * 2)
    p = torch.softmax(z, -1).numpy()
    js = jensen_shannon(torch.log_softmax(z, -1), FIRST, SECOND)
    different = disagreement(z.argmax(-1), FIRST, SECOND)
    for i, (a, b) in enumerate(zip(FIRST, SECOND, strict=True)):
        expected = np.mean([jensenshannon(u, v) ** 2 for u, v in zip(p[a], p[b], strict=True)])
        assert float(js[i]) == pytest.approx(expected, rel=1e-6)
        assert float(different[i]) == (p[a].argmax(1) != p[b].argmax(1)).mean()
    cosine, distance = cosine_and_distance(torch.tensor([[3.0, 4.0], [4.0, 3.0]]), *_one())
    assert float(cosine) == pytest.approx(0.96)
    assert float(distance) == pytest.approx(2**0.5)


def _one():
    return torch.tensor([0]), torch.tensor([1])


# -- paths -----------------------------------------------------------------------------------


def trained(*, norm="none", architecture="mlp", width=8, seeds=(0, 1), steps=300):
    """Models of two seeds, trained full-batch on blobs with label noise, and their data."""
    network = cases.network_of(architecture=architecture, norm=norm, width=width, depth=2)
    x, y = cases.examples_of(64)
    slab = torch.cat([cases.rows_of(network, 1, seed=s) for s in seeds])
    probe = cases.probe_of(network, x, y)
    D = network.layout.trained
    velocity = torch.zeros(len(seeds), D)
    for _ in range(steps):
        slab = with_fresh_statistics(network, slab, probe.x)
        velocity = 0.9 * velocity + mean_gradient(network, slab, probe)[1]
        slab[:, :D] -= 0.05 * velocity
    data = PairData(
        x=probe.x[0],
        targets=y[None],
        ids=torch.arange(64)[None],
        probe=probe,
        seeds=torch.tensor([5]),
        ends_lr=torch.tensor([0.5], dtype=torch.float64),  # a tenth of it on the curve
    )
    return network, with_fresh_statistics(network, slab, probe.x), data


def module_losses(network, row, data):
    module = network.module().double()
    module.load_state_dict(row_to_state_dict(network.layout, row.numpy()))
    x = data.probe.x[0].reshape(64, *cases.SHAPE) if network.flatten else None
    if x is None:
        x = data.probe.x[0].mT.reshape(64, *cases.SHAPE)
    z = module(x.double())
    y = data.probe.y[0]
    loss = torch.nn.functional.cross_entropy(z, y)
    return float(loss), 100 * float((z.argmax(1) != y).double().mean())


@pytest.mark.parametrize(
    ("architecture", "norm"), [("mlp", "none"), ("mlp", "batch"), ("cnn", "batch")]
)
def test_paths_against_a_loop_of_plain_modules(architecture, norm):
    network, slab, data = trained(architecture=architecture, norm=norm, steps=40)
    a, b = slab[:1], slab[1:]
    bend = slab.mean(0, keepdim=True) + 0.1
    paths = {
        "chord": (along_chord(network, a, b, data, QUICK), lambda t: torch.lerp(a, b, t)),
        "curve": (
            along_curve(network, a, bend, b, data, QUICK),
            lambda t: bezier(a, bend, b, torch.tensor([[t]])),
        ),
    }
    for found, point in paths.values():
        for i in range(0, len(found.t), 5):
            row = point(float(found.t[i]))
            if norm == "batch":
                row = module_statistics(network, row, data)
            loss, error = module_losses(network, row[0], data)
            assert float(found.loss[0, i]) == pytest.approx(loss, rel=1e-5, abs=1e-6)
            assert float(found.error[0, i]) == pytest.approx(error, abs=1e-4)


def module_statistics(network, row, data):
    """Statistics by forward hooks on the plain module, layer by layer."""
    module = network.module().double().eval()
    module.load_state_dict(row_to_state_dict(network.layout, row[0].numpy()))
    x = data.probe.x[0]
    x = (x if network.flatten else x.mT).reshape(64, *cases.SHAPE).double()

    def before(norm, inputs):
        dims = [d for d in range(inputs[0].dim()) if d != 1]
        norm.running_mean = inputs[0].mean(dims)
        norm.running_var = inputs[0].var(dims)

    for layer in module.modules():
        if isinstance(layer, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
            layer.register_forward_pre_hook(before)
    module(x)
    fresh = row.clone()
    for s in network.layout.segments:
        if "running" in s.name:
            fresh[0, s.offset : s.stop] = module.state_dict()[s.name].float()
    return fresh


def test_a_bend_is_what_plain_autograd_finds():
    network, slab, data = trained(steps=60)
    a, b = slab[:1], slab[1:]
    options = {**QUICK, "min_steps": 12, "max_steps": 12}
    found = train_bends(network, a, b, data, options)
    bend = torch.lerp(a, b, 0.5)[0].clone()
    with torch.enable_grad():
        bend.requires_grad_()
        optimizer = torch.optim.SGD([bend], lr=0.05, momentum=0.9)
        for step in range(12):
            done = step / 12
            share = 1.0 if done <= 0.5 else 0.01 if done >= 0.9 else 1 - 0.99 * (done - 0.5) / 0.4
            optimizer.param_groups[0]["lr"] = 0.05 * share
            t = float(uniforms(data.seeds, "curve", 2 * step, 1))
            x, y, _ = data.batch(step, 32)
            w = (1 - t) ** 2 * a[0] + 2 * t * (1 - t) * bend + t**2 * b[0]
            state = {s.name: w[s.offset : s.stop].view(s.shape) for s in network.layout.segments}
            z = torch.func.functional_call(
                network.module(), state, (x[0].reshape(-1, *cases.SHAPE),)
            )
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(z, y[0]).backward()
            optimizer.step()
    torch.testing.assert_close(found[0], bend.detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("norm", ["none", "batch", "group"])
def test_a_planted_barrier_is_found_and_matching_removes_it(norm):
    """A permuted copy of a model: the chord has a barrier, and after matching exactly none."""
    network, slab, data = trained(norm=norm, width=16, seeds=(3,))
    groups = permutation_groups(network)
    orders = [random_permutation(g, 8 + i) for i, g in enumerate(groups)]
    copy = permute_row(network.layout, groups, slab[0].numpy(), orders)
    other = torch.from_numpy(copy)[None]
    raw = along_chord(network, slab, other, data, QUICK)
    assert float(raw.loss[0, 0]) == pytest.approx(float(raw.loss[0, -1]), rel=1e-4)
    assert float(barrier(raw.loss, raw.t)) > 0.1
    assert float(mode_connectivity(raw.error)) < -3
    back = match_rows(network.layout, groups, slab.numpy(), copy[None])
    matched = along_chord(network, slab, torch.from_numpy(back), data, QUICK)
    assert float(barrier(matched.loss, matched.t)) == 0.0
    assert float(mode_connectivity(matched.error)) == 0.0
    # every point of the matched chord is the model itself
    assert (matched.loss == matched.loss[:, :1]).all()


def test_a_curve_goes_around_a_barrier():
    network, slab, data = trained(width=16)
    a, b = slab[:1], slab[1:]
    chord = along_chord(network, a, b, data, QUICK)
    bend = train_bends(network, a, b, data, {**QUICK, "min_steps": 300, "max_steps": 300})
    curve = along_curve(network, a, bend, b, data, QUICK)
    assert float(barrier(chord.loss, chord.t)) > 0.2
    assert float(curve.loss.max()) < 0.6 * float(chord.loss.max())
    torch.testing.assert_close(curve.loss[:, [0, -1]], chord.loss[:, [0, -1]])


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1.0, 5.0, 3.0], -3.0),  # a barrier: negative
        ([4.0, 1.0, 6.0], 4.0),  # better than its ends: positive
        ([2.0, 2.0, 2.0], 0.0),
        ([0.0, 1.0, 4.0], 2.0),  # unequal ends stand away from their own mean
    ],
)
def test_the_sign_of_mode_connectivity(values, expected):
    assert float(mode_connectivity(torch.tensor([values]))) == expected


def test_a_barrier_is_above_the_chord_of_the_ends():
    t = torch.linspace(0, 1, 5)
    values = torch.tensor([[0.0, 1.0, 5.0, 3.0, 4.0], [4.0, 3.0, 1.0, 0.5, 0.0]])
    found = barrier(values, t)
    assert found.tolist() == [3.0, 0.0]


# -- blocks of cells -------------------------------------------------------------------------


def cell_block(network, slab, data, pairs, *, fine=None, group=4):
    def pair_data(chosen):
        return replace(
            data,
            seeds=torch.tensor([100 * pairs[q][0] + pairs[q][1] for q in chosen]),
            ends_lr=torch.full((len(chosen),), 0.5, dtype=torch.float64),
        )

    return CellBlock(
        network=network,
        slab=slab,
        fine=torch.ones(len(slab), dtype=torch.bool) if fine is None else fine,
        first=torch.tensor([a for a, _ in pairs]),
        second=torch.tensor([b for _, b in pairs]),
        mixup=data.probe.x,
        test=data.probe,
        pair_data=pair_data,
        group=group,
    )


def test_pairs_do_not_see_each_other_and_bad_models_spoil_their_own():
    network, slab, data = trained(norm="batch", seeds=(0, 1, 2, 3), steps=60)
    pairs = [(0, 1), (1, 2), (2, 3), (0, 3)]
    wild = slab.clone()
    wild[3] = 1e30
    fine = torch.tensor([True, True, True, False])
    for compute in (curves, chords, similarities):
        base = compute(cell_block(network, slab, data, pairs), QUICK)
        order = [2, 1, 3, 0]
        moved = compute(
            cell_block(network, wild, data, [pairs[i] for i in order], fine=fine), QUICK
        )
        for name, values in base.items():
            np.testing.assert_array_equal(moved[name][1], values[1], err_msg=name)
            np.testing.assert_array_equal(moved[name][3], values[0], err_msg=name)
            assert torch.isnan(moved[name][[0, 2]]).all(), name


def test_rings_and_means_over_pairs():
    assert ring_pairs(1) == []
    assert ring_pairs(2) == [(0, 1)]
    assert ring_pairs(5) == [(0, 1), (0, 4), (1, 2), (2, 3), (3, 4)]
    first, second = (np.array(side) for side in zip(*all_pairs(4), strict=True))
    effect = np.array([0.0, 1.0, 2.0, 5.0])
    values = effect[first] + effect[second]  # a pair is the sum of its members' own values
    mean, error, count = pair_mean(values, first, second)
    assert (mean, count) == (4.0, 6)
    # the mean over pairs is 2 × the mean over members, and so is its error
    assert error == pytest.approx(2 * effect.std(ddof=1) / 2)
    assert np.isnan(pair_mean(values[:1], first[:1], second[:1])[1])
    assert np.isnan(pair_mean(np.array([np.nan]), first[:1], second[:1])[0])
