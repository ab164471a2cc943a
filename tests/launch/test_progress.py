"""What is told while a zoo trains."""

from __future__ import annotations

import io

import pytest

from zoo.launch.progress import RunProgress, duration, line_reporter, reporter, tqdm_reporter
from zoo.provenance import fingerprint, fingerprint_changes


def state(done, *, elapsed=10.0, ended=False, failed=0, elsewhere=0):
    return RunProgress(100, done, 20.0, failed, elsewhere, elapsed, ended)


def test_rate_counts_only_what_this_run_did():
    assert state(60.0).rate == pytest.approx(4.0)
    assert state(60.0).left_s == pytest.approx(10.0)
    assert state(20.0).left_s is None
    assert state(60.0, failed=40).left_s == 0.0


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.04, "0.0 s"), (9.94, "9.9 s"), (9.96, "10 s"), (59.4, "59 s"), (59.6, "1 min 00 s"),
     (125, "2 min 05 s"), (3600, "1 h 00 min"), (7805, "2 h 10 min")],
)  # fmt: skip
def test_durations(seconds, words):
    assert duration(seconds) == words


def test_lines_are_few_and_the_last_state_is_told():
    out = io.StringIO()
    report = line_reporter(out, every_s=1e9)
    for done in range(20, 100):
        report(state(float(done), failed=1, elsewhere=2))
    report(state(100.0, ended=True))
    lines = out.getvalue().splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("training: 20 of 100 models")
    assert "1 failed" in lines[0]
    assert "2 tasks of another process" in lines[0]
    assert lines[1].startswith("training: 100 of 100 models, 8 models/s")


def test_every_phase_has_its_own_labelled_bar():
    """In a diet sweep the bar of the scores was the only one: the training never showed."""
    out = io.StringIO()
    report = tqdm_reporter(out)
    for phase, models in (("scoring", 10), ("training", 40), ("diet metrics", 20)):
        report(RunProgress(models, 0.0, 0.0, 0, 0, 0.0, phase=phase))
        report(RunProgress(models, models / 2, 0.0, 0, 0, 2.0, phase=phase))
        report(RunProgress(models, float(models), 0.0, 0, 0, 4.0, ended=True, phase=phase))
    text = out.getvalue()
    for phase, models in (("scoring", 10), ("training", 40), ("diet metrics", 20)):
        assert f"{phase}:" in text
        assert f"{models}/{models} models" in text
        assert f"{models // 2}/{models} models, {models / 4:.3g} models/s, 2.0 s left" in text


def test_a_phase_with_nothing_to_do_has_no_bar():
    out = io.StringIO()
    report = tqdm_reporter(out)
    report(RunProgress(8, 8.0, 8.0, 0, 0, 0.0, phase="scoring"))
    report(RunProgress(8, 8.0, 8.0, 0, 0, 0.1, ended=True, phase="scoring"))
    assert out.getvalue() == ""


def test_lines_of_a_new_phase_are_told_at_once():
    out = io.StringIO()
    report = line_reporter(out, every_s=1e9)
    for phase in ("scoring", "training"):
        report(RunProgress(8, 1.0, 0.0, 0, 0, 1.0, phase=phase))
    first, second = out.getvalue().splitlines()
    assert first.startswith("scoring: 1 of 8 models")
    assert second.startswith("training: 1 of 8 models")


def test_no_bar_where_there_is_no_terminal():
    out = io.StringIO()
    reporter(out)(state(30.0))
    assert "\r" not in out.getvalue()
    assert "30 of 100 models" in out.getvalue()


def test_the_bar_shows_rate_and_time_left():
    out = io.StringIO()
    report = tqdm_reporter(out)
    report(state(20.0))
    report(state(60.0, failed=3))
    report(state(100.0, ended=True))
    text = out.getvalue()
    assert "60/100 models" in text
    assert "4 models/s" in text
    assert "3 failed" in text
    assert "100/100 models" in text


def test_fingerprint_changes_name_what_changes_bits():
    now = fingerprint()
    assert fingerprint_changes(now, now) == ()
    then = {**now, "cores": 999, "cpu": "abacus", "versions": {**now["versions"], "torch": "1.0"}}
    changes = fingerprint_changes(then, now)
    assert len(changes) == 2
    assert changes[0].startswith("cpu was abacus")
    assert changes[1].startswith("torch was 1.0")
    assert fingerprint_changes({}, now) == ()
