import json

import pytest
import torch

from fpkit.assets import extractor_path
from fpkit.coherence import FLOOR, spectral_coherence
from fpkit.extractor import Extractor, ExtractorConfig, load_extractor
from fpkit.procedural import procedural_images
from fpkit.spectrum import power_spectrum

SMALL = ExtractorConfig(crop=32, widths=(8, 8), dim=6, positions=2)


@pytest.fixture
def extractor():
    torch.manual_seed(0)
    extractor = Extractor(SMALL).eval().requires_grad_(False)
    extractor.cohort.uniform_(-0.1, 0.1)
    extractor.card = {"steps": 0}
    return extractor


@pytest.fixture(scope="module")
def images():
    return procedural_images(5, 48, seed=0)


def test_embeddings_are_unit_and_do_not_depend_on_the_batch(extractor, images):
    embeddings = extractor.embed(images)
    assert embeddings.shape == (5, 6) and embeddings.dtype == torch.float32
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(5))
    alone = torch.cat([extractor.embed([image], batch=2) for image in images])
    torch.testing.assert_close(embeddings, alone, atol=1e-5, rtol=0)
    shuffled = extractor.embed([images[3], images[1]])
    torch.testing.assert_close(shuffled, embeddings[[3, 1]], atol=1e-5, rtol=0)


def test_embedding_is_the_centred_mean_over_crops(extractor, images):
    crops = [images[0, :, y : y + 32, x : x + 32] for y in (0, 8, 16) for x in (0, 8, 16)]
    units = torch.nn.functional.normalize(extractor(torch.stack(crops)))
    expected = torch.nn.functional.normalize(units.mean(0) - extractor.cohort, dim=0)
    torch.testing.assert_close(extractor.embed(images[:1])[0], expected)


def test_brightness_and_contrast_of_a_crop_do_not_matter(extractor, images):
    crop = images[:1, :, :32, :32] * 0.5 + 0.2
    torch.testing.assert_close(extractor(crop), extractor(crop + 0.1), atol=1e-4, rtol=1e-3)


def test_sizes_may_differ_and_none_is_fine(extractor):
    embeddings = extractor.embed([torch.rand(3, 32, 32), torch.rand(3, 40, 99)])
    assert embeddings.shape == (2, 6)
    assert extractor.embed([]).shape == (0, 6)


def test_small_images_and_training_mode_are_refused(extractor):
    with pytest.raises(ValueError, match="64x20, smaller than one 32x32 crop"):
        extractor.embed([torch.rand(3, 20, 64)])
    with pytest.raises(ValueError, match=r"crops must be \(n, 3, 32, 32\)"):
        extractor(torch.rand(1, 3, 64, 64))
    with pytest.raises(RuntimeError, match=r"call .eval\(\)"):
        extractor.train().embed([torch.rand(3, 32, 32)])


def test_save_and_load(extractor, images, tmp_path):
    extractor.save(tmp_path)
    again = load_extractor(tmp_path)
    assert again.config == SMALL and again.card == {"steps": 0, "hash": again.hash}
    assert again.hash == extractor.hash
    assert torch.equal(again.embed(images), extractor.embed(images))


def test_hash_follows_the_weights(extractor):
    before = extractor.hash
    extractor.head.bias[0] += 1e-3
    assert extractor.hash != before


def test_damaged_files_are_refused(extractor, tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no extractor"):
        load_extractor(tmp_path)
    extractor.save(tmp_path)
    file = tmp_path / "extractor.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="holds no fpkit extractor"):
        load_extractor(tmp_path)
    file.write_bytes(content.replace(b'\\"dim\\": 6', b'\\"dim\\": 7'))
    with pytest.raises(ValueError, match="holds no fpkit extractor"):
        load_extractor(tmp_path)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"residual": "wavelet"}, "residual"),
        ({"crop": 100}, "crop"),
        ({"widths": ()}, "widths"),
        ({"dim": 0}, "positive"),
    ],
)
def test_wrong_configurations_are_refused(options, complaint):
    with pytest.raises(ValueError, match=complaint):
        ExtractorConfig(**options)


def test_shipped_extractor_comes_with_its_card():
    extractor = load_extractor()
    folder_bytes = sum(p.numel() * 4 for p in extractor.state_dict().values())
    assert folder_bytes <= 12e6
    assert extractor.card["verification"]["auc"] > 0.8
    json.dumps(extractor.card, allow_nan=False)
    assert extractor.embed([torch.rand(3, 256, 256)]).shape == (1, extractor.dim)


def test_lower_precision_moves_scores_a_little_and_spectra_not_at_all(extractor, images):
    with torch.autocast("cpu", torch.bfloat16):
        lower = extractor(images[:, :, :32, :32])
    assert lower.dtype == torch.bfloat16
    torch.testing.assert_close(
        lower.float(), extractor(images[:, :, :32, :32]), atol=0.05, rtol=0.1
    )
    scores = (extractor.embed(images, precision="bfloat16") * extractor.embed(images)).sum(1)
    assert (scores > 0.999).all() and (scores < 0.9999999).any()


def test_maps_are_what_they_say(extractor, images):
    crops = images[:, :, 8:40, 8:40]
    fine, coarse = extractor.maps(crops)
    assert fine.shape == (5, 5, 16, 9) and coarse.shape == (5, 38, 8, 5)
    power = power_spectrum(crops - crops.mean((2, 3), keepdim=True), centred=False)
    power = torch.fft.fftshift(power[..., :17], dim=-2)
    # the bin of row 6, column 3 is the middle of 3 x 3 bins from row 11, column 5 on
    expected = (power[:, :, 11:14, 5:8].mean((2, 3)) + FLOOR).log()
    torch.testing.assert_close(fine[:, :3, 6, 3], expected, atol=1e-4, rtol=0)
    luminance = torch.fft.rfft2((crops - crops.mean((2, 3), keepdim=True)) * extractor.window)
    torch.testing.assert_close(coarse[:, 5:], spectral_coherence(luminance.sum(1)))


def test_the_small_extractor_that_ships_is_small_and_follows_its_teacher():
    small, large = load_extractor("small"), load_extractor()
    assert (extractor_path(small=True) / "extractor.safetensors").stat().st_size <= 3e6
    assert small.card["teacher"] == large.hash and small.card["verification"]["auc"] > 0.9
    images = procedural_images(6, 160, seed=3)
    ours, theirs = (e.embed(images) @ e.embed(images).T for e in (small, large))
    upper = torch.ones(6, 6).triu(1).bool()
    both = torch.stack([ours[upper], theirs[upper]])
    assert torch.corrcoef(both)[0, 1] > 0.5
