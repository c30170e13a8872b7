import json
import math
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

from fpkit import cli, verdict_bank
from fpkit.calibration import fit_logistic
from fpkit.extractor import load_extractor
from fpkit.gallery import Gallery, centred_scores
from fpkit.verdict_bank import FORMATS, Bank, embed_bank
from fpkit.verdict_calibration import FARS, calibrate, draw, fit, fit_scale, measure
from fpkit.verdict_trials import CROPS, GENUINE, MODELS, OTHER, TWIN
from fpkit.verdicts import (
    ENTRY,
    PAIR_FEATURES,
    Conditions,
    Scale,
    VerdictCalibration,
    gallery_features,
    pair_features,
    stored_verdicts,
)

PLAIN = Conditions(crops=16, jpeg=False)


def made_scale(**changes):
    """Accept at 4, 2 and 1 for 0.1%, 1% and 10%, 0.5 higher with JPEG; refuse at -1."""
    accept = np.tile([4.0, 2.0, 1.0], (2, 2, 1, 1))
    accept[1] += 0.5
    accept[:, 0] += 1  # of one crop
    fields = {
        "weights": {"one": -1.0, "score": 6.0},
        "bound": 5.0,
        "crops": (1, 16),
        "models": (1,),
        "fars": (0.001, 0.01, 0.1),
        "accept": accept.tolist(),
        "refuse": np.full((2, 2, 1), -1.0).tolist(),
    }
    return Scale(**(fields | changes))


@pytest.fixture
def calibration():
    return VerdictCalibration(pairs=made_scale(), galleries=made_scale())


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def made_bank(*, models=60, images=8, seed=0, told_apart=True):
    """Clouds on random axes, those of one architecture nearer to each other."""
    generator = np.random.default_rng(seed)
    architecture = np.arange(models) // 3
    axes = unit(generator.standard_normal((models, 32)))[architecture]
    axes = unit(axes + 0.7 * unit(generator.standard_normal((models, 32))))
    around = axes[:, None] if told_apart else np.zeros((models, 1, 32))
    means = around + 0.8 * unit(generator.standard_normal((models, images, 32)))
    crops = means[:, :, None, None, None] + 0.8 * unit(
        generator.standard_normal((models, images, 2, 4, 4, 32))
    )
    return Bank(
        crops=unit(crops).astype(np.float32),
        strangers=unit(generator.standard_normal((30, 2, 4, 4, 32))).astype(np.float32),
        cohort=np.zeros(32, np.float32),
        architecture=architecture,
        kind=np.array(["made"] * models),
        description="made up",
    )


@pytest.fixture(scope="module")
def bank():
    return made_bank()


@pytest.fixture(scope="module")
def trials(bank):
    return draw(bank, np.random.default_rng(0), 2000, 4)


@pytest.fixture(scope="module")
def fitted(trials):
    return fit(trials)


# ---- from score to answer -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("score", "answer"),
    [(0.5, "same"), (0.499, "unsure"), (0.001, "unsure"), (-0.001, "different")],
)
def test_answers_begin_at_the_bounds(calibration, score, answer):
    # the ratio is 6 s - 1: 2 at 0.5, -1 at 0
    verdict = calibration.verify(score, PLAIN, far=0.01)
    assert verdict.answer == answer
    assert verdict.log_ratio == pytest.approx(6 * score - 1)
    assert (verdict.accept, verdict.refuse, verdict.far) == (2, -1, 0.01)


def test_tables_are_read_between_their_levels_on_a_logarithmic_scale(calibration):
    scale = calibration.pairs
    assert scale.bounds(PLAIN, models=1, far=math.sqrt(0.001 * 0.01))[0] == pytest.approx(3)
    assert scale.bounds(replace(PLAIN, jpeg=True), models=1, far=0.01)[0] == 2.5
    assert scale.bounds(replace(PLAIN, crops=4), models=1, far=0.01)[0] == pytest.approx(2.5)
    assert scale.bounds(replace(PLAIN, crops=99), models=7, far=0.01)[0] == 2


def test_a_ratio_below_one_is_no_evidence_for_and_above_one_none_against():
    lax = made_scale(
        accept=np.full((2, 2, 1, 3), -1.0).tolist(), refuse=np.full((2, 2, 1), 1.5).tolist()
    )
    assert lax.bounds(PLAIN, models=1, far=0.1) == (0, 0)


def test_stricter_rates_accept_less(fitted):
    scores = np.linspace(-1, 1, 41)
    accepted = [[fitted.verify(s, PLAIN, far=far).answer == "same" for s in scores] for far in FARS]
    assert (np.diff(np.sum(accepted, axis=1)) >= 0).all()
    assert accepted[-1][-1] and not any(accepted[0][:20])


@pytest.mark.parametrize("far", [0.0009, 0.2, 0.0, math.nan])
def test_what_was_not_measured_is_refused(calibration, far):
    with pytest.raises(ValueError, match="0.001 .the strictest.* 0.1, got"):
        calibration.verify(0.5, PLAIN, far=far)


def test_senseless_questions_are_refused(calibration):
    with pytest.raises(ValueError, match="NaN"):
        calibration.verify(math.nan, PLAIN)
    with pytest.raises(ValueError, match="crops"):
        Conditions(crops=0, jpeg=False)


def test_ratios_are_bounded(calibration):
    assert calibration.verify(1.0, PLAIN).log_ratio == 5
    assert calibration.verify(-1.0, PLAIN).log_ratio == -5


# ---- galleries ----------------------------------------------------------------------------------


@pytest.fixture
def gallery():
    gallery = Gallery("abc", dim=3)
    gallery.enrol("x", [[1.0, 0.1, 0.0], [1.0, -0.1, 0.0], [1.0, 0.0, 0.1], [1.0, 0.0, -0.1]])
    gallery.enrol("y", [[0.0, 1.0, 0.0]])
    gallery.enrol("z", [[0.0, 0.8, 0.6]])
    return gallery


def test_features_of_a_gallery_by_hand(gallery):
    scores = centred_scores([[0.9, 0.3, 0.0], [0.0, 0.9, 0.2]], gallery.templates)
    found = gallery_features(
        scores, templates=gallery.templates, enrolled=[4, 1, 1], crops=[1, 4], jpeg=True
    )
    assert found["score"] == pytest.approx(scores.max(axis=1))
    assert found["second"] == pytest.approx(np.sort(scores, axis=1)[:, 1])
    assert found["crops"] == pytest.approx([0, 0.5])  # of log 16
    assert found["enrolled"] == pytest.approx([math.log(4), 0])
    assert found["score_jpeg"] == pytest.approx(found["score"])
    assert found["models"] == pytest.approx(np.log([3, 3]))
    among = centred_scores(gallery.templates, gallery.templates)
    assert found["alike"] == pytest.approx([max(among[0, 1:]), among[1, 2]])
    assert found["rest"][0] == pytest.approx(np.sort(scores[0])[:2].std())


def test_identification_is_judged_by_its_gallery(gallery):
    weights = {"one": -1.0, "score": 4.0, "second": -2.0}
    verdicts = VerdictCalibration(pairs=made_scale(), galleries=made_scale(weights=weights))
    answer = gallery.identify([[0.9, 0.3, 0.0]])[0]
    verdict = verdicts.identify(answer, gallery, PLAIN)
    first, second = list(answer.scores.values())[:2]
    assert answer.model == "x" and verdict.score == first
    assert verdict.log_ratio == pytest.approx(4 * first - 2 * second - 1)
    gallery.remove("z")
    with pytest.raises(ValueError, match="other models than the gallery"):
        verdicts.identify(answer, gallery, PLAIN)


def test_one_enrolled_model_will_do(fitted):
    gallery = Gallery("abc", dim=2)
    gallery.enrol("x", [[1.0, 0.0]])
    near, far = (fitted.identify(a, gallery, PLAIN) for a in gallery.identify(np.eye(2)))
    assert near.log_ratio > 0 > far.log_ratio


# ---- on the card --------------------------------------------------------------------------------


def test_a_calibration_survives_the_card(fitted, gallery):
    entry = json.loads(json.dumps(ENTRY.of(fitted, {"from": "here"}, extractor_hash="abc")))
    stored = stored_verdicts({"verdicts": entry}, extractor_hash="abc")
    assert stored == fitted and entry["from"] == "here"
    answer = gallery.identify([[0.9, 0.3, 0.0]])[0]
    assert stored.identify(answer, gallery, PLAIN) == fitted.identify(answer, gallery, PLAIN)


@pytest.mark.parametrize(
    "damage",
    [
        {"weights": {"one": 1.0, "score": math.nan}},
        {"weights": {"one": 1.0, "score": "6"}},
        {"weights": {"one": 1.0, "unheard": 6.0, "score": 1.0}},
        {"weights": {"one": 1.0}},
        {"weights": None},
        {"bound": 0.0},
        {"fars": [0.1, 0.01, 0.001]},
        {"crops": [1, 4, 16]},
        {"accept": [[1.0]]},
        {"accept": [[[1.0]], [1.0]]},
        {"unknown": 1},
    ],
)
def test_damaged_cards_are_refused(calibration, damage):
    entry = ENTRY.of(calibration, {}, extractor_hash="abc")
    pairs = entry["calibration"]["pairs"] | damage
    entry["calibration"] = entry["calibration"] | {"pairs": pairs}
    with pytest.raises(ValueError, match="damaged .*: run `fpkit calibrate-verdicts"):
        stored_verdicts({"verdicts": entry}, extractor_hash="abc")


def test_missing_and_foreign_calibrations_say_what_to_do(calibration):
    with pytest.raises(ValueError, match="has no calibration of verdicts: run `fpkit"):
        stored_verdicts({}, extractor_hash="abc")
    for broken in (None, [], {"extractor": "abc"}):
        with pytest.raises(ValueError, match="no calibration|damaged"):
            stored_verdicts({"verdicts": broken}, extractor_hash="abc")
    card = {"verdicts": ENTRY.of(calibration, {}, extractor_hash="abc")}
    with pytest.raises(ValueError, match="made for the extractor .abc., this is xyz"):
        stored_verdicts(card, extractor_hash="xyz")


@pytest.mark.parametrize("name", [None, "small"])
def test_shipped_extractors_have_verdicts(name):
    extractor = load_extractor(name)
    verdicts = stored_verdicts(extractor.card, extractor_hash=extractor.hash)
    for crops in (1, 5, 16):
        for jpeg in (False, True):
            conditions = Conditions(crops=crops, jpeg=jpeg)
            answers = [verdicts.verify(score, conditions).answer for score in (0.999, 0.5, -0.9)]
            assert answers[0] == "same" and answers[2] == "different", conditions
            ratios = [verdicts.verify(s, conditions).log_ratio for s in np.linspace(-1, 1, 9)]
            assert (np.diff(ratios) >= 0).all() and ratios[-1] > 0 > ratios[0]


# ---- fitting ------------------------------------------------------------------------------------


def test_logistic_regression_finds_the_ratio_of_two_gaussians():
    # equal variances s: the log-ratio is (m1 - m0) / s * (x - (m0 + m1) / 2)
    generator = np.random.default_rng(0)
    x = np.concatenate([generator.normal(0.8, 0.5, 40_000), generator.normal(0.0, 0.5, 10_000)])
    target = np.arange(50_000) < 40_000
    weight = np.where(target, 0.5 / 40_000, 0.5 / 10_000)
    columns = np.stack([np.ones_like(x), x], axis=1)
    solution = fit_logistic(columns, target, weight=weight, ridge=0)
    assert solution == pytest.approx([-3.2 * 0.4, 3.2], rel=0.05)


def test_logistic_regression_agrees_with_scikit_learn():
    linear = pytest.importorskip("sklearn.linear_model")
    generator = np.random.default_rng(1)
    columns = np.column_stack([np.ones(500), generator.standard_normal((500, 3))])
    target = columns @ [0.2, 1.0, -2.0, 0.5] + generator.logistic(size=500) > 0
    weight = generator.random(500)
    weight /= weight.sum()
    other = linear.LogisticRegression(C=1 / 0.01, tol=1e-10, max_iter=1000)
    other.fit(columns[:, 1:], target, sample_weight=weight)
    mine = fit_logistic(columns, target, weight=weight, ridge=0.01)
    assert mine == pytest.approx([*other.intercept_, *other.coef_[0]], abs=1e-5)


def test_weights_give_every_cell_and_kind_its_share(trials):
    pairs = trials[0]
    weight = pairs.weights(0.25)
    for cell in np.ndindex(2, len(CROPS), 1):
        inside = (pairs.cell == cell).all(axis=1)
        parts = [weight[inside & (pairs.kind == kind)].sum() for kind in (GENUINE, TWIN, OTHER)]
        assert parts == pytest.approx(np.array([4, 1, 3]) / 8 / (2 * len(CROPS)))


def test_bounds_hold_on_the_trials_they_come_from(trials, fitted):
    for part, levels in ((trials[0], (1,)), (trials[1], MODELS)):
        scale = fitted.pairs if levels == (1,) else fitted.galleries
        assert scale.models == levels and np.shape(scale.accept)[2] == len(levels)
        ratio = scale.log_ratio(part.features)
        for cell in np.ndindex(2, len(CROPS), len(levels)):
            inside = (part.cell == cell).all(axis=1)
            rows = np.flatnonzero(inside & ((part.kind == TWIN) | (part.kind == OTHER)))
            shares = part.shares(rows)
            for far, accept in zip(FARS, np.array(scale.accept)[cell], strict=True):
                assert shares[ratio[rows] >= accept].sum() <= far + 1e-9
            # and not much less: the next impostor would be too many
            accept = np.array(scale.accept)[cell][FARS.index(0.1)]
            if accept > 0:
                assert shares[ratio[rows] >= accept].sum() > 0.1 - 2 * shares.max() - 0.01
            genuine = ratio[inside & part.same]
            below = genuine < np.array(scale.refuse)[cell]
            assert below.mean() == pytest.approx(0.05, abs=0.005 + 1 / len(genuine))


def test_calibration_judges_models_that_it_has_not_seen(bank):
    calibration, report = calibrate(bank, pairs=1500, galleries=4)
    assert report["models"] == 60 and report["architectures"] == 20
    for part in ("pairs", "galleries"):
        found = report["held_out"][part]
        assert found["loss_bits"] < 0.75 and found["calibration_error"] < 0.1
        assert found["far"] < 0.03 and found["far_other"] < 0.005 < found["tar"]
        assert found["far_twin"] > found["far_other"]
    again, _ = calibrate(bank, pairs=1500, galleries=4)
    assert again == calibration


def test_images_named_wrongly_are_no_genuine_trials():
    blind = draw(made_bank(told_apart=False), np.random.default_rng(0), 100, 6)[1]
    asked = [(blind.cell[:, 2] == 3) & (blind.kind == kind) for kind in (GENUINE, OTHER)]
    # of 30 models that look alike, one in 30 is named rightly; the 60 images asked about are many
    assert 0 < asked[0].sum() < 0.15 * asked[1].sum()


def test_more_crops_make_stronger_evidence(fitted):
    weak, strong = (
        fitted.verify(0.9, Conditions(crops=crops, jpeg=False)).log_ratio for crops in (1, 16)
    )
    low = fitted.verify(0.2, Conditions(crops=16, jpeg=False)).log_ratio
    assert low < fitted.verify(0.2, Conditions(crops=1, jpeg=False)).log_ratio
    assert weak > 0 and strong > 0


def test_what_cannot_be_calibrated_is_refused(bank):
    with pytest.raises(ValueError, match="10 architectures and 4 images .* got 5 and 8"):
        calibrate(bank.of(bank.architecture < 5))
    blind = draw(made_bank(told_apart=False), np.random.default_rng(0), 500, 1)[0]
    blind.features["score"][blind.same] -= 0.3
    with pytest.raises(ValueError, match="no evidence: train it longer"):
        fit_scale(blind, PAIR_FEATURES, models=(1,))


def test_measured_rates_are_shares_of_the_trials(trials, fitted):
    found = measure(fitted.pairs, trials[0], far=0.05)
    assert found["far"] <= 0.05
    assert found["far"] == pytest.approx(0.25 * found["far_twin"] + 0.75 * found["far_other"])


def test_pair_features_broadcast():
    found = pair_features(np.zeros((2, 3)), crops=4, jpeg=False)
    assert list(found) == list(PAIR_FEATURES)
    assert {values.shape for values in found.values()} == {(2, 3)}


# ---- the bank -----------------------------------------------------------------------------------


@pytest.fixture
def few_sources(monkeypatch):
    monkeypatch.setattr(verdict_bank, "SOURCES", 3)


def test_bank_holds_the_crops_of_embeddings(few_sources, monkeypatch):
    extractor = load_extractor("small")
    pictures = []
    embedded = verdict_bank._embedded
    monkeypatch.setattr(
        verdict_bank, "_embedded", lambda e, f: pictures.append(f) or embedded(e, f)
    )
    bank = embed_bank(extractor, random=2, images=2, strangers=2)
    assert bank.crops.shape == (2, 2, len(FORMATS), 4, 4, extractor.dim)
    assert bank.strangers.shape == (2, len(FORMATS), 4, 4, extractor.dim)
    assert bank.architecture.tolist() == [0, 0] and len(set(bank.kind)) == 1
    means = bank.crops[0, 0].mean(axis=(1, 2)) - bank.cohort
    assert torch.stack(pictures[0]).shape == (2, 3, 360, 360)
    expected = extractor.embed(pictures[0]).numpy()
    assert unit(means) == pytest.approx(expected, abs=1e-5)
    assert not np.allclose(expected[0], expected[1], atol=1e-3)  # JPEG leaves a trace
    alone = embed_bank(extractor, random=2, images=2, strangers=2, part=(1, 2))
    assert alone.crops[0] == pytest.approx(bank.crops[1], abs=1e-6)
    with pytest.raises(ValueError, match="at least 2 models with 2 images"):
        embed_bank(extractor, random=1, images=2)


def test_command_writes_the_card(bank, tmp_path, monkeypatch, capsys):
    extractor = load_extractor("small")
    extractor.save(tmp_path)
    asked = {}
    monkeypatch.setattr(verdict_bank, "embed_bank", lambda _, **kw: asked.update(kw) or bank)
    monkeypatch.setattr(calibrate, "__kwdefaults__", {"seed": 0, "pairs": 500, "galleries": 2})
    assert cli.main(["calibrate-verdicts", str(tmp_path), "--random", "40", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert asked["random"] == 40 and asked["tiles"] is None
    card = json.loads((tmp_path / "extractor.json").read_text())
    assert card["verdicts"] == printed and card["seconds"] == extractor.card["seconds"]
    calibration = stored_verdicts(card, extractor_hash=extractor.hash)
    assert json.loads(json.dumps(asdict(calibration))) == printed["calibration"]
    with pytest.raises(SystemExit):
        cli.main(["calibrate-verdicts", str(tmp_path), "--images", "3"])
