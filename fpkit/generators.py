"""Generators of four up blocks, small enough to be trained in a minute of one core.

They paint images from codes, as a generative network paints them from latents. An encoder makes
the codes; it is trained once and then fixed, so all generators paint from the same codes, and two
of them differ in nothing but what their training made of their blocks.
"""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm.auto import tqdm

from fpkit.arch import ArchSpec
from fpkit.blocks import DownBlock, UpBlock

WIDTHS = (40, 36, 28, 20, 16)  # channels of the code and after each of the four up blocks
STEPS = 400  # of the training of one generator
BATCH = 8


class Generator(nn.Module):
    """Up blocks that paint codes (n, c, h, w) as images (n, 3, h * 2**b, w * 2**b).

    Parameters
    ----------
    spec : ArchSpec
        Upsampling, layers, activation, norm and order of every block; ``spec.blocks`` is not
        used, the number of blocks b follows from `widths`.
    widths : (b + 1,) channels of the code and after each block
        A 1x1 convolution to RGB belongs to the last block.

    Notes
    -----
    In eval mode the output is clipped to [0, 1].
    """

    def __init__(self, spec: ArchSpec, *, widths: tuple[int, ...] = WIDTHS) -> None:
        super().__init__()
        self.spec = spec
        pairs = zip(widths[:-1], widths[1:], strict=True)
        blocks: list[nn.Module] = [UpBlock(spec, c, d) for c, d in pairs]
        to_rgb = nn.Conv2d(widths[-1], 3, 1)
        blocks[-1] = nn.Sequential(blocks[-1], to_rgb)
        self.blocks = nn.ModuleList(blocks)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                nn.init.zeros_(module.bias)
        nn.init.normal_(to_rgb.weight, std=0.3 * widths[-1] ** -0.5)
        nn.init.constant_(to_rgb.bias, 0.5)  # mid-grey

    def forward(self, codes: Tensor) -> Tensor:
        for block in self.blocks:
            codes = block(codes)
        return codes if self.training else codes.clamp(0, 1)


def make_encoder(widths: tuple[int, ...] = WIDTHS) -> nn.Sequential:
    """Down blocks from images to codes of ``widths[0]`` channels, each of mean 0 and variance 1."""
    outward = [3, *widths[:1:-1], widths[0]]
    blocks = [DownBlock(c, d) for c, d in zip(outward[:-1], outward[1:], strict=True)]
    return nn.Sequential(*blocks, nn.BatchNorm2d(widths[0], affine=False))


def train_encoder(
    images: Tensor, *, seed: int, steps: int = STEPS, widths: tuple[int, ...] = WIDTHS
) -> nn.Sequential:
    """Train an encoder together with a generator (nearest, batch norm) that is thrown away.

    `images` are (n, 3, h, w) float32 in [0, 1]; returned in eval mode, without gradients.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = make_encoder(widths)
        model = nn.Sequential(encoder, Generator(ArchSpec(), widths=widths))
    _fit(model, images, images, seed=seed, steps=steps, name="encoder")
    return encoder.eval().requires_grad_(False)


def train_generator(
    spec: ArchSpec,
    codes: Tensor,
    images: Tensor,
    *,
    seed: int,
    steps: int = STEPS,
    widths: tuple[int, ...] = WIDTHS,
    start: Generator | None = None,
) -> Generator:
    """Train a generator to paint `images` (n, 3, h, w) from their `codes` (n, c, h/16, w/16).

    The seed decides the initial weights and the order of the images; with `start`, training goes
    on from a copy of that generator, and the seed decides the order alone. Adam on the squared
    error, one cycle of the learning rate, bfloat16. Returned in eval mode, without gradients.
    Raises ValueError if codes and images are not as many.
    """
    if len(codes) != len(images):
        raise ValueError(f"codes and images must be as many, got {len(codes)} and {len(images)}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        generator = Generator(spec, widths=widths) if start is None else copy.deepcopy(start)
    generator.requires_grad_(True)
    _fit(generator, codes, images, seed=seed, steps=steps, name=f"{spec.upsample} seed {seed}")
    return generator.eval().requires_grad_(False)


def _fit(
    model: nn.Module, inputs: Tensor, targets: Tensor, *, seed: int, steps: int, name: str
) -> None:
    """Adam, one cycle, squared error, bfloat16 arithmetic, float32 weights."""
    generator = torch.Generator().manual_seed(seed)
    model.to(memory_format=torch.channels_last).train()
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, max_lr=3e-3, total_steps=steps, pct_start=0.15
    )
    for _ in tqdm(range(steps), desc=name, unit="step"):
        pick = torch.randint(len(inputs), (BATCH,), generator=generator)
        batch = inputs[pick].contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            output = model(batch)
        loss = functional.mse_loss(output.float(), targets[pick])
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        schedule.step()
