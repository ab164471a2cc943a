"""Sharpness, noise, kernels, collapse, calibration and spectra against plain loops."""

from __future__ import annotations

import cases
import numpy as np
import pytest
import torch
from sklearn.metrics import brier_score_loss, log_loss
from test_hessian import block_of
from torch.func import functional_call

from zoo.architectures import row_to_state_dict, state_dict_to_row
from zoo.architectures.symmetry import apply_scaling, unit_symmetries
from zoo.landscape.base import MODEL_METRICS, applying
from zoo.landscape.behaviour import calibration_error
from zoo.landscape.collapse import collapse_measures
from zoo.landscape.ntk import kernel_alignment, tangent_kernel
from zoo.landscape.random import normals
from zoo.landscape.stacked import Probe, features
from zoo.objectives import OBJECTIVES

KINDS = cases.kinds()
SOME = [
    "mlp-none", "mlp-batch", "mlp-evonorm_s0", "mlp-standardize",
    "cnn-none", "cnn-group", "cnn-standardize",
]  # fmt: skip


def compute(name, block, **options):
    return MODEL_METRICS[name].compute(block, {**MODEL_METRICS[name].options, **options})


def world(name, *, models=2, examples=cases.EXAMPLES):
    network = cases.network_of(**KINDS[name])
    slab = cases.rows_of(network, models)
    x, y = cases.examples_of(examples)
    return network, slab, x, y, block_of(network, slab, cases.probe_of(network, x, y))


def near(found, expected, *, rel):
    assert float(found) == pytest.approx(float(expected), rel=rel, abs=1e-6)


def example_gradients(network, row, x, y):
    """Each example's gradient ``[n, D]``, one backward pass each."""
    rows = []
    with torch.enable_grad():
        for i in range(len(y)):
            loss, w = cases.plain_loss(network, row, x[i : i + 1], y[i : i + 1])
            w = w.detach().requires_grad_()
            rows.append(torch.autograd.grad(loss(w), w)[0])
    return torch.stack(rows)


@pytest.mark.parametrize("name", SOME)
def test_gradient_noise_against_a_loop(name):
    network, slab, x, y, block = world(name)
    found = compute("noise", block)
    n = len(y)
    for g, row in enumerate(slab):
        each = example_gradients(network, row, x, y)
        mean = each.mean(0)
        away = (each - mean).square().sum(1)
        trace = away.sum() / (n - 1)
        assert float(found["grad_noise_trace"][g]) == pytest.approx(float(trace), rel=1e-4)
        square = mean.square().sum() - trace / n
        assert float(found["grad_square"][g]) == pytest.approx(float(square), rel=1e-3, abs=1e-5)
        error = 2 * (each @ mean).std() / n**0.5
        assert float(found["grad_square_se"][g]) == pytest.approx(float(error), rel=1e-3)


@pytest.mark.parametrize("name", SOME)
def test_tangent_kernel_against_explicit_jacobians(name):
    network, slab, x, _, block = world(name, examples=8)
    kernel = tangent_kernel(network, slab, block.train)
    for g, row in enumerate(slab):
        module = network.module().double()
        layout = network.layout
        state = {k: v.double() for k, v in row_to_state_dict(layout, row.numpy()).items()}
        trained = [s.name for s in layout.segments if s.stop <= layout.trained]

        def run(*values, state=state, module=module, trained=trained):
            return functional_call(module, state | dict(zip(trained, values)), (x.double(),))  # noqa: B905

        parts = torch.autograd.functional.jacobian(run, tuple(state[k] for k in trained))
        jac = torch.cat([p.flatten(2) for p in parts], 2)
        expected = torch.einsum("icd,jcd->ij", jac, jac)
        torch.testing.assert_close(kernel[g], expected, rtol=1e-4, atol=1e-5 * expected.max())


def test_kernel_alignment_is_one_for_the_label_kernel():
    y = torch.tensor([[0, 1, 2, 0, 1, 2]])
    onehot = torch.nn.functional.one_hot(y, 3).double()
    kernel = onehot @ onehot.mT
    assert float(kernel_alignment(kernel, onehot)) == pytest.approx(1.0)
    assert float(kernel_alignment(3 * kernel + 5, onehot)) == pytest.approx(1.0)
    _, _, _, _, block = world("mlp-none")
    same = compute("ntk", block, examples=8)
    there = compute("ntk", cases_replace(block, initial=block.slab), examples=8)
    assert float(there["ntk_distance"].abs().max()) < 1e-12
    assert (same["ntk_distance"] > 1e-3).all()


def cases_replace(block, **changes):
    from dataclasses import replace

    return replace(block, **changes)


@pytest.mark.parametrize("name", ["mlp-batch", "cnn-group"])
def test_sharpness_against_a_loop(name):
    network, slab, x, y, block = world(name, examples=32)
    options = {"batch": 16, "sam_rho": 0.1, "asam_rho": 0.5, "average_rho": 0.1, "average_draws": 4}
    found = compute("sharpness", block, **options)
    D = network.layout.trained
    for g, row in enumerate(slab):
        sam, asam = [], []
        for part in (slice(0, 16), slice(16, 32)):
            loss, w = cases.plain_loss(network, row, x[part], y[part])
            with torch.enable_grad():
                at = w.detach().requires_grad_()
                (grad,) = torch.autograd.grad(loss(at), at)
            sam.append(loss(w + 0.1 * grad / grad.norm()) - loss(w))
            step = 0.5 * w.square() * grad / (w.abs() * grad).norm()
            asam.append(loss(w + step) - loss(w))
        for column, values in (("sam", sam), ("asam_worst", asam)):
            values = torch.stack(values)
            assert float(found[column][g]) == pytest.approx(
                float(values.mean()), rel=1e-3, abs=1e-6
            )
            error = values.std() / 2**0.5
            assert float(found[f"{column}_se"][g]) == pytest.approx(
                float(error), rel=1e-2, abs=1e-6
            )
        loss, w = cases.plain_loss(network, row, x, y)
        rises = []
        for draw in range(4):
            z = normals(block.seeds, "average", draw, D)[g].double()
            rises.append(loss(w + 0.1 * w.abs() * z) - loss(w))
        assert float(found["asam_average"][g]) == pytest.approx(
            float(torch.stack(rises).mean()), rel=1e-3, abs=1e-6
        )


def test_asam_does_not_see_a_rescaling_that_curvature_sees():
    network = cases.network_of(architecture="mlp", width=8)
    slab = cases.rows_of(network, 1)
    x, y = cases.examples_of(128)
    state = row_to_state_dict(network.layout, slab[0].numpy())
    factor = torch.full((8,), 5.0)
    moved = apply_scaling(state, unit_symmetries(network)[0], factor)
    both = torch.stack([slab[0], torch.from_numpy(state_dict_to_row(network.layout, moved))])
    block = block_of(network, both, cases.probe_of(network, x, y), seeds=torch.tensor([3, 3]))
    sharp, curved = compute("sharpness", block), compute("curvature", block)
    for name in ("asam_worst", "asam_average"):
        assert float(sharp[name][1]) == pytest.approx(float(sharp[name][0]), rel=1e-4)
    assert abs(float(sharp["sam"][1] / sharp["sam"][0]) - 1) > 0.1
    assert float(curved["lambda_max"][1]) > 1.5 * float(curved["lambda_max"][0])


def test_scores_against_scikit_learn():
    _, _, _, y, block = world("mlp-none", examples=200)
    found = compute("behaviour", block)
    _, _, z = features(block.network, block.slab, block.train.x)
    soft = torch.softmax(z.double(), -1).numpy()
    for g in range(2):
        p = soft[g] / soft[g].sum(1, keepdims=True)
        nll = log_loss(y.numpy(), p, labels=range(cases.CLASSES))
        assert float(found["probe_train_nll"][g]) == pytest.approx(nll, rel=1e-5)
        brier = sum(
            brier_score_loss((y.numpy() == c).astype(int), p[:, c]) for c in range(cases.CLASSES)
        )
        assert float(found["probe_train_brier"][g]) == pytest.approx(brier, rel=1e-5)
        wrong = 100 * (p.argmax(1) != y.numpy()).mean()
        assert float(found["probe_train_error"][g]) == pytest.approx(wrong)
        ece, confidence = 0.0, p.max(1)
        for b in range(15):
            inside = (confidence > b / 15) & (confidence <= (b + 1) / 15)
            if inside.any():
                gap = abs((p.argmax(1) == y.numpy())[inside].mean() - confidence[inside].mean())
                ece += inside.mean() * gap
        assert float(found["probe_train_ece"][g]) == pytest.approx(ece, rel=1e-5)
    assert (found["probe_train_ece_se"] > 0).all()


def test_a_confident_and_right_model_is_calibrated():
    one = torch.ones(1, 4, dtype=torch.float64)
    assert float(calibration_error(one, one, one / 4, 15)) == 0.0
    assert float(calibration_error(one, 0 * one, one / 4, 15)) == 1.0


def test_flags_of_dead_and_collapsed_models():
    network = cases.network_of(architecture="mlp", width=6, depth=1)
    slab = cases.rows_of(network, 3)
    x, y = cases.examples_of(50)
    views = network.views(slab)
    views["hidden.0.linear.bias"][1, :3] = -1e3  # three of six units never fire
    views["output.bias"][2, 0] = 1e4  # always class 0
    found = compute("behaviour", block_of(network, slab, cases.probe_of(network, x, y)))
    assert float(found["dead_units"][1]) == pytest.approx(0.5)
    assert found["collapsed"].tolist() == [0.0, 0.0, 1.0]
    assert found["finite"].tolist() == [1.0, 1.0, 1.0]


def test_perfect_collapse_is_zero_and_the_definitions_hold():
    """Class means on a simplex, no spread, head equal to the means: NC1 to NC4 are all zero."""
    C = 4
    simplex = torch.eye(C, dtype=torch.float64) - 1 / C
    labels = torch.arange(C).repeat(10)[None]
    h = simplex[labels[0]][None]
    z = h @ simplex.T
    there = torch.ones(1, 40, dtype=torch.bool)
    perfect = collapse_measures(h, z, labels, there, simplex[None])
    assert all(abs(float(v)) < 1e-9 for v in perfect.values())
    rng = np.random.default_rng(0)
    h = torch.from_numpy(rng.normal(size=(1, 40, 5))) + 2 * labels.unsqueeze(-1)
    W = torch.from_numpy(rng.normal(size=(1, C, 5)))
    found = collapse_measures(h, h @ W.mT, labels, there, W)
    a, b = h[0].numpy(), labels[0].numpy()
    means = np.stack([a[b == c].mean(0) for c in range(C)])
    M = means - a.mean(0)
    within = sum(np.outer(r - means[c], r - means[c]) for r, c in zip(a, b, strict=True)) / 40
    between = M.T @ M / C
    nc1 = np.trace(within @ np.linalg.pinv(between, rcond=1e-8)) / C
    assert float(found["nc1"]) == pytest.approx(nc1, rel=1e-6)
    lengths = np.linalg.norm(M, axis=1)
    assert float(found["nc2_norm"]) == pytest.approx(lengths.std() / lengths.mean())
    w, m = W[0].numpy(), M
    nc3 = np.linalg.norm(w / np.linalg.norm(w) - m / np.linalg.norm(m)) ** 2
    assert float(found["nc3"]) == pytest.approx(nc3)
    nearest = np.linalg.norm(a[:, None] - means, axis=2).argmin(1)
    assert float(found["nc4"]) == pytest.approx((nearest != (a @ w.T).argmax(1)).mean())


def test_a_missing_class_or_a_single_point_is_undefined():
    labels = torch.tensor([[0, 0, 1, 1]])
    there = torch.ones(1, 4, dtype=torch.bool)
    head = torch.ones(1, 3, 2, dtype=torch.float64)
    h = torch.rand(1, 4, 2, dtype=torch.float64)
    z = torch.rand(1, 4, 3, dtype=torch.float64)
    assert all(torch.isnan(v).all() for v in collapse_measures(h, z, labels, there, head).values())
    labels = torch.tensor([[0, 1, 0, 1]])
    point = collapse_measures(0 * h, z[:, :, :2], labels, there, head[:, :2])
    assert all(torch.isnan(v).all() for v in point.values())


def test_weight_spectra_are_the_singular_values():
    network, slab, _, _, block = world("cnn-none")
    found = compute("weights", block)
    kernels = [s for s in network.layout.segments if s.role == "kernel"]
    for i, s in enumerate(kernels):
        matrix = slab[1, s.offset : s.stop].view(s.shape[0], -1).numpy().astype(np.float64)
        values = np.linalg.svd(matrix, compute_uv=False)
        padded = found["singular_values"][1, i]
        np.testing.assert_allclose(padded[: len(values)], values, rtol=1e-6)
        assert torch.isnan(padded[len(values) :]).all()
        rank = (values**2).sum() / values[0] ** 2
        assert float(found["stable_rank"][1, i]) == pytest.approx(rank)


def test_probes_of_their_own_count_only_what_is_there():
    """A padded probe of a model's own gives what the short one gives."""
    network = cases.network_of(architecture="mlp", width=6)
    slab = cases.rows_of(network, 2)
    x, y = cases.examples_of(160)
    long, short = network.inputs(x), 130
    rows = torch.stack([long, long])
    weight = torch.zeros(2, 160)
    weight[0] = 1 / 160
    weight[1, :short] = 1 / short
    padded = Probe(rows, torch.stack([y, y]), weight, OBJECTIVES["cross_entropy"]("class"))
    whole = cases.probe_of(network, x, y)
    part = cases.probe_of(network, x[:short], y[:short])
    for name in MODEL_METRICS:
        both = compute(name, block_of(network, slab, padded))
        alone = compute(name, block_of(network, slab, whole))
        cut = compute(name, block_of(network, slab, part))
        for column in applying(MODEL_METRICS[name].columns, padded.objective):
            if "test" in column.name or column.name in ("slq_nodes", "slq_weights"):
                continue
            own = both[column.name]
            torch.testing.assert_close(
                own[0], alone[column.name][0], rtol=1e-4, atol=1e-5, equal_nan=True
            )
            if column.name.endswith("ece_se"):
                continue  # its parts are cut elsewhere
            torch.testing.assert_close(
                own[1], cut[column.name][1], rtol=1e-3, atol=1e-4, equal_nan=True
            )


def test_whether_neighbours_share_a_probe_does_not_matter():
    """One probe for all, or the same examples for each model: the same bits."""
    network = cases.network_of(architecture="cnn", norm="batch", width=8)
    slab = cases.rows_of(network, 3)
    x, y = cases.examples_of(128)
    shared = cases.probe_of(network, x, y)
    rows = shared.x.repeat(3, 1, 1, 1)
    own = Probe(rows, shared.y.repeat(3, 1), shared.weight.repeat(3, 1), shared.objective)
    for name in MODEL_METRICS:
        a = compute(name, block_of(network, slab, shared))
        b = compute(name, block_of(network, slab, own))
        for column in applying(MODEL_METRICS[name].columns, shared.objective):
            np.testing.assert_array_equal(a[column.name], b[column.name], err_msg=column.name)
