"""Decisions about tasks, without any process."""

from __future__ import annotations

import itertools
import random

import pytest

from zoo.launch.queue import ATTEMPTS, Queue
from zoo.stages.cost import makespan, rough_seconds
from zoo.train.plan import Task
from zoo.train.planner import plan as make_plan

A, B = Task("mlp", 0, 0, 4), Task("mlp", 1, 4, 8)


def test_tasks_are_handed_out_once_and_in_order():
    queue = Queue([A, B])
    assert queue.next(0.0) == A
    assert queue.next(0.0) == B
    assert queue.next(0.0) is None
    assert queue.open
    queue.finished(A)
    queue.finished(B)
    assert not queue.open
    assert queue.done == [A, B]


def test_three_attempts_without_progress_and_no_more():
    queue = Queue([A])
    for attempt in range(ATTEMPTS):
        task = queue.next(0.0)
        assert task == A
        queue.progress(A, 2)  # where the task stands when the attempt begins: no progress
        failed = queue.broke(A, "why", "trace")
        assert (failed is None) == (attempt < ATTEMPTS - 1)
    assert failed is not None
    assert (failed.task, failed.reason, failed.traceback) == (A, "why", "trace")
    assert not queue.open
    assert queue.next(0.0) is None


def test_progress_buys_new_attempts():
    queue = Queue([A])
    for committed in range(3 * ATTEMPTS):
        queue.next(0.0)
        queue.progress(A, committed)
        queue.progress(A, committed + 1)
        assert queue.broke(A, "why", "") is None
    for _ in range(ATTEMPTS - 1):
        queue.next(0.0)
        assert queue.broke(A, "why", "") is None
    queue.next(0.0)
    assert queue.broke(A, "why", "") is not None


def test_a_task_of_another_process_is_asked_for_again_later():
    queue = Queue([A])
    queue.next(10.0)
    queue.owned_elsewhere(A, 10.0)
    assert queue.open
    assert queue.elsewhere == 1
    assert queue.next(10.1) is None
    assert queue.next(20.0) == A
    assert queue.elsewhere == 0
    queue.finished(A)
    assert not queue.open


@pytest.mark.parametrize("seed", range(20))
def test_makespan_is_that_of_the_greedy_assignment(seed):
    draw = random.Random(seed)
    costs = [draw.randint(1, 9) for _ in range(6)]
    workers = draw.randint(1, 3)
    best = min(
        max(sum(c for c, w in zip(costs, owner, strict=True) if w == i) for i in range(workers))
        for owner in itertools.product(range(workers), repeat=len(costs))
    )
    # longest first is within 4/3 of the best (Graham 1969)
    assert best <= makespan(costs, workers) <= 4 / 3 * best + 1e-9
    assert makespan(costs, 1) == sum(costs)


def test_makespan_of_nothing():
    assert makespan([], 4) == 0.0


def test_what_is_committed_costs_nothing(sweep):
    cohort = make_plan(sweep, backend="eager").cohorts[0]
    task = next(cohort.tasks())
    costs = [rough_seconds(cohort, task, committed=k) for k in range(cohort.checkpoints + 1)]
    assert costs[0] == costs[1] > 0  # checkpoint 0 takes no step
    assert costs[1:] == sorted(costs[1:], reverse=True)
    assert costs[-1] == 0
