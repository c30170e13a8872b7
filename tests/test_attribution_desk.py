"""The desk without a browser: controls are moved and uploads set as a browser would."""

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from fpkit.attribution_desk import NEAREST, AttributionDesk
from fpkit.desk_data import Uploaded, from_images
from fpkit.desk_figures import MAX_ROWS, answer_table, correlation_figure, short
from fpkit.embedder import Embedder
from fpkit.extractor import load_extractor
from fpkit.gallery import Gallery, Identification, verify
from fpkit.images import write_png
from fpkit.procedural import procedural_images
from fpkit.spectral_correlation import (
    by_ring,
    common_spectrum,
    correlation_map,
    log_spectrum,
    reference_spectrum,
)
from fpkit.spectrum import average_spectrum
from fpkit.verdicts import Conditions, stored_verdicts


@pytest.fixture(scope="module")
def extractor() -> Embedder:
    return load_extractor("small")


@pytest.fixture(scope="module")
def sources() -> dict[str, torch.Tensor]:
    """Four images each of two sources that differ by a blur."""
    scenes = procedural_images(8, 136, seed=5)
    blurred = torch.nn.functional.avg_pool2d(scenes, 3, 1, 1)
    return {"sharp": scenes[:4], "blurred": blurred[4:]}


@pytest.fixture
def desk(extractor: Embedder, sources: dict[str, torch.Tensor]) -> AttributionDesk:
    desk = AttributionDesk(extractor=extractor)
    for name, images in sources.items():
        desk.enrol(name, images[:3])
    return desk


def uploaded(**images: torch.Tensor | bytes) -> tuple[Uploaded, ...]:
    """What a browser sends for files of these names."""
    files = []
    for name, image in images.items():
        content = image
        if isinstance(image, torch.Tensor):
            pixels = (image * 255).round().byte().permute(1, 2, 0).numpy()
            buffer = io.BytesIO()
            Image.fromarray(pixels).save(buffer, format="PNG")
            content = buffer.getvalue()
        files.append(Uploaded(name=f"{name}.png", content=content))
    return tuple(files)


# ---- verdicts ----------------------------------------------------------------------------------


def test_a_verdict_is_that_of_the_calibration_at_the_rate_asked_for(desk, sources, extractor):
    desk.ask([sources["sharp"][3], sources["blurred"][3]])
    verdicts = stored_verdicts(extractor.card, extractor_hash=extractor.hash)
    found = Conditions(crops=1, jpeg=False)
    for far in (0.01, 0.2):
        desk.controls.far.value = far
        assert desk.far == far
        for answer in desk.answers:
            identification = Identification(
                model=answer.model, score=answer.score, scores=answer.scores
            )
            expected = verdicts.identify(identification, desk.known.gallery, found, far=far)
            assert answer.verdict == expected and answer.verdict.far == far


@pytest.mark.parametrize(
    ("answer", "words"),
    [("same", "made by sharp. LR"), ("unsure", "unsure"), ("different", "none of these")],
)
def test_every_answer_is_said_in_words(desk, sources, answer, words):
    scale = replace(desk.calibration.galleries, weights={"one": 1.0, "score": 0.0})
    bounds = {"same": (0.5, -1), "unsure": (2.0, -1), "different": (3.0, -1)}[answer]
    weight = -2.0 if answer == "different" else 1.0
    fixed = replace(
        scale,
        weights={"one": weight, "score": 0.0},
        accept=np.full_like(np.array(scale.accept), bounds[0]),
        refuse=np.full_like(np.array(scale.refuse), bounds[1]),
    )
    desk.calibration = replace(desk.calibration, galleries=fixed)
    desk.ask([sources["sharp"][3]])
    assert desk.answers[0].verdict.answer == answer
    assert words in desk.look.verdict.value
    shown = {"same": "✓ sharp", "unsure": "? unsure", "different": "✗ none of these"}[answer]
    assert shown in desk.controls.table.value
    ratio = "LR 2.7: 2.7 times" if weight > 0 else "LR 0.14: 7.4 times likelier if none"
    assert ratio in desk.look.verdict.value
    assert "136x136, 1 crop" in desk.look.verdict.value
    assert "<p>⚠ small: 136x136 pixels" in desk.look.verdict.value
    desk.against = "blurred"
    assert "its score with blurred is" in desk.look.verdict.value


def test_a_rate_that_was_not_measured_is_refused(desk):
    desk.far = 0.03
    assert desk.controls.far.value == 0.03 and desk.controls.far.label == "3%"
    with pytest.raises(ValueError, match="far must be"):
        desk.far = 1e-9
    assert desk.far == desk.controls.far.value == 0.03


def test_without_a_calibration_there_are_scores(desk, sources):
    desk.calibration = None
    desk.ask(sources["sharp"][2:])
    assert [answer.verdict for answer in desk.answers] == [None, None]
    assert "not calibrated (score" in desk.look.verdict.value
    assert "not calibrated" in desk.controls.table.value
    desk.against = "image 2"
    assert "not calibrated (score" in desk.look.verdict.value
    assert desk.static().height > 100


def test_a_jpeg_is_seen_as_one(desk, sources):
    pixels = (sources["sharp"][3] * 255).round().byte().permute(1, 2, 0).numpy()
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="JPEG", quality=50)
    desk.controls.ask_upload.value = (Uploaded(name="x.jpg", content=buffer.getvalue()),)
    desk.wait(60)
    evidence = desk.images[0].evidence
    assert (evidence.format, evidence.jpeg_quality, evidence.compressed) == ("JPEG", 50, True)
    assert "compressed hard" in desk.controls.table.value
    assert "JPEG 50, 136x136" in desk.look.verdict.value


# ---- where spectra agree -----------------------------------------------------------------------


def test_the_map_has_the_correlation_as_its_mean():
    generator = np.random.default_rng(1)
    first, second, reference = generator.normal(size=(3, 64, 64))
    contributions, score = correlation_map(first, second, reference=reference)
    kept = ~np.isnan(contributions)
    expected = np.corrcoef((first - reference)[kept], (second - reference)[kept])[0, 1]
    assert score == pytest.approx(expected) == pytest.approx(contributions[kept].mean())
    rows = (np.arange(64) - 32) / 64
    low = np.hypot(rows[:, None], rows) < 0.06
    assert (~kept == low).all()


def test_equal_opposite_and_louder_spectra():
    generator = np.random.default_rng(2)
    pattern, reference = generator.normal(size=(2, 32, 32))
    one = reference + pattern
    assert correlation_map(one, one, reference=reference)[1] == pytest.approx(1)
    assert correlation_map(one, one * 1, reference=one + pattern)[1] == pytest.approx(1)
    opposite = reference - pattern
    assert correlation_map(one, opposite, reference=reference)[1] == pytest.approx(-1)
    louder = reference + 3 * pattern + 10  # 10 dB brighter, with more contrast
    assert correlation_map(one, louder, reference=reference)[1] == pytest.approx(1)
    with pytest.raises(ValueError, match="equals the reference"):
        correlation_map(reference, one, reference=reference)
    with pytest.raises(ValueError, match="one size"):
        correlation_map(one, one[:16], reference=one)


def test_rings_average_the_map():
    contributions = np.full((64, 64), np.nan)
    contributions[32, 32 + 16] = 2.0  # 0.25 cycles/pixel, the first of ring 8
    contributions[32 + 17, 32] = 4.0
    frequency, mean = by_ring(contributions)
    assert frequency.tolist() == [8.5 / 32] and mean.tolist() == [3.0]
    corner = np.full((64, 64), np.nan)
    corner[0, 0] = 1.0
    assert by_ring(corner)[0].tolist() == [15.5 / 32]


def test_the_reference_moves_from_real_generators_to_the_models_at_hand():
    common = common_spectrum()
    assert (reference_spectrum([]) == common).all()
    other = common + 5
    np.testing.assert_allclose(reference_spectrum([other] * 4, prior=4), common + 2.5)
    with pytest.raises(ValueError, match="prior"):
        reference_spectrum([], prior=0)
    with pytest.raises(ValueError, match="read-only"):
        common[0, 0] = 1


def test_a_log_spectrum_is_smoothed_in_decibels():
    assert np.allclose(log_spectrum(np.full((3, 16, 16), 0.01)), -20)
    peak = np.ones((16, 16))
    peak[8, 8] = 10.0
    smooth = log_spectrum(peak)
    assert np.allclose(smooth[7:10, 7:10], 10 / 9) and np.isclose(smooth.sum(), 10)
    with pytest.raises(ValueError, match="shape"):
        log_spectrum(np.ones(16))


# ---- the desk ----------------------------------------------------------------------------------


def test_answers_are_those_of_the_gallery_made_by_hand(desk, extractor, sources):
    answers = desk.ask([sources["sharp"][3], sources["blurred"][3]])
    gallery = Gallery(extractor.hash, extractor.dim)
    for name, images in sources.items():
        gallery.enrol(name, extractor.embed(images[:3]))
    probes = extractor.embed([images[3] for images in sources.values()])
    for answer, known in zip(answers, gallery.identify(probes), strict=True):
        assert answer.model == known.model and answer.score == pytest.approx(known.score, abs=1e-5)
    assert [answer.model for answer in answers] == ["sharp", "blurred"]
    score, _ = desk.verify("image 1", "image 2")
    assert score == pytest.approx(verify(*probes), abs=1e-5)
    assert desk.progress == 1 and not desk.busy and "2 images" in desk.status


def test_comparing_with_an_image_asks_for_the_pair(desk, sources):
    desk.ask(sources["sharp"][2:])
    assert desk.shown == "image 1" and desk.against == NEAREST
    desk.controls.against.value = "image 2"
    assert desk.against == "image 2"
    score, verdict = desk.verify("image 1", "image 2")
    assert verdict == desk.calibration.verify(score, Conditions(crops=1, jpeg=False), far=0.01)
    words = {"same": "same model", "different": "two models", "unsure": "unsure"}
    assert f"{words[verdict.answer]}: this and image 2. LR" in desk.look.verdict.value
    desk.against = "blurred"
    assert "blurred" in desk.look.verdict.value and desk.controls.against.value == "blurred"


def test_why_compares_with_the_average_of_all_enrolled_images(desk, sources):
    desk.ask(sources["sharp"][3:])
    known = {
        name: log_spectrum(average_spectrum(images[:3], residual="none"))
        for name, images in sources.items()
    }
    probe = log_spectrum(average_spectrum(sources["sharp"][3:], residual="none"))
    reference = reference_spectrum(list(known.values()))
    for name in known:
        desk.against = name
        expected = correlation_map(probe, known[name], reference=reference)
        contributions, score = desk.why()
        assert score == pytest.approx(expected[1], abs=1e-3)
        np.testing.assert_allclose(contributions, expected[0], atol=0.02)
        shown = np.asarray(desk.look.figure.data[0].z)
        np.testing.assert_allclose(shown, np.nan_to_num(contributions), atol=1e-5)
        assert shown.dtype == np.float32 and f"{score:.2f}" in desk.look.reason.value


def test_one_figure_is_updated_in_place(desk, sources):
    desk.ask(sources["sharp"][3:])
    figure = desk.look.figure
    before = np.asarray(figure.data[0].z, dtype=float).copy()
    desk.ask(sources["blurred"][3:])
    assert desk.look.figure is figure
    assert not np.allclose(np.asarray(figure.data[0].z, dtype=float), before)


def test_uploads_are_read_and_damaged_ones_named(desk, sources):
    files = uploaded(good=sources["blurred"][3], bad=b"no image", tiny=torch.zeros(3, 64, 64))
    desk.controls.ask_upload.value = files
    desk.wait(60)
    assert [answer.model for answer in desk.answers] == ["blurred"] and desk.shown == "good.png"
    assert desk.error is None and len(desk.skipped) == 2
    assert "bad.png: not an image" in desk.status and "tiny.png: image is 64x64" in desk.status
    assert desk.controls.ask_upload.value == ()
    desk.controls.ask_upload.value = files[:1]
    desk.wait(60)
    assert [image.name for image in desk.images] == ["good.png", "good.png (2)"]


def test_uploads_enrol_a_model_once_it_has_a_name(desk, sources):
    files = uploaded(a=sources["sharp"][3])
    desk.controls.enrol_upload.value = files
    assert "Give the model's name" in desk.status and len(desk.models) == 2
    desk.controls.name.value = " third "
    desk.controls.enrol_upload.value = files
    desk.wait(60)
    assert desk.models == ("sharp", "blurred", "third")
    desk.ask([sources["sharp"][3]])
    assert not desk.answers[0].seen or "no test" in desk.controls.table.value


def test_an_enrolled_image_is_marked(desk, sources):
    new, old = desk.ask([sources["sharp"][3], sources["sharp"][0]])
    assert old.seen and not new.seen
    assert desk.controls.table.value.count("no test") == 1


def test_folders_are_enrolled_and_asked_about(extractor, sources, tmp_path):
    for name, images in sources.items():
        for i, image in enumerate(images):
            write_png(tmp_path / ("new" if i == 3 else "known") / name / f"{i}.png", image)
    (tmp_path / "known" / "sharp" / "broken.png").write_bytes(b"")
    desk = AttributionDesk(extractor=extractor)
    desk.controls.enrol_path.value = f" {tmp_path / 'known'} "
    desk.controls.enrol_button.click()
    desk.wait(60)
    assert desk.known.gallery.counts == {"blurred": 3, "sharp": 3}
    assert "broken.png: the file is empty" in desk.status
    desk.controls.ask_path.value = str(tmp_path / "new")
    desk.controls.ask_button.click()
    desk.wait(60)
    assert [(a.name, a.model) for a in desk.answers] == [
        ("blurred/3.png", "blurred"),
        ("sharp/3.png", "sharp"),
    ]


def test_wrong_folders_are_errors_that_are_shown(desk, tmp_path):
    desk.controls.ask_button.click()
    desk.wait(60)
    assert "give a folder" in desk.status and isinstance(desk.error, ValueError)
    with pytest.raises(FileNotFoundError, match="no such folder"):
        desk.enrol_folder(tmp_path / "nothing")
    assert 'role="alert"' in desk.message.value and not desk.busy
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "a.png").write_bytes(b"")
    with pytest.raises(ValueError, match="0 images of 0 models"):
        desk.enrol_folder(tmp_path)


def test_forgetting_and_clearing(desk, sources):
    desk.ask(sources["sharp"][3:])
    desk.against = "sharp"
    desk.forget("sharp")
    assert desk.models == ("blurred",) and desk.answers[0].model == "blurred"
    assert desk.against == NEAREST and desk.controls.choice.options == (("blurred",) * 2,)
    assert "One model alone" in desk.controls.enrolled.value
    with pytest.raises(KeyError):
        desk.forget("sharp")
    desk.clear()
    assert desk.images == desk.answers == () and desk.shown == "" and desk.why() is None
    assert desk.look.box.layout.display == "none"
    with pytest.raises(ValueError, match="desk is empty"):
        desk.static()


def test_without_models_images_can_still_be_compared(extractor, sources):
    desk = AttributionDesk(extractor=extractor)
    assert desk.ask(sources["sharp"][2:]) == [] and desk.why() is None
    assert "nothing to compare with" in desk.look.reason.value
    desk.against = "image 2"
    assert desk.why() is not None and "score" in desk.look.verdict.value


def test_a_gallery_from_elsewhere_gives_scores_but_no_reason(extractor, sources):
    gallery = Gallery(extractor.hash, extractor.dim)
    gallery.enrol("old", extractor.embed(sources["sharp"][:3]))
    desk = AttributionDesk(gallery, extractor)
    assert desk.ask(sources["sharp"][3:])[0].model == "old"
    assert desk.why() is None and "no images of old" in desk.look.reason.value
    with pytest.raises(ValueError, match="another extractor"):
        AttributionDesk(Gallery("0" * 64, extractor.dim), extractor)


def test_a_cancelled_enrolment_keeps_what_is_done(desk, sources, monkeypatch):
    desk.observe(lambda change: "Reading second 2" in change["new"] and desk.cancel(), "status")
    sources_of = {name: sources["sharp"] for name in ("first", "second")}
    work = {name: from_images(images, name=name) for name, images in sources_of.items()}
    desk.start(lambda: desk._enrol(work))
    desk.wait(60)
    assert desk.status == "Cancelled." and desk.models == ("sharp", "blurred", "first")
    assert not desk.busy and desk.controls.cancel.disabled


def test_names_are_escaped(desk, sources):
    desk.controls.ask_upload.value = uploaded(**{"<b>x": sources["sharp"][3]})
    desk.wait(60)
    desk.enrol("<i>m", sources["sharp"][:1])
    shown = desk.controls.table.value + desk.look.verdict.value + desk.look.scores.value
    shown += desk.controls.enrolled.value + desk.message.value
    assert "<b>x" not in shown and "<i>m" not in shown and "&lt;b&gt;x" in shown


def test_static_shows_the_images_and_the_reason(desk, sources):
    desk.ask([sources["sharp"][3]])
    one = desk.static()
    desk.ask([sources["blurred"][3]])
    two = desk.static()
    assert two.height > one.height and np.asarray(two).std() > 10
    desk.against = "image 1"
    assert np.asarray(desk.static()).tobytes() != np.asarray(two).tobytes()


def test_the_example_names_the_models_it_enrolled_and_doubts_the_other():
    desk = AttributionDesk()
    desk.controls.example.click()
    desk.wait(120)
    assert desk.error is None and len(desk.models) == 4 and len(desk.answers) == 10
    for answer in desk.answers[:8]:
        assert answer.name.startswith(answer.model) and answer.verdict.answer != "different"
    assert all(answer.verdict.answer != "same" for answer in desk.answers[8:])
    assert "not enrolled" in desk.status


def test_every_control_has_a_label_and_busy_disables_what_would_start_work(desk):
    controls = [c for c in vars(desk.controls).values() if hasattr(c, "description")]
    named = [control for control in controls if type(control).__name__ != "HTML"]
    assert len(named) == 15 and all(control.description for control in named)
    desk.busy = True
    assert desk.controls.ask_button.disabled and not desk.controls.cancel.disabled
    desk.controls.ask_button.click()
    assert desk.error is None
    desk.busy = False
    assert not desk.controls.ask_button.disabled and desk.controls.cancel.disabled


# ---- views -------------------------------------------------------------------------------------


def test_long_tables_and_names_are_cut(desk, sources):
    image = desk.ask(sources["sharp"][3:])
    rows = list(desk.images) * (MAX_ROWS + 5)
    table = answer_table(rows, image, "image 1")
    assert table.count("<img") == MAX_ROWS and "and 5 more" in table
    assert short("a" * 40) == "a" * 15 + "…" + "a" * 14 and short("abc") == "abc"


def test_the_figure_holds_the_map_and_its_rings():
    contributions = np.random.default_rng(0).normal(size=(128, 128))
    figure = correlation_figure(contributions)
    assert np.asarray(figure.data[0].z).dtype == np.float32
    np.testing.assert_allclose(figure.data[1].y, by_ring(contributions)[1], atol=1e-6)
    assert (figure.data[0].zmin, figure.data[0].zmax) == (-3, 3)
