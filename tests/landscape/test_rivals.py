"""Curvature beside curvlinops: the same products, eigenvalues and traces."""

from __future__ import annotations

import warnings

import cases
import numpy as np
import pytest
import torch
from scipy.sparse.linalg import eigsh
from test_hessian import block_of

from zoo.architectures import row_to_state_dict
from zoo.landscape.base import MODEL_METRICS
from zoo.landscape.curvature import curvature
from zoo.landscape.hessian import Hessian
from zoo.landscape.random import signs


@pytest.mark.parametrize(
    ("architecture", "norm"), [("mlp", "none"), ("mlp", "batch"), ("cnn", "batch")]
)
# no group norm: torch has no forward-mode rule for it, which curvlinops needs
def test_curvature_is_that_of_curvlinops(architecture, norm):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its dependencies' own, on import
        curvlinops = pytest.importorskip("curvlinops", reason="needs curvlinops-for-pytorch")
    network = cases.network_of(architecture=architecture, norm=norm, width=8)
    slab = cases.rows_of(network, 2)
    x, y = cases.examples_of(64)
    block = block_of(network, slab, cases.probe_of(network, x, y))
    found = curvature(block, MODEL_METRICS["curvature"].options)
    v = signs(torch.arange(2), "trace", 0, network.layout.trained)
    products = Hessian(network, slab, block.train).product(v)
    for g, row in enumerate(slab):
        module = network.module()
        module.load_state_dict(row_to_state_dict(network.layout, row.numpy()))
        named = dict(module.named_parameters())
        order = [s.name for s in network.layout.segments if s.name in named]
        with torch.enable_grad():
            theirs = curvlinops.HessianLinearOperator(
                module, torch.nn.CrossEntropyLoss(), [named[k] for k in order], [(x, y)]
            )
            expected = theirs @ v[g]
            error = (products[g] - expected).norm() / expected.norm()
            assert float(error) < 1e-5
            (top,) = eigsh(theirs.to_scipy(), k=1, which="LA", return_eigenvectors=False, tol=1e-6)
            trace = float(curvlinops.hutchpp_trace(theirs, 150))
        np.testing.assert_allclose(float(found["lambda_max"][g]), top, rtol=1e-4)
        scale = abs(trace) + float(found["lambda_max"][g])
        assert abs(float(found["hessian_trace"][g]) - trace) < (
            5 * float(found["hessian_trace_se"][g]) + 0.1 * scale
        )
