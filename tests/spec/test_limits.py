"""Numbers that cannot be meant: one error with field, value and limit, at once and not at length.

Each of these gave a traceback of numpy, filled the memory, or did not end.
"""

from __future__ import annotations

import re
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import zoo
from zoo.errors import SpecError, ZooError
from zoo.spec import RunSpec, Sweep, count_runs, field_infos
from zoo.spec.check import check_value
from zoo.spec.limits import MAX_CHECKPOINTS, MAX_PARAMS, MAX_RUNS, MAX_STEPS

SEEDS = "[grid]\nseed = [0, 1]\n"

#: what is wrong -> (tables of a sweep, what its one problem must say)
HUGE = {
    "width": ("[grid]\nwidth = [1000000000000, 4]", ["grid.width[0] = 1000000000000", "<= 65536"]),
    "steps": ("[grid]\nsteps = [1180591620717411303424, 1]", ["grid.steps[0]", f"<= {MAX_STEPS}"]),
    "epochs": ("[grid]\nepochs = [1e300, 1]", ["grid.epochs[0] = 1e+300", "<= 1e+08"]),
    "depth": ("[grid]\ndepth = [5000, 1]", ["grid.depth[0] = 5000", "<= 128"]),
    "long digits": ("[base]\nwidth = " + "9" * 5000, ["not TOML", "digits"]),
    "400 digits": ("[base]\nbatch_size = 1" + "0" * 400, ["base.batch_size = an integer of about"]),
    "400 digits of a float": ("[base]\nlr = 1" + "0" * 400, ["base.lr", "out of range"]),
    "range": ("[grid]\nwidth = {range = [1, 100000000000000000000]}",
              ["grid.width.range", "99,999,999,999,999,999,999 values", "up to 1,000,000"]),
    "range of a float": ("[grid]\nlr = {range = [1, 100000000000000000000]}", ["up to 1,000,000"]),
    "range backwards": ("[grid]\nlr = {range = [100000000000000000000, 1, -1]}",
                        ["up to 1,000,000"]),
    "num": ("[grid]\nlr = {start = 0.1, stop = 0.2, num = 1" + "0" * 30 + "}",
            ["grid.lr.num", "2 to 1000000"]),
    "score seeds": ("[base]\nscore = 'el2n'\nkeep = 0.5\nscore_seeds = 1000000000",
                    ["base.score_seeds", "<= 10000"]),
    "checkpoints, counted": (SEEDS + "[record]\nlog_steps = 100000000000",
                             ["record.log_steps", "1 to 100000"]),
    "checkpoints, a period": (SEEDS + "[record]\nevery_epochs = 1e-9",
                              ["record.every_epochs = 1e-09", ">= 1e-06"]),
    "a period of years": (SEEDS + "[record]\nevery_epochs = 1e308", ["every_epochs", "<= 1e+12"]),
    "checkpoint epochs": (SEEDS + "[record]\nepochs = [1e300]", ["record.epochs", "to 100000000"]),
    "checkpoint steps": (SEEDS + "[record]\nsteps = [1180591620717411303424]", ["record.steps"]),
    "probe": (SEEDS + "[record]\nprobe_size = 1180591620717411303424", ["record.probe_size"]),
    "sample": ("[sample]\nn = 4\nseed = 1180591620717411303424\n"
               "axes = {lr = {low = 0.1, high = 1.0}}", ["sample.seed", "not a seed"]),
    "workers": (SEEDS + "[run]\nworkers = 1000000000", ["run.workers", "1 to 4096"]),
    "task models": (SEEDS + "[run]\ntask_models = 1180591620717411303424", ["run.task_models"]),
    "blocks": ("[[block]]\ngrid = {seed = {range = [0, 600000]}}\n" * 2,
               ["block: the blocks have 1,200,000 runs"]),
}  # fmt: skip


@pytest.mark.parametrize("case", HUGE)
def test_a_huge_number_is_one_problem_of_the_file(case):
    text, fragments = HUGE[case]
    with pytest.raises(SpecError) as caught:
        Sweep.from_toml(f'name = "huge"\n{text}\n')
    message = str(caught.value)
    assert message.startswith("sweep: 1 problem\n"), message
    for fragment in fragments:
        assert fragment in message, message
    assert len(message) < 500


#: what only shows when the data are known
PLANNED = {
    "epochs": ({"epochs": 1e6, "batch_size": 1}, {}, ["epochs", f"up to {MAX_STEPS:,} steps"]),
    "a period": (
        {"steps": 10**8},
        {"every_epochs": 0.01},
        ["record.every_epochs = 0.01", "100,000"],
    ),
    "parameters": ({"width": 60000}, {}, ["width = 60000", f"up to {MAX_PARAMS:,} parameters"]),
}


@pytest.mark.parametrize("case", PLANNED)
def test_a_plan_that_cannot_be_carried_out_is_one_problem(case):
    base, record, fragments = PLANNED[case]
    sweep = Sweep(
        name="huge", base={"train_size": 200, **base}, grid={"seed": [0, 1]}, record=record
    )
    with pytest.raises(SpecError) as caught:
        zoo.plan(sweep)
    assert "1 problem\n" in str(caught.value)
    for fragment in fragments:
        assert fragment in str(caught.value)


def test_checkpoints_of_all_runs_together_have_a_limit():
    sweep = Sweep(
        name="huge", base={"steps": 100_000}, record={"log_steps": 100_000},
        grid={"seed": {"range": [0, 600]}},
    )  # fmt: skip
    with pytest.raises(SpecError, match=r"record: about 60,001,200 checkpoints in 600 runs"):
        zoo.plan(sweep)


def test_what_is_at_a_limit_is_allowed():
    run = RunSpec(steps=MAX_STEPS, depth=128, width=65_536, seed=2**32 - 1)
    assert run.resolve(1437).steps == MAX_STEPS
    # the check of its symmetries overflowed
    deep = Sweep(name="deep", base={"depth": 60, "width": 200, "steps": 0, "train_size": 100})
    assert zoo.plan(deep).models == 1


#: field, value, what it would become, what is allowed instead
LOST = [
    ("eps", 1e-300, "0", 1.2e-38),
    ("lr", 1e-42, "0", 1.2e-38),
    ("dropout", 0.999999999, "1", 0.9999999),
    ("momentum", 1 - 2**-25, "1", 0.9999999),
    ("label_smoothing", 0.99999999999, "1", 0.9999999),
    ("lr", 1e300, "infinity", 3.4e38),
    ("weight_decay", 3.5e38, "infinity", 3.4e38),
]


@pytest.mark.parametrize(("name", "value", "becomes", "instead"), LOST)
def test_a_number_that_float32_does_not_hold_is_refused(name, value, becomes, instead):
    with pytest.raises(SpecError) as caught:
        RunSpec(**{"optimizer": "adam" if name == "eps" else "sgd", name: value})
    (problem,) = caught.value.problems
    assert (problem.field, problem.value) == (name, value)
    assert problem.message.startswith(f"rounds to {becomes} in float32")
    advised = float(re.search(r"nearest allowed: (\S+)", problem.fix).group(1))
    assert advised == pytest.approx(instead, rel=0.03)
    # the advice works
    RunSpec(**{"optimizer": "adam" if name == "eps" else "sgd", name: advised})


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_whatever_is_accepted_keeps_its_meaning_in_float32(data):
    infos = [info for info in field_infos().values() if info.kind == "float"]
    info = data.draw(st.sampled_from(infos))
    near = st.floats(-1e-6, 1e-6) | st.floats(1 - 1e-6, 1 + 1e-6)
    value = data.draw(st.floats(allow_nan=False) | near)
    try:
        accepted = check_value(info, value)[1] is None
    except ZooError:
        accepted = False
    if not accepted:
        return
    with np.errstate(over="ignore", under="ignore"):
        rounded = float(np.float32(value))
    assert np.isfinite(rounded)
    assert info.admits(rounded)


def test_usual_numbers_are_accepted_as_before():
    for name, value in [("beta2", 0.999999), ("eps", 1e-30), ("lr", 1e-10), ("momentum", 0.99999)]:
        optimizer = "adam" if name in ("beta2", "eps") else "sgd"
        assert getattr(RunSpec(**{"optimizer": optimizer, name: value}), name) == value


@given(st.dictionaries(
    st.sampled_from([i.name for i in field_infos().values() if i.kind in ("int", "float")]),
    st.one_of(
        st.sampled_from([0, 1, 2**31, 2**62, 2**63, 10**400, -(10**400), 1e308, 1e-308, 1e-9]),
        st.integers(), st.floats(),
    ),
    min_size=1, max_size=3,
))  # fmt: skip
@settings(max_examples=150, deadline=None)
def test_any_number_gives_a_plan_or_one_error(values):
    values = {"train_size": 128, "width": 4, "epochs": 1, **values}
    try:
        spec = RunSpec(**values).resolve(1437)
    except ZooError:
        return
    record = zoo.RecordSpec(every_epochs=1)
    if record.misfit(spec.steps, spec.steps_per_epoch) is None:
        assert len(record.checkpoint_steps(spec.steps, spec.steps_per_epoch)) <= MAX_CHECKPOINTS + 2


def test_runs_are_counted_without_making_them(tmp_path):
    file = tmp_path / "large.toml"
    file.write_text(
        'name = "large"\nexclude = ["width == 4"]\n[[when]]\nif = "width == 8"\n'
        "grid = {dropout = [0.0, 0.1]}\n[grid]\nwidth = [4, 8]\nseed = {range = [0, 400000]}\n"
    )
    code = (
        "import sys, zoo.spec.expand\n"
        "zoo.spec.expand.RunSpec = None  # no run can be made\n"
        "from zoo.spec import count_runs\n"
        f"print(count_runs({str(file)!r}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) == 1_600_000 > MAX_RUNS
    assert count_runs(file) == 1_600_000
