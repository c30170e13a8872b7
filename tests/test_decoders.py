from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from fpkit import decoders
from fpkit.decoders import ACTIVATIONS, NORMS, WIDE_ACTIVATIONS, RandomDecoder
from fpkit.encoder import load_encoder
from fpkit.images import quantise
from fpkit.kernels import UPSAMPLERS
from fpkit.procedural import procedural_images


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def images():
    return procedural_images(2, 64, seed=0)


def seen_in(seeds, space):
    seen = {"upsampler": set(), "activation": set(), "norm": set(), "steps": set()}
    for seed in seeds:
        for level in RandomDecoder(seed, space=space).levels:
            for name in seen:
                seen[name].add(getattr(level, name))
    return seen


def test_many_decoders_keep_content_and_leave_8_bit(images):
    likeness = []
    for seed in range(60):
        output = RandomDecoder(seed)(images, generator=generator())
        assert output.shape == images.shape and torch.isfinite(output).all()
        assert torch.equal(torch.round(output * 255) / 255, output)
        pair = torch.stack([output.flatten(), images.flatten()])
        likeness.append(torch.corrcoef(pair)[0, 1].item())
    assert sorted(likeness)[6] > 0.5 and max(likeness) < 0.9999


def test_both_spaces_have_all_their_options():
    plain, wide = seen_in(range(60), "plain"), seen_in(range(100), "wide")
    assert plain["upsampler"] == set(UPSAMPLERS) and plain["activation"] == set(ACTIVATIONS)
    assert plain["norm"] == {"none", "instance"}
    assert wide["upsampler"] == {*UPSAMPLERS, "patch"}
    assert wide["activation"] == set(WIDE_ACTIVATIONS) and wide["norm"] == set(NORMS)
    one_block = {steps for steps in wide["steps"] if len(steps) == 3}
    assert len(one_block) == 6  # all orders of convolution, activation and normalisation


def test_seed_decides_the_model(images):
    first = RandomDecoder(1)(images, generator=generator())
    assert torch.equal(first, RandomDecoder(1)(images, generator=generator()))
    assert not torch.equal(first, RandomDecoder(2)(images, generator=generator()))
    assert not torch.equal(first, RandomDecoder(1, space="wide")(images, generator=generator()))


def test_plain_decoders_are_those_of_the_shipped_extractor():
    # its training drew them; another order of draws would make other models of the same seeds
    expected = [
        (8, ["deconv2", "deconv4", "nearest"], "gelu", 0.70585, 1.51366),
        (2, ["shuffle"], "none", 0.55102, 0.65697),
        (4, ["bicubic", "bicubic"], "none", 0.0, 1.76924),
        (2, ["bilinear"], "none", 0.91029, 0.86566),
    ]
    for seed, (factor, upsamplers, activation, skip, gain) in enumerate(expected):
        decoder = RandomDecoder(seed)
        last = decoder.levels[-1]
        assert [level.upsampler for level in decoder.levels] == upsamplers
        assert decoder.factor == factor and last.activation == activation
        assert (decoder.skip, last.gain) == pytest.approx((skip, gain), rel=1e-3)


def faithful(monkeypatch, seed, **options):
    """A decoder whose weights are exactly those around which it would be drawn."""
    monkeypatch.setattr(decoders, "near", lambda kernel, noise, generator: kernel)
    decoder = RandomDecoder(seed, **options)
    decoder.skip = 0.0
    decoder.levels = [
        replace(
            level, biases=tuple(0 * bias for bias in level.biases), mix=0.0, norm="none", detail=0.0
        )
        for level in decoder.levels
    ]
    return decoder


def with_statistics_of(output, images):
    unit = (output - output.mean((2, 3), keepdim=True)) / output.std((2, 3), keepdim=True)
    return unit * images.std((2, 3), keepdim=True) + images.mean((2, 3), keepdim=True)


def test_without_noise_a_decoder_is_its_upsampler(monkeypatch, images):
    found = set()
    for seed in range(60):
        decoder = faithful(monkeypatch, seed)
        name = decoder.levels[0].upsampler
        if decoder.factor > 2 or name in found:
            continue
        found.add(name)
        low = functional.avg_pool2d(images, 2)
        if name in ("nearest", "deconv2", "shuffle"):
            expected = low.repeat_interleave(2, 2).repeat_interleave(2, 3)
        elif name == "bicubic":
            expected = functional.interpolate(low, scale_factor=2, mode="bicubic")
        else:  # a tent of four taps, transposed or as a fixed filter, is bilinear interpolation
            expected = functional.interpolate(low, scale_factor=2, mode="bilinear")
        output = decoder(images, generator=generator())
        expected = with_statistics_of(expected, images).clamp(0, 1)
        # at the border a tent sees zeros where the interpolation repeats pixels
        bounds = 0.03 if name in ("deconv4", "fir") else 0.0025  # half a step, and 1e-4 of `_match`
        assert (output - expected)[..., 2:-2, 2:-2].abs().max() < bounds, name
    assert found == set(UPSAMPLERS)


def test_without_noise_a_patch_is_one_pixel(monkeypatch, images):
    monkeypatch.setattr(decoders, "mixed_kernel", lambda c, *_: decoders.identity_kernel(c, c))
    for seed in range(200):
        decoder = faithful(monkeypatch, seed, space="wide")
        if decoder.levels[0].upsampler == "patch" and decoder.factor == 4:
            break
    assert [level.scale for level in decoder.levels] == [4]
    expected = functional.avg_pool2d(images, 4).repeat_interleave(4, 2).repeat_interleave(4, 3)
    expected = quantise(with_statistics_of(expected, images))
    output = decoder(images, generator=generator())
    torch.testing.assert_close(output, expected, atol=1.01 / 255, rtol=0)


@pytest.mark.parametrize("norm", ["instance", "group", "batch"])
def test_normalisation_is_mixed_in(norm):
    decoder = RandomDecoder(0)
    z = torch.randn(2, 8, 6, 6, generator=generator()) + torch.arange(8)[:, None, None]
    affine = torch.randn(2, 8, 1, 1, generator=generator(1))
    level = replace(
        decoder.levels[0], steps=("norm",), kernels=(), biases=(), detail=0.0, norm=norm,
        norm_share=0.3, affine=affine,
    )  # fmt: skip
    groups = {"instance": 8, "group": 2}.get(norm)
    if groups:
        parts = z.unflatten(1, (groups, -1))
        mean, std = parts.mean((2, 3, 4), True), parts.std((2, 3, 4), correction=0, keepdim=True)
        normal = 0.25 * ((parts - mean) / std).flatten(1, 2)
    else:
        normal = affine[0] * z + affine[1]
    output = decoder._apply(level, z.clone(), generator())
    torch.testing.assert_close(output, 0.7 * z + 0.3 * normal, atol=1e-4, rtol=0)


def test_trained_encoder_rebuilds_more_than_the_average(images):
    unseen = procedural_images(3, 96, seed=77)
    errors = {"pool": [], "trained": []}
    for seed in range(5000, 5040):
        if RandomDecoder(seed).skip:
            continue  # it sees the image itself
        for name, encoder in (("pool", None), ("trained", load_encoder())):
            output = RandomDecoder(seed, encoder=encoder)(unseen, generator=generator(seed))
            errors[name].append((output - unseen)[..., 12:-12, 12:-12].square().mean())
    pool, trained = torch.tensor(errors["pool"]), torch.tensor(errors["trained"])
    assert len(pool) > 10
    assert trained.mean() < 0.8 * pool.mean() and (trained < pool).float().mean() > 0.8


@pytest.mark.parametrize("space", ["plain", "wide"])
def test_decoders_around_the_encoder_leave_8_bit(images, space):
    for seed in range(30):
        output = RandomDecoder(seed, space=space, encoder=load_encoder())(
            images, generator=generator()
        )
        assert output.shape == images.shape
        assert torch.equal(torch.round(output * 255) / 255, output)


@pytest.mark.parametrize("shape", [(3, 64, 64), (1, 3, 60, 64), (1, 1, 64, 64)])
def test_wrong_images_are_refused(shape):
    with pytest.raises(ValueError, match="multiples of 8"):
        RandomDecoder(0)(torch.rand(shape), generator=generator())


def test_wrong_space_is_refused():
    with pytest.raises(ValueError, match="'plain', 'wide'"):
        RandomDecoder(0, space="narrow")
