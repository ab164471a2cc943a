"""From the sweep to the page: a thinned phases_digits shows every phase where it belongs."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import tomli_w

import zoo
from zoo.cli import main
from zoo.phases import PHASES, read_labels
from zoo.report.surface import loss_around, loss_through

pytest.importorskip("matplotlib")

SWEEP = Path(__file__).parents[2] / "sweeps" / "phases_digits.toml"
WIDTHS, BATCHES = [4, 8, 12, 16, 64, 128], [4, 8, 16, 32, 64]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """The recipe of phases_digits on fewer widths and batch sizes, measured and labelled."""
    folder = tmp_path_factory.mktemp("phases")
    raw = tomllib.loads(SWEEP.read_text())
    assert set(WIDTHS) <= set(raw["grid"]["width"])
    assert set(BATCHES) <= set(raw["grid"]["batch_size"])
    raw["grid"] |= {"width": WIDTHS, "batch_size": BATCHES}
    (folder / "thin.toml").write_text(tomli_w.dumps(raw))
    path = str(folder / "thin.zarr")
    metrics = "behaviour,connectivity,similarity"
    assert main(["run", str(folder / "thin.toml"), "--out", path, "--workers", "0", "-q"]) == 0
    assert main(["landscape", path, "--metrics", metrics, "--workers", "0", "-q"]) == 0
    assert main(["label", path]) == 0
    return path


def mean_log(columns: Mapping, phase, axis):
    """Return the mean logarithm of an axis over the cells of a phase."""
    here = columns["phase"] == phase
    return float(np.log(columns[axis][here].astype(float)).mean())


@pytest.mark.slow
def test_every_phase_is_there_in_the_published_arrangement(store):
    columns, facts = read_labels(store)
    assert set(columns["phase"]) >= set(PHASES), dict(
        zip(*np.unique(columns["phase"], return_counts=True), strict=True)
    )
    assert facts["confidence-from"] == "seeds"
    load = {p: mean_log(columns, p, "load") for p in PHASES}
    batch = {p: mean_log(columns, p, "temperature") for p in PHASES}
    # from narrow to wide: unfinished, III, IV-A, IV-B; hotter than these II, and hottest X
    assert load["I"] < load["IV-A"] < load["IV-B"]
    assert load["III"] < load["IV-B"]
    assert batch["X"] < batch["II"] < min(batch[p] for p in ("III", "IV-A", "IV-B"))
    easy = np.isin(columns["phase"], ["IV-A", "IV-B"])
    assert (columns["mode_connectivity"][easy] >= -1.5).all()


@pytest.mark.slow
def test_the_surfaces_go_through_the_models(store):
    columns, _ = read_labels(store)
    n = columns["phase"].tolist().index("IV-B")
    ids = [str(i) for i in columns["members"][n][:3]]
    z = zoo.open(store)
    recorded = {r["run_id"]: r["train_loss"] for r in z.query("epoch == -1", run_id=ids)}
    # 1000 training examples: all of them are asked for, so the loss is the recorded one
    around = loss_around(z, ids[0], points=3, examples=1000)
    assert around.loss[1, 1] == pytest.approx(recorded[ids[0]], rel=1e-3)
    assert around.loss.min() == around.loss[1, 1]
    plane = loss_through(z, ids, points=41, examples=1000)
    steps = plane.x[1] - plane.x[0]
    for run_id, (x, y) in zip(ids, plane.models, strict=True):
        near = plane.loss[np.abs(plane.y - y).argmin(), np.abs(plane.x - x).argmin()]
        assert near < 10 * recorded[run_id] + 0.01, steps
    middle = plane.models.mean(0)
    at = plane.loss[np.abs(plane.y - middle[1]).argmin(), np.abs(plane.x - middle[0]).argmin()]
    assert at > 0.1
    with pytest.raises(zoo.errors.QueryError, match="three runs"):
        loss_through(z, ids[:2])


@pytest.mark.slow
def test_the_page_is_whole_and_shows_every_phase(store, tmp_path, capsys):
    page = tmp_path / "out.html"
    assert main(["report", store, "--by", "width", "--html", str(page)]) == 0
    out = capsys.readouterr().out
    assert "test_accuracy of each run's last checkpoint" in out
    text = page.read_text()
    sources = re.findall(r'src="([^"]{0,40})', text)
    assert len(sources) == 5
    assert all(s.startswith("data:image/png;base64,") for s in sources)
    assert not re.search(r'(href|src)="(?!data:)|@import|url\(|<script', text)
    for phase in PHASES:
        assert f"<b>{phase}</b>" in text
    names = ("phases", "metrics", "curves", "paths", "surfaces")
    image = pytest.importorskip("matplotlib.image")
    for name in names:
        pixels = image.imread(tmp_path / f"out-{name}.png")
        assert min(pixels.shape[:2]) > 300
    # the diagram has the colour of each phase, somewhere at full strength or blended
    pixels = (image.imread(tmp_path / "out-phases.png")[..., :3] * 255).round().astype(int)
    assert (np.abs(pixels - np.array([0x54, 0x56, 0x5C])).max(-1) < 4).any()
