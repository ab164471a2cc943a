"""The parts of submitting that need no scheduler: profiles, cutting, words, answers, attempts."""

from __future__ import annotations

import dataclasses
import os
import typing

import pytest

from zoo.errors import SchedulerError, SpecError
from zoo.launch import slurm_client
from zoo.launch.attempts import Attempts
from zoo.launch.cluster import ElementLine, element_lines, task_word
from zoo.launch.profile import ClusterProfile, load_profile, minutes
from zoo.launch.slurm_client import (
    JobView,
    SlurmConfig,
    parse_sacct,
    parse_scontrol,
    parse_squeue,
)
from zoo.launch.submissions import (
    Work,
    new_submission,
    pack_elements,
    read_submission,
    record_folder,
    submissions,
)
from zoo.store import TaskState
from zoo.store.leases import LeaseView
from zoo.train.plan import Task

TASK = Task("mlp-a", 0, 0, 8)
KEY = ("mlp-a", 0)


# -- profiles -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["devcluster", "gpu", "preemptible"])
def test_the_profiles_that_come_along_are_sound(name):
    profile = load_profile(name)
    assert ClusterProfile.from_raw(profile.to_json(), name=name, source="again") == profile


def test_a_bad_profile_is_one_error_with_every_problem(tmp_path):
    path = tmp_path / "bad.toml"
    path.write_text(
        'partitoin = "gpu"\ntime = "soon"\ncpus = 0\ngpus = "4"\ndevice = "tpu"\nmemory = "lots"\n'
        "requeue = 1\nsetup = 'module load'\n[environment]\n'not a name' = 'x'\n"
    )
    with pytest.raises(SpecError) as caught:
        load_profile(path)
    fields = {problem.field for problem in caught.value.problems}
    assert fields == {
        "partitoin", "time", "cpus", "gpus", "device", "memory", "requeue", "setup", "environment"
    }  # fmt: skip
    assert "did you mean 'partition'?" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ('device = "cuda"', {"gpus"}),
        ('time = "2:00"\nsignal_s = 120', {"signal_s"}),
        ("time = ", {"file"}),
    ],
)
def test_settings_that_do_not_go_together(tmp_path, text, fields):
    path = tmp_path / "p.toml"
    path.write_text(text)
    with pytest.raises(SpecError) as caught:
        load_profile(path)
    assert {problem.field for problem in caught.value.problems} == fields


def test_an_unknown_profile_says_which_there_are():
    with pytest.raises(SpecError, match=r"devcluster, gpu, preemptible"):
        load_profile("nowhere")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("90", 90),
        ("1:30", 1.5),
        ("2:00:00", 120),
        ("1-12:00:00", 2160),
        ("1-06:30", 1830),
        ("x", 0),
    ],
)
def test_time_limits_as_slurm_reads_them(text, wanted):
    assert minutes(text) == wanted


def test_a_retry_gets_more():
    profile = ClusterProfile("p", memory="1.5GB", time="1:30:00").scaled(memory=2, time=2)
    assert (profile.memory_gb, profile.limit_s) == (3.0, 3 * 3600)
    assert ClusterProfile("p").scaled(memory=2).memory is None


def test_workers_follow_the_device():
    assert ClusterProfile("p", cpus=8).processes == 8
    assert ClusterProfile("p", cpus=8, gpus=4, device="cuda").processes == 4
    assert ClusterProfile("p", cpus=8, workers=3).processes == 3


# -- cutting ------------------------------------------------------------------------------


def test_elements_are_few_and_hold_every_task_once():
    seconds = {("c", i): float(cost) for i, cost in enumerate([7, 5, 5, 3, 2, 2, 30])}
    elements = pack_elements(seconds, capacity_s=10)
    assert sorted(key for element in elements for key in element) == sorted(seconds)
    assert (("c", 6),) in elements, "a task over the target stands alone"
    sums = [sum(seconds[key] for key in element) for element in elements if len(element) > 1]
    assert max(sums) <= 10
    assert len(elements) == 4  # 30, 7+3, 5+5, 2+2


def test_arrays_begin_at_zero_and_carry_an_offset(tmp_path):
    elements = [(("c", i),) for i in range(11)]
    made = new_submission(
        tmp_path / "z.zarr", ClusterProfile("p"), Work(elements, [1.0] * 11, chunk=5)
    )
    made.accepted(0, 100)
    made.accepted(1, 107)
    made.accepted(2, 120)
    found = read_submission(made.folder)
    assert dataclasses.replace(found, jobs={}) == made
    assert found.arrays == 3
    assert [list(found.members(a)) for a in range(3)] == [
        [0, 1, 2, 3, 4], [5, 6, 7, 8, 9], [10]
    ]  # fmt: skip
    assert [found.job_id(n) for n in (0, 4, 5, 9, 10)] == [
        "100_0", "100_4", "107_0", "107_4", "120"
    ]  # fmt: skip
    again = new_submission(
        tmp_path / "z.zarr", ClusterProfile("p"), Work(elements, [1.0] * 11, chunk=9)
    )
    assert [s.number for s in submissions(tmp_path / "z.zarr")] == [1, 2]
    assert again.job_name(0) != made.job_name(0)


def test_no_submissions_and_no_folder_made(tmp_path):
    assert submissions(tmp_path / "z.zarr") == []
    assert not record_folder(tmp_path / "z.zarr").exists()


# -- what the scheduler says --------------------------------------------------------------


def test_squeue_lines():
    text = (
        "12_3|12|3|RUNNING|n1|zoo-q-ab.0|None\n"
        "12_4|12|4|PENDING||zoo-q-ab.0|(Job,Held|User)\n"
        "15|15|N/A|COMPLETING|n2|zoo-q-ab.1|None\n"
        "slurm_load_jobs error\n"
    )
    one, two, three = parse_squeue(text)
    assert (one.job, one.index, one.state, one.node, one.live) == (12, 3, "RUNNING", "n1", True)
    assert two.reason == "(Job,Held|User)"
    assert two.held
    assert (three.index, three.live) == (None, True)


def test_sacct_lines():
    text = (
        "12_3|CANCELLED by 0|n1|0:15\n12_[4-9]|PENDING||0:0\n13|NODE_FAIL|n2|1:0\n12_3.0|X|n1|0:0\n"
    )
    one, two = parse_sacct(text)
    assert (one.job, one.index, one.state, one.live) == (12, 3, "CANCELLED", False)
    assert (two.job, two.index, two.state, two.node) == (13, None, "NODE_FAIL", "n2")


def test_scontrol_lines():
    text = (
        "JobId=14 ArrayJobId=12 ArrayTaskId=3 JobName=zoo JobState=FAILED NodeList=n1"
        " ExitCode=9:0\n"
        "JobId=15 ArrayJobId=12 ArrayTaskId=4-9 JobState=PENDING NodeList=(null)\n\n"
    )
    one, two = parse_scontrol(text)
    assert (one.job, one.index, one.state, one.reason) == (12, 3, "FAILED", "exit code 9:0")
    assert (two.index, two.node) == (None, "")


def test_the_configuration_that_matters():
    config = SlurmConfig(
        {
            "MaxArraySize": "1001",
            "AuthInfo": "socket=/x,cred_expire=5",
            "SlurmctldParameters": "a,preempt_send_user_signal",
            "MinJobAge": "300 sec",
        }
    )
    assert (config.max_array, config.requeue_wait_s, config.number("MinJobAge", 1)) == (
        1001,
        5,
        300,
    )
    assert config.warns_of_preemption
    assert (SlurmConfig({}).requeue_wait_s, SlurmConfig({}).max_array) == (120, 1001)


def test_no_scheduler_is_one_clear_error(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SchedulerError, match=r"no squeue here.*devcluster"):
        slurm_client.squeue_jobs(["zoo"])


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo 'error: Unable to contact slurm controller (connect failure)' >&2; exit 1",
         "cannot be reached.*nothing was changed"),
        ("echo 'error: Invalid partition name' >&2; exit 1", "failed: error: Invalid partition"),
        ("exec sleep 60", "does not answer"),
    ],
)  # fmt: skip
def test_a_scheduler_in_trouble_is_one_clear_error(monkeypatch, tmp_path, script, words):
    (tmp_path / "scontrol").write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(slurm_client, "_TIMEOUT_S", 1.0)
    with pytest.raises(SchedulerError, match=words):
        slurm_client.slurm_config()


# -- words for tasks ----------------------------------------------------------------------


def state(**fields):
    base = {
        "task": TASK, "committed": 0, "checkpoints": 4, "sealed": False, "failed": False,
        "owner_alive": False, "updated": 0.0,
    }  # fmt: skip
    return TaskState(**{**base, **fields})


def line(word, *, live, created=100.0, job="7_0", tasks=(KEY,), **fields):
    return ElementLine(
        submission=1, element=0, created=created, tasks=tasks, stage="", job=job, state=word,
        live=live, source="squeue", **fields,
    )  # fmt: skip


def lease(job, *, here=False):
    return LeaseView(
        1,
        "h",
        1,
        job,
        released=False,
        age_s=1,
        term_s=90,
        here=here,
        dead=False,
        damaged=False,
        raw=b"",
    )


@pytest.mark.parametrize(
    ("found", "lines", "word"),
    [
        (state(sealed=True), [line("RUNNING", live=True)], "done"),
        (state(owner_alive=True), [], "running"),
        (state(), [line("RUNNING", live=True)], "assigned"),
        (state(), [line("PENDING", live=True)], "queued"),
        (state(committed=1), [line("REQUEUED", live=True)], "queued"),
        (state(), [line("PENDING", live=True, held=True)], "held"),
        (state(), [], "waiting"),
        (state(committed=2), [], "stopped"),
        (state(committed=2), [line("NODE_FAIL", live=False)], "stopped"),
        (state(committed=2), [line("UNKNOWN", live=None)], "unknown"),
        # failed again since it was submitted, by number: the clocks of two hosts may differ
        (state(failed=True, failures=2, updated=50.0),
         [line("RUNNING", live=True, failures={KEY: 1})], "failed"),
        (state(failed=True, failures=1), [line("RUNNING", live=True)], "failed"),
        (state(failed=True, failures=1, updated=200.0),
         [line("RUNNING", live=True, failures={KEY: 1})], "assigned"),
        (state(failed=True), [line("FAILED", live=False)], "failed"),
        (state(), [line("RUNNING", live=True, tasks=(("mlp-a", 1),))], "waiting"),
        # a heartbeat from another host, of a job that the scheduler knows to be over
        (state(owner_alive=True, lease=lease("7_0")), [line("FAILED", live=False)], "waiting"),
        (state(owner_alive=True, lease=lease("7_0")), [line("RUNNING", live=True)], "running"),
        *((state(owner_alive=True, lease=lease("7_0")), [line(word, live=True)], "running")
          for word in ("COMPLETING", "SUSPENDED", "EXPEDITING", "REVOKED", "A_NEW_WORD")),
        (state(owner_alive=True, lease=lease("7_0")), [line("PENDING", live=True)], "queued"),
        (state(owner_alive=True, lease=lease("7_0")), [line("UNKNOWN", live=None)], "running"),
        (state(owner_alive=True, lease=lease("7_0", here=True)), [line("FAILED", live=False)],
         "running"),
    ],
)  # fmt: skip
def test_the_word_for_a_task(found, lines, word):
    assert task_word(found, lines) == word


def test_the_queue_is_asked_first_and_the_accounting_only_for_the_rest(tmp_path, monkeypatch):
    made = new_submission(
        tmp_path / "z.zarr",
        ClusterProfile("p"),
        Work([(("c", i),) for i in range(3)], [1.0] * 3, chunk=9),
    )
    made.accepted(0, 50)
    made = read_submission(made.folder)
    asked = []

    def sacct(jobs):
        asked.append(list(jobs))
        return [JobView(50, 0, "NODE_FAIL", "n1", "", "", "sacct"),
                JobView(50, 1, "OUT_OF_MEMORY", "n1", "", "", "sacct")]  # fmt: skip

    monkeypatch.setattr("zoo.launch.cluster.sacct_jobs", sacct)
    monkeypatch.setattr("zoo.launch.cluster.scontrol_jobs", lambda jobs: [])
    queue = [JobView(50, 0, "PENDING", "", "BeginTime", made.job_name(0), "squeue")]
    lines, trouble = element_lines(made, queue)
    assert [e.state for e in lines] == ["PENDING", "OUT_OF_MEMORY", "UNKNOWN"]
    assert [e.source for e in lines] == ["squeue", "sacct", ""]
    assert (asked, trouble) == ([[50]], "")
    whole = [JobView(50, i, "RUNNING", "", "", made.job_name(0), "squeue") for i in range(3)]
    element_lines(made, whole)
    assert len(asked) == 1, "the accounting was asked for what the queue had told"
    lines, _ = element_lines(made, [], reachable=False)
    assert {(e.state, e.live) for e in lines} == {("UNKNOWN", None)}
    assert len(asked) == 1


# -- attempts -----------------------------------------------------------------------------


def test_only_attempts_that_got_nowhere_and_died_count(tmp_path):
    attempts = Attempts(tmp_path)
    assert attempts.idle(TASK, (0, 0, 0)) == []
    for _ in range(2):
        attempts.begin(TASK, (0, 0, 0))
    assert len(attempts.idle(TASK, (0, 0, 0))) == 2
    assert attempts.idle(TASK, (1, 0, 0)) == [], "progress clears what was before"
    attempts.begin(TASK, (1, 0, 0))
    assert len(attempts.idle(TASK, (1, 0, 0))) == 1
    attempts.end(TASK)  # told to save and queue again
    assert attempts.idle(TASK, (1, 0, 0)) == []
    for _ in range(3):
        attempts.begin(TASK, (1, 0, 16))
    with (tmp_path / "attempts" / "mlp-a.0.jsonl").open("a") as file:
        file.write('[1]\n7\n"end"\n')  # notes that nobody wrote
        file.write("[" * 50_000 + '\n{"progr')
    assert len(attempts.idle(TASK, (1, 0, 16))) == 3


# -- more about profiles ------------------------------------------------------------------


def problems_of(raw):
    with pytest.raises(SpecError) as caught:
        ClusterProfile.from_raw(raw, name="p", source="p")
    return {problem.field: str(problem) for problem in caught.value.problems}


@pytest.mark.parametrize("more", [{}, {"gpu_type": "a100"}, {"cpus": 8}])
def test_gpus_that_nothing_would_use_are_refused(more):
    told = problems_of({"gpus": 4, **more})
    assert "write device = 'cuda'" in told["device"]
    assert ClusterProfile.from_raw({"gpus": 4, "device": "cpu"}, name="p", source="p").gpus == 4
    assert ClusterProfile.from_raw({"gpus": 4, "device": "cuda"}, name="p", source="p").gpus == 4


@pytest.mark.parametrize(
    "option",
    ["array", "output", "error", "signal", "job-name", "job_name", "dependency", "requeue",
     "no-requeue", "open-mode", "open_mode", "time", "nodes", "ntasks", "cpus-per-task", "gres",
     "gpus-per-node", "mem", "partition", "clusters", "wrap", "test-only", "arr", "out", "--array"],
)  # fmt: skip
def test_options_that_are_set_already_are_refused_with_what_to_write(option):
    told = problems_of({"sbatch": {option: "1", "comment": "fine"}})
    assert set(told) == {f"sbatch.{option}"}
    assert "is set by phasezoo itself; " in told[f"sbatch.{option}"]


@pytest.mark.parametrize("option", ["J", "x y", "", "a\nb", "UPPER", "a=b"])
def test_what_is_no_option_is_refused(option):
    assert len(problems_of({"sbatch": {option: "1"}})) == 1


@pytest.mark.parametrize(
    "option", ["exclusive", "reservation", "mail-type", "nodelist", "licenses", "comment", "export"]
)
def test_other_options_are_taken(option):
    assert ClusterProfile.from_raw({"sbatch": {option: "x"}}, name="p", source="p")


@pytest.mark.parametrize("word", ["--output=x", "--err", "-o", "-n4", "-N", "--ntasks=2", "-c"])
def test_words_of_srun_that_are_set_already_are_refused(word):
    assert set(problems_of({"srun": ["--mpi=none", word]})) == {"srun[1]"}


TEXTS = [
    "partition", "account", "qos", "constraint", "exclude", "time", "gpu_type", "gres", "memory",
    "device", "container", "python", "job_name", "logs",
]  # fmt: skip


@pytest.mark.parametrize("character", ["\n", "\r", "\x00", "\x1b", "\x85", "\u2028"])
@pytest.mark.parametrize("name", [*TEXTS, "setup", "srun", "binds", "environment", "sbatch"])
def test_no_value_becomes_a_line(name, character):
    text = f"a{character}#SBATCH --uid=0"
    raw = {"setup": [text], "srun": [text], "binds": [text], "environment": {"A": text},
           "sbatch": {"comment": text}}  # fmt: skip
    told = problems_of({name: raw.get(name, text)})
    assert any(field.startswith(name) for field in told)
    assert all(character not in line for line in told.values()), "printed as it is"


def test_every_text_of_a_profile_is_looked_at():
    hints = typing.get_type_hints(ClusterProfile)
    texts = {n for n, hint in hints.items() if hint is str or str in typing.get_args(hint)}
    containers = {"setup", "srun", "binds", "environment", "sbatch", "stages"}
    assert texts - {"name"} - containers == set(TEXTS)


@pytest.mark.parametrize("name", ["target_minutes", "speed", "save_s", "lease_s"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0, 0.0, 1e300])
def test_numbers_that_are_none_are_refused(name, value):
    assert set(problems_of({name: value})) == {name}


@pytest.mark.parametrize(
    "name", ["cpus", "gpus", "workers", "parallelism", "signal_s", "max_array"]
)
def test_numbers_without_measure_are_refused(name):
    assert name in problems_of({name: 10**40})
    assert name in problems_of({name: -1})
    assert name in problems_of({name: True})


@pytest.mark.parametrize(
    "data",
    [b"[" * 100_000, b"a = " + b"[" * 100_000, b"cpus = " + b"9" * 10_000, b"\xff\xfe", b"\x00",
     b"# " + b"x" * (1 << 20), b"a = nan"],
    ids=["tables", "deep", "digits", "encoding", "nul", "huge", "nan"],
)  # fmt: skip
def test_a_crafted_file_is_one_error(tmp_path, data):
    path = tmp_path / "p.toml"
    path.write_bytes(data)
    with pytest.raises(SpecError) as caught:
        load_profile(path)
    assert len(caught.value.problems) == 1
    assert str(path) in str(caught.value)


def test_a_byte_order_mark_is_no_problem(tmp_path):
    path = tmp_path / "p.toml"
    path.write_bytes(b"\xef\xbb\xbfcpus = 3\n")
    assert load_profile(path).cpus == 3


def test_gpus_follow_from_gres():
    profile = ClusterProfile.from_raw(
        {"gres": "nvme:1,gpu:a100:4", "device": "cuda"}, name="p", source="p"
    )
    assert (profile.gpus, profile.processes) == (4, 4)
    assert ClusterProfile.from_raw(profile.to_json(), name="p", source="p") == profile
    assert "gpus" in problems_of({"gres": "gpu:2", "gpus": 4, "device": "cuda"})
    assert "device" in problems_of({"gres": "gpu:2"})
    stage = profile.for_stage()
    assert (stage.gpus, stage.gres, stage.device) == (0, "nvme:1", "cpu")


def test_a_stage_asks_for_what_it_uses():
    profile = ClusterProfile(
        "p", gpus=4, device="cuda", gpu_type="a100", cpus=8, partition="gpu", memory="64GB",
        signal_s=600, stages={"partition": "cpu", "time": "0:05:00"},
    )  # fmt: skip
    stage = profile.for_stage(cpus=1)
    assert (stage.gpus, stage.gpu_type, stage.device, stage.cpus) == (0, None, "cpu", 1)
    assert (stage.partition, stage.memory, stage.limit_s) == ("cpu", "64GB", 300)
    assert ClusterProfile.from_raw(stage.to_json(), name="p", source="p") == stage
    assert profile.for_stage().cpus == 8


def test_bad_settings_of_stages_are_refused_by_name():
    raw = {"stages": {"gpus": 1, "cpus": "4", "time": "soon", "partition": "a\nb"}}
    told = problems_of(raw)
    assert set(told) == {"stages.gpus", "stages.cpus", "stages.time", "stages.partition"}


@pytest.mark.parametrize("text", ["data", "/a:/b:/c:/d", "/a,b", "a:b", "/a:b"])
def test_bad_binds_are_refused(text):
    assert set(problems_of({"container": "x", "binds": [text]})) == {"binds[0]"}
    assert "binds" in problems_of({"binds": ["/a"]})


@pytest.mark.parametrize("word", sorted(slurm_client.ENDED_STATES))
def test_states_that_end_a_job(word):
    assert slurm_client.ended(word)
    assert slurm_client.ended(f"{word}+")
    assert not slurm_client.ended(f"{word},REQUEUED")


@pytest.mark.parametrize(
    "word",
    ["PENDING", "RUNNING", "SUSPENDED", "COMPLETING", "CONFIGURING", "EXPEDITING", "LAUNCH_FAILED",
     "POWER_UP_NODE", "RECONFIG_FAIL", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESIZING",
     "RESV_DEL_HOLD", "REVOKED", "SIGNALING", "SPECIAL_EXIT", "STAGE_OUT", "STOPPED", "UPDATE_DB",
     "?", "", "SOMETHING_NEW"],
)  # fmt: skip
def test_states_that_do_not(word):
    assert JobView(1, None, word, "", "", "", "squeue").live
