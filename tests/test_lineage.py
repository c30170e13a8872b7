import math
from dataclasses import replace

import numpy as np
import pytest

from fpkit.calibration import calibrate, calibration_error, loss_bits
from fpkit.finetunes import Kin
from fpkit.gallery import Gallery, centred_scores
from fpkit.lineage import (
    ENTRY,
    Calibration,
    effective_images,
    nearest_bases,
    stored_calibration,
)

PLAIN = Calibration(
    intercept=-1.0,
    slope=4.0,
    by_images=-0.5,
    slope_by_images=1.0,
    fewest=0.5,
    most=8.0,
    bound=3.0,
)


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


def cloud(centres, images, noise, generator):
    shape = (len(centres), images, centres.shape[1])
    return unit(centres[:, None] + noise * generator.standard_normal(shape))


def kin(*, noise=0.3, bases=24, images=8, shared=True, seed=0):
    """Bases on random axes; fine-tunes on the same axes, or on others that say nothing."""
    generator = np.random.default_rng(seed)
    centres = unit(generator.standard_normal((bases, 32)))
    others = centres if shared else unit(generator.standard_normal((bases, 32)))
    return Kin(
        base=cloud(centres, images, noise, generator),
        tuned=cloud(others, images, noise, generator),
        architecture=np.arange(bases) // 2,
        description="made up",
    )


@pytest.fixture
def gallery():
    gallery = Gallery("abc", dim=3)
    gallery.enrol("x", [[1.0, 0.1, 0.0], [1.0, -0.1, 0.0]])
    gallery.enrol("y", [[0.0, 1.0, 0.0]])
    gallery.enrol("z", [[0.0, 0.0, 1.0]])
    return gallery


# ---- from score to probability -----------------------------------------------------------------


def test_log_ratio_is_the_formula_by_hand():
    # m = 1 / (1/6 + 1/3) = 2
    expected = -1 + 4 * 0.2 - 0.5 * math.log(2) + 1 * 0.2 * math.log(2)
    assert PLAIN.log_ratio(0.2, images=6, enrolled=3) == pytest.approx(expected)


def test_log_ratio_is_bounded_and_extrapolates_no_number_of_images():
    assert PLAIN.log_ratio(1.0, images=8, enrolled=8) == 3
    assert PLAIN.log_ratio(-1.0, images=8, enrolled=8) == -3
    at_most = PLAIN.log_ratio(0.3, images=16, enrolled=16)  # m = 8
    assert PLAIN.log_ratio(0.3, images=10**6, enrolled=10**6) == pytest.approx(at_most)


def test_effective_images_is_half_the_harmonic_mean():
    assert effective_images(1, 1) == 0.5
    assert effective_images(4, [4, 10**9]) == pytest.approx([2, 4])


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"slope": float("nan")}, "finite"),
        ({"bound": 0.0}, "positive"),
        ({"fewest": 9.0}, "positive"),
        ({"slope": -1.0}, "higher score"),
        ({"slope_by_images": 8.0}, "higher score"),  # the slope would be negative at m = 0.5
    ],
)
def test_senseless_calibrations_are_refused(change, complaint):
    values = {name: getattr(PLAIN, name) for name in Calibration.__dataclass_fields__}
    with pytest.raises(ValueError, match=complaint):
        Calibration(**(values | change))


# ---- nearest bases -----------------------------------------------------------------------------


def test_score_is_that_of_the_mean_embedding(gallery):
    rows = np.array([[1.0, 0.2, 0.0], [0.8, 0.6, 0.0]])
    answers = nearest_bases(rows, gallery, calibration=PLAIN)
    scores = centred_scores(rows.mean(axis=0)[None], gallery.templates)[0]
    by_name = dict(zip(gallery.models, scores, strict=True))
    assert [a.base for a in answers] == sorted(by_name, key=lambda name: -by_name[name])
    assert {a.base: a.score for a in answers} == pytest.approx(by_name)
    assert {a.base: a.enrolled for a in answers} == {"x": 2, "y": 1, "z": 1}
    ratio = PLAIN.log_ratio(by_name["x"], images=2, enrolled=2)
    assert answers[0].likelihood_ratio == pytest.approx(math.exp(ratio))
    assert answers[0].probability == pytest.approx(1 / (1 + math.exp(-ratio)))


def test_prior_is_bayes_rule(gallery):
    even, rare = (
        nearest_bases([[1.0, 0, 0]], gallery, calibration=PLAIN, prior=p)[0] for p in (0.5, 0.1)
    )
    assert rare.likelihood_ratio == even.likelihood_ratio
    odds = even.likelihood_ratio * 0.1 / 0.9
    assert rare.probability == pytest.approx(odds / (1 + odds))


def test_interval_holds_the_score_and_shrinks_with_images(gallery):
    generator = np.random.default_rng(0)
    rows = unit(np.array([1.0, 0.3, 0.0]) + 0.4 * generator.standard_normal((400, 3)))
    few, many = (nearest_bases(rows[:n], gallery, calibration=PLAIN)[0] for n in (10, 400))
    for answer in (few, many):
        low, high = answer.score_interval
        assert low < answer.score < high
        assert answer.probability_interval[0] <= answer.probability
        assert 0 < answer.nearest <= 1
    width = [high - low for low, high in (few.score_interval, many.score_interval)]
    assert width[1] < width[0] / 3  # by the root of 40, or so


def test_one_image_has_no_interval_and_no_calibration_no_probability(gallery):
    answer = nearest_bases([[1.0, 0, 0]], gallery)[0]
    assert answer.score_interval is answer.nearest is answer.probability_interval is None
    assert answer.probability is answer.likelihood_ratio is None
    assert nearest_bases([[1.0, 0, 0]] * 2, gallery)[0].score_interval is not None


def test_bootstrap_follows_its_seed(gallery):
    rows = np.random.default_rng(1).standard_normal((9, 3))
    first, again, other = (nearest_bases(rows, gallery, seed=s)[0] for s in (0, 0, 1))
    assert first == again != other


@pytest.mark.parametrize(
    ("rows", "prior", "complaint"),
    [
        ([[1.0, 0.0]], 0.5, r"must be \(n, 3\)"),
        (np.zeros((0, 3)), 0.5, "n >= 1"),
        ([[1.0, 0, 0]], 1.0, "prior"),
        ([[np.nan, 0, 0]], 0.5, "NaN"),
    ],
)
def test_wrong_questions_are_refused(gallery, rows, prior, complaint):
    with pytest.raises(ValueError, match=complaint):
        nearest_bases(rows, gallery, prior=prior)


def test_empty_gallery_is_refused():
    with pytest.raises(ValueError, match="empty"):
        nearest_bases([[1.0, 0, 0]], Gallery("abc", dim=3))


# ---- fitting -----------------------------------------------------------------------------------


def test_loss_in_bits_of_known_ratios():
    same = [True, False, False]
    assert loss_bits([0, 0, 0], same) == 1
    assert loss_bits([50, -50, -50], same) == pytest.approx(0, abs=1e-9)
    assert loss_bits([-10, 10, 10], same) > 10
    # genuine: log2(1 + 1/3); impostors weigh one half together
    by_hand = 0.5 * math.log2(4 / 3) + 0.5 * math.log2(2)
    assert loss_bits([math.log(3), 0, 0], same) == pytest.approx(by_hand)
    with pytest.raises(ValueError, match="genuine and impostor"):
        loss_bits([1.0], [True])


def test_calibration_error_of_known_probabilities():
    ratios = np.full(200, math.log(0.75 / 0.25))
    same = np.arange(200) < 150
    even = np.ones(200)
    assert calibration_error(ratios, same, weight=even) == pytest.approx(0)
    assert calibration_error(ratios, ~same, weight=even) == pytest.approx(0.5)


@pytest.fixture(scope="module")
def fitted():
    return calibrate(kin())


def test_calibration_finds_kin_and_is_calibrated(fitted):
    calibration, report = fitted
    held_out = report["held_out"]
    assert held_out["auc_strangers"] > 0.97 and held_out["auc_one_architecture"] > 0.97
    assert held_out["loss_bits"] < 0.4 and held_out["calibration_error"] < 0.1
    assert report["bases"] == 24 and report["from"] == "made up"
    assert calibration.bound == pytest.approx(math.log(24))
    assert (calibration.fewest, calibration.most) == (0.5, 4.0)
    high, low = calibration.log_ratio([0.95, -0.1], images=8, enrolled=8)
    assert high > 1 and low < -1


def test_noisier_embeddings_give_more_cautious_probabilities(fitted):
    noisy, report = calibrate(kin(noise=1.0))
    assert fitted[1]["held_out"]["loss_bits"] < report["held_out"]["loss_bits"] < 1
    assert report["held_out"]["calibration_error"] < 0.1
    assert noisy.slope < fitted[0].slope


def test_hard_impostors_of_one_architecture_lower_the_probability(fitted):
    data = kin()
    pairs = data.base.mean(axis=1).reshape(12, 2, 32).mean(axis=1).repeat(2, axis=0)
    alike = replace(
        data, base=unit(data.base + pairs[:, None]), tuned=unit(data.tuned + pairs[:, None])
    )
    calibration, report = calibrate(alike)
    held_out = report["held_out"]
    assert held_out["auc_one_architecture"] < held_out["auc_strangers"]
    question = {"images": 8, "enrolled": 8}
    assert calibration.log_ratio(0.6, **question) < fitted[0].log_ratio(0.6, **question)


def test_an_extractor_that_sees_no_decoder_is_refused():
    with pytest.raises(ValueError, match="no evidence of lineage"):
        calibrate(kin(shared=False))


def test_calibration_follows_its_seed_and_needs_architectures(fitted):
    assert calibrate(kin()) == fitted
    with pytest.raises(ValueError, match="at least 10 architectures, got 4"):
        calibrate(kin(bases=8))


# ---- on the card -------------------------------------------------------------------------------


def test_calibration_survives_the_card():
    card = {"lineage": ENTRY.of(PLAIN, {"bases": 5}, extractor_hash="abc")}
    assert stored_calibration(card, extractor_hash="abc") == PLAIN
    assert card["lineage"]["bases"] == 5


@pytest.mark.parametrize(
    ("card", "complaint"),
    [
        ({}, "no lineage calibration: run `fpkit calibrate-lineage"),
        ({"lineage": {"extractor": "abc"}}, "damaged"),
        ({"lineage": {"extractor": "abc", "calibration": {"slope": 1.0}}}, "damaged"),
        ({"lineage": ENTRY.of(PLAIN, {}, extractor_hash="abcdef")}, "made for the extractor"),
    ],
)
def test_missing_damaged_and_foreign_calibrations_are_refused(card, complaint):
    with pytest.raises(ValueError, match=complaint):
        stored_calibration(card, extractor_hash="abc")
