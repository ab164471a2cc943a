"""Grids, colours and planes behind the phase pictures."""

from __future__ import annotations

import math

import numpy as np
import pytest

from zoo.phases import PHASES, UNDETERMINED
from zoo.report.cells import axis_order, cold_first, grids, titles
from zoo.report.colours import PHASE_STYLES, blend, ink_on
from zoo.report.metric_maps import MAPS, metric_figure
from zoo.report.phase_curves import path_plane
from zoo.report.phase_data import PhaseData
from zoo.report.phase_plot import phase_figure


def made_up(phases, *, rest="", boundary=0):
    """Return labelled cells on a 2 x 3 grid, temperature first."""
    n = len(phases)
    load, temperature = [str(2**i) for i in range(3)] * 2, ["8"] * 3 + ["16"] * 3
    number = np.linspace(0.1, 2, n)
    columns = {
        "cell": np.array([f"c{i}" for i in range(n)]), "phase": np.array(phases),
        "load": np.array(load), "temperature": np.array(temperature),
        "confidence": np.full(n, 1.0), "margin": np.full(n, 3.0),
        "boundary": np.arange(n) < boundary, "train_loss": number, "cka": np.full(n, np.nan),
        "mode_connectivity": number - 1, "members": np.full((n, 2), "x"),
    }  # fmt: skip
    axes = {"load": "width", "temperature": "batch_size"}
    return PhaseData("phases-v1", columns, {}, axes, tuple(grids(load, temperature, [rest] * n)))


def test_axes_are_ordered_by_value_and_words_come_last():
    assert axis_order(["128", "2", "16", "none", "0.5", "2"]) == ("0.5", "2", "16", "128", "none")
    assert not cold_first("batch_size")
    assert cold_first("lr")


def test_grids_find_cells_and_leave_holes():
    (one,) = grids(["2", "16", "2"], ["8", "8", "32"], [""] * 3)
    assert (one.load, one.temperature) == (("2", "16"), ("8", "32"))
    assert one.index.tolist() == [[0, 1], [2, -1]]
    found = one.take(np.array([1.0, 2.0, 3.0]))
    assert found[:1].tolist() == [[1.0, 2.0]]
    assert math.isnan(found[1, 1])
    rests = (
        "score = el2n, select = hardest, trim = 0.0",
        "score = none, select = None, trim = None",
        "score = el2n, select = easiest, trim = 0.0",
    )
    assert titles(rests) == {
        rests[0]: "score = el2n, select = hardest",
        rests[1]: "score = none",
        rests[2]: "score = el2n, select = easiest",
    }
    assert titles(["a, b", "a", ""]) == {"a, b": "a, b", "a": "a", "": ""}
    two = grids(["2", "2"], ["8", "8"], ["norm = batch", "norm = none"])
    assert [g.title for g in two] == ["norm = batch", "norm = none"]
    assert [g.index.tolist() for g in two] == [[[0]], [[1]]]


def test_every_phase_has_a_colour_of_its_own_that_text_stands_out_from():
    assert set(PHASE_STYLES) == {*PHASES, UNDETERMINED}
    colours = [s.colour for s in PHASE_STYLES.values()]
    rgb = np.array([[int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in colours])
    gaps = np.abs(rgb[:, None] - rgb[None]).max(-1) + 999 * np.eye(len(rgb))
    assert gaps.min() > 30
    grey = rgb @ [0.299, 0.587, 0.114]
    for colour, level in zip(colours, grey, strict=True):
        ink = int(ink_on(colour)[1:3], 16)
        assert abs(ink - level) > 70
    assert blend("#000000", "#ffffff", 0.5) == "#808080"
    assert blend("#123456", "#ffffff", 1.0) == "#123456"


def test_the_plane_of_paths_is_that_of_the_singular_values():
    rng = np.random.default_rng(0)
    paths = [rng.normal(size=(5, 40)).astype(np.float32) for _ in range(3)]
    paths[1][3:] = np.nan  # diverged
    plane, share = path_plane(paths)
    assert [p.shape for p in plane] == [(5, 2), (3, 2), (5, 2)]
    points = np.concatenate([paths[0], paths[1][:3], paths[2]]).astype(np.float64)
    u, s, _ = np.linalg.svd(points - points.mean(0), full_matrices=False)
    expected = u[:, :2] * s[:2]
    found = np.concatenate(plane)
    signs = np.sign((found * expected).sum(0))
    np.testing.assert_allclose(found, expected * signs, atol=1e-9)
    np.testing.assert_allclose(share, (s**2 / (s**2).sum())[:2])


def test_the_example_of_a_phase_lies_inside_its_region():
    data = made_up(["I", "I", "III", "I", "I", "III"])
    assert data.example_of("I") in (0, 3)
    assert data.example_of("II") is None
    data.columns["confidence"][:] = [0.5, 0.9, 1, 0.5, 0.5, 1]
    assert data.example_of("I") == 1


def pixels(figure):
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3].astype(int)


def share_of(image, colour):
    rgb = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
    return float((np.abs(image - rgb).max(-1) <= 2).mean())


def test_the_diagram_shows_the_phases_that_are_there():
    pytest.importorskip("matplotlib")
    image = pixels(phase_figure(made_up(["I", "II", "III", "IV-A", "IV-B", "X"]), "six"))
    for phase in PHASES:
        assert share_of(image, PHASE_STYLES[phase].colour) > 0.01, phase
    one = pixels(phase_figure(made_up(["I"] * 6, boundary=3), "one"))
    assert share_of(one, PHASE_STYLES["I"].colour) > 0.06
    assert share_of(one, PHASE_STYLES["II"].colour) < 0.0005
    # little confidence makes it pale
    data = made_up(["I"] * 6)
    data.columns["confidence"][:] = 0.0
    assert share_of(pixels(phase_figure(data, "pale")), PHASE_STYLES["I"].colour) < 0.01


def test_maps_are_drawn_for_numbers_that_are_known():
    pytest.importorskip("matplotlib")
    data = made_up(["I", "II", "III", "IV-A", "IV-B", "undetermined"])
    figure = metric_figure(data, data.grids[0])
    titles = {axes.get_title(loc="left") for axes in figure.axes if axes.get_visible()}
    shown = {m.title for m in MAPS if m.column in ("train_loss", "mode_connectivity", "confidence")}
    assert titles - {""} == shown
    for name in ("train_loss", "mode_connectivity", "confidence"):
        data.columns[name][:] = np.nan
    assert metric_figure(data, data.grids[0]) is None
