"""The checkpoint plan: the steps that it means, and what it refuses."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zoo.errors import SpecError
from zoo.spec import RecordSpec


@pytest.mark.parametrize(
    ("plan", "expected"),
    [
        ({}, [0, 10, 20, 30, 40]),
        ({"every_epochs": 2}, [0, 20, 40]),
        ({"every_epochs": 3}, [0, 30, 40]),
        ({"every_epochs": 0.5}, [0, 5, 10, 15, 20, 25, 30, 35, 40]),
        ({"every_epochs": 0.01}, list(range(41))),
        ({"every_epochs": 1e9}, [0, 40]),
        ({"epochs": [1, 2.5, 99]}, [0, 10, 25, 40]),
        ({"epochs": []}, [0, 40]),
        ({"steps": [7, 3, 3, 400]}, [0, 3, 7, 40]),
        ({"log_steps": 1}, [0, 1, 40]),
        ({"log_steps": 4}, [0, 1, 3, 12, 40]),
    ],
)
def test_a_plan_means_these_steps(plan, expected):
    assert list(RecordSpec(**plan).checkpoint_steps(40, 10)) == expected


def test_a_run_of_no_steps_has_its_initialisation():
    for plan in ({}, {"epochs": [0, 1]}, {"steps": [5]}, {"log_steps": 4}):
        assert RecordSpec(**plan).checkpoint_steps(0, 10) == (0,)


_PLANS = st.one_of(
    st.fixed_dictionaries({"every_epochs": st.floats(0.05, 50)}),
    st.fixed_dictionaries({"epochs": st.lists(st.floats(0, 50), max_size=5)}),
    st.fixed_dictionaries({"steps": st.lists(st.integers(0, 2000), max_size=5)}),
    st.fixed_dictionaries({"log_steps": st.integers(1, 30)}),
)


@settings(max_examples=100, deadline=None)
@given(_PLANS, st.integers(0, 1000), st.integers(1, 60))
def test_steps_ascend_from_the_first_to_the_last(plan, total, per_epoch):
    steps = RecordSpec(**plan).checkpoint_steps(total, per_epoch)
    assert steps[0] == 0
    assert steps[-1] == total
    assert list(steps) == sorted(set(steps))
    assert all(type(step) is int for step in steps)


@pytest.mark.parametrize(
    "plan",
    [
        {"every_epochs": 0},
        {"every_epochs": math.nan},
        {"every_epochs": math.inf},
        {"every_epochs": True},
        {"epochs": 3},
        {"epochs": [1, "a"]},
        {"epochs": [math.inf]},
        {"steps": [1.5]},
        {"steps": [-1]},
        {"log_steps": 0},
        {"log_steps": 2.0},
        {"probe_size": 1.5},
        {"probe_size": True},
        {"steps": [1], "epochs": [1]},
    ],
)
def test_a_bad_plan_is_refused(plan):
    with pytest.raises(SpecError, match="record"):
        RecordSpec(**plan)


@given(_PLANS)
def test_a_plan_survives_the_way_to_a_dict_and_back(plan):
    record = RecordSpec(**plan)
    assert RecordSpec.stored(record.to_dict()) == record
