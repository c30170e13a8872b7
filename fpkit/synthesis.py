"""Train one synthetic model to reconstruct images."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from tqdm.auto import tqdm

from fpkit.arch import ArchSpec, model_id
from fpkit.blocks import SyntheticModel

ETA = 0.005  # mean squared error at which training stops: Yang et al. 2025
MAX_STEPS = 400  # of one model, unless eta is reached before
CROP = 64  # training crops; the residual is always measured on the whole images
BATCH = 16
Precision = Literal["float32", "bfloat16"]
CHECK_EVERY = 10  # steps between two measurements of the residual in eval mode


@dataclass(frozen=True, kw_only=True)
class Synthesis:
    """A trained synthetic model with the record of its training.

    ``residual`` is the mean squared error of the reconstruction in eval mode on held-out images
    in [0, 1]; ``history`` the training loss per step, (steps,) float64; ``reached`` says whether
    ``residual <= eta``: some architectures cannot (normalisation or saturation at the output).
    """

    model: SyntheticModel
    spec: ArchSpec
    seed: int
    residual: float
    steps: int
    seconds: float
    history: np.ndarray
    reached: bool

    @property
    def model_id(self) -> str:
        """``<arch_id>/seed<k>``."""
        return model_id(self.spec, self.seed)


def synthesize(
    spec: ArchSpec,
    images: Tensor,
    *,
    seed: int = 0,
    eta: float = ETA,
    max_steps: int = MAX_STEPS,
    learning_rate: float = 3e-3,
    device: str | torch.device = "cpu",
    precision: Precision = "float32",
    progress: bool = True,
    callback: Callable[[int, float], None] | None = None,
) -> Synthesis:
    """Train one synthetic model to reconstruct `images` until its residual is `eta`.

    Answers: which fingerprint does this architecture, from this seed, leave?

    Parameters
    ----------
    spec : ArchSpec
        The architecture.
    images : Tensor, (n, 3, h, w) float32 in [0, 1]
        At least two images, h and w at least 64 and multiples of 4. The last eighth (at least
        one, at most 16) is held out to measure the residual.
    seed : int
        Decides the initial weights and the order of the crops.
    eta : float
        Stop when the mean squared error on the held-out images is at most this.
    max_steps : int
        Stop here in any case; the learning rate follows one cycle of this length.
    learning_rate : float
        Peak learning rate of Adam.
    device : str or torch.device
    precision : {"float32", "bfloat16"}
        Of the arithmetic in training (weights stay float32); bfloat16 is faster where the
        processor knows it.
    progress : bool
        Show a progress bar.
    callback : callable, optional
        Called as ``callback(step, loss)`` after every step; an exception raised in it ends the
        training and passes through.

    Returns
    -------
    Synthesis
        The model in eval mode on the CPU, and how its training went.

    Raises
    ------
    ValueError
        If the images have another shape or range.

    References
    ----------
    Yang et al., "Model Synthesis for Zero-Shot Model Attribution", IEEE TMM 27, 2025, sec. III.
    """
    _check(images, max_steps)
    if precision not in get_args(Precision):
        raise ValueError(f"precision must be one of {get_args(Precision)}, got {precision!r}")
    started = time.perf_counter()
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = SyntheticModel(spec).to(device=device, memory_format=torch.channels_last)
    held_out = images[-min(16, max(1, len(images) // 8)) :].to(device)
    training = images[: len(images) - len(held_out)].to(device)

    optimiser = torch.optim.Adam(model.parameters(), lr=learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, max_lr=learning_rate, total_steps=max_steps, pct_start=0.15
    )
    history: list[float] = []
    measured = float("inf")
    with tqdm(total=max_steps, desc=spec.id, unit="step", disable=not progress) as bar:
        for step in range(max_steps):
            batch = _crops(training, generator).contiguous(memory_format=torch.channels_last)
            with torch.autocast(batch.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
                output = model(batch)
            loss = functional.mse_loss(output.float(), batch)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            schedule.step()
            history.append(loss.item())
            bar.update()
            if callback is not None:
                callback(step, history[-1])
            last = step == max_steps - 1
            # a single batch may be easy: look at the held-out images before stopping
            if last or (step % CHECK_EVERY == CHECK_EVERY - 1 and min(history[-5:]) <= 1.5 * eta):
                measured = reconstruction_residual(model, held_out)
                bar.set_postfix(residual=f"{measured:.4f}")
                if measured <= eta:
                    break
    return Synthesis(
        model=model.eval().cpu(),
        spec=spec,
        seed=seed,
        residual=measured,
        steps=len(history),
        seconds=time.perf_counter() - started,
        history=np.asarray(history),
        reached=measured <= eta,
    )


@torch.no_grad()
def reconstruction_residual(model: SyntheticModel, images: Tensor) -> float:
    """Mean squared error of `model` on `images` (n, 3, h, w) in eval mode; the mode is kept."""
    mode = model.training
    model.eval()
    error = functional.mse_loss(model(images), images).item()
    model.train(mode)
    return error


def _crops(images: Tensor, generator: torch.Generator) -> Tensor:
    """BATCH random crops (BATCH, 3, CROP, CROP)."""
    height, width = images.shape[2:]
    index = torch.randint(len(images), (BATCH,), generator=generator).tolist()
    tops = torch.randint(height - CROP + 1, (BATCH,), generator=generator).tolist()
    lefts = torch.randint(width - CROP + 1, (BATCH,), generator=generator).tolist()
    crops = [
        images[i, :, top : top + CROP, left : left + CROP]
        for i, top, left in zip(index, tops, lefts, strict=True)
    ]
    return torch.stack(crops)


def _check(images: Tensor, max_steps: int) -> None:
    if images.dim() != 4 or images.shape[1] != 3 or len(images) < 2:
        raise ValueError(f"images must be (n >= 2, 3, h, w), got {tuple(images.shape)}")
    if min(images.shape[2:]) < CROP or images.shape[2] % 4 or images.shape[3] % 4:
        raise ValueError(
            f"images must be at least {CROP}x{CROP} with sides that are multiples of 4, "
            f"got {images.shape[2]}x{images.shape[3]}"
        )
    low, high = float(images.min()), float(images.max())
    if low < 0 or high > 1:
        hint = ": divide by 255?" if high > 1.5 else ""
        raise ValueError(f"images must be in [0, 1], got {low:.3g} to {high:.3g}{hint}")
    if max_steps < 2:
        raise ValueError(f"max_steps must be at least 2, got {max_steps}")
