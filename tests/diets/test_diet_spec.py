"""The diet fields of a run, and what a sweep makes of them."""

from __future__ import annotations

import pytest

from zoo.diets.demand import BLOCK, make_job, scoring_jobs
from zoo.errors import SpecError
from zoo.spec import RunSpec, Sweep
from zoo.spec.diet import scorer_of
from zoo.spec.run import field_infos

EL2N = {"score": "el2n", "keep": 0.5}


def resolved(**fields):
    return RunSpec(**fields).resolve(1437)


def test_a_run_without_a_diet_has_no_diet_fields():
    run = RunSpec()
    for name in ("keep", "select", "trim", "score_epoch", "scorer", "balance", "drop_share"):
        assert getattr(run, name) is None
    assert not {"score", "keep", "dynamic", "diet_seed"} & run.identity().keys()


def test_equivalent_runs_collapse():
    assert RunSpec(score="el2n", keep=1).run_id == RunSpec().run_id
    assert RunSpec(score="el2n", keep=1, select="easiest", diet_seed=3).run_id == RunSpec().run_id
    one = RunSpec(score="random", keep=0.3)
    assert one.run_id == RunSpec(score="random", keep=0.3, score_epoch=7, trim=0.2).run_id
    assert one.run_id != RunSpec(score="random", keep=0.3, diet_seed=9).run_id
    window = RunSpec(**EL2N, select="window", offset=0.1)
    assert window.run_id == RunSpec(**EL2N, select="window", offset=0.1, trim=0.4).run_id
    spellings = ("width=16,epochs=5", " epochs = 5 ,width=16", "width=16, epochs=5.0")
    assert len({RunSpec(**EL2N, scorer=text).run_id for text in spellings}) == 1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({**EL2N, "trim": 0.6}, "<= 1 - keep = 0.5"),
        ({**EL2N, "select": "window", "offset": 0.7}, "leaves fewer examples"),
        ({"score": "forgetting", "score_epoch": 1}, ">= 2"),
        ({"score": "memorization", "score_epoch": 0}, ">= 1"),
        ({"score": "el2m"}, "did you mean 'el2n'"),
        ({"score": "file:"}, "unknown score"),
        ({**EL2N, "scorer": "widht=8"}, "did you mean 'width'"),
        ({**EL2N, "scorer": "seed=8"}, "the same for a run and its scorer"),
        ({**EL2N, "scorer": "width"}, "sets no field"),
        ({**EL2N, "scorer": "width=0"}, ">= 1"),
        ({**EL2N, "budget": "step"}, "did you mean 'steps'"),
        ({**EL2N, "keep": 0.0}, "> 0"),
    ],
)
def test_bad_diets_say_what_is_allowed(fields, message):
    with pytest.raises(SpecError, match="problem") as caught:
        RunSpec(**fields)
    assert message in str(caught.value)


def test_a_diet_smaller_than_a_batch_is_refused():
    with pytest.raises(SpecError, match="fewer than one batch"):
        resolved(score="random", keep=0.01)


def test_budgets():
    full = resolved(epochs=10)
    steps = resolved(score="random", keep=0.25, epochs=10)
    epochs = resolved(score="random", keep=0.25, epochs=10, budget="epochs")
    assert full.steps == steps.steps == 10 * (1437 // 32)
    assert epochs.steps == 10 * (359 // 32)
    assert steps.examples == epochs.examples == 359
    # an epoch is as long as without the diet, so that checkpoints stand at the same steps
    assert steps.steps_per_epoch == full.steps_per_epoch == 44
    assert steps.epochs == 10
    assert epochs.steps_per_epoch == 11


def test_the_scorer_is_the_run_without_its_diet():
    run = RunSpec(**EL2N, width=48, seed=7, lr=0.03)
    assert scorer_of(run).run_id == RunSpec(width=48, lr=0.03).run_id
    proxy = RunSpec(**EL2N, width=48, scorer="width=16,epochs=4")
    assert scorer_of(proxy).run_id == RunSpec(width=16, epochs=4).run_id
    noisy = RunSpec(**EL2N, label_noise=0.2, noise_seed=5)
    assert scorer_of(noisy).noise_seed == 5


def test_scoring_jobs_are_deduplicated_by_content():
    runs = [resolved(**EL2N, seed=s, epochs=20) for s in range(3)]
    runs += [resolved(score="grand", score_epoch=2, score_seeds=4, epochs=20)]
    runs += [resolved(score="random", keep=0.2), resolved()]
    (job,) = scoring_jobs(runs, {"digits": 1437})
    assert {"el2n", "grand"} <= set(job.scores)
    assert job.epochs == (2.0, 10.0)
    assert job.seeds == 10
    assert job.blocks == 10 / BLOCK
    more = [*runs, resolved(**EL2N, width=8), resolved(**EL2N, label_noise=0.1, noise_seed=1)]
    assert len(scoring_jobs(more, {"digits": 1437})) == 3
    assert scoring_jobs(more, {"digits": 1437})[0].id == job.id
    subsets = scoring_jobs([*runs, resolved(score="memorization")], {"digits": 1437})
    assert [j.subsets for j in subsets] == [False, True]


def test_score_epochs_must_lie_in_the_scorers_training():
    with pytest.raises(SpecError, match="0 to 5"):
        scoring_jobs([resolved(**EL2N, epochs=5)], {"digits": 1437})
    with pytest.raises(SpecError, match="0 to 5"):
        make_job(resolved(epochs=5), 1437, ["el2n"], [9], 2)


def sweep(**tables):
    return Sweep.from_dict({"name": "d", "base": {"data": "digits"}, **tables})


GRID = {"score": ["el2n", "margin"], "keep": [0.2, 0.5], "seed": [0, 1]}


def test_each_size_gets_a_random_baseline():
    found = sweep(grid=GRID)
    assert len(found.runs()) == 12
    assert found.baselines == 4
    assert [r.score for r in found.runs()][-4:] == ["random"] * 4
    assert {(r.keep, r.seed) for r in found.runs()[-4:]} == {
        (k, s) for k in (0.2, 0.5) for s in (0, 1)
    }
    assert len(sweep(grid=GRID, diet={"baseline": False}).runs()) == 8
    given = {**GRID, "score": ["el2n", "random"]}
    assert sweep(grid=given).baselines == 0
    assert Sweep.from_toml(found.to_toml()) == found


def test_a_sweep_over_keep_has_the_whole_set_once():
    found = sweep(grid={**GRID, "keep": [0.5, 1.0]})
    assert sum(run.score == "none" for run in found.runs()) == 2
    assert found.collapsed == 2


def test_scores_at_initialisation_need_leave_and_the_message_says_why():
    tables = {"base": {"data": "digits", "score_epoch": 0}, "grid": {"score": ["grand", "el2n"]}}
    with pytest.raises(SpecError, match=r"2303\.14753") as caught:
        sweep(**tables)
    assert "allow_init = true" in str(caught.value)
    assert len(sweep(**tables, diet={"allow_init": True}).runs()) == 3


def test_bad_diet_tables():
    with pytest.raises(SpecError, match="2 problems"):
        sweep(grid=GRID, diet={"baselines": True, "allow_init": 1})


def test_every_diet_field_is_an_axis():
    names = {"keep", "select", "offset", "trim", "score_epoch", "score_seeds", "scorer", "balance"}
    assert names | {"score", "budget", "diet_seed", "dynamic"} <= field_infos().keys()
