"""No option is dead: changing any one of any metric, or of the probes, changes what is computed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from zoo.architectures import build, initial_row
from zoo.landscape import CELL_METRICS
from zoo.landscape.blocks import Models, Wanted, measure_models, measure_pairs
from zoo.landscape.probes import PROBE_SIZES
from zoo.seeds import Stream, normal
from zoo.spec import Sweep
from zoo.stages.landscape_settings import landscape_settings, metric_options
from zoo.train.planner import plan
from zoo.train.task_data import task_data

#: Metric → options under which each of the others counts; where none is given, the default does.
BASE = {
    "curvature": {"steps": 4, "more_steps": 7, "probes": 3, "more_probes": [5, 7], "error": 1e-6},
    "spectrum": {"nodes": 5, "vectors": 2},
    "sharpness": {"batch": 32, "average_draws": 2},
    "ntk": {"examples": 8},
    "connectivity": {
        "epochs": 2, "min_steps": 1, "max_steps": 100, "batch": 32, "points": 3, "statistics": 64,
        "least_lr": 0.001, "lr_share": 0.5,
    },
    "barrier": {"chord_points": 4, "statistics": 64},
}  # fmt: skip
#: Metric → another value of each of its options. An option that is not here fails the first test.
OTHER = {
    "behaviour": {"bins": 4},
    "curvature": {
        "steps": 12, "more_steps": 9, "residual": 1e6, "probes": 8, "more_probes": [5, 8],
        "error": 1e6,
    },
    "spectrum": {"nodes": 6, "vectors": 3},
    "sharpness": {
        "batch": 64, "sam_rho": 0.1, "asam_rho": 0.2, "average_rho": 0.1, "average_draws": 3,
    },
    "ntk": {"examples": 12},
    "connectivity": {
        "epochs": 3, "min_steps": 20, "max_steps": 4, "batch": 16, "momentum": 0.5,
        "least_lr": 0.9, "lr_share": 0.9, "points": 5, "statistics": 32,
    },
    "barrier": {"chord_points": 5, "statistics": 32},
}  # fmt: skip
SIZES = {"train": 64, "test": 64, "mixup": 64}
CASES = [(metric, option) for metric, options in OTHER.items() for option in options]


def test_every_option_of_every_metric_is_tried():
    known = {name: set(options) for name, options in metric_options().items() if options}
    assert known == {name: set(options) for name, options in OTHER.items()}


@pytest.fixture(scope="module")
def models():
    """Two models with batch norm some steps from their start, their data and their specs."""
    sweep = Sweep.from_dict(
        {
            "name": "options",
            # one noise_seed: members of a pair that share their examples
            "base": {
                "width": 4,
                "norm": "batch",
                "train_size": 128,
                "epochs": 1,
                "lr": 0.1,
                "noise_seed": 0,
            },
            "grid": {"seed": [0, 1]},
        }
    )
    planned = plan(sweep, backend="eager")
    (cohort,) = planned.cohorts
    network = build(cohort.runs[0], cohort.data_shape)
    data = task_data(planned, cohort, network, {}, torch.device("cpu"))
    rows = []
    for i, run in enumerate(cohort.runs):
        row = initial_row(network.layout, init=run.init, scale=1.0, seed=int(run.init_seed))
        rows.append(row + 0.1 * np.abs(normal(i, Stream.SAMPLE, 7, len(row)).astype(np.float32)))
    return network, data, list(cohort.runs), np.stack(rows).astype(np.float32)


def values(metric, models, changed, sizes=SIZES):
    """What a metric gives, by the way that ``zoo landscape --set`` takes."""
    network, data, runs, rows = models
    settings = landscape_settings([metric], options={metric: {**BASE.get(metric, {}), **changed}})
    wanted = Wanted(metric, settings["options"][metric], sizes)
    if metric in CELL_METRICS:
        return measure_pairs(wanted, Models(network, data, runs, rows), [(0, 1)])
    lr = np.full(len(runs), 0.1)
    return measure_models(wanted, Models(network, data, runs, rows), lr)


def same(a, b):
    return all(
        a[name].shape == b[name].shape and np.array_equal(a[name], b[name], equal_nan=True)
        for name in a
    )


@pytest.mark.parametrize(("metric", "option"), CASES)
def test_each_option_changes_what_is_computed(metric, option, models):
    base = values(metric, models, {})
    assert same(base, values(metric, models, {}))
    assert not same(base, values(metric, models, {option: OTHER[metric][option]}))


@pytest.mark.parametrize("size", PROBE_SIZES)
def test_each_size_of_a_probe_changes_what_is_computed(size, models):
    sizes = {**SIZES, size: 32}
    used = [
        not same(values(metric, models, {}), values(metric, models, {}, sizes))
        for metric in ("behaviour", "similarity")
    ]
    assert any(used)


def test_the_rate_of_a_curve_is_a_share_of_that_of_its_ends(models):
    """Rates of 0.1 at the ends: a share and a floor of one product train the same curve."""

    def curve(**changed):
        return values("connectivity", models, changed)

    assert same(curve(lr_share=3.0), curve(least_lr=0.3))
    assert same(curve(lr_share=3.0, least_lr=0.2), curve(least_lr=0.3))
    assert same(curve(), curve(least_lr=0.05, lr_share=0.0))
    assert not same(curve(lr_share=3.0), curve())
