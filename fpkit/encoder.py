"""A shared encoder, trained once, for random decoders that were never trained themselves.

Average pooling throws detail away. This encoder packs it into the channels of its latent, and
holds, for every upsampler, the kernel that unpacks them: random decoders are drawn around these
kernels as others are drawn around the identity.
"""

from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from fpkit.artefacts import member
from fpkit.assets import encoder_path
from fpkit.kernels import TRANSPOSED, UPSAMPLERS, upsampling_kernel
from fpkit.tensor_files import open_tensors

CHANNELS = {2: 12, 4: 24, 8: 32}  # of the latent at 1/2 (all of an image), 1/4 (half), 1/8 (1/6)
WEIGHTS = "encoder.safetensors"


class SharedEncoder(nn.Module):
    """Maps images to a latent at 1/2, 1/4 or 1/8 of their size; see data/encoder.

    Parameters
    ----------
    seed : int
        Of the initial weights, which give nearly the average-pooled image, with small
        channels beside it.

    Notes
    -----
    Trained jointly with a fresh random decoder at every step to reconstruct its input. Besides
    the encoder that trains ``kernels``: for every upsampler and factor the kernel around which
    random decoders are drawn. Without them, a decoder near the identity can only enlarge a
    low-resolution image, whatever the encoder puts into its channels.

    References
    ----------
    Random decoders on a shared trained encoder: "One for All: synthesis-free fingerprint
    learning", AAAI 2026. The architecture and the kernels are ours.

    Examples
    --------
    >>> SharedEncoder()(torch.rand(2, 3, 64, 64), 8).shape
    torch.Size([2, 32, 8, 8])
    """

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            widths = (24, 32, 48)
            entries = (12, *widths)  # 12: an image of 1/2 with 4 x 3 channels
            self.down = nn.ModuleList(
                nn.Conv2d(entries[i], widths[i], 3, stride=1 if i == 0 else 2, padding=1)
                for i in range(3)
            )
            self.deepen = nn.ModuleList(nn.Conv2d(w, w, 3, padding=1) for w in widths)
            self.heads = nn.ModuleList(
                nn.Conv2d(width, out, 3, padding=1)
                for width, out in zip(widths, CHANNELS.values(), strict=True)
            )
            for head in self.heads:
                with torch.no_grad():
                    head.weight.mul_(0.3)
                    head.bias.zero_()
            self.kernels = nn.ParameterDict()
            for factor, channels in CHANNELS.items():
                out = CHANNELS.get(factor // 2, 3)
                for name in UPSAMPLERS:
                    self.kernels[f"{name}{factor}"] = _start(name, out, channels, 2)
                self.kernels[f"patch{factor}"] = _start("patch", 3, channels, factor)

    def forward(self, images: Tensor, factor: int) -> Tensor:
        """Encode `images`, (n, 3, h, w) in [0, 1], into (n, c, h / factor, w / factor).

        c is 12, 24 or 32; the first three channels start as the average-pooled image minus 0.5.
        """
        if factor not in CHANNELS:
            raise ValueError(f"factor must be one of {tuple(CHANNELS)}, got {factor}")
        centred = images - 0.5
        z = functional.pixel_unshuffle(centred, 2)
        level = list(CHANNELS).index(factor)
        for down, deepen in zip(self.down[: level + 1], self.deepen, strict=False):
            z = functional.silu(down(z))
            z = z + functional.silu(deepen(z))
        low = functional.avg_pool2d(centred, factor)
        return functional.pad(low, (0, 0, 0, 0, 0, CHANNELS[factor] - 3)) + self.heads[level](z)

    def kernel(self, upsampler: str, factor: int) -> Tensor:
        """The trained kernel of `upsampler`, which doubles the size of a latent at 1 / `factor`.

        At factor 2 it gives RGB, else the channels of the next latent; ``"patch"`` gives RGB at
        full size from any factor. The layout is that of :func:`upsampling_kernel`.
        """
        return self.kernels[f"{upsampler}{factor}"]


@lru_cache(maxsize=2)
def load_encoder(path: str | Path | None = None) -> SharedEncoder:
    """The encoder in folder `path`, by default fpkit's own; frozen, on the CPU."""
    folder = encoder_path() if path is None else Path(path)
    encoder = SharedEncoder()
    try:
        with open_tensors(member(folder, WEIGHTS)) as file:
            file.expect(encoder.state_dict())
            weights = {name: value.float() for name, value in file.read().items()}
    except ValueError as error:
        raise ValueError(f"{folder / WEIGHTS} holds no shared encoder: {error}") from error
    encoder.load_state_dict(weights)
    return encoder.eval().requires_grad_(False)


def _start(name: str, out: int, channels: int, scale: int) -> nn.Parameter:
    """Channel i to channel i, the surplus of the input to nothing, and a little noise."""
    kernel = upsampling_kernel(name, out, out, scale)
    surplus = (0, 0) * (3 if name in TRANSPOSED else 2) + (0, channels - out)
    kernel = functional.pad(kernel, surplus)
    return nn.Parameter(kernel + 0.05 * torch.randn(kernel.shape) / kernel[0, 0].numel() ** 0.5)
