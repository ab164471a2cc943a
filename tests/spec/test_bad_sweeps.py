"""Every kind of bad sweep file gives one clear error: the place, the value, what is allowed."""
# ruff: noqa: E501

from __future__ import annotations

import pytest

from zoo.errors import SpecError
from zoo.spec import Sweep, load_sweep

GRID = "[grid]\nwidth = [16, 32]\n"
SAMPLE = "[sample]\nmethod = 'sobol'\nn = 4\n[sample.axes]\nlr = {low = 0.1, high = 1.0}\n"
WHEN = GRID + '[[when]]\nif = "width == 16"\n'

#: what is wrong -> (the file below its name, what the one problem must say)
BAD = {
    "toml": ("[grid]\nwidth = [16, 32", ["end of document: not TOML"]),
    "toml value": ("[grid]\nwidth = abc", ["line 3, column 9", "not TOML"]),
    "toml repeated key": ("[grid]\nwidth = [1]\nwidth = [2]", ["line 4", "not TOML"]),
    "toml repeated table": ("[grid]\nlr = [0.1]\n[grid]\n", ["line 4", "not TOML"]),
    "unknown table": ("[grdi]\nwidth = [16]", ["grdi", "unknown key", "did you mean 'grid'"]),
    "unknown axis": ("[grid]\nwidht = [1]", ["grid.widht", "did you mean 'width'?; allowed: data", "more"]),
    "unknown base field": ("[base]\nlearning_rate = 1.0", ["base.learning_rate", "mean 'lr'?; allowed: data"]),
    "value too small": ("[grid]\nwidth = [16, 0]", ["grid.width[1] = 0", "out of range", ">= 1"]),
    "value too large": ("[base]\nlabel_noise = 1.5", ["base.label_noise = 1.5", ">= 0 and <= 1"]),
    "value at an open bound": ("[base]\nlr = 0", ["base.lr = 0.0", "> 0"]),
    "not finite": ("[base]\nlr = nan", ["base.lr = nan", "> 0"]),
    "infinite": ("[base]\nlr = inf", ["base.lr = inf", "> 0"]),
    "value of the wrong type": ("[grid]\nwidth = [16, '32']", ["grid.width[1] = '32'", "integer"]),
    "fraction of an integer": ("[base]\nwidth = 1.5", ["base.width = 1.5", "not an integer"]),
    "boolean for a number": ("[base]\nlr = true", ["base.lr = True", "not a number"]),
    "a date": ("[base]\nlr = 2020-01-01", ["base.lr", "is date, not a number"]),
    "unknown name": ("[grid]\nnorm = ['bach']", ["grid.norm[0] = 'bach'", "ghost_batch",
                                                 "did you mean 'batch'"]),
    "unknown data set": ("[base]\ndata = 'digit'", ["base.data", "mnist, mnist1d", "'digits'"]),
    "scalar axis": ("[grid]\nwidth = 64", ["grid.width = 64", "several values", "write [64]"]),
    "list in base": ("[base]\nwidth = [16, 32]", ["base.width", "a list", "goes in [grid]"]),
    "table in base": ("[base]\nwidth = {a = 1}", ["base.width", "a table", "give one value"]),
    "empty axis": ("[grid]\nwidth = []", ["grid.width", "the axis has no value"]),
    "empty range": ("[grid]\nseed = {range = [5, 5]}", ["grid.seed", "the axis has no value"]),
    "repeated value": ("[grid]\nwidth = [16, 32, 16]", ["grid.width = 16", "is given twice"]),
    "bad range": ("[grid]\nseed = {range = 5}", ["grid.seed.range = 5", "[first, end]"]),
    "range step 0": ("[grid]\nseed = {range = [0, 5, 0]}", ["grid.seed.range", "step is 0"]),
    "range out of bounds": ("[grid]\nseed = {range = [-2, 5]}", ["grid.seed.range = -2", ">= 0"]),
    "range of names": ("[grid]\nnorm = {range = [0, 5]}", ["grid.norm.range", "numeric field"]),
    "range with more": ("[grid]\nseed = {range = [0, 5], num = 3}", ["grid.seed.num", "range"]),
    "spaced without num": ("[grid]\nlr = {start = 0.1, stop = 1}", ["grid.lr.num", "is missing"]),
    "spaced without stop": ("[grid]\nlr = {start = 0.1, num = 3}", ["grid.lr.stop", "is missing"]),
    "spaced names": ("[grid]\nnorm = {start = 1, stop = 2, num = 2}", ["grid.norm", "not a number"]),
    "spaced key": ("[grid]\nlr = {start = 0.1, stop = 1, num = 3, scal = 'log'}",
                   ["grid.lr.scal", "did you mean 'scale'"]),
    "spaced scale": ("[grid]\nlr = {start = 0.1, stop = 1, num = 3, scale = 'ln'}",
                     ["grid.lr.scale = 'ln'", "linear, log"]),
    "log of zero": ("[grid]\ndropout = {start = 0, stop = 0.5, num = 3, scale = 'log'}",
                    ["grid.dropout.start = 0.0", "no logarithm", "> 0"]),
    "zip lengths": ("[zip]\nlr = [0.1, 0.2]\nwidth = [1, 2, 3]", ["zip:", "lr has 2, width has 3"]),
    "zip scalar": ("[zip]\nlr = 0.1", ["zip.lr = 0.1", "needs a list"]),
    "zip not a table": ("zip = 3", ["zip = 3", "not a list of tables"]),
    "zip unknown field": ("[[zip]]\nlr = [0.1]\nwdth = [1]", ["zip[0].wdth", "'width'"]),
    "base and grid": ("[base]\nwidth = 64\n" + GRID, ["grid.width", "and in base.width"]),
    "grid and zip": (GRID + "[zip]\nwidth = [1, 2]\nlr = [0.1, 0.2]", ["zip", "and in grid.width"]),
    "grid and sample": ("[grid]\nlr = [0.1, 0.2]\n" + SAMPLE, ["sample.axes.lr", "grid.lr"]),
    "sample method": (SAMPLE.replace("sobol", "sobel"), ["sample.method = 'sobel'",
                                                         "random, sobol, lhs", "'sobol'"]),
    "sample n": (SAMPLE.replace("n = 4\n", ""), ["sample.n", "is missing", "an integer from 1"]),
    "sample n of zero": (SAMPLE.replace("n = 4", "n = 0"), ["sample.n = 0", "an integer from 1"]),
    "sample seed": (SAMPLE.replace("n = 4", "n = 4\nseed = -1"), ["sample.seed = -1", "from 0 to"]),
    "sample without axes": ("[sample]\nn = 4", ["sample.axes", "no axis to sample"]),
    "sample ends": (SAMPLE.replace("low = 0.1", "low = 2"), ["sample.axes.lr", "low < high"]),
    "sample of names": (SAMPLE + "norm = {low = 0, high = 1}", ["sample.axes.norm", "a list"]),
    "sample list": (SAMPLE + "norm = ['none']", ["sample.axes.norm", "a list goes in choices"]),
    "sample choice": (SAMPLE + "norm = {choices = ['nnoe']}",
                      ["sample.axes.norm.choices[0] = 'nnoe'", "did you mean 'none'"]),
    "sample no choices": (SAMPLE + "norm = {choices = []}", ["sample.axes.norm.choices", "list"]),
    "when without if": (GRID + "[[when]]\nbase = {lr = 0.2}", ["when[0].if", "is missing"]),
    "when empty": (WHEN, ["when[0]", "sets nothing"]),
    "when a table": (GRID + "[when]\nif = 'True'", ["when", "not a list of tables", "[[when]]"]),
    "when key": (WHEN + "base = {lr = 0.2}\nset = 3", ["when[0].set", "if, base, grid, sample"]),
    "when column": (WHEN.replace("width == 16", "wdith == 16") + "base = {lr = 0.2}",
                    ["when[0].if", "unknown column 'wdith'", "did you mean 'width'"]),
    "when name": (WHEN.replace("width == 16", "optimizer == 'sdg'") + "base = {lr = 0.2}",
                  ["when[0].if: optimizer = 'sdg'", "did you mean 'sgd'?; allowed: adam"]),
    "when type": (WHEN.replace("width == 16", "width == '16'") + "base = {lr = 0.2}",
                  ["when[0].if", "without quotes: 16"]),
    "when never": (WHEN.replace("16", "99", 2).replace("[99, 32]", "[16, 32]")
                   + "base = {lr = 0.2}", ["when[0].if", "holds for no run"]),
    "when twice": (WHEN + "base = {lr = 0.2}\ngrid = {lr = [0.1]}", ["when[0].lr", "given twice"]),
    "when value": (WHEN + "base = {lr = -1}", ["when[0].base.lr = -1.0", "> 0"]),
    "when sample": (WHEN + "sample = {axes = {lr = {low = 0.1, high = 1}}}",
                    ["when[0].sample", "the block samples nothing"]),
    "when sample method": (SAMPLE + "[[when]]\nif = 'True'\nsample = {n = 3, axes = {momentum = "
                           "{low = 0, high = 0.9}}}", ["when[0].sample.n", "allowed: axes"]),
    "exclude a string": ("exclude = 'width > 3'\n" + GRID, ["exclude", "write ['width > 3']"]),
    "exclude syntax": ("exclude = ['width = 16']\n" + GRID, ["exclude[0]", "`==` compares"]),
    "exclude number": ("exclude = [16]\n" + GRID, ["exclude[0] = 16", "a predicate is text"]),
    "exclude a call": ("exclude = ['exit()']\n" + GRID, ["exclude[0]", "a call is not allowed"]),
    "exclude all": ("exclude = ['width > 3']\n" + GRID, ["exclude", "none of the 2 runs"]),
    "idle axis": ("[base]\noptimizer = 'adamw'\n[grid]\nmomentum = [0.0, 0.9]",
                  ["grid.momentum", "changes nothing", "optimizer = 'sgd'"]),
    "idle base": ("[base]\noptimizer = 'adamw'\nmomentum = 0.9", ["base.momentum = 0.9",
                                                                  "no run reads it", "'sgd'"]),
    "idle in when": (WHEN + "grid = {norm_groups = [2, 4]}", ["when[0].grid.norm_groups",
                                                              "norm = 'group'"]),
    "idle seed": ("[grid]\ndropout_seed = [1, 2]", ["grid.dropout_seed", "dropout > 0"]),
    "overridden seed": ("[base]\ninit_seed = 1\norder_seed = 1\naugment_seed = 1\ndropout_seed = 1"
                        "\nnoise_seed = 1\n[grid]\nseed = [1, 2]", ["grid.seed", "six seeds"]),
    "epochs beside steps": ("[base]\nsteps = 100\n[grid]\nepochs = [1, 2]", ["grid.epochs", "steps"]),
    "too many runs": ("[grid]\nseed = {range = [0, 100000]}\nnoise_seed = {range = [0, 100000]}",
                      ["10,000,000,000 runs", "up to 1,000,000"]),
    "too many in when": ("[grid]\nseed = {range = [0, 2000]}\n[[when]]\nif = 'True'\n"
                         "grid = {order_seed = {range = [0, 2000]}}", ["4,000,000 runs"]),
    "axes key": ("[axes]\nlod = 'width'\n" + GRID, ["axes.lod", "load, temperature", "'load'"]),
    "axes field": ("[axes]\nload = 'widht'\n" + GRID, ["axes.load = 'widht'", "'width'"]),
    "axes number": ("[axes]\nload = 3\n" + GRID, ["axes.load = 3", "unknown field"]),
    "axes the same": ("[axes]\nload = 'width'\ntemperature = 'width'\n" + GRID,
                      ["axes.temperature = 'width'", "is both axes"]),
    "axes fixed": ("[axes]\nload = 'lr'\n" + GRID, ["axes.load = 'lr'", "one value in every run"]),
    "record key": (GRID + "[record]\nevery_epoch = 2", ["record.every_epoch", "'every_epochs'"]),
    "record value": (GRID + "[record]\nevery_epochs = 0", ["record.every_epochs = 0", ">= 1e-06"]),
    "record count": (GRID + "[record]\nlog_steps = 2.5", ["record.log_steps = 2.5", "integer"]),
    "record list": (GRID + "[record]\nsteps = [1, -2]", ["record.steps", "integers from 0 to"]),
    "record two plans": (GRID + "[record]\nsteps = [1]\nlog_steps = 3", ["more than one", "epochs"]),
    "record probe": (GRID + "[record]\nprobe_size = -1", ["record.probe_size = -1", "from 0 to"]),
    "record not a table": ("record = 3\n" + GRID, ["record = 3", "is not a table"]),
    "paths name": (GRID + "[paths]\ndigit = '/x'", ["paths.digit", "did you mean 'digits'"]),
    "paths value": (GRID + "[paths]\ndigits = 3", ["paths.digits = 3", "not a path"]),
    "run key": (GRID + "[run]\nworker = 2", ["run.worker", "did you mean 'workers'"]),
    "run workers": (GRID + "[run]\nworkers = 0", ["run.workers = 0", "an integer from 1 to 4096"]),
    "run device": (GRID + "[run]\ndevice = 'gpu'", ["run.device", "'gpu'", "cpu, cuda"]),
    "run backend": (GRID + "[run]\nbackend = 'cuda'", ["run.backend", "auto, compiled, eager"]),
    "description": ("description = 3\n" + GRID, ["description = 3", "a string"]),
    "block and grid": (GRID + "[[block]]\nbase = {lr = 0.2}", ["grid:", "beside [[block]]"]),
    "block a table": ("[block]\nbase = {lr = 0.2}", ["block", "[[block]]"]),
    "block key": ("[[block]]\ngird = {width = [1]}", ["block[0].gird", "did you mean 'grid'"]),
    "second block": ("[[block]]\nbase = {lr = 0.2}\n[[block]]\ngrid = {width = [0]}",
                     ["block[1].grid.width[0] = 0", ">= 1"]),
    "block empty": ("block = []", ["block", "no block in it"]),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_a_bad_file_gives_one_clear_problem(case):
    text, fragments = BAD[case]
    with pytest.raises(SpecError) as caught:
        Sweep.from_toml(f'name = "bad"\n{text}\n', source="bad.toml")
    message = str(caught.value)
    assert message.startswith("bad.toml: 1 problem\n"), message
    for fragment in fragments:
        assert fragment in message, message


def test_the_cases_are_many_and_each_is_bad_for_its_own_reason():
    assert len(BAD) >= 30
    assert Sweep.from_toml('name = "good"\n' + GRID + "[record]\nlog_steps = 3").runs()


@pytest.mark.parametrize("name", ["", "name = ''", "name = 3", "name = '../x'", "name = 'a b'"])
def test_a_sweep_needs_a_name(name):
    with pytest.raises(SpecError, match=r"name.*letters, digits"):
        Sweep.from_toml(f"{name}\n{GRID}")


def test_every_problem_of_a_file_stands_in_one_error():
    text = """
    colour = "red"
    [axes]
    load = "widht"
    [base]
    lr = -1
    [record]
    probe_size = -3
    [run]
    workers = "many"
    [[block]]
    grid = {width = [0, "a"], norm = ["bach"]}
    exclude = ["width ="]
    [[block]]
    sample = {method = "sobol", n = 0, axes = {lr = {low = 1, high = 0.5}}}
    """
    with pytest.raises(SpecError) as caught:
        Sweep.from_toml(text, source="many.toml")
    places = [problem.field for problem in caught.value.problems]
    assert places == [
        "colour",
        "name",
        "axes.load",
        "base.lr",
        "record.probe_size",
        "run.workers",
        "block[0].grid.width[0]",
        "block[0].grid.width[1]",
        "block[0].grid.norm[0]",
        "block[0].exclude[0]",
        "block[1].sample.n",
        "block[1].sample.axes.lr",
    ]
    assert str(caught.value).startswith("many.toml: 12 problems\n")


def test_a_clean_block_is_checked_whole_beside_a_bad_one():
    text = """
    name = "two"
    [[block]]
    base = {optimizer = "adamw"}
    grid = {momentum = [0.0, 0.9]}
    [[block]]
    grid = {width = [0]}
    """
    with pytest.raises(SpecError) as caught:
        Sweep.from_toml(text)
    places = [problem.field for problem in caught.value.problems]
    assert places == ["block[0].grid.momentum", "block[1].grid.width[0]"]


def test_python_gives_the_same_problems_as_a_file():
    with pytest.raises(SpecError, match=r"grid\.width") as from_python:
        Sweep(name="x", grid={"width": [0]})
    with pytest.raises(SpecError) as from_file:
        Sweep.from_toml('name = "x"\n[grid]\nwidth = [0]')
    assert from_python.value.problems == from_file.value.problems
    with pytest.raises(SpecError, match="did you mean 'grid'"):
        Sweep(name="x", grdi={})


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(SpecError, match=r"none\.toml: 1 problem\n.*cannot be read"):
        load_sweep(tmp_path / "none.toml")
    with pytest.raises(SpecError, match="cannot be read"):
        load_sweep(tmp_path)
    latin = tmp_path / "latin.toml"
    latin.write_bytes(b'name = "\xe9"')
    with pytest.raises(SpecError, match="not UTF-8"):
        load_sweep(latin)
    deep = tmp_path / "deep.toml"
    deep.write_text("name = " + "[" * 5000)
    with pytest.raises(SpecError, match="not TOML"):
        load_sweep(deep)
