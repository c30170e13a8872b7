"""Open set: curves by hand, thresholds against the metrics, and who is left out together."""

from pathlib import Path

import numpy as np
import pytest

from fpkit.manifest import ImageFacts
from fpkit.metrics import auc, threshold_at_far
from fpkit.openset import Answers, curves, open_set, threshold_keeping, threshold_refusing
from fpkit.protocol import Plan


def answers(score, right=None, weight=None):
    score = np.array(score, float)
    right = np.ones(score.size, bool) if right is None else np.array(right, bool)
    weight = np.ones(score.size) if weight is None else np.array(weight, float)
    return Answers(score=score, right=right, weight=weight)


def area(x, y):
    return float((np.diff(x) * (y[1:] + y[:-1]) / 2).sum())


def facts_of(models, images=8):
    """models: name -> decoder."""
    return [
        ImageFacts(path=Path(f"{m}/{i}"), model=m, family="", decoder=d, content="", format="png")
        for m, d in models.items()
        for i in range(images)
    ]


def points_of(plan, direction, *, spread=0.01):
    rng = np.random.default_rng(0)
    clean = np.eye(12)[[direction[plan.models[j]] for j in plan.model]]
    return clean + spread * rng.normal(size=clean.shape)


# ---- curves and thresholds ---------------------------------------------------------------------


def test_curves_by_hand():
    known = answers([0.9, 0.8, 0.3], right=[True, False, True])
    fpr, ccr, kept = curves(known, answers([0.5, 0.85]))
    assert fpr.tolist() == [0, 0, 0.5, 0.5, 1, 1]
    assert ccr == pytest.approx([0, 1 / 3, 1 / 3, 1 / 3, 1 / 3, 2 / 3])
    assert kept == pytest.approx([0, 1 / 3, 1 / 3, 2 / 3, 2 / 3, 1])


def test_areas_are_those_of_the_metrics_when_all_names_are_right():
    rng = np.random.default_rng(0)
    known, unknown = (rng.normal(shift, 1, 60).round(1) for shift in (1, 0))
    fpr, ccr, kept = curves(answers(known), answers(unknown))
    np.testing.assert_array_equal(ccr, kept)
    assert area(fpr, kept) == pytest.approx(auc(known, unknown))


def test_a_weight_of_two_is_an_image_twice():
    known, unknown = answers([0.9, 0.4, 0.2], [1, 0, 1], [2, 1, 1]), answers([0.5], weight=[3])
    twice = answers([0.9, 0.9, 0.4, 0.2], [1, 1, 0, 1])
    for one, other in zip(curves(known, unknown), curves(twice, unknown), strict=True):
        np.testing.assert_allclose(one, other)


@pytest.mark.parametrize("far", [0.01, 0.05, 0.3])
def test_threshold_refusing_is_that_of_the_metrics(far):
    for seed in range(5):
        score = np.random.default_rng(seed).normal(size=100).round(1)
        assert threshold_refusing(answers(score), far) == threshold_at_far(score, far=far)


def test_threshold_keeping_is_the_highest():
    score = np.arange(1, 101) / 100
    assert threshold_keeping(answers(score), 0.95) == 0.06  # 95 of 100 reach it
    assert threshold_keeping(answers(score), 0.945) == 0.06
    assert threshold_keeping(answers([0.1, 0.2], weight=[1, 19]), 0.95) == 0.2


# ---- leaving models out ------------------------------------------------------------------------


def test_kin_are_left_out_together():
    models = {"a1": "a", "a2": "a", "a3": "a", "b": "b", "c1": "c", "c2": "c", "d": "d", "e": "e"}
    plan = Plan.draw(facts_of(models), 12, 0)
    direction = {name: "abcde".index(name[0]) for name in models}
    found = open_set(plan, points_of(plan, direction), np.zeros((0, 12)), prior=0.0)
    # were one of three kin enrolled, the probes of the others would score as those of known models
    assert found["auroc"] == 1.0 and found["far_at_tar_0.95"] == 0.0
    assert found["oscr"] < 1.0  # of three known kin, all but one get a wrong name
    assert found["photos"] is None
    assert found["unknown_models"][0] >= 1 and found["known_models"][0] >= 2
    low, high = found["unknown_models"]
    assert found["known_models"] == [8 - high, 8 - low]


def test_a_third_of_the_models():
    plan = Plan.draw(facts_of({name: name for name in "abcdefghi"}), 3, 0)
    points = points_of(plan, {name: i for i, name in enumerate("abcdefghi")})
    found = open_set(plan, points, np.zeros((0, 12)), prior=0.0)
    assert found["unknown_models"] == [3, 3] and found["known_models"] == [6, 6]
    perfect = {"oscr": 1, "auroc": 1, "far_at_tar_0.95": 0, "ccr_at_far_0.01": 1}
    assert {name: found[name] for name in perfect} == pytest.approx(perfect)
    other = open_set(plan, points, np.zeros((0, 12)), prior=0.0, share=0.5)
    assert other["unknown_models"] == [4, 4]  # as near as 5


def test_photographs_at_thresholds_of_others():
    # a photograph like each of three models: the two that are enrolled are accepted, the third not
    plan = Plan.draw(facts_of({"a": "a", "b": "b", "c": "c"}), 10, 0)
    points = points_of(plan, {"a": 0, "b": 1, "c": 2})
    found = open_set(plan, points, np.eye(12)[:3], prior=0.0)["photos"]
    assert found["images"] == 3
    for name in ("far_at_tar_0.95", "far_at_unknown_0.01", "far_at_unknown_0.05"):
        assert found[name] == pytest.approx(2 / 3)


def test_models_count_alike():
    # b has many probes, all refused as well as a's are: figures must not move with their number
    few, many = ({"a": 8, "b": 8, "c": 8, "d": 8}, {"a": 8, "b": 80, "c": 8, "d": 8})
    found = []
    for sizes in (few, many):
        facts = [fact for m, n in sizes.items() for fact in facts_of({m: m}, n)]
        plan = Plan.draw(facts, 40, 0)
        points = points_of(plan, {"a": 0, "b": 1, "c": 2, "d": 3}, spread=0)
        points[plan.model == 1] = np.eye(12)[2]  # b looks like c
        found.append(open_set(plan, points, np.zeros((0, 12)), prior=0.0))
    assert found[0]["oscr"] == pytest.approx(found[1]["oscr"], abs=0.02)


def test_two_groups_are_too_few():
    plan = Plan.draw(facts_of({"a1": "a", "a2": "a", "b": "b"}), 2, 0)
    assert open_set(plan, np.ones((24, 12)), np.zeros((0, 12)), prior=0.0) is None


def test_share_is_checked():
    plan = Plan.draw(facts_of({"a": "a", "b": "b", "c": "c"}), 2, 0)
    with pytest.raises(ValueError, match="share must be between 0 and 1, got 1"):
        open_set(plan, np.ones((24, 12)), np.zeros((0, 12)), prior=0.0, share=1)
