import numpy as np
import pytest
import torch

from fpkit.decoders import RandomDecoder
from fpkit.extractor import Extractor, ExtractorConfig
from fpkit.finetunes import FAMILY, Style, embed_kin, fine_tune, sibling
from fpkit.procedural import procedural_images
from fpkit.zoo import Zoo

NEUTRAL = {"gains": (1.0, 1.0, 1.0), "saturation": 1.0, "gamma": 1.0, "sharpness": 0.0}


@pytest.fixture(scope="module")
def images():
    return procedural_images(6, 64, seed=3)


@pytest.fixture(scope="module")
def extractor():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        extractor = Extractor(ExtractorConfig(crop=32, widths=(8, 8, 8), dim=6, positions=1))
    return extractor.eval().requires_grad_(False)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


# ---- styles ------------------------------------------------------------------------------------


def test_neutral_style_changes_nothing(images):
    torch.testing.assert_close(Style(**NEUTRAL)(images), images)


def test_styles_do_what_their_names_say(images):
    grey = Style(**NEUTRAL | {"saturation": 0.0})(images)
    torch.testing.assert_close(grey[:, 0], grey[:, 2])
    dark = Style(**NEUTRAL | {"gamma": 2.0})(images)
    torch.testing.assert_close(dark, images.square())
    red = Style(**NEUTRAL | {"gains": (1.0, 0.0, 0.0)})(images)
    assert not red[:, 1:].any() and red[:, 0].any()
    # the binomial kernel has a zero at Nyquist and gain (1/4)^2 at half of it, per axis
    column = torch.arange(16)
    nyquist = (0.5 + 0.2 * (-1.0) ** column).expand(1, 3, 16, 16)
    soft = Style(**NEUTRAL | {"sharpness": -1.0})
    torch.testing.assert_close(soft(nyquist), torch.full((1, 3, 16, 16), 0.5))
    half = (0.5 + 0.2 * torch.cos(torch.pi / 2 * column)).expand(1, 3, 16, 16)
    expected = 0.5 + 0.2 / 4 * torch.cos(torch.pi / 2 * column)
    torch.testing.assert_close(soft(half)[0, 0, 0, 2:-2], expected[2:-2])
    sharp = Style(**NEUTRAL | {"sharpness": 1.0})(half)
    assert sharp.std() > half.std()


def test_drawn_styles_differ_and_stay_in_range(images):
    first, again, other = (Style.draw(seeded(s)) for s in (0, 0, 1))
    assert first == again != other
    result = other(images)
    assert result.min() >= 0 and result.max() <= 1


# ---- models ------------------------------------------------------------------------------------


def test_fine_tune_learns_the_style_and_keeps_the_decoder(images):
    zoo = Zoo.load()
    base = zoo.model(next(name for name in zoo if name.startswith("K1-L1")))
    style = Style(**NEUTRAL | {"gains": (1.0, 0.8, 0.6)})
    tuned = fine_tune(base, images, style, seed=0, steps=25)
    before, after = ((model(images) - style(images)).square().mean() for model in (base, tuned))
    assert after < before / 2
    for name, value in base.decoder.state_dict().items():
        assert torch.equal(value, tuned.decoder.state_dict()[name]), name
    changed = [
        not torch.equal(value, tuned.encoder.state_dict()[name])
        for name, value in base.encoder.state_dict().items()
    ]
    assert all(changed)
    assert not tuned.training and not any(p.requires_grad for p in tuned.parameters())


def test_sibling_has_the_architecture_and_other_weights(images):
    decoder = RandomDecoder(5)
    other, again = (sibling(decoder, generator=seeded(0)) for _ in range(2))
    assert [level.upsampler for level in other.levels] == [
        level.upsampler for level in decoder.levels
    ]
    assert torch.equal(other.to_rgb, again.to_rgb)
    distance = (other.to_rgb - decoder.to_rgb).norm() / decoder.to_rgb.norm()
    assert 0.3 * decoder.noise < distance < 6 * decoder.noise
    painted = [d(images, generator=seeded(1)) for d in (decoder, other)]
    assert not torch.equal(*painted)


# ---- embeddings --------------------------------------------------------------------------------


def embed(extractor, **options):
    return embed_kin(extractor, **({"random": 5, "images": 2, "steps": 2} | options))


def test_kin_of_random_decoders(extractor):
    kin = embed(extractor)
    assert kin.base.shape == kin.tuned.shape == (5, 2, 6)
    np.testing.assert_allclose(np.linalg.norm(kin.tuned, axis=-1), 1, atol=1e-5)
    assert kin.architecture.tolist() == [0] * FAMILY + [1]
    assert not np.allclose(kin.base, kin.tuned)
    assert "5 random decoders" in kin.description and "procedural images" in kin.description


def test_held_out_architectures_of_the_card_are_bases(extractor):
    zoo = Zoo.load()
    name = zoo.model_ids[0]
    extractor.card = {"held_out_architectures": [name.rpartition("/")[0]]}
    try:
        kin = embed(extractor, zoo=zoo, random=1)
    finally:
        extractor.card = {}
    assert kin.architecture.tolist() == [0, 1] and "1 trained models" in kin.description
    assert len(embed(extractor, zoo=zoo, random=2).base) == 2  # none is held out


def test_tiles_are_sources_and_seeds_decide(extractor, tmp_path):
    tiles = np.random.default_rng(0).integers(0, 256, (40, 192, 192, 3), dtype=np.uint8)
    np.save(tmp_path / "tiles.npy", tiles)
    first, again, other = (
        embed(extractor, random=2, tiles=tmp_path / "tiles.npy", seed=s) for s in (0, 0, 1)
    )
    assert np.array_equal(first.tuned, again.tuned) and "photograph tiles" in first.description
    assert not np.allclose(first.tuned, other.tuned)


def test_too_few_bases_and_images_are_refused(extractor):
    with pytest.raises(ValueError, match="at least 2 bases"):
        embed(extractor, random=1)
    with pytest.raises(ValueError, match="images must be at least 1"):
        embed(extractor, images=0)
