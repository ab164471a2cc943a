"""``zoo plan``, ``zoo score`` and ``zoo diets`` on a small sweep; the guide's code runs."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from zoo.cli import main
from zoo.store import table_names

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "diets.md").read_text(encoding="utf-8")
SWEEP = """
name = "cli"
[base]
data = "digits"
width = 8
epochs = 3
lr = 0.05
momentum = 0.9
batch_size = 64
score_epoch = 2
score_seeds = 3
score = "el2n"
label_noise = 0.1
[grid]
keep = [0.1, 0.5]
seed = [0, 1]
[record]
epochs = [3]
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli")
    (folder / "s.toml").write_text(SWEEP)
    assert main(["run", str(folder / "s.toml"), "--out", str(folder / "z.zarr"), "-j0", "-q"]) == 0
    return folder


def said(capsys, *words, code=0):
    capsys.readouterr()
    assert main([str(word) for word in words]) == code
    return capsys.readouterr()


def test_plan_shows_what_is_scored_first(made, capsys):
    text = said(capsys, "plan", made / "s.toml", "--calibrate", "0").out
    assert re.search(
        r"scoring +[0-9a-f]{12}: 3 models .*label noise 0.1.* el2n.* at epochs 2", text
    )
    assert "4 random diets added" in text
    facts = json.loads(said(capsys, "plan", made / "s.toml", "--calibrate", "0", "--json").out)
    assert [job["seeds"] for job in facts["scoring"]] == [3, 3]  # a noise seed each


def test_diets_shows_agreement_accuracy_and_small_classes(made, capsys):
    text = said(capsys, "diets", made / "z.zarr").out
    assert "el2n@2 hardest" in text
    assert "rank correlations" in text
    facts = json.loads(said(capsys, "diets", made / "z.zarr", "--json").out)
    assert len(facts["tables"]) == 2
    rows = {row["score"]: row for row in facts["tables"][0]["scores"]}
    assert rows["el2n"]["noise_base"] == pytest.approx(0.1, abs=0.01)
    assert rows["el2n"]["noise_lift"] > 2
    assert {cell["rule"] for cell in facts["accuracy"]} == {"random", "el2n@2 hardest"}
    assert all(len(cell["values"]) == 2 for cell in facts["accuracy"])
    assert "el2n@2 hardest, keep 0.1" in facts["smallest_class"]


def test_pictures(made, capsys):
    from PIL import Image

    keep, page = made / "keep.png", made / "page.png"
    text = said(capsys, "diets", made / "z.zarr", "--plot", keep, "--page", page).out
    assert str(keep) in text
    assert str(page) in text
    for file in (keep, page):
        pixels = np.asarray(Image.open(file).convert("RGB"))
        assert pixels.shape[0] > 300
        assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 50
    reds = np.asarray(Image.open(page).convert("RGB")).astype(int)
    assert ((reds[..., 0] > 150) & (reds[..., 1] < 60)).any()  # a wrong label among the hardest
    error = said(capsys, "diets", made / "z.zarr", "--page", page, "--score", "grand", code=1).err
    assert "it has scores-" in error


def test_scoring_more(made, capsys):
    words = ("score", made / "z.zarr", "--scores", "aum,el2n", "--epochs", "1,3", "--seeds", "2")
    facts = json.loads(said(capsys, *words, "--dry-run", "--json").out)
    assert [job["epochs"] for job in facts["jobs"]] == [[1.0, 3.0]] * 2
    assert not set(table_names(made / "z.zarr")) & {job["table"] for job in facts["jobs"]}
    summary = json.loads(said(capsys, *words, "-j0", "-q", "--json").out)
    assert summary["published"]
    assert {job["table"] for job in facts["jobs"]} <= set(table_names(made / "z.zarr"))
    assert json.loads(said(capsys, *words, "-j0", "-q", "--json").out)["computed"] == 0
    again = json.loads(said(capsys, "score", made / "z.zarr", "-j0", "-q", "--json").out)
    assert again["computed"] == 0


def test_scoring_untrained_networks_needs_leave(made, capsys):
    words = ("score", made / "z.zarr", "--scores", "grand", "--epochs", "0")
    assert "2303.14753" in said(capsys, *words, code=1).err
    assert said(capsys, *words, "--allow-init", "--dry-run").out.count("at epochs 0") == 2
    error = said(capsys, "score", made / "z.zarr", "--scores", "grand", code=1).err
    assert "give --epochs" in error


def test_on_a_cluster_training_waits_for_the_scores(tmp_path, monkeypatch, made):
    """The order of what is handed in; that a scheduler keeps it, ``tests/slurm`` shows."""
    from types import SimpleNamespace

    from zoo.launch import submit_steps
    from zoo.spec import load_sweep
    from zoo.stages.plan import prepare_store
    from zoo.store import read_plan

    handed = []

    def stage(store, profile, stage, dependency):
        handed.append((stage["name"], dependency))
        return SimpleNamespace(jobs={0: 40 + len(handed)})

    def train(store, found, *, dependency=None):
        handed.append(("train", dependency))
        return SimpleNamespace(jobs={0: 40 + len(handed)})

    monkeypatch.setattr(submit_steps, "hand_in_stage", stage)
    monkeypatch.setattr(submit_steps, "hand_in", train)
    monkeypatch.setattr(submit_steps, "dry_run", lambda ready, steps: [])
    path = tmp_path / "new.zarr"
    prepare_store(load_sweep(made / "s.toml"), path)
    profile = SimpleNamespace(for_stage=lambda cpus=None: None)
    draft = SimpleNamespace(elements=((),), profile=profile)
    wishes = [submit_steps.StageWish(("score",), parallel=True)]

    def hand_in(store):
        handed.clear()
        ready = SimpleNamespace(path=store, plan=read_plan(store), draft=draft, status=None)
        submit_steps.hand_in_steps(ready, submit_steps.plan_steps(ready, wishes))
        return handed

    assert hand_in(path) == [
        ("score", None), ("train", "afterok:41"), ("score", "afterany:42"),
    ]  # fmt: skip
    assert hand_in(made / "z.zarr") == [("train", None), ("score", "afterany:41")]


@pytest.mark.parametrize("block", range(len(re.findall(r"```python\n", GUIDE))))
def test_the_guides_code_runs(block, made, monkeypatch):
    code = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)[block]
    monkeypatch.chdir(made)
    link = made / "diet.zarr"
    if not link.exists():
        link.symlink_to(made / "z.zarr")
    exec(compile(code, f"docs/diets.md block {block}", "exec"), {})


def test_the_guides_sweeps_are_sweeps():
    from zoo.spec import Sweep

    blocks = re.findall(r"```toml\n(.*?)```", GUIDE, re.DOTALL)
    assert len(blocks) >= 2
    for text in blocks:
        assert Sweep.from_toml('name = "guide"\n' + text).runs()


def test_the_guide_lists_every_score_selection_and_method():
    from zoo.diets.scores import SCORES
    from zoo.diets.selection import SELECTIONS
    from zoo.train.dynamic import DYNAMICS

    for name in (*SCORES, *SELECTIONS, *DYNAMICS):
        assert f"`{name}`" in GUIDE, name
