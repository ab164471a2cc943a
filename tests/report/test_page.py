"""The report page: nothing in it is a tag but what we write, and nothing is left out silently."""

from __future__ import annotations

from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pytest
from fabricated import make_store

from zoo.dataset import Zoo
from zoo.report.cells import grids
from zoo.report.figures import epoch_axis, epoch_ticks, new_figure
from zoo.report.markup import Html, element, join
from zoo.report.metric_maps import MAPS, metric_figure, shared_norm
from zoo.report.page import write_report
from zoo.report.page_html import Picture, page_of
from zoo.report.phase_curves import cell_title, curves_figure, paths_figure
from zoo.report.phase_data import PhaseData
from zoo.report.phase_plot import phase_figure
from zoo.report.surface_plot import CellSurfaces, surface_figure, surfaces_of

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=y>&lt; $\\frac$ \x00\x1b[31m \udcff"


def labelled(phases, *, rest=("",), members=None, hostile=False, axes=("width", "batch_size")):
    """Return labelled cells, one column of a diagram each, the rests in turn."""
    n = len(phases)
    load = [f"{HOSTILE}{i}" if hostile else str(2**i) for i in range(n)]
    rests = [rest[i % len(rest)] for i in range(n)]
    word = HOSTILE if hostile else "8"
    columns = {
        "cell": np.array([f"c{i}" for i in range(n)]), "phase": np.array(phases),
        "load": np.array(load), "temperature": np.array([word] * n), "rest": np.array(rests),
        "confidence": np.full(n, 1.0), "margin": np.full(n, 3.0), "boundary": np.zeros(n, bool),
        "train_loss": np.linspace(0.1, 2, n), "cka_cut": np.full(n, np.nan),
        "cka_cut_source": np.array([word] * n), "train_error": np.linspace(0, 20, n),
        "test_error": np.linspace(30, 90, n),
        "members": np.array(members if members is not None else [["x"]] * n),
    }  # fmt: skip
    facts = {
        "thresholds": {
            "setting": word, "hard_tests": [word, word], "cka": None, word: 1.0,
            "sources": {"hard_tests": word, word: word},
        },
        "confidence-from": word,
    }  # fmt: skip
    return PhaseData(
        word, columns, facts, dict(zip(("load", "temperature"), axes, strict=True)),
        tuple(grids(load, [word] * n, rests)),
    )  # fmt: skip


class Reader(HTMLParser):
    """Collects tags, attributes and text."""

    def __init__(self):
        super().__init__()
        self.tags, self.attributes, self.text = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]

    def handle_data(self, data):
        self.text.append(data)


def read(page):
    reader = Reader()
    reader.feed(page)
    return reader


class HostileZoo(SimpleNamespace):
    def __len__(self):
        return 1


def test_nothing_from_a_store_becomes_a_tag():
    zoo = HostileZoo(
        name=HOSTILE, plan=SimpleNamespace(data={HOSTILE: {}}), tables=(),
        status=lambda: {HOSTILE: 1},
    )  # fmt: skip
    data = labelled(["I", HOSTILE], rest=[HOSTILE, f"{HOSTILE} = {HOSTILE}"], hostile=True,
                    axes=(HOSTILE, HOSTILE))  # fmt: skip
    picture = Picture(HOSTILE, HOSTILE, HOSTILE, b"a", b"b")
    page = page_of(zoo, data, [picture], [HOSTILE])
    plain = page_of(
        HostileZoo(name="z", plan=SimpleNamespace(data={}), tables=(), status=dict),
        labelled(["I", "II"], rest=["a", "b"]), [Picture("p", "t", "c", b"a", b"b")], ["note"],
    )  # fmt: skip
    found, expected = read(page), read(plain)
    assert set(found.tags) == set(expected.tags)
    names = {(tag, name) for tag, name, _ in found.attributes}
    assert names == {(tag, name) for tag, name, _ in expected.attributes}
    for tag, name, value in found.attributes:
        assert name != "src" or value.startswith("data:image/png;base64,"), tag
        assert name != "style" or "<" not in value
    # in the page's name, title, heading, caption, axes, data, labels, states, cells, thresholds,
    # sources, notes: it is there, as text
    said = "".join(found.text)
    assert said.count("<script>alert(1)</script>") >= 20
    assert "\x1b" not in page
    assert "\x00" not in page
    page.encode()


def test_children_are_escaped_but_html():
    assert element("b", "<", 1, Html("<i>")) == "<b>&lt;1<i></b>"
    assert element("td", "x", class_='"a') == '<td class="&quot;a">x</td>'
    assert element("img", src="a&b") == '<img src="a&amp;b">'
    assert join("<", Html("<br>"), between=" < ") == "&lt; &lt; <br>"


def test_hostile_names_can_be_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    word = "$\\frac{$ <b> & $x$"
    data = labelled(["I", "X"], rest=[word, f"a = {word}"], axes=(word, word))
    for figure in (
        phase_figure(data, word), phase_figure(data, word, columns=1),
        metric_figure(data, data.grids[0]), metric_figure(data, data.grids[0], columns=1),
        surface_figure(data, [CellSurfaces("X", 1, None, None)]),
    ):  # fmt: skip
        figure.canvas.draw()


def figure_texts(figure):
    figure.canvas.draw()
    found = [t.get_text() for t in figure.texts]
    for axes in figure.axes:
        if axes.get_visible():
            found += [axes.get_title(loc="left"), *(t.get_text() for t in axes.texts)]
    return [" ".join(t.replace("\N{NO-BREAK SPACE}", " ").split()) for t in found]


def test_a_colour_of_a_map_means_the_same_in_every_diagram():
    pytest.importorskip("matplotlib")
    data = labelled(["I"] * 6, rest=["norm = batch", "norm = none"])
    by_title = {m.column: m for m in MAPS}
    limits = []
    for grid in data.grids:
        figure = metric_figure(data, grid)
        images = {a.get_title(loc="left"): a.images for a in figure.axes if a.images}
        limits.append({t: (i[0].norm.vmin, i[0].norm.vmax) for t, i in images.items()})
        assert figure.get_supxlabel() == "load: width  →"
        assert figure.get_supylabel() == "batch size: hotter  →"
    assert limits[0] == limits[1]
    errors = [limits[0][by_title[c].title] for c in ("train_error", "test_error")]
    assert errors == [(0.0, 90.0)] * 2
    loss = shared_norm(data, by_title["train_loss"])
    assert (loss.vmin, loss.vmax) == pytest.approx((0.1, 2.0))


@pytest.mark.parametrize(
    ("last", "ticks"),
    [
        (0.5, [0, 0.25, 0.5]),
        (1, [0, 1]),
        (3, [0, 1, 2]),
        (20, [0, 1, 2, 5, 10, 20]),
        (200, [0, 1, 2, 5, 10, 20, 50, 100, 200]),
        (2000, [0, 1, 10, 100, 1000]),
    ],
)
def test_epochs_have_whole_ticks(last, ticks):
    assert epoch_ticks(last) == ticks


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("last", [1, 2, 3, 7, 20, 60, 500])
def test_every_tick_of_an_axis_is_an_epoch(last, log):
    pytest.importorskip("matplotlib")
    axes = new_figure(4, 3).subplots()
    axes.plot([0, last], [0, 1])
    epoch_axis(axes, last, log=log)
    axes.figure.canvas.draw()
    low, high = axes.get_xlim()
    shown = [t for t in axes.get_xticks() if low <= t <= high]
    assert len(shown) >= 2
    assert all(t == int(t) for t in shown)
    assert [t.get_text() for t in axes.get_xticklabels() if low <= t.get_position()[0] <= high] == [
        f"{t:g}" for t in shown
    ]


def test_panels_say_which_cell():
    data = labelled(["I", "X", "I", "II"], rest=["norm = batch", "norm = none"])
    assert data.words(1) == "width 2, batch size 8, norm = none"
    title = cell_title(data, "X", 1).replace("\N{NO-BREAK SPACE}", " ")
    assert title == "X\nwidth 2, batch size 8,\nnorm = none"


def test_phase_x_has_a_surface_or_a_word_why_not():
    pytest.importorskip("matplotlib")
    zoo = Zoo(make_store())
    runs = zoo.runs(columns=["run_id", "status"])
    lost = [str(i) for i in runs["run_id"][runs["status"] == "diverged"]]
    assert lost
    data = labelled(["X"], members=[lost[:1]])
    (found,) = surfaces_of(zoo, data)
    assert (found.phase, found.around, found.through) == ("X", None, None)
    for columns in (1, 2):
        texts = figure_texts(surface_figure(data, [found], columns=columns))
        assert "X width 1, batch size 8" in texts
        assert any("all its models diverged" in t for t in texts)


def test_cells_that_no_diagram_shows_are_counted():
    data = labelled(["I"] * 4)
    assert data.hidden == 0
    same = grids(["1", "1", "2"], ["8"] * 3, [""] * 3)
    hidden = PhaseData("t", {"cell": np.array(["a", "b", "c"])}, {}, data.axes, tuple(same))
    assert hidden.hidden == 1


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Return the text of a page of a zoo in memory."""
    tmp_path = tmp_path_factory.mktemp("page")
    pytest.importorskip("matplotlib")
    zoo = Zoo(make_store(), path=tmp_path / "z.zarr")
    runs = zoo.runs(columns=["run_id", "status"])
    done = [str(i) for i in runs["run_id"][runs["status"] == "done"]]
    phases, rest = ["I", "undetermined", "II"], ["norm = batch", "norm = none"]
    data = labelled(phases, members=[[i] for i in done], rest=rest)
    page = tmp_path / "a.html"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("zoo.report.page.phase_data", lambda *_: data)
        files = write_report(zoo, page, surfaces=False)
    assert {p.name for p in files.pictures} == {
        "a-phases.png", "a-metrics-0.png", "a-metrics-1.png", "a-curves.png", "a-paths.png",
    }  # fmt: skip
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
        [page.name, *(p.name for p in files.pictures)]
    )
    return page.read_text()


def test_the_page_says_what_curves_pool_and_leave_out(written):
    text = "".join(read(written).text)
    assert "Pooled over" in text
    assert "1 undetermined cell is not in the curves" in text


def test_every_picture_has_a_form_for_narrow_screens(written):
    found = read(written)
    wide = [v for tag, name, v in found.attributes if (tag, name) == ("img", "src")]
    narrow = [v for tag, name, v in found.attributes if (tag, name) == ("source", "srcset")]
    assert len(wide) == len(narrow) == 5
    assert not set(wide) & set(narrow)
    media = {v for tag, name, v in found.attributes if (tag, name) == ("source", "media")}
    assert media == {"(max-width: 700px)"}
    # every table can scroll by itself, so that the page is never wider than the screen
    assert found.tags.count("table") == written.count('<div class="scroll"><table')


def test_narrow_pictures_are_narrow():
    pytest.importorskip("matplotlib")
    zoo = Zoo(make_store())
    done = [str(i) for i in zoo.query("status == 'done' and epoch == -1").column("run_id")]
    data = labelled(["I", "II", "III"], members=[[i] for i in done])
    for draw in (
        lambda n: phase_figure(data, "t", columns=n),
        lambda n: metric_figure(data, data.grids[0], columns=n),
        lambda n: curves_figure(zoo, data, columns=n),
        lambda n: paths_figure(zoo, data, columns=n),
    ):
        assert draw(1).get_figwidth() < 5 < draw(3).get_figwidth()
