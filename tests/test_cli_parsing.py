"""How the command line is read: options, nearest names, lists, completion, large sweeps."""

from __future__ import annotations

import json
import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import zoo
from zoo.cli import main
from zoo.cli.arguments import INSTEAD
from zoo.cli.help_text import GROUPS
from zoo.cli.parser import build_parser
from zoo.registry import vocabulary
from zoo.spec import field_infos

REPO = Path(__file__).parents[1]
SWEEP = """
name = "tiny"
[base]
train_size = 128
batch_size = 64
epochs = 1
[grid]
width = [4, 8]
seed = [0, 1]
[record]
probe_size = 4
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with ``tiny.toml`` and the finished ``tiny.zarr``."""
    root = tmp_path_factory.mktemp("parsing")
    (root / "tiny.toml").write_text(SWEEP)
    words = ["run", str(root / "tiny.toml"), "--out", str(root / "tiny.zarr"), "--workers", "0"]
    assert main([*words, "-q"]) == 0
    return root


@pytest.fixture
def call(folder, monkeypatch, capsys):
    """Run a command line in the folder; return exit code, output and error output."""
    monkeypatch.chdir(folder)

    def run(*words):
        code = main([str(word) for word in words])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def verbs():
    return build_parser().verbs.choices


# -- options and verbs -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        ["query", "tiny.zarr", "--limit", "2", "width == 8", "-c", "width,epoch"],
        ["query", "--limit", "2", "tiny.zarr", "-c", "width,epoch", "width == 8"],
        ["query", "-c", "width,epoch", "tiny.zarr", "width == 8", "--limit=2"],
    ],
)
def test_options_stand_anywhere(call, words):
    code, out, err = call(*words, "--csv")
    assert (code, err) == (0, "")
    assert out == "width,epoch\n8,0.0\n8,1.0\n"


def test_options_without_values_stand_even_before_the_verb(call):
    code, out, _ = call("--json", "query", "tiny.zarr", "--count")
    assert (code, json.loads(out)) == (0, {"rows": 8})


def test_every_verb_takes_its_options_first():
    """Also those with optional and repeated arguments."""
    for name, parser in verbs().items():
        wanted = [a for a in parser._actions if not a.option_strings]
        required = [word for a in parser._actions if a.option_strings and a.required
                    for word in (a.option_strings[-1], "x")]  # fmt: skip
        words = [(a.choices or ["word"])[0] for a in wanted]
        options = ["--json"] if "--json" in parser._option_string_actions else []
        before = build_parser().parse_args([name, *options, *required, *words])
        after = build_parser().parse_args([name, *words, *options, *required])
        ours = {k: v for k, v in vars(before).items() if k != "verb"}
        assert ours == {k: v for k, v in vars(after).items() if k != "verb"}, name


def test_a_value_may_begin_with_a_minus(call):
    _, out, err = call(
        "query", "tiny.zarr", "epoch == 1", "--sort", "-width", "-c", "width", "--csv"
    )
    assert err == ""
    assert out.split() == ["width", "8", "8", "4", "4"]


def test_the_help_shows_every_verb_in_one_group(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    grouped = [name for names in GROUPS.values() for name in names]
    assert sorted(grouped) == sorted(verbs())
    places = [text.index(f"\n{title}:\n") for title in GROUPS]
    assert places == sorted(places)
    assert "others:" not in text


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        (["qurey", "a"], "did you mean 'query'?"),
        (["plot", "a"], "did you mean `zoo report STORE --plot FILE`?"),
        (["sweep", "check", "a"], "did you mean `zoo plan --check SWEEP ...`?"),
        (["data"], "did you mean `zoo list data`?"),
        (["extend", "a"], "`zoo run SWEEP --out STORE"),
        (["query", "a", "--limt", "2"], "unknown option --limt; did you mean '--limit'?"),
        (["run", "a", "--work=2"], "unknown option --work; did you mean '--workers'?"),
        (["query", "a", "width", ">", "8"], "quote what has spaces in it"),
    ],
)
def test_an_error_names_the_nearest(call, words, advice):
    code, out, err = call(*words)
    assert (code, out) == (1, "")
    assert advice in err
    assert len(err.splitlines()) < 12


def test_what_an_error_advises_is_there():
    known = verbs()
    for old, advice in INSTEAD.items():
        assert old not in known
        for part in advice.split(", or "):
            first, *rest = part.split()
            if first == "--help":
                continue
            options = [word for word in rest if word.startswith("--")]
            assert set(options) <= set(known[first]._option_string_actions), old


def test_an_error_with_json_is_a_document(call):
    (call_error, out, err) = call("query", "tiny.zarr", "widht > 3", "--json")
    assert call_error == 1
    found = json.loads(out)["error"]
    assert found["type"] == "QueryError"
    assert "did you mean 'width'?" in found["message"]
    assert "did you mean 'width'?" in err
    code, out, _ = call("query", "tiny.zarr", "--limt", "3", "--json")
    assert (code, json.loads(out)["error"]["type"]) == (1, "UsageError")
    Path("bad.toml").write_text(SWEEP.replace("epochs = 1", "epochs = -1\nlr = 0"))
    _, out, _ = call("plan", "bad.toml", "--json")
    problems = json.loads(out)["error"]["problems"]
    assert [p["field"] for p in problems] == ["base.lr", "base.epochs"] or [
        p["field"] for p in problems
    ] == ["base.epochs", "base.lr"]
    assert problems[0]["value"] is not None
    assert json.loads(call("run", "tiny.toml", "--out", "/dev/null/z.zarr", "--json")[1])["error"]


def test_python_dash_m(folder):
    done = subprocess.run(
        [sys.executable, "-m", "zoo", "query", str(folder / "tiny.zarr"), "--count"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == "8\n"


# -- lists, a first sweep, completion ----------------------------------------------------------


def test_list_has_every_name_of_every_vocabulary(call):
    _, out, _ = call("list", "--json")
    kinds = {row["kind"]: row for row in json.loads(out)}
    for name, info in field_infos().items():
        registry = vocabulary(name) if info.kind == "str" else None
        if registry is None:
            continue
        rows = json.loads(call("list", name, "--json")[1])
        assert [row["name"] for row in rows] == list(registry)
        assert kinds[name]["names"] == len(rows)
    fields = json.loads(call("list", "field", "--json")[1])
    assert [row["name"] for row in fields] == list(field_infos())
    optimizers = {row["name"]: row for row in json.loads(call("list", "optimizer", "--json")[1])}
    assert optimizers["lion"]["fields"]["beta2"] == {
        "type": "float", "allowed": ">= 0 and < 1", "default": 0.99, "per": "model",
        "what": "decay of the second moment",
    }  # fmt: skip
    assert "arXiv" in optimizers["lion"]["source"]
    assert optimizers["lion"]["what"]


def test_every_name_has_a_line(call):
    for row in json.loads(call("list", "--json")[1]):
        names = json.loads(call("list", row["kind"], "--json")[1])
        assert [name for name in names if not name["what"]] == [], row["kind"]
        assert all(len(name["what"]) < 100 for name in names), row["kind"]


def test_every_list_prints_as_a_table(call):
    for row in json.loads(call("list", "--json")[1]):
        code, out, _ = call("list", row["kind"])
        assert code == 0
        assert len(out.splitlines()) >= row["names"] + 2
    code, _, err = call("list", "optimizers")
    assert code == 1
    assert "did you mean 'optimizer'?" in err
    assert len(err) < 400


def test_metrics_are_listed_without_a_store(call):
    code, out, _ = call("landscape", "--metrics", "list")
    assert code == 0
    assert "curvature" in out
    assert out == call("list", "metric")[1]


@pytest.mark.parametrize("data", ["digits", "mnist1d", "cifar10", "npz:mine"])
def test_init_writes_a_sweep_that_is_right(call, tmp_path, data):
    file = tmp_path / "my first.toml"
    assert call("init", file, "--from", data)[0] == 0
    sweep = zoo.load_sweep(file)
    assert len(sweep.runs()) == 12
    assert {run.data for run in sweep.runs()} == {data}
    assert sweep.name == "my-first"
    text = file.read_text()
    assert text.count("#") >= 8
    code, _, err = call("init", file)
    assert code == 1
    assert "exists already" in err
    assert file.read_text() == text
    if data in ("digits", "mnist1d"):
        assert zoo.plan(sweep).models == 12


def test_init_refuses_unknown_data(call, tmp_path):
    code, _, err = call("init", tmp_path / "a.toml", "--from", "digit")
    assert code == 1
    assert "did you mean 'digits'?" in err
    assert not (tmp_path / "a.toml").exists()


def completed(line):
    """Return what bash offers at the end of a line."""
    words = line.split(" ")
    listed = " ".join(f"'{word}'" for word in words)
    script = (
        "source <($PY -m zoo completion bash); "
        f"COMP_WORDS=({listed}); COMP_CWORD={len(words) - 1}; _zoo; "
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, check=True,
        env={**os.environ, "PY": sys.executable},
    )  # fmt: skip
    return set(done.stdout.split())


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes_verbs_options_and_values():
    assert completed("zoo re") == {"report", "repair", "reproduce", "retry", "release"}
    assert completed("zoo query --c") == {"--columns", "--count", "--csv"}
    assert completed("zoo run x.toml --backend e") == {"eager"}
    assert completed("zoo completion z") >= {"zsh"}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_completion_script_is_understood_by_its_shell(call, shell, tmp_path):
    _, out, _ = call("completion", shell)
    for name, parser in verbs().items():
        assert name in out
        for option in parser._option_string_actions:
            assert option.lstrip("-") in out
    if shutil.which(shell) is None:
        pytest.skip(f"needs {shell}")
    file = tmp_path / "script"
    file.write_text(out)
    subprocess.run([shell, "-n", str(file)], check=True)


# -- large sweeps, and sweeps that differ ------------------------------------------------------


def test_a_large_sweep_is_asked_about_before_its_runs_are_made(call, monkeypatch, tmp_path):
    Path("large.toml").write_text(
        SWEEP.replace("seed = [0, 1]", "seed = {range = [0, 480000]}").replace("tiny", "large")
    )
    monkeypatch.setattr("zoo.spec.expand.RunSpec", None)  # no run can be made
    profile = REPO / "slurm" / "gpu.toml"
    for words in (
        ["plan", "large.toml"],
        ["plan", "large.toml", "--out", "tiny.zarr"],
        ["plan", "--check", "large.toml"],
        ["run", "large.toml", "--out", tmp_path / "z.zarr"],
        ["run", "large.toml", "--out", tmp_path / "z.zarr", "--dry-run"],
        [
            "submit",
            "large.toml",
            "--out",
            tmp_path / "z.zarr",
            "--cluster",
            profile,
        ],
    ):
        code, out, err = call(*words)
        assert code in (1, 2)
        assert "960,000 runs" in out + err
        assert "--yes" in out + err
    assert not (tmp_path / "z.zarr").exists()
    monkeypatch.setattr("zoo.spec.expand.RunSpec", zoo.RunSpec)
    monkeypatch.setattr("zoo.cli.size.LARGE", 2)
    code, out, err = call("plan", "--yes", "tiny.toml", "--calibrate", "0")
    assert code == 0
    assert "runs      4" in out


def test_a_sweep_that_differs_from_the_store_says_how(call, folder):
    more = SWEEP.replace("seed = [0, 1]", "seed = [1, 2, 3]").replace("[base]", "[base]\nlr = 0.1")
    (folder / "more.toml").write_text(more)
    expected = [
        "The sweep differs from that of tiny.zarr:",
        "  base.lr: not set -> 0.1",
        "  grid.seed: [0, 1] -> [1, 2, 3]",
        "  runs: 4 added, 2 of the store not in the sweep (they stay)",
    ]
    for words in (
        ["plan", "--calibrate", "0"],
        ["run", "--dry-run"],
        ["run", "--limit", "0", "-q"],
    ):
        (folder / "copy.zarr").exists() and shutil.rmtree(folder / "copy.zarr")
        shutil.copytree(folder / "tiny.zarr", folder / "copy.zarr")
        _, _, err = call(words[0], "more.toml", "--out", "copy.zarr", *words[1:])
        assert err.splitlines()[:4] == [expected[0].replace("tiny", "copy"), *expected[1:]]
    _, _, err = call("run", "tiny.toml", "--out", "tiny.zarr", "-q")
    assert err == ""
    (folder / "other.toml").write_text(SWEEP.replace("epochs = 1", "epochs = 2"))
    _, _, err = call("plan", "other.toml", "--out", "tiny.zarr", "--calibrate", "0")
    assert "none in common: is this the right store?" in err


# -- terminals ---------------------------------------------------------------------------------


def on_a_terminal(words, cwd):
    """Run a command with a terminal as its standard error; return exit code and what it showed."""
    owner, terminal = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "zoo", *words], cwd=cwd, stdout=subprocess.PIPE, stderr=terminal,
        stdin=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": str(REPO)},
    ) as process:  # fmt: skip
        os.close(terminal)
        shown = b""
        while True:
            try:
                part = os.read(owner, 4096)
            except OSError:  # the other end is closed
                break
            if not part:
                break
            shown += part
        process.stdout.read()
        code = process.wait()
    os.close(owner)
    return code, shown.decode("utf-8", "replace")


def test_a_diet_sweep_shows_a_bar_for_scoring_and_one_for_training(tmp_path):
    diet = "score = 'el2n'\nkeep = 0.5\nscore_epoch = 1\nscore_seeds = 2\n[grid]"
    text = SWEEP.replace("[grid]", diet).replace("train_size = 128", "train_size = 600")
    (tmp_path / "diet.toml").write_text(text)
    words = ["run", "diet.toml", "--out", "z.zarr", "--workers", "0"]
    code, shown = on_a_terminal(words, tmp_path)
    assert code == 0, shown
    for phase in ("scoring", "training"):
        assert f"\r{phase}: " in shown
    training = shown[shown.index("training: ") :]
    assert "8/8 models" in training
    assert "models/s" in training
    code, shown = on_a_terminal(words, tmp_path)  # nothing is left: no bar
    assert "scoring" not in shown
    assert "training" not in shown


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp437"])
def test_output_that_the_terminal_cannot_show_is_replaced(folder, encoding, tmp_path):
    text = SWEEP.replace("[base]", 'description = "größe → µ"\n[base]')
    (folder / "größe.toml").write_text(text, encoding="utf-8")
    commands = [
        ["list"], ["list", "init"], ["list", "schedule"], ["list", "dynamic"], ["list", "score"],
        ["info", "tiny.zarr", "--columns"], ["query", "tiny.zarr", "widthé > 3"],
        ["query", "größe.zarr"], ["query", "\udce9.zarr"],
        ["plan", "größe.toml", "--calibrate", "0"],
        ["run", "größe.toml", "--out", str(tmp_path / "größe.zarr"), "--limit", "0"],
    ]  # fmt: skip
    script = f"from zoo.cli import main\nfor words in {commands!a}: print(main(words))"
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONPATH": str(REPO)}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=folder, env=environment | {"LC_ALL": "C"},
        capture_output=True, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    shown = (done.stdout + done.stderr).decode(encoding)
    assert done.returncode == 0, shown
    assert "Traceback" not in shown
    codes = [line for line in shown.splitlines() if line in ("0", "1", "2")]
    assert codes == ["0"] * 6 + ["1"] * 3 + ["0", "2"]
    if encoding == "ascii":
        assert "Sweep 'tiny': grosse -> u" in shown
        assert "?.zarr" in shown
    else:
        assert "größe" in shown
