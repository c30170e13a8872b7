"""What is seen beside a score: against files and changes of known truth."""

import io
import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from fpkit import traces, verdict_bank
from fpkit.evidence import (
    LEAST_QUALITY,
    OVERLAP,
    conditions,
    gather_evidence,
    heads,
    of_model,
    of_pair,
    ratio_in_words,
)
from fpkit.images import ImageReadError, decode_image, grid_crops, jpeg, quantise
from fpkit.procedural import procedural_images
from fpkit.verdicts import Conditions, Verdict


@pytest.fixture(scope="module")
def scene() -> Tensor:
    return quantise(procedural_images(1, 192, seed=3))[0]


def pillow(image: Tensor) -> Image.Image:
    return Image.fromarray((image * 255).round().byte().permute(1, 2, 0).numpy())


def stored(image: Image.Image, form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=form, **options)
    return buffer.getvalue()


def seen(image: Tensor, source: bytes | None = None, **changes: int) -> str:
    """The warnings, in short, without the one about the size."""
    found = gather_evidence(image, source=source, **({"crop": 128, "grid": 4} | changes))
    return heads(w for w in found.warnings if not w.startswith("small"))


# ---- JPEG --------------------------------------------------------------------------------------


def test_quality_is_told_from_the_file_at_every_step(scene):
    corner = pillow(scene[:, :32, :32])
    for quality in range(1, 101):
        data = stored(corner, "JPEG", quality=quality)
        found = gather_evidence(scene[:, :32, :32], source=data, crop=32, grid=1)
        assert (found.format, found.jpeg_quality, found.compressed) == ("JPEG", quality, True)
        assert ("compressed hard" in heads(found.warnings)) == (quality < LEAST_QUALITY)


def test_a_table_of_another_maker_gets_the_nearest_quality():
    table = traces.standard_tables()[79].ravel()
    odd = np.where(np.arange(64) % 5 == 0, table + 1, table)
    assert traces.jpeg_quality(odd.astype(int).tolist()) == pytest.approx(80, abs=2)
    for wrong in ([1] * 63, [0] * 64, []):
        with pytest.raises(ValueError, match="64 positive steps"):
            traces.jpeg_quality(wrong)


@pytest.mark.parametrize("quality", [40, 75, 90, 95])
@pytest.mark.parametrize(("top", "left"), [(0, 0), (3, 6)])
def test_an_earlier_jpeg_is_found_with_its_quality_and_its_grid(scene, quality, top, left):
    image = jpeg(scene, quality)[:, top:, left:]
    trace = traces.find_jpeg(traces.grey_levels(image))
    assert trace is not None and trace.strength > 0.5
    assert (trace.quality, trace.row, trace.column) == (quality, -top % 8, -left % 8)
    found = gather_evidence(image, source=stored(pillow(image), "PNG"), crop=128, grid=4)
    assert found.format == "PNG" and found.jpeg_quality is None and found.compressed
    text = next(w for w in found.warnings if w.startswith("once a JPEG"))
    assert f"of quality {quality}" in text and ("cropped since" in text) == (top > 0)
    assert ("calibrated from quality" in text) == (quality < LEAST_QUALITY)


def test_only_the_middle_of_a_large_image_is_searched_on_its_grid(scene):
    large = jpeg(scene.repeat(1, 6, 6)[:, :1100, :1060], 80)
    trace = traces.find_jpeg(traces.grey_levels(large))
    assert trace is not None and (trace.quality, trace.row, trace.column) == (80, 0, 0)
    assert "once a JPEG" in seen(large) and "cropped" not in str(
        gather_evidence(large, crop=128, grid=4).warnings
    )


def test_no_trace_where_there_was_no_jpeg(scene):
    noise = torch.rand(3, 192, 192, generator=torch.Generator().manual_seed(0))
    grid = scene.clone()
    grid[:, ::8] = (grid[:, ::8] + 0.1).clamp(max=1)  # repeats every 8 pixels, as a decoder does
    for image in (scene, noise, quantise(grid), torch.zeros(3, 192, 192), jpeg(scene, 99)):
        assert traces.find_jpeg(traces.grey_levels(image)) is None
    wave = 128 + 40 * np.outer(traces._cosines()[2], traces._cosines()[5])
    assert traces.find_jpeg(np.tile(wave, (24, 24))) is None  # one wave is no table


def test_the_transform_is_orthonormal_and_finds_a_wave():
    waves = traces._cosines()
    np.testing.assert_allclose(waves @ waves.T, np.eye(8), atol=1e-12)
    block = 128 + 40 * np.outer(waves[2], waves[5])
    found = traces._coefficients(np.tile(block, (2, 3)))
    expected = np.zeros((6, 8, 8))
    expected[:, 2, 5] = 40
    np.testing.assert_allclose(found, expected, atol=1e-9)


# ---- other files -------------------------------------------------------------------------------


def test_other_losses_are_named(scene):
    image = pillow(scene)
    for data, warning, form in (
        (stored(image, "PNG"), "", "PNG"),
        (stored(image, "BMP"), "", "BMP"),
        (stored(image, "WEBP", lossless=True), "", "WEBP"),
        (stored(image, "WEBP", quality=90), "lossy WebP", "WEBP"),
        (stored(image.quantize(256), "GIF"), "palette", "GIF"),
        (stored(image.quantize(256), "PNG"), "palette", "PNG"),
        (stored(image, "TIFF"), "", "TIFF"),
        (stored(image, "TIFF", compression="jpeg"), "JPEG in TIFF", "TIFF"),
    ):
        found = gather_evidence(decode_image(data, name="x"), source=data, crop=128, grid=4)
        told = heads(w for w in found.warnings if not w.startswith(("small", "once a JPEG")))
        assert (found.format, told, found.compressed) == (form, warning, bool(warning))


def test_a_webp_with_alpha_is_looked_into(scene):
    image = pillow(scene)
    image.putalpha(Image.new("L", image.size, 200))
    data = stored(image, "WEBP", quality=80)
    assert data[12:16] == b"VP8X"  # the picture comes later
    assert "lossy WebP" in seen(scene, data)


def test_a_file_that_is_none_is_refused(scene, tmp_path):
    for source in (b"", b"nonsense", tmp_path / "missing.png", tmp_path):
        with pytest.raises(ImageReadError):
            gather_evidence(scene, source=source, crop=128, grid=4)
    with pytest.raises(ImageReadError) as caught:
        gather_evidence(scene, source=tmp_path / "missing.png", crop=128, grid=4)
    assert str(tmp_path) not in str(caught.value)
    with pytest.raises(ValueError, match="smaller than one"):
        gather_evidence(scene, crop=256, grid=4)


# ---- pixels ------------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [1.2, 1.5, 1.7, 1.9])
def test_an_enlarged_image_shows_the_period_of_its_interpolation(scene, factor):
    size = round(192 * factor)
    enlarged = pillow(scene).resize((size, size), Image.Resampling.BICUBIC)
    image = decode_image(stored(enlarged, "PNG"), name="x")
    peak, frequency = traces.resampling_peak(traces.grey_levels(image))
    expected = 192 / size  # the weights repeat as often as an old pixel comes, or its alias
    assert peak > 8
    assert min(abs(frequency - f) for f in (expected, 1 - expected)) < 0.01
    assert "resized" in seen(image)


def test_no_resampling_is_seen_in_decoders_nor_where_nothing_was_done(scene):
    nearest = scene[:, ::2, ::2].repeat_interleave(2, 1).repeat_interleave(2, 2)
    smooth = torch.nn.functional.interpolate(scene[None], scale_factor=2, mode="bilinear")[0]
    for image in (scene, nearest, quantise(smooth), torch.zeros(3, 128, 128)):
        assert "resized" not in seen(image)


def test_what_is_left_of_fine_detail(scene):
    blurred = quantise(torch.nn.functional.avg_pool2d(scene, 9, 1, 4))
    for _ in range(2):
        blurred = quantise(torch.nn.functional.avg_pool2d(blurred, 9, 1, 4))
    assert "no fine detail" in seen(blurred) and "no fine detail" not in seen(scene)
    levels = torch.rand(3, 128, 128, generator=torch.Generator().manual_seed(1)) * 0.5 + 0.2
    power = traces.high_frequency_power(levels, crop=128, grid=1)
    # white noise of variance 0.25 / 12 in units of 255 squared, over the 1 / 12 of rounding
    assert power == pytest.approx(0.25 * 255**2, rel=0.05)
    rounding = quantise(levels) - levels + 0.5  # uniform over one level
    assert traces.high_frequency_power(rounding, crop=128, grid=1) == pytest.approx(1, rel=0.05)


def test_flat_and_grey_images(scene):
    half = scene.clone()
    half[:, :96] = 1.0
    assert traces.flat_share(half) == pytest.approx(0.5, abs=0.02)
    half[:, :112] = 1.0
    assert seen(half) == "flat"
    grey = scene.mean(0, keepdim=True).expand(3, -1, -1)
    assert seen(grey) == "grey" and seen(scene) == ""
    one_colour_varies = torch.full((3, 64, 64), 0.5)
    one_colour_varies[2] = torch.rand(64, 64, generator=torch.Generator().manual_seed(2))
    assert traces.flat_share(one_colour_varies) == 0


def test_crops_are_counted_as_the_calibration_overlaps_them():
    side = 3 * 128  # of its images: see fpkit.verdict_bank
    assert len(grid_crops(torch.zeros(1, side, side), size=128, grid=4)) == 16
    place = (side - 128) / 3  # between two crops, in pixels
    assert place * OVERLAP == pytest.approx(128)
    for width, crops in ((128, 1), (136, 1), (160, 2), (192, 3), (256, 6), (384, 16), (999, 16)):
        found = gather_evidence(torch.zeros(3, width, width), crop=128, grid=4)
        assert (found.crops, found.width) == (crops, width)
        assert ("small" in heads(found.warnings)) == (crops < 4)


def test_the_least_quality_is_that_of_the_calibration():
    assert min(verdict_bank.QUALITIES) == LEAST_QUALITY


# ---- what follows from it ----------------------------------------------------------------------


def test_conditions_take_the_worse_of_both(scene):
    plain = gather_evidence(torch.zeros(3, 384, 384), crop=128, grid=4)
    packed = gather_evidence(scene, source=stored(pillow(scene), "JPEG"), crop=128, grid=4)
    assert conditions(plain) == Conditions(crops=16, jpeg=False)
    assert conditions(gather_evidence(jpeg(scene, 80), crop=128, grid=4)).jpeg  # pixels alone
    assert conditions(plain, packed) == conditions(packed, plain) == Conditions(crops=3, jpeg=True)


@pytest.mark.parametrize(
    ("answer", "model", "pair"),
    [
        ("same", "A", "same model"),
        ("different", "none of these", "two models"),
        ("unsure", "unsure", "unsure"),
    ],
)
def test_answers_in_words(answer, model, pair):
    verdict = Verdict(answer=answer, score=0, log_ratio=0, accept=1, refuse=-1, far=0.01)
    assert (of_model(verdict, "A"), of_pair(verdict)) == (model, pair)


@pytest.mark.parametrize(
    ("ratio", "words"),
    [
        (1000, "LR 1000: 1000 times likelier if yes than if no"),
        (3.14159, "LR 3.1: 3.1 times likelier if yes than if no"),
        (1.01, "LR 1: no evidence either way"),
        (0.99, "LR 0.99: no evidence either way"),
        (0.002, "LR 0.002: 500 times likelier if no than if yes"),
    ],
)
def test_ratios_in_words(ratio, words):
    assert ratio_in_words(math.log(ratio), yes="yes", no="no") == words
