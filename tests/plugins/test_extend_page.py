"""docs/extend.md, end to end: its plug-in and its sweep through every verb that it names."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys

import numpy as np
import pytest
import torch
from page import block, write_files

import zoo
from zoo.cli.main import main
from zoo.plugins import load_plugin, unload_plugin
from zoo.store import content_hash, verify_store


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder in which every command of the page was run, in processes of their own."""
    folder = tmp_path_factory.mktemp("page")
    write_files(folder)
    said = []
    for line in block("console").strip().splitlines():
        words = [sys.executable, "-m", *shlex.split(line)]
        done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        said.append(done.stdout)
    return folder, said


def test_every_command_of_the_page_works(made):
    folder, said = made
    assert "18" in re.search(r"runs +(\d+)", said[0])[1]
    assert "18 models (18 done)" in said[1]
    assert "learned" in said[3]
    assert "my_focal" in said[4] or "my_resnet" in said[4]
    assert verify_store(folder / "my.zarr").problems == ()


def test_models_are_modules_of_the_plugin_and_say_what_was_recorded(made):
    folder, _ = made
    found = load_plugin(folder / "my_zoo.py")
    opened = zoo.open(folder / "my.zarr")
    module = sys.modules[f"zoo_plugin_{found.sha256[:16]}"]
    for name, kind in (("my_resnet", module.MyResNet), ("my_attention", module.MyAttention)):
        view = opened.query(f"architecture == '{name}' and epoch == -1")
        for i in range(len(view)):
            model = view.model(i)
            assert type(model) is kind
            data = zoo.data.load("my_stripes")
            x, y = zoo.data.prepare(data, "standard").test_x, data.test_y
            with torch.no_grad():
                right = model(torch.from_numpy(np.array(x))).argmax(1).numpy() == y
            assert right.mean() == pytest.approx(view["test_accuracy"][i])


def test_own_fields_metrics_and_phases_are_columns(made):
    folder, _ = made
    opened = zoo.open(folder / "my.zarr")  # without the plug-in
    last = opened.query("epoch == -1")
    assert set(last["phase"]) <= {"learned", "not learned"}
    assert set(last["gamma"][last["architecture"] == "my_resnet"]) == {0.0, 2.0}
    assert np.isfinite(last["my_distance"]).all()
    assert (last["my_distance"] > 0).all()
    assert len(set(last["plugin_sha256"]) - {""}) == 1
    rows = opened.query("blocks == 2 and gamma == 2 and epoch == -1")
    assert len(rows) == 2


def test_training_again_gives_the_same_bytes(made, tmp_path):
    folder, _ = made
    load_plugin(folder / "my_zoo.py")
    assert zoo.run(str(folder / "my.toml"), tmp_path / "again.zarr", workers=0).complete
    stores = [zoo.open(path) for path in (folder / "my.zarr", tmp_path / "again.zarr")]
    for a, b in zip(*(s.plan.cohorts for s in stores), strict=True):
        rows = [s.query(f"cohort == '{c.id}'").weights() for s, c in zip(stores, (a, b),
                                                                         strict=True)]  # fmt: skip
        assert rows[0].tobytes() == rows[1].tobytes()


def test_a_killed_run_resumes_to_the_same_bytes(made, tmp_path):
    folder, _ = made
    store = tmp_path / "killed.zarr"
    words = [sys.executable, "-c", KILLED, str(folder), str(store)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == -9, done.stderr
    whole = tmp_path / "whole.zarr"
    options = ["-q", "-j", "0", "--plugin", str(folder / "my_zoo.py")]
    for path in (store, whole):
        assert main(["run", str(folder / "my.toml"), "--out", str(path), *options]) == 0
    assert content_hash(store) == content_hash(whole)


#: Trains the page's sweep in this process, and kills it after some commits.
KILLED = """
import os, signal, sys
import zoo
from zoo.store import TaskWriter
zoo.load_plugin(sys.argv[1] + "/my_zoo.py")
commit, count = TaskWriter.commit, [0]
def counted(self, checkpoint):
    commit(self, checkpoint)
    count[0] += 1
    if count[0] == 11:
        os.kill(os.getpid(), signal.SIGKILL)
TaskWriter.commit = counted
zoo.run(sys.argv[1] + "/my.toml", sys.argv[2], workers=0)
"""


def test_the_report_and_the_list_know_them(made, capsys):
    folder, _ = made
    plugin = ["--plugin", str(folder / "my_zoo.py")]
    assert main(["report", str(folder / "my.zarr"), "--by", "blocks,gamma", "--json", *plugin]) == 0
    assert json.loads(capsys.readouterr().out)
    assert main(["list", "field", "--json", *plugin]) == 0
    fields = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert fields["gamma"]["what"] == "how much easy examples count less; 0 = cross-entropy"
    assert fields["heads"]["default"] is None or fields["heads"]["default"] == 2
    unload_plugin(folder / "my_zoo.py")
