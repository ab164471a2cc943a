"""What the accuracy picture shows, and that it can be drawn for odd zoos."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from fabricated import MemoryCohort, MemoryStore, make_cohort, make_plan, make_store

from zoo.dataset import Zoo
from zoo.errors import QueryError
from zoo.report import accuracy_plot
from zoo.report.grid import choose_axes, learning_curves, make_axis, panels
from zoo.spec.run import RunSpec


def small_zoo(*, axes=None, norms=("none", "batch"), widths=(4, 8), batches=(4, 8), lrs=(0.1,)):
    """Return a zoo of two seeds per cell; accuracy = width / 10 + 0.001 checkpoint."""
    rng = np.random.default_rng(0)
    cohorts = []
    for norm in norms:
        for width in widths:
            specs = [
                RunSpec(width=width, norm=norm, batch_size=b, lr=lr, epochs=3, seed=s)
                for b in batches
                for lr in lrs
                for s in range(2)
            ]
            cohort = make_cohort(specs)
            accuracy = width / 10 + 0.001 * np.arange(cohort.checkpoints)[None]
            recorded = np.ones((cohort.models, cohort.checkpoints), bool)
            if (norm, width) == ("none", 8):
                recorded[0, 2:] = False  # batch size 4, seed 0 diverges
                recorded[2:4, 1:] = False  # batch size 8: both diverge
            cohorts.append(MemoryCohort(cohort, recorded, rng, accuracy=accuracy))
    return Zoo(MemoryStore(make_plan(tuple(c.cohort for c in cohorts), axes=axes), cohorts))


AXES = {"load": "width", "temperature": "batch_size"}


def test_panels_hold_the_mean_of_healthy_runs_and_count_the_diverged():
    x, y, maps = panels(small_zoo(), "width", "batch_size", ("norm",))
    assert (x.labels, y.labels) == (("4", "8"), ("4", "8"))
    batch, none = maps
    assert (batch.title, none.title) == ("norm = batch", "norm = none")
    np.testing.assert_allclose(batch.mean, [[0.403, 0.803], [0.403, 0.803]], rtol=1e-6)
    np.testing.assert_allclose(none.mean, [[0.403, 0.803], [0.403, np.nan]], rtol=1e-6)
    assert batch.n.tolist() == [[2, 2], [2, 2]]
    assert none.n.tolist() == [[2, 1], [2, 0]]
    assert none.diverged.tolist() == [[0, 1], [0, 2]]
    assert not batch.diverged.any()


def test_curves_are_mean_and_quantiles_by_epoch():
    zoo = small_zoo()
    curves = learning_curves(zoo.query(), make_axis("width", np.array([4, 8])))
    assert [c.label for c in curves] == ["4", "8"]
    np.testing.assert_allclose(curves[0].epoch, [0, 1, 2, 3])
    np.testing.assert_allclose(curves[0].mean, 0.4 + 0.001 * np.arange(4), rtol=1e-6)
    view = zoo.query(norm="none", epoch=0)
    view.zoo.source.cohorts[1]._metrics["test_accuracy"][:, 0] = [0.0, 0.2, 0.4, 1.0]
    zoo.refresh()
    start = learning_curves(zoo.query(norm="none", width=8), make_axis("width", np.array([8])))[0]
    want = np.array([0.0, 0.2, 0.4, 1.0], np.float32).astype(float)
    assert start.mean[0] == pytest.approx(0.4)
    assert [start.low[0], start.high[0]] == pytest.approx(np.quantile(want, [0.1, 0.9]).tolist())


def test_axes_come_from_the_sweep_or_from_what_varies():
    assert choose_axes(small_zoo(axes=AXES)) == ("width", "batch_size", ("norm",))
    assert choose_axes(small_zoo(norms=("none",))) == ("width", "batch_size", ())
    assert choose_axes(small_zoo(axes=AXES), load="lr") == ("lr", "batch_size", ("norm", "width"))
    narrow = small_zoo(lrs=(0.1, 0.2), batches=(4,))
    assert choose_axes(narrow) == ("width", "lr", ("norm",))
    more = small_zoo(axes=AXES, norms=("none",), lrs=(0.1, 0.2))
    assert choose_axes(more) == ("width", "batch_size", ("lr",))
    assert choose_axes(more, panel="norm") == ("width", "batch_size", ("norm",))


def test_an_axis_of_many_values_is_binned_evenly():
    values = np.random.default_rng(0).uniform(0.001, 1, 240)
    axis = make_axis("lr", values)
    assert len(axis) == 12
    assert np.bincount(axis.codes(values)).tolist() == [20] * 12
    few = make_axis("norm", np.array(["b", "a", "b"]))
    assert few.labels == ("a", "b")
    assert few.codes(np.array(["b", "a"])).tolist() == [1, 0]


def read_png(path):
    matplotlib_image = pytest.importorskip("matplotlib.image")
    return matplotlib_image.imread(path)


@pytest.mark.parametrize(
    "zoo",
    [
        pytest.param(small_zoo(axes=AXES), id="four cells, two norms"),
        pytest.param(small_zoo(norms=("batch",), widths=(4,), batches=(4,)), id="one cell"),
        pytest.param(Zoo(make_store(3)), id="gaps"),
        pytest.param(
            small_zoo(lrs=tuple(np.linspace(0.1, 1, 30)), batches=(4,), norms=("batch",)),
            id="binned axis",
        ),
        pytest.param(
            small_zoo(norms=("none", "batch", "layer", "rms"), axes=AXES), id="two lines of panels"
        ),
    ],
)
def test_the_picture_is_drawn(zoo, tmp_path):
    image = read_png(accuracy_plot(zoo, tmp_path / "a.png"))
    assert image.shape[0] > 500
    assert image.shape[1] > 1000
    assert len(np.unique(image.reshape(-1, image.shape[2]), axis=0)) > 50


def test_the_picture_of_a_zoo_with_nothing_recorded(tmp_path):
    store = make_store(0)
    for source in store.cohorts:
        source.recorded[:] = False
        source.status = np.full(source.cohort.models, "planned")
    assert accuracy_plot(Zoo(store), tmp_path / "empty.png").stat().st_size > 0


def test_pyplot_and_its_global_state_are_not_used(tmp_path):
    sys.modules.pop("matplotlib.pyplot", None)
    accuracy_plot(small_zoo(), tmp_path / "a.png")
    assert "matplotlib.pyplot" not in sys.modules


def test_plot_errors(tmp_path, monkeypatch):
    zoo = small_zoo()
    with pytest.raises(QueryError, match=r"allowed: .*test_accuracy"):
        accuracy_plot(zoo, tmp_path / "a.png", value="width")
    with pytest.raises(QueryError, match="did you mean 'width'"):
        accuracy_plot(zoo, tmp_path / "a.png", load="widht")
    with pytest.raises(QueryError, match="one row per run"):
        accuracy_plot(zoo, tmp_path / "a.png", load="epoch")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"phasezoo\[plot\]"):
        accuracy_plot(zoo, tmp_path / "a.png")
