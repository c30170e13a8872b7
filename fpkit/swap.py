"""Which blocks leave the fingerprint? Swap the last blocks of two generators and ask a classifier.

Two generators of one architecture, trained from different seeds, share an encoder: both paint the
image that a code stands for. A classifier learns to tell their spectra apart. Then the first
blocks of one are continued with the last blocks of the other: if the spectrum comes from the last
blocks, the swapped images are attributed to the generator that those came from.

Generators trained apart give their channels different meanings, so a raw swap paints nonsense.
A *stitch* between the two halves, a 1x1 convolution fitted by least squares, translates the
channels. It mixes channels and touches no frequency.

References
----------
The test: Yang et al., "Model Synthesis for Zero-Shot Model Attribution", IEEE TMM 27, 2025, with
two pairs of ProGANs. Stitching: Lenc and Vedaldi, "Understanding image representations by
measuring their equivariance and equivalence", CVPR 2015.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from fpkit.arch import ArchSpec
from fpkit.artefacts import member
from fpkit.assets import save_safetensors_atomic, swap_path
from fpkit.generators import Generator, make_encoder
from fpkit.images import quantise
from fpkit.metrics import bootstrap_interval
from fpkit.residual import residual
from fpkit.spectrum import power_spectrum
from fpkit.tensor_files import open_tensors

PairName = Literal["deconv", "shuffle"]
_PARTS = ("encoder", "first", "second")  # networks of a pair, in files
_CHUNK = 32  # images painted at once
_FLOOR = 1e-8  # of the power: 8-bit rounding alone leaves (1/255)^2 / 12 = 1.3e-6


class Swapped(nn.Module):
    """First blocks of one generator, a translation of channels, last blocks of another.

    Made by :func:`swap_last`; codes (n, c, h, w) to images in [0, 1].
    """

    def __init__(self, front: list[nn.Module], stitch: nn.Module, back: list[nn.Module]) -> None:
        super().__init__()
        self.steps = nn.Sequential(*front, stitch, *back)

    def forward(self, codes: Tensor) -> Tensor:
        images: Tensor = self.steps(codes)
        return images.clamp(0, 1)


@dataclass(frozen=True, kw_only=True)
class SpectrumClassifier:
    """Logistic regression on log power spectra: is an image by the first or the second?

    ``mean``, ``scale`` and ``weight`` are (f,) over the features of :func:`log_spectra`.
    """

    mean: Tensor
    scale: Tensor
    weight: Tensor
    bias: Tensor

    def log_odds(self, images: Tensor) -> Tensor:
        """(n,) log-odds that the images (n, 3, h, w) are by the second generator."""
        return (log_spectra(images) - self.mean) / self.scale @ self.weight + self.bias


@dataclass(frozen=True, kw_only=True)
class SwapPair:
    """Two generators of one architecture, what makes codes for them, what tells them apart.

    ``encoder`` maps images (n, 3, h, w), sides multiples of 16, to codes (n, 40, h/16, w/16).
    """

    encoder: nn.Module
    first: Generator
    second: Generator
    classifier: SpectrumClassifier


@dataclass(frozen=True, kw_only=True)
class SwapResult:
    """How often images with the last `count` blocks swapped are attributed to their donor.

    ``share`` over `images` source images, ``low`` and ``high`` a 95% bootstrap interval over
    them; ``direction`` is ``"first>second"`` where the last blocks are the second's.
    """

    count: int
    direction: Literal["first>second", "second>first"]
    stitched: bool
    share: float
    low: float
    high: float
    images: int


def swap_last(
    front: Generator, back: Generator, count: int, *, codes: Tensor | None = None
) -> Swapped:
    """Continue the first blocks of `front` with the last `count` blocks of `back`.

    Parameters
    ----------
    front, back
        Of one architecture.
    count
        0 gives `front` itself, the number of all blocks `back` itself.
    codes
        (n, c, h, w) to fit a stitch on, see :func:`fit_stitch`; none gives the raw swap.

    Raises
    ------
    ValueError
        If the architectures differ or there are not `count` blocks.
    """
    total = len(front.blocks)
    if front.spec != back.spec or total != len(back.blocks):
        raise ValueError(f"front and back must be alike, got {front.spec} and {back.spec}")
    if not 0 <= count <= total:
        raise ValueError(f"count must be between 0 and {total}, got {count}")
    before, after = list(front.blocks[: total - count]), list(back.blocks[total - count :])
    stitch: nn.Module = nn.Identity()
    if codes is not None and 0 < count < total:
        twin = list(back.blocks[: total - count])
        with torch.no_grad():
            stitch = fit_stitch(nn.Sequential(*before)(codes), nn.Sequential(*twin)(codes))
    return Swapped(before, stitch, after).eval()


def fit_stitch(features: Tensor, target: Tensor) -> nn.Conv2d:
    """1x1 convolution with bias that maps `features` (n, c, h, w) closest to `target` (n, d, h, w).

    Least squares over all positions, in float64. It has no spatial extent, hence no frequency
    response of its own.
    """
    x = features.double().movedim(1, -1).flatten(0, -2)
    y = target.double().movedim(1, -1).flatten(0, -2)
    middle_x, middle_y = x.mean(0), y.mean(0)
    x, y = x - middle_x, y - middle_y
    gram = x.T @ x
    # a channel that a ReLU silenced has no variance: a ridge of one millionth keeps it solvable
    ridge = 1e-6 * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    matrix = torch.linalg.solve(gram + ridge, x.T @ y).T
    stitch = nn.Conv2d(*matrix.shape[::-1], 1).requires_grad_(False)
    stitch.weight.copy_(matrix[:, :, None, None])
    stitch.bias.copy_(middle_y - matrix @ middle_x)
    return stitch


def paint(model: nn.Module, codes: Tensor) -> Tensor:
    """Images (n, 3, h, w) of a generator or swapped generator, rounded to 8 bit as in a file."""
    with torch.no_grad():
        return quantise(torch.cat([model(part) for part in codes.split(_CHUNK)]))


def log_spectra(images: Tensor) -> Tensor:
    """(n, f) log power at every frequency of the half plane, mean over channels.

    The mean over frequencies is taken away: how strong an image is says nothing.
    """
    power = power_spectrum(residual(images, method="none"), centred=False)
    half = power[..., : images.shape[-1] // 2 + 1].mean(dim=1)
    features = torch.log(half + _FLOOR).flatten(1)
    return features - features.mean(dim=1, keepdim=True)


def fit_classifier(first: Tensor, second: Tensor, *, penalty: float = 1e-3) -> SpectrumClassifier:
    """Logistic regression between the spectra of two generators' images, (n, 3, h, w) each.

    `penalty` times the squared weights is added to the mean cross-entropy. The problem is convex:
    no seed, and the same data give the same classifier.
    """
    features = torch.cat([log_spectra(first), log_spectra(second)])
    labels = torch.cat([torch.zeros(len(first)), torch.ones(len(second))])
    mean, scale = features.mean(0), features.std(0).clamp_min(1e-6)
    features = (features - mean) / scale
    weight = torch.zeros(features.shape[1], requires_grad=True)
    bias = torch.zeros((), requires_grad=True)
    solver = torch.optim.LBFGS([weight, bias], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        solver.zero_grad()
        odds = features @ weight + bias
        loss = functional.binary_cross_entropy_with_logits(odds, labels)
        loss = loss + penalty * weight.square().sum()
        loss.backward()
        return loss

    with torch.enable_grad():
        solver.step(closure)
    return SpectrumClassifier(mean=mean, scale=scale, weight=weight.detach(), bias=bias.detach())


def accuracy(pair: SwapPair, codes: Tensor) -> float:
    """Share of the unswapped images of both generators that the classifier attributes rightly."""
    first, second = (
        pair.classifier.log_odds(paint(model, codes)) for model in (pair.first, pair.second)
    )
    return float(torch.cat([first < 0, second > 0]).double().mean())


def swap_results(
    pair: SwapPair,
    codes: Tensor,
    *,
    fit_codes: Tensor | None,
    counts: Iterable[int] = (1, 2, 3),
    seed: int = 0,
) -> list[SwapResult]:
    """Swap the last blocks both ways and see whom the images are attributed to.

    Parameters
    ----------
    pair
        With a classifier that never saw the sources of `codes`.
    codes
        (n, c, h, w) of the images to judge.
    fit_codes
        Codes of other images, to fit the stitches on; None for raw swaps.
    counts
        How many of the last blocks to swap.
    seed
        Of the bootstrap.
    """
    results = []
    for count in counts:
        for forward in (True, False):
            front, back = (pair.first, pair.second) if forward else (pair.second, pair.first)
            images = paint(swap_last(front, back, count, codes=fit_codes), codes)
            hits = (pair.classifier.log_odds(images) > 0) == forward
            low, high = bootstrap_interval(hits.numpy(), seed=seed)
            results.append(
                SwapResult(
                    count=count,
                    direction="first>second" if forward else "second>first",
                    stitched=fit_codes is not None,
                    share=float(hits.double().mean()),
                    low=low,
                    high=high,
                    images=len(codes),
                )
            )
    return results


def save_swap_pair(pair: SwapPair, path: str | Path, *, provenance: dict[str, str]) -> None:
    """Write a pair as half-precision safetensors with its architecture in the header."""
    classifier = {
        field.name: getattr(pair.classifier, field.name) for field in fields(pair.classifier)
    }
    tensors = {
        f"{part}.{name}": tensor.half() if tensor.is_floating_point() else tensor
        for part, tensors in (
            ("encoder", pair.encoder.state_dict()),
            ("first", pair.first.state_dict()),
            ("second", pair.second.state_dict()),
            ("classifier", classifier),
        )
        for name, tensor in tensors.items()
    }
    save_safetensors_atomic(path, tensors, metadata={"arch_id": pair.first.spec.id, **provenance})


def load_swap_pair(name: PairName = "deconv", *, folder: str | Path | None = None) -> SwapPair:
    """A trained pair: shipped with fpkit, or from `folder`, where ``<name>.safetensors`` lies.

    Returns
    -------
    SwapPair
        On the CPU, float32, eval mode, without gradients. Its classifier saw other images than
        ``procedural_images(n, 128, seed=s)`` makes for s below 1000.
    """
    if name not in get_args(PairName):
        raise ValueError(f"name must be one of {get_args(PairName)}, got {name!r}")
    path = member(swap_path() if folder is None else folder, f"{name}.safetensors")
    if not path.is_file():
        raise FileNotFoundError(f"no pair of generators at {path}")
    try:
        with open_tensors(path) as file:
            spec = ArchSpec.parse(file.metadata.get("arch_id", ""))
            models = make_encoder(), Generator(spec), Generator(spec)
            wanted = {
                f"{part}.{key}": tensor
                for part, model in zip(_PARTS, models, strict=True)
                for key, tensor in model.state_dict().items()
            }
            _, shape = file.layout.get("classifier.mean", (None, ()))
            features = torch.empty(shape[:1], device="meta")  # images of any size were allowed
            wanted |= {f"classifier.{f.name}": features for f in fields(SpectrumClassifier)}
            wanted["classifier.bias"] = torch.empty(())
            file.expect(wanted)
            stored = file.read()
    except ValueError as error:
        raise ValueError(f"{path} holds no pair of generators: {error}") from error
    parts: dict[str, dict[str, Tensor]] = {}
    for key, tensor in stored.items():
        part, _, rest = key.partition(".")
        parts.setdefault(part, {})[rest] = tensor.float() if tensor.is_floating_point() else tensor
    for model, part in zip(models, _PARTS, strict=True):
        model.load_state_dict(parts[part])
        model.eval().requires_grad_(False)
    encoder, first, second = models
    classifier = SpectrumClassifier(**parts["classifier"])
    return SwapPair(encoder=encoder, first=first, second=second, classifier=classifier)
