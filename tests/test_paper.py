from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional

from fpkit.assets import zoo_path
from fpkit.embedder import WEIGHTS
from fpkit.extractor import Extractor, ExtractorConfig, build_extractor, load_extractor
from fpkit.paper import PaperConfig, PaperExtractor
from fpkit.procedural import procedural_images
from fpkit.residual import NOISE_LEVEL, load_dncnn
from fpkit.stream import Sources, StreamConfig
from fpkit.train_plan import TrainConfig
from fpkit.training import train
from fpkit.zoo import Zoo

SMALL = PaperConfig(crop=32, width=2, denoiser="dncnn6N")


@pytest.fixture(scope="module")
def extractor():
    torch.manual_seed(0)
    return build_extractor(SMALL).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def images():
    return procedural_images(3, 64, seed=0)


def test_maps_are_magnitudes_of_the_seventeen_layer_residual(images):
    extractor = build_extractor(PaperConfig(crop=32, width=1))
    crops = images[:2, :, :32, :32]
    (maps,) = extractor.maps(crops)
    noise = load_dncnn("dncnn17N")(crops, noise_level=NOISE_LEVEL).double().numpy()
    expected = np.fft.fftshift(np.abs(np.fft.fft2(noise)), axes=(-2, -1))
    np.testing.assert_allclose(maps.numpy(), expected, rtol=1e-3, atol=1e-5)


def test_crops_do_not_depend_on_their_batch(extractor, images):
    crops = images.unfold(2, 32, 32).unfold(3, 32, 32).permute(0, 2, 3, 1, 4, 5).flatten(0, 2)
    assert len(crops) == 12  # more than go through the denoiser at once
    alone = torch.cat([extractor(crop[None]) for crop in crops])
    torch.testing.assert_close(extractor(crops), alone, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match=r"crops must be \(n, 3, 32, 32\)"):
        extractor(images)


def test_an_embedding_is_the_mean_of_its_crops_not_centred(extractor, images):
    embedding = extractor.embed(images[:1], grid=2)
    crops = [images[:1, :, top : top + 32, left : left + 32] for top in (0, 32) for left in (0, 32)]
    units = functional.normalize(extractor(torch.cat(crops)))
    torch.testing.assert_close(embedding, functional.normalize(units.mean(0, keepdim=True)))
    assert embedding.shape == (1, extractor.dim) == (1, 64)
    large = procedural_images(1, 192, seed=1)
    assert torch.equal(extractor.embed(large), extractor.embed(large, grid=3))
    assert not torch.equal(extractor.embed(large), extractor.embed(large, grid=4))
    assert PaperExtractor(PaperConfig(width=1)).dim == 32 and not extractor.cohort.any()


def test_either_kind_comes_back_from_its_folder(extractor, images, tmp_path):
    extractor.save(tmp_path / "paper")
    loaded = load_extractor(tmp_path / "paper")
    assert type(loaded) is PaperExtractor and loaded.config == SMALL
    assert loaded.hash == extractor.hash and not loaded.training
    assert torch.equal(loaded.embed(images), extractor.embed(images))
    other = Extractor(ExtractorConfig(crop=32, widths=(4, 4, 4), dim=4))
    other.save(tmp_path / "own")
    assert type(load_extractor(tmp_path / "own")) is Extractor


def test_an_unknown_kind_is_refused(extractor, tmp_path):
    extractor.save(tmp_path)
    save_file(load_file(tmp_path / WEIGHTS), tmp_path / WEIGHTS, {"kind": "new", "config": "{}"})
    with pytest.raises(ValueError, match="its kind is 'new', expected one of"):
        load_extractor(tmp_path)


@pytest.mark.parametrize("centred", [False, True])
def test_it_trains_on_a_zoo_s_models_and_measures_a_cohort_if_asked(tmp_path, centred):
    config = TrainConfig(
        steps=2,
        loss="ce+triplet",
        held_out_share=0.0,
        stream=StreamConfig(models=2, images=2, random_share=0.0, sources=2),
        extractor=replace(SMALL, centred=centred),
    )
    options = {"zoo": Zoo.load(zoo_path()), "sources": Sources(procedural=2), "progress": False}
    trained = train(config, out=tmp_path, **options)
    assert bool(trained.cohort.any()) == centred
    assert load_extractor(tmp_path).card["config"]["extractor"]["centred"] == centred
    fresh = build_extractor(config.extractor)
    assert not torch.equal(trained.network.stem[0].weight, fresh.network.stem[0].weight)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [({"denoiser": "bm3d"}, "denoiser"), ({"crop": 16}, "crop"), ({"width": 0}, "width")],
)
def test_wrong_configurations_are_refused(options, complaint):
    with pytest.raises(ValueError, match=complaint):
        PaperConfig(**options)
