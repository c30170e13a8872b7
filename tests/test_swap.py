"""Block swap: the ends of the scale are the generators themselves, the classifier is an oracle."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from fpkit.arch import ArchSpec
from fpkit.assets import swap_path
from fpkit.generators import Generator, make_encoder, train_encoder, train_generator
from fpkit.images import quantise
from fpkit.procedural import procedural_images
from fpkit.swap import (
    SwapPair,
    accuracy,
    fit_classifier,
    fit_stitch,
    load_swap_pair,
    log_spectra,
    paint,
    save_swap_pair,
    swap_last,
    swap_results,
)

SPEC = ArchSpec(upsample="deconv", norm="none")
TINY = (6, 5, 4)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def generator(seed: int, spec: ArchSpec = SPEC, widths: tuple[int, ...] = TINY) -> Generator:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Generator(spec, widths=widths).eval().requires_grad_(False)


# ---- swapping ----------------------------------------------------------------------------------


@pytest.mark.parametrize("codes", [None, noise(4, 6, 4, 4, seed=1)], ids=["raw", "stitched"])
def test_the_ends_of_the_scale_are_the_generators(codes):
    a, b, z = generator(0), generator(1), noise(2, 6, 4, 4)
    torch.testing.assert_close(swap_last(a, b, 0, codes=codes)(z), a(z), rtol=0, atol=0)
    torch.testing.assert_close(swap_last(a, b, 2, codes=codes)(z), b(z), rtol=0, atol=0)
    between = swap_last(a, b, 1, codes=codes)(z)
    assert between.shape == (2, 3, 16, 16)
    assert (between - a(z)).abs().max() > 1e-3 and (between - b(z)).abs().max() > 1e-3


def test_a_swap_of_equals_changes_nothing():
    a, z = generator(0), noise(8, 6, 4, 4)
    torch.testing.assert_close(swap_last(a, a, 1)(z), a(z), rtol=0, atol=0)
    torch.testing.assert_close(swap_last(a, a, 1, codes=z)(z), a(z), rtol=0, atol=1e-4)


def test_a_stitch_finds_a_permutation_of_channels():
    a = generator(0)
    b = generator(0)
    order = torch.tensor([3, 0, 4, 1, 2])
    # the same function, its channels after the first block in another order
    first, second = b.blocks[0][1], b.blocks[1][0][0]
    first.weight.data, first.bias.data = first.weight[order], first.bias[order]
    second.weight.data = second.weight[order]
    z = noise(8, 6, 4, 4)
    torch.testing.assert_close(a(z), b(z), rtol=0, atol=1e-5)
    assert (swap_last(a, b, 1)(z) - a(z)).abs().max() > 1e-3
    torch.testing.assert_close(swap_last(a, b, 1, codes=z)(z), a(z), rtol=0, atol=1e-4)


def test_stitch_is_least_squares():
    x, y = noise(3, 4, 5, 5), noise(3, 2, 5, 5, seed=1)
    stitch = fit_stitch(x, y)
    rows = torch.cat([x.movedim(1, -1).flatten(0, 2), torch.ones(75, 1)], dim=1)
    solution = torch.linalg.lstsq(rows, y.movedim(1, -1).flatten(0, 2)).solution
    torch.testing.assert_close(stitch.weight[:, :, 0, 0], solution[:4].T, rtol=0, atol=1e-4)
    torch.testing.assert_close(stitch.bias, solution[4], rtol=0, atol=1e-4)


def test_stitch_survives_a_silent_channel():
    x = noise(3, 4, 5, 5)
    x[:, 2] = 0
    assert fit_stitch(x, x).weight.isfinite().all()


def test_unequal_generators_are_not_swapped():
    with pytest.raises(ValueError, match="must be alike"):
        swap_last(generator(0), generator(0, ArchSpec(upsample="nearest", norm="none")), 1)
    with pytest.raises(ValueError, match="between 0 and 2"):
        swap_last(generator(0), generator(1), 3)


# ---- the classifier ----------------------------------------------------------------------------


def test_log_spectra_forget_contrast():
    images = noise(2, 3, 16, 16) * 0.1 + 0.5
    weaker = (images - 0.5) * 0.7 + 0.5
    assert log_spectra(images).shape == (2, 16 * 9)
    inside = log_spectra(images) - log_spectra(weaker)
    assert inside.abs().median() < 1e-4


def test_the_classifier_tells_a_blur_from_noise():
    rough = (noise(80, 3, 16, 16) * 0.1 + 0.5).clamp(0, 1)
    smooth = quantise((rough + rough.roll(1, -1)) / 2)
    classifier = fit_classifier(rough[:40], smooth[:40])
    assert (classifier.log_odds(rough[40:]) < 0).double().mean() > 0.95
    assert (classifier.log_odds(smooth[40:]) > 0).double().mean() > 0.95
    again = fit_classifier(rough[:40], smooth[:40])
    assert torch.equal(again.weight, classifier.weight)
    alike = fit_classifier(rough[:40], rough[:40])  # nothing to tell apart
    assert alike.log_odds(rough).abs().max() < 1e-3


class Shifted(nn.Module):
    """Stands for a classifier: brightness tells the generators apart."""

    def log_odds(self, images: torch.Tensor) -> torch.Tensor:
        return images.mean((1, 2, 3)) - 0.5


def test_results_count_the_images_of_the_donor():
    dark, light = generator(0), generator(1)
    for model, level in ((dark, 0.2), (light, 0.8)):
        to_rgb = model.blocks[-1][1]
        to_rgb.weight.zero_()
        to_rgb.bias.fill_(level)
    pair = SwapPair(encoder=nn.Identity(), first=dark, second=light, classifier=Shifted())
    codes = noise(5, 6, 4, 4)
    assert accuracy(pair, codes) == 1
    results = swap_results(pair, codes, fit_codes=None, counts=(0, 1, 2))
    assert [(r.count, r.share, r.low, r.high, r.images) for r in results[::2]] == [
        (0, 0.0, 0.0, 0.0, 5), (1, 1.0, 1.0, 1.0, 5), (2, 1.0, 1.0, 1.0, 5),
    ]  # fmt: skip
    assert [r.share for r in results[1::2]] == [0.0, 1.0, 1.0]
    assert {r.direction for r in results[::2]} == {"first>second"}
    assert not results[0].stitched
    mixed = SwapPair(encoder=nn.Identity(), first=dark, second=dark, classifier=Shifted())
    assert accuracy(mixed, codes) == 0.5


# ---- training ----------------------------------------------------------------------------------


def test_training_is_seeded_and_learns():
    images = procedural_images(12, 32, seed=0)
    codes = 2 * functional.avg_pool2d(images, 4).repeat(1, 2, 1, 1) - 1  # easy: enlarge them

    def train(seed: int, steps: int) -> Generator:
        return train_generator(SPEC, codes, images, seed=seed, steps=steps, widths=TINY)

    one, same, other = train(0, 9), train(0, 9), train(1, 9)
    assert torch.equal(paint(one, codes), paint(same, codes))
    assert not torch.equal(paint(one, codes), paint(other, codes))
    assert not one.training and not any(p.requires_grad for p in one.parameters())
    kin = train_generator(SPEC, codes, images, seed=1, steps=9, widths=TINY, start=one)
    assert torch.equal(paint(one, codes), paint(same, codes))  # the ancestor is left alone
    change = [(a - b).abs().max() for a, b in zip(kin.parameters(), one.parameters(), strict=True)]
    assert 0 < max(change) < 0.1  # a few small steps from it, far from the weights of seed 1
    flat = ((images - images.mean()) ** 2).mean()
    assert ((paint(train(0, 120), codes) - images) ** 2).mean() < 0.7 * flat
    with pytest.raises(ValueError, match="codes and images"):
        train_generator(SPEC, codes[:3], images, seed=0, steps=2, widths=TINY)


def test_an_encoder_gives_standard_codes():
    images = procedural_images(12, 32, seed=0)
    encoder = train_encoder(images, seed=0, steps=60, widths=TINY)
    codes = encoder(images)
    assert codes.shape == (12, 6, 8, 8) and not codes.requires_grad
    assert codes.mean((0, 2, 3)).abs().max() < 1
    assert (codes.std((0, 2, 3)).log()).abs().max() < 1


def test_the_encoder_has_one_block_per_block_of_the_generator():
    assert make_encoder()(torch.rand(2, 3, 32, 32)).shape == (2, 40, 2, 2)


# ---- the shipped pairs -------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["deconv", "shuffle"])
def test_shipped_pair_shows_the_effect(name):
    pair = load_swap_pair(name)
    assert len(pair.first.blocks) == 4 and pair.first.spec == pair.second.spec
    images = procedural_images(36, 128, seed=7)
    with torch.no_grad():
        codes = pair.encoder(images)
    assert paint(pair.first, codes[:1]).shape == (1, 3, 128, 128)
    fit, test = codes[:12], codes[12:]
    assert accuracy(pair, test) >= 0.95
    results = swap_results(pair, test, fit_codes=fit, counts=(2, 3))
    assert all(result.share >= 0.7 for result in results), results


def test_shipped_pairs_are_small_half_precision():
    files = list(swap_path().glob("*.safetensors"))
    assert sum(file.stat().st_size for file in files) <= 1_500_000
    with pytest.raises(ValueError, match="name must be one of"):
        load_swap_pair("nearest")


def test_a_pair_survives_saving(tmp_path):
    pair = load_swap_pair("deconv")
    save_swap_pair(pair, tmp_path / "deconv.safetensors", provenance={"seeds": "0 1"})
    again = load_swap_pair("deconv", folder=tmp_path)
    codes = noise(2, 40, 2, 2)
    assert torch.equal(paint(pair.second, codes), paint(again.second, codes))
    assert torch.equal(again.classifier.weight, pair.classifier.weight)
