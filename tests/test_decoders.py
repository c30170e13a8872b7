import pytest
import torch

from fpkit.decoders import ACTIVATIONS, UPSAMPLERS, RandomDecoder
from fpkit.procedural import procedural_images


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def images():
    return procedural_images(2, 64, seed=0)


def test_many_decoders_keep_content_and_leave_8_bit(images):
    seen = {"upsampler": set(), "activation": set()}
    likeness = []
    for seed in range(60):
        decoder = RandomDecoder(seed)
        output = decoder(images, generator=generator())
        assert output.shape == images.shape and torch.isfinite(output).all()
        assert torch.equal(torch.round(output * 255) / 255, output)
        pair = torch.stack([output.flatten(), images.flatten()])
        likeness.append(torch.corrcoef(pair)[0, 1].item())
        seen["upsampler"] |= {level.upsampler for level in decoder.levels}
        seen["activation"] |= {level.activation for level in decoder.levels}
    assert seen == {"upsampler": set(UPSAMPLERS), "activation": set(ACTIVATIONS)}
    assert sorted(likeness)[6] > 0.5 and max(likeness) < 0.9999


def test_seed_decides_the_model(images):
    first = RandomDecoder(1)(images, generator=generator())
    assert torch.equal(first, RandomDecoder(1)(images, generator=generator()))
    assert not torch.equal(first, RandomDecoder(2)(images, generator=generator()))


@pytest.mark.parametrize("shape", [(3, 64, 64), (1, 3, 60, 64), (1, 1, 64, 64)])
def test_wrong_images_are_refused(shape):
    with pytest.raises(ValueError, match="multiples of 8"):
        RandomDecoder(0)(torch.rand(shape), generator=generator())
