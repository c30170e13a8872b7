"""Verification figures, and their intervals against a loop that repeats the pairs themselves."""

import numpy as np
import pytest

from fpkit.metrics import auc, bootstrap_interval, eer, tar_at_far
from fpkit.pairs import PairScores, resampled_roc, verification

NAMES = ("auc", "eer", "tar_at_far_0.01", "auc_within_content")


def all_pairs(vectors, model, *, decoder=None, content=None, decimals=None):
    first, second = np.triu_indices(len(model), k=1)
    score = (vectors @ vectors.T)[first, second]
    decoder = np.arange(model.max() + 1) if decoder is None else np.asarray(decoder)
    content = np.zeros(len(model), int) if content is None else np.asarray(content)[model]
    a, b = model[first], model[second]
    return PairScores(
        score=score if decimals is None else score.round(decimals),
        first=a,
        second=b,
        kin=(decoder[a] == decoder[b]) & (a != b),
        content=np.where(content[first] == content[second], content[first], -1),
    )


def clustered(models, images, *, spread, seed):
    rng = np.random.default_rng(seed)
    model = rng.permutation(np.repeat(np.arange(models), images))
    vectors = rng.normal(size=(models, 8))[model] + spread * rng.normal(size=(len(model), 8))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True), model


def naive(pairs, count):
    """The four figures when each model is there `count` times, from the repeated scores."""
    times = np.where(
        pairs.first == pairs.second, count[pairs.first], count[pairs.first] * count[pairs.second]
    )
    genuine, impostor = pairs.first == pairs.second, (pairs.first != pairs.second) & ~pairs.kin
    shared = {c for c, t, i in zip(pairs.content, times, impostor, strict=True) if t and i} - {-1}
    within = np.isin(pairs.content, list(shared))

    def scores(which):
        return np.repeat(pairs.score[which], times[which])

    found = [np.nan] * 4
    if scores(genuine).size and scores(impostor).size:
        both = scores(genuine), scores(impostor)
        found[:3] = auc(*both), eer(*both), tar_at_far(*both, 0.01)
    both = scores(genuine & within), scores(impostor & within)
    if both[0].size and both[1].size:
        found[3] = auc(*both)
    return found


@pytest.mark.parametrize("decimals", [None, 1], ids=["distinct", "ties"])
def test_intervals_against_repeated_pairs(decimals):
    draws = [
        all_pairs(
            *clustered(7, 4, spread=0.8, seed=seed),
            decoder=[0, 0, 1, 2, 3, 4, 5],
            content=[0, 0, 0, 1, 1, 2, -1],
            decimals=decimals,
        )
        for seed in range(2)
    ]
    found = verification(draws, 7, seed=3, resamples=40)
    whole = [naive(pairs, np.ones(7, int)) for pairs in draws]
    assert [found[name] for name in NAMES] == pytest.approx(np.mean(whole, axis=0), abs=1e-12)
    picks = np.random.default_rng(3).integers(7, size=(40, 7))
    slow = np.mean(
        [[naive(pairs, np.bincount(pick, minlength=7)) for pick in picks] for pairs in draws],
        axis=0,
    )
    assert np.isnan(slow[:, 3]).any()  # nothing shared within a content: left out
    for name, values in zip(NAMES, slow.T, strict=True):
        low, high = np.nanquantile(values, [0.025, 0.975])
        assert low < high
        assert found["ci95"][name] == pytest.approx([low, high], abs=1e-12)


def test_more_scores_than_levels():
    pairs = all_pairs(*clustered(20, 14, spread=1.2, seed=0))
    assert pairs.score.size > 30_000
    picks = np.random.default_rng(0).integers(20, size=(8, 20))
    slow = [naive(pairs, np.bincount(pick, minlength=20)) for pick in picks]
    found = verification([pairs], 20, seed=0, resamples=8)["ci95"]
    for name, values in zip(NAMES, np.transpose(slow), strict=True):
        assert found[name] == pytest.approx(np.quantile(values, [0.025, 0.975]), abs=0.003)


def test_the_unit_is_the_model():
    # genuine pairs of a model lie all above or all below every impostor: its AUC is 1 or 0, and
    # with equally many pairs the AUC of a resample is the mean over the models drawn
    good = np.array([1, 1, 0, 1, 0, 1])
    model = np.repeat(np.arange(6), 5)
    first, second = np.triu_indices(30, k=1)
    a, b = model[first], model[second]
    pairs = PairScores(
        score=np.where(a == b, good[a], 0.5),
        first=a,
        second=b,
        kin=np.zeros(a.size, bool),
        content=np.full(a.size, -1),
    )
    found = verification([pairs], 6, seed=5)
    assert found["auc"] == pytest.approx(4 / 6)
    assert found["ci95"]["auc"] == pytest.approx(bootstrap_interval(good, draws=400, seed=5))
    assert found["auc_within_content"] is None and found["ci95"]["auc_within_content"] is None


def test_two_models_say_nothing_when_one_is_drawn_twice():
    vectors, model = clustered(2, 6, spread=0.8, seed=1)
    pairs = all_pairs(vectors, model)
    far, tar = resampled_roc(
        pairs,
        pairs.first == pairs.second,
        pairs.first != pairs.second,
        pairs.content,
        np.array([[2, 0], [1, 1]]),
    )
    assert np.isnan(far[0]).all() and not np.isnan(far[1]).any()
    assert (far[1, 0], tar[1, 0], far[1, -1], tar[1, -1]) == (0, 0, 1, 1)
    found = verification([pairs], 2, seed=0)
    for name in NAMES[:3]:
        assert found["ci95"][name] == pytest.approx([found[name]] * 2)


def test_without_pairs_there_are_no_figures():
    lone = all_pairs(np.eye(3), np.arange(3))  # impostors only
    kin = all_pairs(np.eye(4), np.array([0, 0, 1, 1]), decoder=[0, 0])
    for pairs in (lone, kin):
        found = verification([pairs], 3, seed=0)
        assert all(found[name] is None and found["ci95"][name] is None for name in NAMES)
