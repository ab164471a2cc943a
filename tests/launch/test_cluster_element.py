"""What an array element does, without a scheduler: attempts, giving up, and the signal to save."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from zoo.errors import TrainError
from zoo.launch.attempts import Attempts
from zoo.launch.profile import ClusterProfile
from zoo.launch.slurm_element import work
from zoo.launch.submissions import Work, new_submission
from zoo.spec import Sweep
from zoo.stages.plan import prepare_store
from zoo.store import StoreReader, claim_task, task_states
from zoo.store.states import task_progress

SLOW = Path(__file__).parents[1] / "slurm" / "slow"
TABLES = {
    "name": "element",
    "base": {"data": "digits", "momentum": 0.9, "steps": 30},
    "grid": {"width": [4, 8], "seed": [0, 1]},
    "record": {"steps": [10, 20], "probe_size": 0},
}


@pytest.fixture
def submission(tmp_path):
    plan = prepare_store(Sweep.from_dict(TABLES), tmp_path / "z.zarr")
    keys = tuple((task.cohort, task.index) for task in plan.tasks())
    return new_submission(tmp_path / "z.zarr", ClusterProfile("p"), Work([keys], [1.0], chunk=9))


def lines(submission, task):
    file = submission.folder / "attempts" / f"{task.cohort}.{task.index}.jsonl"
    return file.read_text().splitlines()


def test_three_attempts_without_progress_are_enough(submission):
    one, other = (state.task for state in task_states(submission.store))
    attempts = Attempts(submission.folder)
    for _ in range(3):
        attempts.begin(one, task_progress(submission.store, one))
    for _ in range(2):
        attempts.begin(other, task_progress(submission.store, other))
    with pytest.raises(TrainError, match="1 of 2 tasks were given up"):
        work(submission, 0)
    states = {state.task: state for state in task_states(submission.store)}
    assert (states[one].failed, states[one].sealed) == (True, False)
    assert states[other].sealed
    (failure,) = StoreReader(submission.store).failures()
    assert "3 attempts died without any progress" in failure.reason
    assert len(lines(submission, other)) == 3, "more than one attempt was noted for one owner"
    with pytest.raises(TrainError):
        work(submission, 0)  # of the same submission: not tried again
    assert len(StoreReader(submission.store).failures()) == 1
    assert len(lines(submission, one)) == 3


def test_waiting_for_another_owner_is_no_attempt(submission):
    one, other = (state.task for state in task_states(submission.store))

    def release_later(stack):
        end = time.monotonic() + 120
        while not other_is_sealed() and time.monotonic() < end:
            time.sleep(0.1)
        time.sleep(3)  # the worker comes back for the first every second
        stack.close()

    def other_is_sealed():
        return next(s.sealed for s in task_states(submission.store) if s.task == other)

    with contextlib.ExitStack() as stack:
        assert stack.enter_context(claim_task(submission.store, one))
        threading.Thread(target=release_later, args=(stack,)).start()
        assert work(submission, 0) is False
    assert all(state.sealed for state in task_states(submission.store))
    assert len(lines(submission, one)) == 1
    assert len(lines(submission, other)) == 1


def test_the_signal_to_save_ends_the_element_and_no_attempt_counts(submission, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(SLOW))
    monkeypatch.setenv("TEST_SYNC_S", "0.2")

    def warn():
        while not any(state.committed for state in task_states(submission.store)):
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGUSR2)

    thread = threading.Thread(target=warn)
    thread.start()
    assert work(submission, 0) is True
    thread.join()
    begun = [s for s in task_states(submission.store) if s.committed]
    assert begun
    assert not all(state.sealed for state in task_states(submission.store))
    assert not any(state.owner_alive for state in task_states(submission.store))
    attempts = Attempts(submission.folder)
    for state in begun:
        if not state.sealed:
            assert '"end"' in lines(submission, state.task)[-1]
            progress = task_progress(submission.store, state.task)
            assert attempts.idle(state.task, progress) == []
    monkeypatch.setenv("TEST_SYNC_S", "0")
    assert work(submission, 0) is False
    assert all(state.sealed for state in task_states(submission.store))
