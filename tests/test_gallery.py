"""Scores by geometry in the plane; the file by what it keeps and what it refuses."""

import math

import numpy as np
import pytest
import torch

from fpkit.gallery import Gallery, centred_scores, gallery_centre, template, verify


def at(*degrees: float) -> np.ndarray:
    """Unit vectors in the plane."""
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def random_rows(n: int, d: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)


# ---- scores ------------------------------------------------------------------------------------


def test_template_is_the_direction_of_the_mean():
    np.testing.assert_allclose(template(at(10, 50)), at(30)[0], atol=1e-6)


def test_verify_is_the_cosine_of_the_angle():
    assert verify(3 * at(20)[0], at(80)[0]) == pytest.approx(0.5)
    assert verify(torch.tensor([1.0, 0.0]), torch.tensor([-1.0, 0.0])) == pytest.approx(-1)


def test_with_prior_zero_two_templates_face_each_other():
    scores = centred_scores(at(0, 90, 45), at(0, 90), prior=0)
    np.testing.assert_allclose(scores[:2], [[1, -1], [-1, 1]], atol=1e-12)
    np.testing.assert_allclose(scores[2], [0, 0], atol=1e-12)


def test_centre_by_hand():
    templates = np.array([[1.0, 0.0], [0.0, 1.0]])
    np.testing.assert_allclose(gallery_centre(templates, prior=4), [1 / 6, 1 / 6])
    probe = np.array([[1.0, 0.0]])
    # from (1/6, 1/6): probe and first template at (5/6, -1/6), second at (-1/6, 5/6)
    expected = [[1.0, (-10 / 36) / (26 / 36)]]
    np.testing.assert_allclose(centred_scores(probe, templates, prior=4), expected)


def test_a_shared_lean_hides_in_cosines_and_not_in_centred_scores():
    own = np.eye(12)[:10]
    lean = 5 * np.eye(12)[10]
    templates = (own + lean) / math.sqrt(26)
    plain = templates @ templates.T
    centred = centred_scores(templates, templates, prior=0)
    off = ~np.eye(10, dtype=bool)
    assert plain[off].min() > 0.9 and centred[off].max() < 0


def test_a_large_prior_gives_plain_cosines():
    probes, templates = random_rows(4, 8), template(random_rows(1, 8, 1))[None]
    plain = [[verify(probe, templates[0])] for probe in probes]
    np.testing.assert_allclose(centred_scores(probes, templates, prior=1e9), plain, atol=1e-6)


def test_one_enrolled_model_without_prior_scores_zero():
    assert centred_scores(at(30, 100), at(30), prior=0).tolist() == [[0.0], [0.0]]


def test_probes_do_not_change_each_other():
    probes, templates = random_rows(5, 8), random_rows(3, 8, 1)
    together = centred_scores(probes, templates)
    alone = np.concatenate([centred_scores(probe[None], templates) for probe in probes])
    np.testing.assert_allclose(together, alone, atol=1e-12)


# ---- gallery -----------------------------------------------------------------------------------


def test_identify_ranks_every_model():
    gallery = Gallery("abc", dim=2)
    for name, angle in {"east": 0, "north": 90, "west": 180}.items():
        gallery.enrol(name, torch.from_numpy(at(angle - 5, angle + 5)))
    answer, other = gallery.identify(at(80, 170))
    assert (answer.model, other.model) == ("north", "west")
    assert list(answer.scores) == ["north", "east", "west"]
    assert answer.score == answer.scores["north"] == max(answer.scores.values())
    expected = centred_scores(at(80), gallery.templates)[0]
    assert [answer.scores[m] for m in gallery.models] == pytest.approx(expected)


def test_enrolling_in_steps_equals_enrolling_at_once():
    rows = random_rows(7, 5)
    once, steps = Gallery("abc", dim=5), Gallery("abc", dim=5)
    once.enrol("a", rows)
    steps.enrol("a", rows[:2])
    steps.enrol("a", rows[2:])
    np.testing.assert_allclose(once.templates, steps.templates, atol=1e-6)
    assert steps.counts == {"a": 7} and len(steps) == 1
    np.testing.assert_allclose(once.templates[0], template(rows), atol=1e-6)


def test_remove_forgets():
    gallery = Gallery("abc", dim=2)
    gallery.enrol("a", at(0))
    gallery.enrol("b", at(90))
    gallery.remove("a")
    assert gallery.models == ["b"] and gallery.templates.shape == (1, 2)
    with pytest.raises(KeyError, match="enrolled: b"):
        gallery.remove("a")


@pytest.mark.parametrize("models", [0, 1, 3])
def test_save_and_load(tmp_path, models):
    gallery = Gallery("abc", dim=4)
    for index in range(models):
        gallery.enrol(f"modèle, {index}", random_rows(index + 1, 4, index))
    path = tmp_path / "gallery"
    gallery.save(path)
    loaded = Gallery.load(path, extractor_hash="abc")
    assert loaded.models == gallery.models and loaded.counts == gallery.counts
    np.testing.assert_array_equal(loaded.templates, gallery.templates)
    loaded.enrol("new", random_rows(1, 4))  # a loaded gallery can grow
    assert [p.name for p in tmp_path.iterdir()] == ["gallery"]


def test_another_extractor_is_refused(tmp_path):
    Gallery("a" * 64, dim=2).save(tmp_path / "g")
    with pytest.raises(ValueError, match="enrol the images again"):
        Gallery.load(tmp_path / "g", extractor_hash="b" * 64)


def test_what_is_no_gallery_is_refused(tmp_path):
    from safetensors.torch import save_file

    with pytest.raises(FileNotFoundError, match="fpkit enrol"):
        Gallery.load(tmp_path / "missing", extractor_hash="abc")
    (tmp_path / "text").write_text("hello, this is no gallery")
    with pytest.raises(ValueError, match="not a gallery"):
        Gallery.load(tmp_path / "text", extractor_hash="abc")
    save_file({"sums": torch.zeros(1, 2)}, tmp_path / "weights")
    with pytest.raises(ValueError, match="not a gallery"):
        Gallery.load(tmp_path / "weights", extractor_hash="abc")
    gallery = Gallery("abc", dim=64)
    gallery.enrol("a", random_rows(1, 64))
    gallery.save(tmp_path / "g")
    (tmp_path / "g").write_bytes((tmp_path / "g").read_bytes()[:-10])
    with pytest.raises(ValueError, match="damaged"):
        Gallery.load(tmp_path / "g", extractor_hash="abc")


def test_errors_say_what_is_wrong():
    gallery = Gallery("abc", dim=2)
    with pytest.raises(ValueError, match="empty: enrol"):
        gallery.identify(at(0))
    with pytest.raises(ValueError, match="another extractor"):
        gallery.enrol("a", np.zeros((1, 3)))
    with pytest.raises(ValueError, match="needs a name"):
        gallery.enrol("", at(0))
    with pytest.raises(ValueError, match="NaN"):
        gallery.enrol("a", [[np.nan, 0.0]])
    with pytest.raises(ValueError, match=r"\(n, d\)"):
        gallery.enrol("a", np.zeros((0, 2)))
    with pytest.raises(ValueError, match="dim"):
        Gallery("abc", dim=0)
    with pytest.raises(ValueError, match="3 dimensions, templates 2"):
        centred_scores(np.zeros((1, 3)), at(0))
    with pytest.raises(ValueError, match="prior"):
        centred_scores(at(0), at(0), prior=-1)
    assert gallery.models == []  # a refused enrolment leaves no trace
