"""Train synthetic models to reconstruct images: all seeds of an architecture at once."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from fpkit.arch import ArchSpec, model_id
from fpkit.blocks import SyntheticModel, stack_models, unstack_model

ETA = 0.005  # mean squared error at which training stops: Yang et al. 2025
MAX_STEPS = 400  # of one model, unless eta is reached before
LEARNING_RATE = 3e-3
CROP = 32  # training crops; the residual is always measured on the whole images
BATCH = 16
MAX_GRADIENT = 1.0
CROP_SEED = 0  # all models see the same crops: a stack makes and reads them once
CHECK_CROP = 64  # of the held-out images, to see whether measuring the residual is worth it
Precision = Literal["float32", "bfloat16"]
CHECK_EVERY = 10  # steps between two measurements of the residual in eval mode


@dataclass(frozen=True, kw_only=True)
class Synthesis:
    """A trained synthetic model with the record of its training.

    ``residual`` is the mean squared error of the reconstruction in eval mode on held-out images
    in [0, 1]; ``history`` the training loss per step, (steps,) float64; ``reached`` says whether
    ``residual <= eta``: some architectures cannot (normalisation or saturation at the output).
    ``seconds`` is the time that the stack has taken so far, divided by the number of its models.
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
    learning_rate: float = LEARNING_RATE,
    device: str | torch.device = "cpu",
    precision: Precision = "float32",
    progress: bool = True,
    callback: Callable[[int, float], None] | None = None,
) -> Synthesis:
    """Train one synthetic model to reconstruct `images` until its residual is `eta`.

    Answers: which fingerprint does this architecture, from this seed, leave? The arguments and
    errors are those of :func:`synthesize_stack`; the result is the model that a stack would have
    given.
    """
    return synthesize_stack(
        spec,
        images,
        seeds=[seed],
        eta=eta,
        max_steps=max_steps,
        learning_rate=learning_rate,
        device=device,
        precision=precision,
        progress=progress,
        callback=callback,
    )[0]


def synthesize_stack(
    spec: ArchSpec,
    images: Tensor,
    *,
    seeds: Sequence[int],
    eta: float = ETA,
    max_steps: int = MAX_STEPS,
    learning_rate: float = LEARNING_RATE,
    device: str | torch.device = "cpu",
    precision: Precision = "float32",
    progress: bool = True,
    callback: Callable[[int, float], None] | None = None,
) -> list[Synthesis]:
    """Train one synthetic model per seed, all at once, side by side in grouped convolutions.

    Parameters
    ----------
    spec : ArchSpec
        The architecture of all of them.
    images : Tensor, (n, 3, h, w) float32 in [0, 1]
        At least two images, h and w at least 64 and multiples of ``spec.factor``. The last eighth
        (at least one, at most 16) is held out to measure the residual.
    seeds : sequence of int
        Each decides the initial weights of one model. The crops are the same for all models.
    eta : float
        A model is done when its mean squared error on the held-out images is at most this; it
        then leaves the stack, and the others go on.
    max_steps : int
        Stop here in any case; the learning rate follows one cycle of this length.
    learning_rate : float
        Peak learning rate of Adam.
    device : str or torch.device
    precision : {"float32", "bfloat16"}
        Of the arithmetic in training (weights stay float32); bfloat16 is faster where the
        processor knows it. The residual is always measured in float32.
    progress : bool
        Show a progress bar.
    callback : callable, optional
        Called as ``callback(step, loss)`` after every step with the mean loss of the models in
        training; an exception raised in it ends the training and passes through.

    Returns
    -------
    list of Synthesis
        In the order of `seeds`: the models in eval mode on the CPU, and how their training went.

    Raises
    ------
    ValueError
        If the images have another shape or range, or a seed comes twice.

    References
    ----------
    Yang et al., "Model Synthesis for Zero-Shot Model Attribution", IEEE TMM 27, 2025, sec. III.
    One cycle: Smith and Topin, "Super-convergence", 2018.
    """
    _check(images, spec, max_steps)
    if not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"seeds must be distinct and at least one, got {list(seeds)}")
    if precision not in get_args(Precision):
        raise ValueError(f"precision must be one of {get_args(Precision)}, got {precision!r}")
    started = time.perf_counter()
    device = torch.device(device)
    held_out = images[-min(16, max(1, len(images) // 8)) :].to(device)
    training = images[: len(images) - len(held_out)].to(device)
    preview = _centre(held_out).contiguous(memory_format=torch.channels_last)
    generator = torch.Generator().manual_seed(CROP_SEED)
    stack = _Stack([initial_model(spec, seed).to(device) for seed in seeds], learning_rate)
    done: dict[int, Synthesis] = {}
    history: list[Tensor] = []

    def leave(places: list[int], residuals: Tensor) -> None:
        """The models at these places of the stack are done."""
        if not places:
            return
        curves = torch.stack(history).double().cpu().numpy()
        models = unstack_model(stack.model)
        for place in places:
            slot = stack.slots[place]
            done[slot] = Synthesis(
                model=models[place].eval().cpu(),
                spec=spec,
                seed=seeds[slot],
                residual=float(residuals[place]),
                steps=len(history),
                seconds=(time.perf_counter() - started) / len(seeds),
                history=curves[:, slot],
                reached=bool(residuals[place] <= eta),
            )
        stack.keep([place for place in range(len(models)) if place not in places])

    with tqdm(total=max_steps, desc=spec.id, unit="step", disable=not progress) as bar:
        for step in range(max_steps):
            batch = _crops(training, generator).contiguous(memory_format=torch.channels_last)
            stack.optimiser.param_groups[0]["lr"] = learning_rate * one_cycle(step, max_steps)
            losses = torch.full((len(seeds),), torch.nan, device=device)
            losses[stack.slots] = stack.step(batch, precision)
            history.append(losses)
            bar.update()
            if callback is not None:
                callback(step, losses.nanmean().item())
            if step == max_steps - 1:
                residuals = reconstruction_residuals(stack.model, held_out)
                leave(list(range(stack.model.copies)), residuals)
            elif step % CHECK_EVERY == CHECK_EVERY - 1 and stack.promising(history, eta):
                # a batch may be easy: look at held-out crops, then at the whole held-out images
                if (reconstruction_residuals(stack.model, preview) <= 1.1 * eta).any():
                    residuals = reconstruction_residuals(stack.model, held_out)
                    bar.set_postfix(residual=f"{residuals.median().item():.4f}")
                    places = (residuals <= eta).nonzero().flatten().tolist()
                    leave(places, residuals)
            if not stack.slots:
                break
    return [done[slot] for slot in range(len(seeds))]


def initial_model(spec: ArchSpec, seed: int) -> SyntheticModel:
    """The model that training starts from; the global random state is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return SyntheticModel(spec)


def one_cycle(step: int, steps: int, *, warm_up: float = 0.15) -> float:
    """Learning rate at `step` as a share of its peak: a cosine up from 1/25, then one down to 0.

    Examples
    --------
    >>> [round(one_cycle(step, 101), 2) for step in (0, 15, 58, 100)]
    [0.04, 1.0, 0.49, 0.0]
    """
    peak = warm_up * (steps - 1)
    if step < peak:
        low, high, share = 1 / 25, 1.0, step / peak
    else:
        low, high, share = 1.0, 0.0, (step - peak) / max(steps - 1 - peak, 1)
    return high + (low - high) * (1 + math.cos(math.pi * share)) / 2


class _Stack:
    """The models still in training and their optimiser; ``slots`` says which they are."""

    def __init__(self, models: list[SyntheticModel], learning_rate: float) -> None:
        self.slots = list(range(len(models)))
        self._adopt(stack_models(models), learning_rate)

    def _adopt(self, model: SyntheticModel, learning_rate: float) -> None:
        self.model = model.train().to(memory_format=torch.channels_last)
        self.optimiser = torch.optim.Adam(self.model.parameters(), lr=learning_rate, fused=True)

    def step(self, batch: Tensor, precision: Precision) -> Tensor:
        """One step on crops (n, 3, h, w); the losses (models,)."""
        with torch.autocast(batch.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            output = self.model(batch)
        losses = _squared_errors(output.float(), batch)
        self.optimiser.zero_grad(set_to_none=True)
        losses.sum().backward()  # every weight gets the gradient of its own model's loss
        self._clip()
        self.optimiser.step()
        return losses.detach()

    @torch.no_grad()
    def _clip(self) -> None:
        """Scale the gradient of each model to a norm of at most MAX_GRADIENT: chains of linear
        layers would sometimes fly apart."""
        copies = self.model.copies
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        norms = [torch.linalg.vector_norm(g.reshape(copies, -1), dim=1) for g in gradients]
        scale = (MAX_GRADIENT / (torch.stack(norms).square().sum(0).sqrt() + 1e-12)).clamp(max=1)
        for gradient in gradients:
            gradient.mul_(
                scale.repeat_interleave(len(gradient) // copies).reshape(
                    -1, *[1] * (gradient.dim() - 1)
                )
            )

    def promising(self, history: list[Tensor], eta: float) -> bool:
        """Is the training loss of any model near eta?"""
        recent = torch.stack(history[-CHECK_EVERY:])[:, self.slots]
        return bool((recent.mean(0) <= 1.5 * eta).any())

    def keep(self, places: list[int]) -> None:
        """Drop all models but those at these places, with their state of the optimiser."""
        if len(places) == len(self.slots):
            return
        self.slots = [self.slots[place] for place in places]
        if not places:
            return
        states = [self.optimiser.state[parameter] for parameter in self.model.parameters()]
        copies, rate = self.model.copies, self.optimiser.param_groups[0]["lr"]
        models = unstack_model(self.model)
        self._adopt(stack_models([models[place] for place in places]), rate)
        for parameter, state in zip(self.model.parameters(), states, strict=True):
            self.optimiser.state[parameter] = {
                name: torch.cat([value.chunk(copies)[place] for place in places])
                if value.dim()
                else value
                for name, value in state.items()
            }


@torch.no_grad()
def reconstruction_residuals(model: SyntheticModel, images: Tensor) -> Tensor:
    """Mean squared error of each of the model's copies, (copies,), on `images` (n, 3, h, w) in
    eval mode; the mode is kept."""
    mode = model.training
    model.eval()
    # one image at a time: a stack of many models would need much memory
    errors = torch.stack([_squared_errors(model(image[None]), image[None]) for image in images])
    model.train(mode)
    return errors.mean(0)


def _squared_errors(output: Tensor, images: Tensor) -> Tensor:
    """Mean squared error per model, (copies,), of a stack's output (n, copies * 3, h, w)."""
    count, _, height, width = images.shape
    difference = output.reshape(count, -1, 3, height, width) - images[:, None]
    return difference.square().mean((0, 2, 3, 4))


def _centre(images: Tensor) -> Tensor:
    """The middle CHECK_CROP pixels of every image."""
    top, left = (images.shape[2] - CHECK_CROP) // 2, (images.shape[3] - CHECK_CROP) // 2
    return images[:, :, top : top + CHECK_CROP, left : left + CHECK_CROP]


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


def _check(images: Tensor, spec: ArchSpec, max_steps: int) -> None:
    if images.dim() != 4 or images.shape[1] != 3 or len(images) < 2:
        raise ValueError(f"images must be (n >= 2, 3, h, w), got {tuple(images.shape)}")
    height, width = images.shape[2:]
    if min(height, width) < CHECK_CROP or height % spec.factor or width % spec.factor:
        raise ValueError(
            f"images must be at least {CHECK_CROP}x{CHECK_CROP} with sides that are multiples of "
            f"{spec.factor} for {spec.id}, "
            f"got {images.shape[2]}x{images.shape[3]}"
        )
    low, high = float(images.min()), float(images.max())
    if low < 0 or high > 1:
        hint = ": divide by 255?" if high > 1.5 else ""
        raise ValueError(f"images must be in [0, 1], got {low:.3g} to {high:.3g}{hint}")
    if max_steps < 2:
        raise ValueError(f"max_steps must be at least 2, got {max_steps}")
