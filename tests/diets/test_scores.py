"""Scores against their definitions, and against formulas written out here."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.special import entr, softmax

from zoo.architectures import build, initial_row
from zoo.data import DataShape
from zoo.data.score_file import file_fingerprint, read_scores
from zoo.diets.scores import SCORES, EpochTrail, Outputs
from zoo.diets.scores.el2n import error_norm
from zoo.diets.scores.forgetting import forgetting_events
from zoo.diets.scores.input_norm import input_norm
from zoo.diets.scores.memorization import memorization
from zoo.diets.scores.prototype import k_means, prototype
from zoo.diets.scoring import score_models
from zoo.errors import DataError, MissingDataError
from zoo.objectives import OBJECTIVES
from zoo.registry import vocabulary
from zoo.spec import RunSpec

LOSS = OBJECTIVES["cross_entropy"]("class")

LOGITS = torch.tensor([[[3.0, 1.0, -2.0], [0.2, 0.1, 0.0], [-1.0, 4.0, 4.5], [0.0, 0.0, 9.0]]])
LABELS = torch.tensor([0, 2, 1, 2])


def say(name, logits=LOGITS, labels=LABELS):
    labels = labels.expand(logits.shape[:-1])
    outputs = Outputs(None, LOSS, {}, torch.zeros(0), logits, labels)
    return SCORES[name].compute(outputs)[0].numpy()


def test_el2n_is_zero_at_certainty_and_root_two_at_its_opposite():
    sure = torch.tensor([[0.0, 200.0, 0.0]])
    assert float(error_norm(sure, torch.tensor([1]))) == 0.0
    assert float(error_norm(sure, torch.tensor([0]))) == pytest.approx(math.sqrt(2), abs=1e-7)


def test_el2n_is_not_squared():
    p = softmax(LOGITS[0].numpy().astype(np.float64), axis=1)
    wanted = np.linalg.norm(p - np.eye(3)[LABELS], axis=1)
    np.testing.assert_allclose(say("el2n"), wanted, rtol=1e-5, atol=1e-6)


def test_loss_entropy_and_margin_are_those_of_torch_and_scipy():
    p = softmax(LOGITS[0].numpy().astype(np.float64), axis=1)
    losses = torch.nn.functional.cross_entropy(LOGITS[0], LABELS, reduction="none")
    np.testing.assert_allclose(say("loss"), losses, rtol=1e-6)
    np.testing.assert_allclose(say("entropy"), entr(p).sum(1), rtol=1e-5, atol=1e-6)
    own = p[np.arange(4), LABELS]
    others = np.where(np.eye(3, dtype=bool)[LABELS], -1, p).max(1)
    np.testing.assert_allclose(say("margin"), others - own, rtol=1e-5, atol=1e-7)


def test_labels_may_differ_between_models():
    logits = LOGITS.expand(2, -1, -1)
    labels = torch.stack([LABELS, (LABELS + 1) % 3])
    outputs = Outputs(None, LOSS, {}, torch.zeros(0), logits, labels)
    for name in ("el2n", "loss", "margin", "entropy"):
        both = SCORES[name].compute(outputs)
        for row in range(2):
            np.testing.assert_array_equal(both[row], say(name, labels=labels[row]))


def test_forgetting_counts_falls_and_never_learned_above_any_count():
    correct = torch.tensor(
        [[1, 0, 0, 1], [0, 0, 1, 1], [1, 0, 1, 1], [0, 0, 1, 1], [1, 0, 0, 1]], dtype=torch.bool
    )
    found = forgetting_events(correct.unsqueeze(0))[0].tolist()
    assert found == [2.0, 5.0, 1.0, 0.0]


def test_aum_is_minus_the_mean_margin():
    margin = torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(0))
    said = SCORES["aum"].compute(EpochTrail(margin > 0, margin))
    np.testing.assert_allclose(said, -margin.numpy().mean(1), rtol=1e-6)


def test_memorization_is_a_difference_of_accuracies():
    rng = np.random.default_rng(0)
    member, correct = rng.random((30, 8)) < 0.7, rng.random((30, 8)) < 0.5
    correct[:, 0] = member[:, 0]  # right exactly where it was seen
    correct[:, 1] = True
    member[:, 2] = True  # always there: nothing can be said
    found = memorization(correct, member)
    assert found[0] == 1.0
    assert found[1] == 0.0
    assert found[2] == 0.0
    for n in range(3, 8):
        seen = member[:, n]
        assert found[n] == pytest.approx(correct[seen, n].mean() - correct[~seen, n].mean())


def test_k_means_finds_blobs_that_lie_apart():
    from sklearn.cluster import KMeans

    rng = np.random.default_rng(1)
    centres = rng.normal(size=(4, 5)) * 20
    points = np.concatenate([c + rng.normal(size=(50, 5)) for c in centres])
    ours = k_means(points, 4)
    theirs = KMeans(4, n_init=5, random_state=0).fit(points).cluster_centers_
    order = np.argsort(ours[:, 0]), np.argsort(theirs[:, 0])
    np.testing.assert_allclose(ours[order[0]], theirs[order[1]], rtol=1e-6)
    distances = prototype(points.astype(np.float32), np.zeros(200, dtype=np.int64), 4)
    wanted = np.linalg.norm(points[:, None] - theirs, axis=2).min(1)
    np.testing.assert_allclose(distances, wanted, rtol=1e-5)


def test_input_norm():
    x = np.random.default_rng(0).normal(size=(5, 7)).astype(np.float32)
    np.testing.assert_allclose(input_norm(x, np.zeros(5)), np.sqrt((x**2).sum(1)), rtol=1e-6)


def test_scores_from_files(tmp_path):
    values = np.array([0.5, 2.0, -1.0])
    np.save(tmp_path / "s.npy", values)
    (tmp_path / "s.txt").write_text("0.5\n2\n-1\n")
    for name in ("s.npy", "s.txt"):
        np.testing.assert_array_equal(read_scores(tmp_path / name, 3), values)
    assert file_fingerprint(tmp_path / "s.npy") == file_fingerprint(tmp_path / "s.txt")
    with pytest.raises(DataError, match="4 finite numbers"):
        read_scores(tmp_path / "s.npy", 4)
    np.save(tmp_path / "bad.npy", np.array([np.nan]))
    with pytest.raises(DataError, match="finite"):
        read_scores(tmp_path / "bad.npy")
    np.save(tmp_path / "o.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="cannot be read"):
        read_scores(tmp_path / "o.npy")
    with pytest.raises(MissingDataError, match="no such file"):
        read_scores(tmp_path / "none.npy")


def test_every_score_is_described_and_a_value_of_the_field():
    for name in SCORES:
        if name != "none":
            assert SCORES[name].doc
            assert set(SCORES[name].fields) >= {"keep", "balance", "budget"}
    assert vocabulary("score") is SCORES
    assert "file:x.npy" in SCORES
    assert "file:" not in SCORES


def network(run, shape=(1, 8, 8), classes=10, models=3):
    built = build(run, DataShape(shape, classes))
    rows = [initial_row(built.layout, init="default", scale=1.0, seed=s) for s in range(models)]
    return built, torch.from_numpy(np.stack(rows))


def test_scores_do_not_depend_on_the_models_beside():
    """A model's scores have the same bits whoever is stacked with it."""
    built, slab = network(RunSpec(width=16))
    other = slab.clone()
    other[1:] = torch.randn(slab[1:].shape, generator=torch.Generator().manual_seed(5))
    other[2] = torch.nan
    x = torch.randn(700, 1, 64, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(700)[None] % 10
    names = [n for n in SCORES if getattr(SCORES[n], "kind", "") in ("point", "features")]
    assert len(names) >= 7
    a = score_models(built, LOSS, slab, x, labels, names)
    b = score_models(built, LOSS, other, x, labels, names)
    for name in names:
        assert a[name][0].numpy().tobytes() == b[name][0].numpy().tobytes(), name
        assert a[name].shape == (3, 700)


def test_scores_follow_a_permutation_of_the_examples():
    built, slab = network(RunSpec(width=16))
    x = torch.randn(600, 1, 64, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(600)[None] % 10
    turn = torch.randperm(600, generator=torch.Generator().manual_seed(1))
    a = score_models(built, LOSS, slab, x, labels, ["el2n", "grand", "loss"])
    b = score_models(
        built,
        LOSS,
        slab,
        x[turn],
        labels[:, turn],
        ["el2n", "grand", "loss"],
    )
    for name in a:
        torch.testing.assert_close(a[name][:, turn], b[name], rtol=1e-5, atol=1e-6)
