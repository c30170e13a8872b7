"""The building blocks of a synthetic model, one class per word of the lesson.

A generation block is ``y = N(A(F(U z)))``: upsampling U, convolution F, activation A,
normalisation N. One to three of them after mirrored down blocks make a synthetic model.

Everything here also holds several models of one architecture side by side, as groups of
channels: model p of `copies` owns the p-th part of the channels of every tensor and of the first
dimension of every parameter. A grouped convolution computes them all at once.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from fpkit.arch import ArchSpec
from fpkit.upsampling import unpatcher, upsampler

BASE_WIDTH = 32  # channels at the first level, doubled at the second: Yang et al. 2025
MAX_WIDTH = 64  # a third level stays as wide as the second, for its cost
NORM_GROUPS = 8
LEAKY_SLOPE = 0.2  # as in StyleGAN

# What standard deviation makes up for an activation: 1 / rms(A(z)) of a standard normal z, and
# for the bounded ones, what keeps the middle part of their range
_GAIN = {"relu": 2**0.5, "leaky": 1.39, "sigmoid": 3.0, "silu": 1.68, "gelu": 1.53, "elu": 1.25}
SHORTCUT_GAIN = 0.3  # small beside the branch at first, and no larger than the image at the end


class StackConv2d(nn.Conv2d):
    """3x3 convolution of a stack of models: on (n, c, h, w) that all of them share, or on
    (n, copies * c, h, w), one part per model. The weights are the same in both."""

    def __init__(self, channels_in: int, channels_out: int, *, copies: int) -> None:
        wide = channels_in * copies, channels_out * copies
        super().__init__(*wide, 3, padding=1, groups=copies)

    def forward(self, input: Tensor) -> Tensor:
        groups = input.shape[1] // self.weight.shape[1]
        return functional.conv2d(input, self.weight, self.bias, padding=1, groups=groups)


class MixedConv2d(nn.Module):
    """Sum of 1x1, 3x3 and 5x5 convolutions with learnt weights: (n, c, h, w) to (n, d, h, w).

    The three are computed as one 5x5 convolution, whose kernel is the weighted sum of theirs.
    The idea: "One for All: synthesis-free fingerprint learning", AAAI 2026.
    """

    def __init__(self, channels_in: int, channels_out: int, *, copies: int = 1) -> None:
        super().__init__()
        self.copies = copies
        wide = channels_in * copies, channels_out * copies
        self.branches = nn.ModuleList(
            nn.Conv2d(*wide, size, groups=copies, bias=False) for size in (1, 3, 5)
        )
        # equal shares that keep the power of three independent branches
        self.shares = nn.Parameter(torch.full((copies, 3), 3**-0.5))
        self.bias = nn.Parameter(torch.zeros(wide[1]))

    def forward(self, input: Tensor) -> Tensor:
        shares = self.shares.repeat_interleave(len(self.bias) // self.copies, dim=0)
        kernel = sum(
            functional.pad(branch.weight, ((5 - branch.kernel_size[0]) // 2,) * 4)
            * shares[:, i, None, None, None]
            for i, branch in enumerate(self.branches)
        )
        return functional.conv2d(input, kernel, self.bias, padding=2, groups=self.copies)


class DownBlock(nn.Sequential):
    """2x average pooling, then convolution, batch norm, ReLU, convolution: (n, c, h, w) to
    (n, d, h/2, w/2). The same in every synthetic model: only the decoder varies."""

    def __init__(self, channels_in: int, channels_out: int, *, copies: int = 1) -> None:
        wide = channels_out * copies
        super().__init__(
            nn.AvgPool2d(2),
            StackConv2d(channels_in, channels_out, copies=copies),
            nn.BatchNorm2d(wide),
            nn.ReLU(),
            nn.Conv2d(wide, wide, 3, padding=1, groups=copies),
        )


def activation(name: str) -> nn.Module:
    """Activation by its option name on axis A."""
    if name == "leaky":
        return nn.LeakyReLU(LEAKY_SLOPE)
    options = {
        "none": nn.Identity,
        "relu": nn.ReLU,
        "sigmoid": nn.Sigmoid,
        "tanh": nn.Tanh,
        "silu": nn.SiLU,
        "gelu": nn.GELU,
        "elu": nn.ELU,
    }
    if name not in options:
        raise ValueError(f"activation must be leaky or one of {tuple(options)}, got {name!r}")
    return options[name]()


def normalisation(name: str, channels: int, *, copies: int = 1) -> nn.Module:
    """Normalisation of `copies` times `channels` channels by its option name on axis N."""
    wide = channels * copies
    if name == "none":
        return nn.Identity()
    if name == "batch":
        return nn.BatchNorm2d(wide)
    if name == "instance":
        return nn.InstanceNorm2d(wide, affine=True)
    if name == "group":
        groups = NORM_GROUPS if channels % NORM_GROUPS == 0 else 1
        return nn.GroupNorm(groups * copies, wide)
    if name == "layer":
        return nn.GroupNorm(copies, wide)
    raise ValueError(f"norm must be none, batch, instance, group or layer, got {name!r}")


def convolution(
    kernel: int | str, channels_in: int, channels_out: int, *, copies: int = 1
) -> nn.Module:
    """Convolution that keeps the size, by its option name on axis F."""
    if kernel == "mix":
        return MixedConv2d(channels_in, channels_out, copies=copies)
    if kernel in (1, 3, 5):
        size = int(kernel)
        wide = channels_in * copies, channels_out * copies
        return nn.Conv2d(*wide, size, padding=size // 2, groups=copies)
    raise ValueError(f"kernel must be 1, 3, 5 or mix, got {kernel!r}")


class Shortcut(nn.Module):
    """``branch(z) + P z`` with a learnt 1x1 convolution P: axis X."""

    def __init__(
        self, branch: nn.Module, channels_in: int, channels_out: int, *, copies: int = 1
    ) -> None:
        super().__init__()
        wide = channels_in * copies, channels_out * copies
        self.shortcut = nn.Conv2d(*wide, 1, groups=copies, bias=False)
        self.branch = branch

    def forward(self, input: Tensor) -> Tensor:
        output: Tensor = self.branch(input) + self.shortcut(input)
        return output


class UpBlock(nn.Sequential):
    """Upsampling, then `spec.layers` convolutions with activation and normalisation around each.

    (n, c, h, w) to (n, d, 2h, 2w). ``post``: convolution, activation, normalisation; ``pre``:
    activation, normalisation, convolution. `upsampling` takes the place of the spec's own.
    """

    def __init__(
        self,
        spec: ArchSpec,
        channels_in: int,
        channels_out: int,
        *,
        copies: int = 1,
        upsampling: nn.Module | None = None,
    ) -> None:
        if upsampling is None:
            upsampling = upsampler(spec.upsample, channels_in, copies=copies)
        steps: list[nn.Module] = []
        channels = channels_in
        for layer in range(spec.layers):
            target = channels_out if layer == spec.layers - 1 else channels_in
            kernel = convolution(spec.kernel, channels, target, copies=copies)
            around = target if spec.order == "post" else channels
            extras = [activation(spec.activation), normalisation(spec.norm, around, copies=copies)]
            steps += [kernel, *extras] if spec.order == "post" else [*extras, kernel]
            channels = target
        if spec.skip == "shortcut":
            steps = [Shortcut(nn.Sequential(*steps), channels_in, channels_out, copies=copies)]
        super().__init__(upsampling, *steps)


def _up_blocks(spec: ArchSpec, widths: Sequence[int], copies: int) -> list[UpBlock]:
    """The decoder from the code, `widths[0]` channels, to the image."""
    if spec.upsample != "unpatch":
        pairs = zip(widths, [*widths[1:], 3], strict=True)
        return [UpBlock(spec, c, d, copies=copies) for c, d in pairs]
    # as in a transformer, width and resolution stay until the last map to patches
    wide = widths[0]
    flat = [UpBlock(spec, wide, wide, copies=copies, upsampling=nn.Identity()) for _ in widths[1:]]
    patches = unpatcher(wide, BASE_WIDTH, spec.factor, copies=copies)
    return [*flat, UpBlock(spec, BASE_WIDTH, 3, copies=copies, upsampling=patches)]


class SyntheticModel(nn.Module):
    """A shallow autoencoder whose output carries the fingerprint of its decoder.

    Parameters
    ----------
    spec : ArchSpec
        The architecture of the decoder; the encoder follows from ``spec.blocks``.
    copies : int
        How many models of this architecture are held side by side, each with its own weights.
        Model p owns the p-th part of every parameter (``chunk(copies, dim=0)``) and channels
        3p to 3p + 2 of the output.

    Raises
    ------
    ValueError
        If `copies` is less than 1.

    Notes
    -----
    Images are (n, 3, h, w) float32 in [0, 1], shared by all models, or (n, 3 * copies, h, w), one
    set per model; h and w multiples of ``spec.factor``. The output is (n, 3 * copies, h, w).
    While training it is left unclipped, so that gradients reach every pixel; in eval mode it is
    clipped to [0, 1], as any image file would. The models of a stack never mix: each gives what
    it would give alone.

    Examples
    --------
    >>> stack = SyntheticModel(ArchSpec(), copies=5)
    >>> stack(torch.rand(2, 3, 32, 32)).shape
    torch.Size([2, 15, 32, 32])
    """

    def __init__(self, spec: ArchSpec, *, copies: int = 1) -> None:
        super().__init__()
        if copies < 1:
            raise ValueError(f"copies must be at least 1, got {copies}")
        self.spec = spec
        self.copies = copies
        widths = [min(BASE_WIDTH * 2**level, MAX_WIDTH) for level in range(spec.blocks)]
        self.encoder = nn.Sequential(
            *(
                DownBlock(c, d, copies=copies)
                for c, d in zip([3, *widths[:-1]], widths, strict=True)
            )
        )
        self.decoder = nn.Sequential(*_up_blocks(spec, widths[::-1], copies))
        self._initialise()

    def _initialise(self) -> None:
        """Start where images are: unit gain through every layer, output at mid-grey."""
        name = self.spec.activation
        for block in self.decoder:
            for place, module in block.named_modules():
                if isinstance(module, nn.Conv2d):
                    upsamples = place.startswith("0.")  # no activation between it and its input
                    around = SHORTCUT_GAIN if place.endswith("shortcut") else _GAIN.get(name, 1.0)
                    _normal(module, 1.0 if upsamples else around)
                elif isinstance(module, nn.ConvTranspose2d) and self.spec.upsample == "unpatch":
                    # every pixel sees one position: the usual fan of kernel**2 is too large
                    nn.init.normal_(module.weight, std=(self.copies / len(module.weight)) ** 0.5)
        last = [m for m in self.decoder.modules() if getattr(m, "bias", None) is not None][-1]
        if isinstance(last, nn.Conv2d | MixedConv2d):
            # small, so that a sigmoid or ReLU behind it does not start saturated
            for kernel in last.branches if isinstance(last, MixedConv2d) else [last]:
                _normal(kernel, 0.3)
            nn.init.constant_(last.bias, 0.0 if name == "sigmoid" else 0.5)
        else:
            # a normalised output has mean 0 and variance 1, images about 0.5 and 0.25 squared
            nn.init.constant_(last.weight, 0.25)
            nn.init.constant_(last.bias, 0.5)

    def forward(self, images: Tensor) -> Tensor:
        factor = self.spec.factor
        if images.dim() != 4 or images.shape[1] not in (3, 3 * self.copies):
            wanted = "(n, 3, h, w)"
            if self.copies > 1:
                wanted += f" or (n, {3 * self.copies}, h, w)"
            raise ValueError(f"images must be {wanted}, got {tuple(images.shape)}")
        if images.shape[2] % factor or images.shape[3] % factor:
            raise ValueError(
                f"{self.spec.id} needs heights and widths that are multiples of {factor}, "
                f"got {images.shape[2]}x{images.shape[3]}: crop the images"
            )
        output: Tensor = self.decoder(self.encoder(images))
        return output if self.training else torch.clamp(output, 0, 1)


def _normal(kernel: nn.Conv2d, gain: float) -> None:
    """Gaussian weights that multiply the standard deviation of a signal by `gain`; no bias."""
    nn.init.normal_(kernel.weight, std=gain / math.prod(kernel.weight.shape[1:]) ** 0.5)
    if kernel.bias is not None:
        nn.init.zeros_(kernel.bias)


def stack_models(models: Sequence[SyntheticModel]) -> SyntheticModel:
    """Copy models of one architecture into one, side by side; stacks may be among them.

    The stack has the device, dtype and mode of the first model.

    Raises
    ------
    ValueError
        If there are no models, or they differ in architecture.

    Examples
    --------
    >>> first, second = SyntheticModel(ArchSpec()), SyntheticModel(ArchSpec())
    >>> stack_models([first, second]).copies
    2
    """
    specs = {model.spec for model in models}
    if len(specs) != 1:
        raise ValueError(
            f"a stack needs models of one architecture, got {len(models)} models of "
            f"{sorted(spec.id for spec in specs)}: group them by spec"
        )
    states = [model.state_dict() for model in models]
    joint = {
        name: torch.cat([state[name] for state in states]) if value.dim() else value
        for name, value in states[0].items()
    }
    return _filled(models[0], joint, sum(model.copies for model in models))


def unstack_model(stack: SyntheticModel) -> list[SyntheticModel]:
    """The models of a stack, each by itself; the inverse of :func:`stack_models`."""
    parts = {
        # num_batches_tracked, a scalar, counts the batches of all models
        name: value.chunk(stack.copies) if value.dim() else [value] * stack.copies
        for name, value in stack.state_dict().items()
    }
    return [
        _filled(stack, {name: part[p] for name, part in parts.items()}, 1)
        for p in range(stack.copies)
    ]


def _filled(like: SyntheticModel, state: dict[str, Tensor], copies: int) -> SyntheticModel:
    """A model as `like` with `copies` and these weights."""
    with torch.random.fork_rng(devices=[]):  # the weights it starts with are replaced
        model = SyntheticModel(like.spec, copies=copies)
    parameter = next(like.parameters())
    model.to(parameter.device, parameter.dtype).load_state_dict(state)
    return model.train(like.training)
