"""The command ``zoo``: every verb on a tiny sweep, exit codes, and messages for bad input."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import zoo
from zoo.cli import main
from zoo.cli.parser import build_parser

SWEEP = """
name = "tiny"
description = "eight small nets"

[axes]
load = "width"
temperature = "batch_size"

[base]
data = "digits"
momentum = 0.9
epochs = 2

[grid]
width = [4, 8]
batch_size = [64, 128]
seed = [0, 1]

[record]
every_epochs = 1
probe_size = 8
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with ``tiny.toml`` and the finished ``tiny.zarr``."""
    root = tmp_path_factory.mktemp("cli")
    (root / "tiny.toml").write_text(SWEEP)
    (root / "photo.png").write_bytes(b"\x89PNG\r\n\x1a\n a holiday")
    code = main(
        ["run", str(root / "tiny.toml"), "--out", str(root / "tiny.zarr"), "--workers", "0", "-q"]
    )
    assert code == 0
    return root


@pytest.fixture
def call(folder, monkeypatch, capsys):
    """Run a command line in the folder; return exit code, output and error output."""
    monkeypatch.chdir(folder)
    monkeypatch.delenv("ZOO_DEBUG", raising=False)

    def run(*words):
        code = main([str(word) for word in words])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def ask(call):
    """Run a verb with --json; return the exit code and the document."""

    def run(*words):
        code, out, _ = call(*words, "--json")
        return code, json.loads(out)

    return run


def test_help_is_quick_and_has_examples():
    code = "import sys; from zoo.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
    code += "print([m for m in ('torch', 'numpy', 'zarr', 'sklearn') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("[]\n")
    assert "examples:" in done.stdout
    assert "exit codes" in done.stdout


def test_every_verb_has_help(capsys):
    text = build_parser().format_help()
    for verb in (
        "init", "plan", "run", "status", "query", "info", "report", "verify", "repair",
        "reproduce", "list", "version", "completion", "submit", "landscape", "label",
    ):  # fmt: skip
        assert f"\n  {verb} " in text or f"\n  {verb}\n" in text
        with pytest.raises(SystemExit) as stop:
            main([verb, "--help"])
        assert stop.value.code == 0
        assert f"usage: zoo {verb}" in capsys.readouterr().out


def test_plan(call, ask, folder):
    code, out, _ = call("plan", "tiny.toml", "--calibrate", "0")
    assert code == 0
    assert "eight small nets" in out
    assert "4, in 4 tasks" in out
    assert "24 model checkpoints in 24 shards" in out
    code, facts = ask("plan", "tiny.toml", "--calibrate", "0.01", "--workers", "3")
    assert (facts["runs"], facts["new_runs"], facts["cohorts"], facts["tasks"]) == (8, 8, 4, 4)
    assert facts["cost"]["workers"] == 3
    assert facts["cost"]["seconds"] > 0
    # planned against its store, nothing is new
    code, facts = ask("plan", "tiny.toml", "--out", "tiny.zarr")
    assert (facts["runs"], facts["new_runs"]) == (8, 0)
    more = SWEEP.replace("seed = [0, 1]", "seed = [0, 1, 2]")
    (folder / "more.toml").write_text(more)
    code, facts = ask("plan", "more.toml", "--out", "tiny.zarr")
    assert (facts["runs"], facts["new_runs"]) == (12, 4)
    _, out, _ = call("plan", "tiny.zarr")
    assert "nothing that a store does not have" in out
    assert len(list(folder.glob("*.zarr"))) == 1  # planning makes nothing


def test_run_says_what_it_did(call, ask, tmp_path):
    store = tmp_path / "z.zarr"
    code, facts = ask("run", "tiny.toml", "--out", store, "--dry-run")
    assert code == 0
    assert (facts["action"], facts["tasks_to_do"], facts["new_runs"]) == ("create", 4, 8)
    assert not store.exists()
    code, out, err = call("run", "tiny.toml", "--out", store, "--workers", "0", "--limit", "1")
    assert code == 2
    assert "Trained 2 models" in out
    assert "same command resumes" in out
    assert "of 8 models" in err
    code, facts = ask("run", store, "--dry-run")
    assert (facts["action"], facts["tasks_to_do"], facts["tasks_done"]) == ("finish", 3, 1)
    code, facts = ask("run", store, "--workers", "0", "--quiet")
    assert code == 0
    assert facts["complete"]
    assert facts["trained"] == 6
    code, out, err = call("run", store, "--quiet")
    assert code == 0
    assert "Nothing to do" in out
    assert err == ""
    code, facts = ask("run", store, "--dry-run")
    assert (facts["action"], facts["tasks_to_do"]) == ("nothing", 0)


def test_status(call, ask, tmp_path):
    code, out, _ = call("status", "tiny.zarr", "--tasks", "--watch")  # a complete store ends it
    assert code == 0
    assert "8 done, 0 running, 0 missing, 0 diverged, 0 failed" in out
    assert out.count("3/3") == 4
    call("run", "tiny.toml", "--out", tmp_path / "z.zarr", "--limit", "0", "--quiet")
    code, facts = ask("status", tmp_path / "z.zarr")
    assert code == 2
    assert facts["counts"]["missing"] == 8
    _, out, _ = call("status", tmp_path / "z.zarr")
    assert "No process is working on it" in out


def test_query_as_table_csv_and_json(call, ask, folder):
    predicate = "width == 8 and epoch == -1"
    columns = "run_id,width,seed,test_accuracy"
    view = zoo.open(folder / "tiny.zarr").query(predicate).sort("test_accuracy", descending=True)
    code, rows = ask("query", "tiny.zarr", predicate, "-c", columns, "--sort=-test_accuracy")
    assert code == 0
    assert [r["run_id"] for r in rows] == view["run_id"].tolist()
    assert [r["test_accuracy"] for r in rows] == view["test_accuracy"].tolist()
    _, out, _ = call("query", "tiny.zarr", predicate, "-c", columns, "--sort=seed", "--csv")
    found = list(csv.DictReader(io.StringIO(out)))
    assert list(found[0]) == columns.split(",")
    assert [r["seed"] for r in found] == ["0", "0", "1", "1"]
    _, out, _ = call("query", "tiny.zarr", predicate, "-c", columns, "--limit", "2")
    assert "2 of 4 rows" in out
    _, out, _ = call("query", "tiny.zarr", "--count")
    assert out == "24\n"
    _, out, _ = call("query", "tiny.zarr")
    assert "20 of 24 rows" in out
    assert len(call("query", "tiny.zarr", "--limit", "0")[1].splitlines()) == 24 + 3
    _, out, _ = call("query", "tiny.zarr", "width > 99", "--columns", columns)
    assert out.splitlines() == ["no checkpoints", "recorded checkpoints have: width 4, 8"]


def test_info(call, ask):
    _, out, _ = call("info", "tiny.zarr", "--columns", "--layout")
    assert "load = width" in out
    assert "weight_norm" in out
    assert "hidden.0.linear.weight" in out
    _, facts = ask("info", "tiny.zarr", "--layout")
    assert facts["runs"] == 8
    assert facts["provenance"]["fingerprint"]["versions"]["torch"]
    segments = next(iter(facts["layouts"].values()))
    assert segments[0]["offset"] == 0


def test_report_and_picture(call, ask, folder):
    code, out, _ = call("report", "tiny.zarr", "--by", "width", "--plot", "a.png")
    assert code == 0
    assert "8 models" in out
    assert (folder / "a.png").read_bytes().startswith(b"\x89PNG")
    _, facts = ask("report", "tiny.zarr", "--by", "width", "--where", "batch_size == 64")
    view = zoo.open(folder / "tiny.zarr").query("epoch == -1 and batch_size == 64 and width == 8")
    (row,) = [r for r in facts["rows"] if r["width"] == 8]
    assert row["n"] == len(view) == 2
    assert row["mean"] == pytest.approx(view["test_accuracy"].mean())
    _, facts = ask("report", "tiny.zarr")
    assert facts["by"] == ["width", "batch_size"]
    words = ("--value", "train_loss", "--load", "batch_size", "--temperature", "width")
    assert call("report", "tiny.zarr", "--plot", "b.svg", *words)[0] == 0
    assert "<svg" in (folder / "b.svg").read_text()


def test_verify_and_repair_a_flipped_bit(call, ask, tmp_path):
    store = tmp_path / "z.zarr"
    call("run", "tiny.toml", "--out", store, "--workers", "0", "--quiet")
    code, facts = ask("verify", store, "--hash")
    assert code == 0
    assert facts["shards"] == 24
    shard = next((store / "_zoo").parent.glob("mlp-*/weights/c.0.1.0"))
    data = bytearray(shard.read_bytes())
    data[len(data) // 3] ^= 1
    shard.write_bytes(data)
    code, out, _ = call("verify", store)
    assert code == 2
    assert shard.parent.parent.name in out
    assert "checksum" in out
    code, found = ask("repair", store, "--dry-run")
    assert code == 2
    assert found["taken_back"] == []
    code, found = ask("repair", store)
    assert code == 0
    assert [t["first"] for t in found["taken_back"]] == [1]
    assert call("run", store, "--workers", "0", "--quiet")[0] == 0
    code, again = ask("verify", store, "--hash")
    assert (code, again["content_hash"]) == (0, facts["content_hash"])


def test_reproduce(call, ask, folder):
    run_id = str(zoo.open(folder / "tiny.zarr").runs()["run_id"][3])
    code, out, _ = call("reproduce", "tiny.zarr", run_id)
    assert code == 0
    assert out.startswith(f"match: run {run_id}")
    code, facts = ask("reproduce", "tiny.zarr", run_id)
    assert facts["matches"]


def test_plan_checks_sweep_files(call, ask, folder):
    (folder / "bad.toml").write_text(SWEEP.replace("width =", "widht ="))
    code, out, _ = call("plan", "--check", "tiny.toml", "bad.toml")
    assert code == 2
    assert "tiny.toml: 8 runs, nothing wrong" in out
    assert "did you mean 'width'" in out
    code, facts = ask("plan", "tiny.toml", "--check")
    assert code == 0
    assert facts[0]["runs"] == 8


def test_data_and_version(call, ask, monkeypatch):
    monkeypatch.delenv("ZOO_DATA_CIFAR10", raising=False)
    code, out, _ = call("list", "data")
    assert code == 0
    assert "ZOO_DATA_CIFAR10" in out
    _, rows = ask("list", "data")
    there = {row["name"]: row["there"] for row in rows}
    assert there["digits"] == there["mnist1d"] == "yes"
    assert there["cifar10"] == "no"
    _, facts = ask("version")
    assert facts["versions"]["phasezoo"] == zoo.__version__
    assert "torch" in call("version")[1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["plan", "nothing.toml"], "cannot be read"),
        (["plan", "bad2.toml"], "2 problems"),
        (["run", "tiny.toml"], "give --out"),
        (["run", "tiny.toml", "--dry-run"], "give --out"),
        (["run", "tiny.toml", "--out", "tiny.toml"], "something else is there"),
        (["run", "tiny.zarr", "--out", "other.zarr"], "finished where it is"),
        (["status", "nothing.zarr"], "not a phasezoo store"),
        (["query", "nothing.zarr"], "not a phasezoo store"),
        (["query", "tiny.zarr", "widht > 3"], "did you mean 'width'"),
        (["query", "tiny.zarr", "width >"], "width >"),
        (["query", "tiny.zarr", "width == 'many'"], "width"),
        (["query", "tiny.zarr", "--columns", "accuracy"], "unknown column"),
        (["query", "tiny.zarr", "width > 99", "--columns", "accuracy"], "unknown column"),
        (["query", "tiny.zarr", "--sort", "accuracy"], "unknown column"),
        (["query", "tiny.zarr", "--csv", "--columns", "accuracy"], "unknown column"),
        (["report", "tiny.zarr", "--by", "widht"], "did you mean 'width'"),
        (["report", "tiny.zarr", "--value", "norm"], "numeric"),
        (["report", "tiny.zarr", "--where", "width >"], "width >"),
        (["report", "tiny.zarr", "--plot", "no/such/folder/a.png"], "cannot draw"),
        (["report", "tiny.zarr", "--plot", "photo.png"], "is not a picture of phasezoo"),
        (["report", "tiny.zarr", "--html", "tiny.toml"], "is not a page of phasezoo"),
        (["bench", "tiny.zarr", "--plot", "photo.png"], "is not a picture of phasezoo"),
        (["diets", "tiny.zarr", "--plot", "photo.png"], "is not a picture of phasezoo"),
        (["split", "tiny.zarr", "--by", "run", "--out", "tiny.toml"], "not a split of phasezoo"),
        (["export", "tiny.zarr", "--format", "hdf5", "--out", "tiny.toml"], "exists already"),
        (["report", "tiny.zarr", "--plot", "a.docx"], "cannot draw"),
        (["report", "tiny.zarr", "--panel", "width"], "give --plot FILE"),
        (["plan", "tiny.toml", "bad.toml"], "give --check"),
        (["landscape"], "STORE"),
        (["verify", "tiny.toml"], "not a phasezoo store"),
        (["repair", "tiny.toml"], "not a phasezoo store"),
        (["reproduce", "tiny.zarr", "zzz"], "no run of this store"),
    ],
)
def test_bad_input_gives_one_clear_message(call, folder, words, message):
    bad = SWEEP.replace("momentum = 0.9", "momentum = 9\nlr = -1")
    (folder / "bad2.toml").write_text(bad)
    before = sorted(p.name for p in folder.iterdir())
    code, _, err = call(*words)
    assert code == 1
    assert err.startswith("zoo: ")
    assert message in err
    assert "Traceback" not in err
    assert sorted(p.name for p in folder.iterdir()) == before


@pytest.mark.parametrize(
    "words",
    [[], ["nonsense"], ["run"], ["run", "a", "--workers", "-1"], ["plan", "a", "--calibrate", "x"],
     ["query", "a", "--columns", ","], ["run", "a", "--backend", "gpu"], ["sweep"],
     ["query", "a", "--nonsense"], ["query", "a", "b", "c"]],
)  # fmt: skip
def test_bad_arguments_end_with_usage(words, capsys):
    assert main(words) == 1  # 2 means incomplete, which scripts try again
    assert "usage: zoo" in capsys.readouterr().err


def test_debug_shows_the_traceback(folder, monkeypatch):
    monkeypatch.setenv("ZOO_DEBUG", "1")
    with pytest.raises(zoo.errors.StoreMissingError):
        main(["status", str(folder / "nothing.zarr")])


def test_as_a_command(folder):
    """As a process of its own: exit codes, a closed pipe, worker processes."""
    command = [sys.executable, "-m", "zoo"]
    store = folder / "process.zarr"
    words = ["run", str(folder / "tiny.toml"), "--out", str(store), "--workers", "2"]
    done = subprocess.run([*command, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "8 of 8 models" in done.stderr
    assert "Traceback" not in done.stderr
    done = subprocess.run(
        [*command, "status", "nothing.zarr"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as broken:
        words = ["query", str(store), "--limit", "0", "--csv"]
        done = subprocess.run(
            [*command, *words], stdout=broken, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.stderr == ""


def test_the_entry_point_is_there():
    text = (Path(__file__).parents[1] / "pyproject.toml").read_text()
    assert 'zoo = "zoo.cli:main"' in text
