import numpy as np
import pytest
import torch
from torch import nn

from fpkit.arch import AXES, EXTENDED, PAPER, ArchSpec
from fpkit.blocks import (
    MixedConv2d,
    SyntheticModel,
    UpBlock,
    activation,
    convolution,
    normalisation,
    stack_models,
    unstack_model,
)
from fpkit.procedural import procedural_images
from fpkit.upsampling import FilterUpsample, unpatcher, upsampler
from fpkit.zoo import Zoo

FIELDS = [*(field for field, _ in AXES.values()), "kernel", "skip"]
# every option of every axis, without trying all combinations
SPANNING = [
    ArchSpec(**{f: getattr(EXTENDED, f)[i % len(getattr(EXTENDED, f))] for f in FIELDS})
    for i in range(8)
]


def model(spec: ArchSpec, seed: int, *, copies: int = 1) -> SyntheticModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return SyntheticModel(spec, copies=copies)


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("spec", list(PAPER)[::7], ids=str)
def test_every_kind_of_model_keeps_shape_and_range(spec):
    model = SyntheticModel(spec).eval()
    output = model(torch.rand(2, 3, 32, 24))
    assert output.shape == (2, 3, 32, 24)
    assert output.min() >= 0 and output.max() <= 1


def test_number_of_blocks_and_layers():
    for blocks in (1, 2):
        for layers in (1, 2):
            model = SyntheticModel(ArchSpec(blocks=blocks, layers=layers, upsample="bilinear"))
            kernels = [m for m in model.decoder.modules() if isinstance(m, nn.Conv2d)]
            assert len(model.decoder) == len(model.encoder) == blocks
            assert len(kernels) == blocks * layers


def test_order_decides_what_comes_last():
    post = UpBlock(ArchSpec(order="post"), 32, 3)
    pre = UpBlock(ArchSpec(order="pre"), 32, 3)
    assert [type(m) for m in post] == [nn.Upsample, nn.Conv2d, nn.ReLU, nn.BatchNorm2d]
    assert [type(m) for m in pre] == [nn.Upsample, nn.ReLU, nn.BatchNorm2d, nn.Conv2d]


def test_nearest_multiplies_the_tiled_power_by_its_closed_form():
    signal = torch.rand(1, 1, 16, 16, dtype=torch.float64)
    power = torch.fft.fft2(upsampler("nearest", 1)(signal)).abs() ** 2
    tiled = (torch.fft.fft2(signal).abs() ** 2).tile(1, 1, 2, 2)
    frequency = np.fft.fftfreq(32)
    kernel = torch.from_numpy(4 * np.cos(np.pi * frequency) ** 2)
    torch.testing.assert_close(power, tiled * kernel[:, None] * kernel[None])
    assert power[0, 0, 16].abs().max() < 1e-20  # exactly zero at Nyquist


def test_transposed_convolution_keeps_replicas_at_nyquist():
    torch.manual_seed(0)
    flat = torch.ones(1, 1, 16, 16)
    output = upsampler("deconv", 1)(flat)[0, 0, 4:-4, 4:-4]
    power = torch.fft.fft2(output - output.mean()).abs() ** 2
    nyquist = power[len(power) // 2].sum() + power[:, len(power) // 2].sum()
    assert nyquist > 0.99 * power.sum()


def test_training_mode_does_not_clip():
    model = SyntheticModel(ArchSpec(norm="none", activation="none")).train()
    with torch.no_grad():
        model.decoder[-1][1].bias.fill_(3.0)
    assert model(torch.rand(1, 3, 16, 16)).max() > 1


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 1, 32, 32), (1, 3, 30, 32)])
def test_wrong_images_are_refused(shape):
    with pytest.raises(ValueError, match="got"):
        SyntheticModel(ArchSpec())(torch.rand(shape))


def test_unknown_options_are_refused():
    for make in (lambda: upsampler("cubic", 3), lambda: activation("mish")):
        with pytest.raises(ValueError, match="got"):
            make()
    with pytest.raises(ValueError, match="kernel must be .* got 7"):
        convolution(7, 3, 3)
    with pytest.raises(ValueError, match="norm"):
        normalisation("spectral", 3)


# ---- the extended options ----------------------------------------------------------------------


def test_the_spanning_specs_span():
    for field in FIELDS:
        assert {getattr(spec, field) for spec in SPANNING} == set(getattr(EXTENDED, field))


@pytest.mark.parametrize("spec", EXTENDED.sample(8, seed=4), ids=str)
def test_models_start_near_the_statistics_of_images(spec):
    with torch.no_grad():
        output = model(spec, 0)(procedural_images(2, 32, seed=0))
    assert -0.5 < output.mean() < 1.5 and 0.005 < output.std() < 1.5


@pytest.mark.parametrize(
    ("field", "option"), [(f, option) for f in FIELDS for option in getattr(EXTENDED, f)]
)
def test_every_option_builds_alone_and_stacked(field, option):
    spec = ArchSpec(**{"blocks": 1, field: option})
    for copies in (1, 3):
        first, second = (model(spec, 0, copies=copies).eval() for _ in range(2))
        output = first(drawn(1, 3, 64, 64))
        assert output.shape == (1, 3 * copies, 64, 64) and output.isfinite().all()
        assert torch.equal(output, second(drawn(1, 3, 64, 64)))


@pytest.mark.parametrize("blocks", [1, 2, 3])
def test_sides_must_be_multiples_of_the_factor(blocks):
    for upsample in ("nearest", "unpatch"):
        small = model(ArchSpec(blocks=blocks, upsample=upsample), 0).eval()
        side = 3 * 2**blocks
        assert small(drawn(1, 3, side, 2 * side)).shape == (1, 3, side, 2 * side)
        with pytest.raises(ValueError, match=f"multiples of {2**blocks}, got {side}x{side + 1}"):
            small(drawn(1, 3, side, side + 1))


def test_bicubic_is_that_of_pytorch():
    signal = drawn(2, 3, 7, 10)
    expected = nn.functional.interpolate(signal, scale_factor=2, mode="bicubic")
    torch.testing.assert_close(upsampler("bicubic", 3)(signal), expected)


def test_the_filter_of_stylegan2_is_bilinear_interpolation():
    signal = drawn(2, 3, 7, 10)
    filtered = FilterUpsample(torch.tensor([1.0, 3.0, 3.0, 1.0]))(signal)
    torch.testing.assert_close(filtered, upsampler("bilinear", 3)(signal))


@pytest.mark.parametrize("name", ["nearest", "bilinear", "bicubic", "fir"])
def test_fixed_upsampling_keeps_brightness(name):
    flat = torch.full((1, 2, 9, 9), 0.7)
    torch.testing.assert_close(upsampler(name, 2)(flat), torch.full((1, 2, 18, 18), 0.7))


def test_replicas_of_the_fixed_filters():
    # a wave of 4/32 cycles per output pixel; its replica lies at 0.5 - 4/32 = 12/32
    wave = torch.cos(2 * torch.pi * 8 / 32 * torch.arange(32)).expand(1, 1, 32, 32)
    share = {}
    for name in ("nearest", "bilinear", "fir"):
        line = upsampler(name, 1)(wave)[0, 0, 20, 16:48].double()
        power = torch.fft.rfft(line).abs() ** 2
        share[name] = float(power[12] / power[4])
    slope = np.tan(np.pi * 4 / 32)  # of the filters cos(pi f) and cos(pi f) cubed
    assert share["nearest"] == pytest.approx(slope**2, rel=1e-4)
    assert share["bilinear"] == pytest.approx(slope**6, rel=1e-4)
    assert share["fir"] < 1e-4  # -40 dB


def test_unpatch_maps_every_position_to_a_patch_of_its_own():
    upsampling = unpatcher(4, 2, 8)
    code = drawn(1, 4, 3, 3)
    other = code.clone()
    other[0, :, 1, 2] += 1
    changed = (upsampling(code) != upsampling(other)).any(1)[0].nonzero()
    assert changed.min(0).values.tolist() == [8, 16]
    assert changed.max(0).values.tolist() == [15, 23]
    decoder = SyntheticModel(ArchSpec(blocks=3, upsample="unpatch")).decoder
    sizes = [block(torch.zeros(1, 64, 4, 4)).shape for block in decoder]
    assert sizes == [(1, 64, 4, 4), (1, 64, 4, 4), (1, 3, 32, 32)]


def test_mixed_convolution_is_the_weighted_sum_of_its_branches():
    mixed = MixedConv2d(4, 6, copies=2)
    with torch.no_grad():
        mixed.shares.copy_(torch.tensor([[1.0, 2.0, 3.0], [-1.0, 0.5, 0.0]]))
        mixed.bias.normal_()
    signal = drawn(2, 8, 9, 9)
    expected = mixed.bias[:, None, None].expand(2, 12, 9, 9).clone()
    for i, branch in enumerate(mixed.branches):
        padding = branch.kernel_size[0] // 2
        parts = zip(signal.chunk(2, 1), branch.weight.chunk(2), mixed.shares[:, i], strict=True)
        expected += torch.cat(
            [share * nn.functional.conv2d(z, w, padding=padding) for z, w, share in parts], 1
        )
    torch.testing.assert_close(mixed(signal), expected)


def test_group_and_layer_norm_against_their_definitions():
    signal = drawn(2, 16, 5, 5)
    for name, groups in (("group", 8), ("layer", 1)):
        parts = signal.reshape(2, groups, -1)
        unit = (parts - parts.mean(2, keepdim=True)) / parts.var(2, keepdim=True, correction=0).add(
            1e-5
        ).sqrt()
        torch.testing.assert_close(normalisation(name, 16)(signal), unit.reshape(signal.shape))


def test_the_shortcut_carries_the_upsampled_input_past_the_kernels():
    block = UpBlock(ArchSpec(upsample="fir", norm="none", skip="shortcut"), 4, 3)
    convolve, relu, _ = block[1].branch
    signal = drawn(1, 4, 6, 6)
    raised = upsampler("fir", 4)(signal)
    around = torch.einsum("dc,nchw->ndhw", block[1].shortcut.weight[:, :, 0, 0], raised)
    torch.testing.assert_close(block(signal), relu(convolve(raised)) + around)


# ---- several models in one ---------------------------------------------------------------------


@pytest.mark.parametrize("spec", [*SPANNING, *list(PAPER)[5::96]], ids=str)
@pytest.mark.parametrize("shared", [True, False], ids=["shared", "own"])
def test_a_stack_gives_what_its_models_give_alone(spec, shared):
    models = [model(spec, seed) for seed in range(3)]
    stack = stack_models(models)
    images = drawn(2, 3 if shared else 9, 16, 24)
    own = [images] * 3 if shared else images.chunk(3, 1)
    targets = drawn(2, 9, 16, 24, seed=1)

    output = stack(images)
    singles = torch.cat([m(x) for m, x in zip(models, own, strict=True)], 1)
    torch.testing.assert_close(output, singles, rtol=1e-4, atol=1e-5)
    # the sum of the models' own mean squared errors
    for y in (output, singles):
        (3 * nn.functional.mse_loss(y, targets)).backward()
    for name, parameter in stack.named_parameters():
        expected = torch.cat([m.get_parameter(name).grad for m in models])
        scale = max(1e-3, float(expected.abs().max()))
        assert (parameter.grad - expected).abs().max() < 1e-3 * scale, name
    for name, buffer in stack.named_buffers():
        if buffer.dim() and name in stack.state_dict():
            torch.testing.assert_close(buffer, torch.cat([m.get_buffer(name) for m in models]))

    for m in (*models, stack):
        m.eval()
    with torch.no_grad():
        singles = torch.cat([m(x) for m, x in zip(models, own, strict=True)], 1)
        torch.testing.assert_close(stack(images), singles, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("spec", SPANNING, ids=str)
def test_stacking_and_unstacking_are_inverse_and_keep_mode_and_generator(spec):
    models = [model(spec, seed).double().eval() for seed in range(3)]
    before = torch.get_rng_state()
    stack = stack_models([stack_models(models[:2]), models[2]])
    again = unstack_model(stack)
    assert torch.equal(torch.get_rng_state(), before)
    assert stack.copies == len(again) == 3 and not stack.training
    for one, other in zip(models, again, strict=True):
        assert other.copies == 1 and not other.training
        state = other.state_dict()
        assert all(torch.equal(value, state[name]) for name, value in one.state_dict().items())


def test_a_stack_of_one_is_a_model_and_keeps_its_seed():
    # sums of the absolute initial weights of seed 3, as they were before there were stacks
    known = {
        "K1-L1-Unearest-Arelu-Nnone-Spost": (435.1240633682555, 11),
        "K2-L2-Udeconv-Asigmoid-Nbatch-Spre": (10096.73528568458, 50),
        "K2-L1-Ubilinear-Atanh-Ninstance-Spost": (2554.5132832894287, 26),
    }
    for arch_id, (total, count) in known.items():
        state = model(ArchSpec.parse(arch_id), 3).state_dict()
        assert len(state) == count
        assert sum(float(v.double().abs().sum()) for v in state.values()) == pytest.approx(total)
    zoo = Zoo.load()
    for name in zoo.model_ids[::20]:
        single = zoo.model(name)
        assert stack_models([single]).state_dict().keys() == single.state_dict().keys()


def test_wrong_stacks_are_refused():
    with pytest.raises(ValueError, match="at least 1, got 0"):
        SyntheticModel(ArchSpec(), copies=0)
    with pytest.raises(ValueError, match=r"\(n, 3, h, w\) or \(n, 6, h, w\), got \(1, 9, 8, 8\)"):
        SyntheticModel(ArchSpec(), copies=2)(torch.rand(1, 9, 8, 8))
    with pytest.raises(ValueError, match="one architecture, got 2 models of .*K1.*K2"):
        stack_models([SyntheticModel(ArchSpec(blocks=k)) for k in (1, 2)])
    with pytest.raises(ValueError, match="got 0 models"):
        stack_models([])
