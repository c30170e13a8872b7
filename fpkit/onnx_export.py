"""Export of an extractor to ONNX, checked against torch, for use without Python or torch.

One file holds weights and arithmetic, from crops to embeddings. The maps that the network sees are
computed in plain operations that every runtime has: the Fourier transform as products with
matrices of cosines and sines, whose result is the same, and averages over bins as products too.
Cutting crops out of an image (:func:`fpkit.images.grid_crops`) stays with the caller.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from fpkit.assets import write_bytes_atomic
from fpkit.coherence import CYCLIC, EDGE, FLOOR, STRIDE
from fpkit.embedder import CROPS_PER_SIDE
from fpkit.extractor import COLOUR, POOLING, Extractor, pool
from fpkit.images import grid_crops
from fpkit.procedural import procedural_images
from fpkit.residual import residual as noise_residual

OPSET = 18  # the lowest that torch writes
TOLERANCE = 1e-3
NEEDED = ("onnx", "onnxruntime", "onnxscript")


def dft_matrices(size: int) -> tuple[Tensor, Tensor]:
    """Matrices C and S, (size, size) float32, of cos and sin of 2 pi j k / size.

    The two-dimensional Fourier transform of a plane x is (C - iS) x (C - iS), so its real part is
    C x C - S x S and its imaginary part -(C x S + S x C).
    """
    steps = torch.arange(size)
    # exact: the product of two integers modulo size, before any rounding
    angle = 2 * torch.pi * (steps[:, None] * steps % size).double() / size
    return angle.cos().float(), angle.sin().float()


def circular_means(size: int) -> Tensor:
    """(size / 4, size) matrix: means over 7 bins around every fourth, round the circle."""
    distance = torch.arange(size) - STRIDE * torch.arange(size // STRIDE)[:, None]
    near = ((distance + size // 2) % size - size // 2).abs() <= EDGE
    return near.float() / (2 * EDGE + 1)


class PlainMaps(nn.Module):
    """What `Extractor.maps` gives, in plain operations on whole planes, nothing in place."""

    cosines: Tensor
    sines: Tensor
    colour: Tensor
    means: Tensor

    def __init__(self, extractor: Extractor) -> None:
        super().__init__()
        self.extractor = extractor
        cosines, sines = dft_matrices(extractor.config.crop)
        self.register_buffer("cosines", cosines)
        self.register_buffer("sines", sines)
        self.register_buffer("colour", torch.tensor(COLOUR, dtype=torch.float32))
        self.register_buffer("means", circular_means(extractor.config.crop))

    def forward(self, crops: Tensor) -> list[Tensor]:
        x = noise_residual(crops, method=self.extractor.config.residual) * self.extractor.window
        across, turned = x @ self.cosines, x @ self.sines
        real = self.cosines @ across - self.sines @ turned
        imaginary = -(self.cosines @ turned + self.sines @ across)
        power = self._colour(real).square() + self._colour(imaginary).square()
        power = torch.roll(power, self.extractor.config.crop // 2, -2)
        levels = [torch.log(pool(power, width, stride) + FLOOR) for width, stride in POOLING]
        levels[-1] = torch.cat([levels[-1], self._coherence(real.sum(1), imaginary.sum(1))], 1)
        return levels

    def _colour(self, planes: Tensor) -> Tensor:
        """(n, 3, s, s) to the half planes (n, 5, s, s / 2 + 1) of channels and differences."""
        half = planes[..., : planes.shape[-1] // 2 + 1]
        return torch.einsum("oc,nchw->nohw", self.colour, half)

    def _coherence(self, real: Tensor, imaginary: Tensor) -> Tensor:
        """As :func:`fpkit.coherence.spectral_coherence`, from whole planes (n, s, s)."""
        size, cells = real.shape[-1], real.shape[-1] // STRIDE
        rows, columns = torch.roll(self.means, cells // 2, 0), self.means[: cells // 2 + 1]
        power = rows @ (real.square() + imaginary.square()) @ self.means.T
        pairs = []
        for shift in CYCLIC:
            down, right = (round(distance * size) for distance in shift)
            r, i = (torch.roll(part, (-down, -right), (-2, -1)) for part in (real, imaginary))
            there = torch.roll(power, (-(down // STRIDE), -(right // STRIDE)), (-2, -1))
            scale = (power * there + FLOOR**2).rsqrt()[..., : cells // 2 + 1]
            products = torch.stack([real * r + imaginary * i, imaginary * r - real * i], 1)
            pairs.append(rows @ products @ columns.T * scale[:, None])
        parts = torch.stack(pairs, 1)
        return torch.cat([parts.flatten(1, 2), parts.square().sum(2).sqrt()], 1)


class CropsToEmbeddings(nn.Module):
    """What the exported graph computes.

    ``crops`` (n, 3, crop, crop) float32 in [0, 1] -> ``crop_embeddings`` (n, dim), unit norm, and
    ``embedding`` (dim,), unit norm: that of one image if these are its crops, which is their mean
    minus the cohort, normalised.
    """

    def __init__(self, extractor: Extractor) -> None:
        super().__init__()
        self.extractor = extractor
        self.maps = PlainMaps(extractor)

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        units = functional.normalize(self.extractor.encode(self.maps(crops)))
        return units, functional.normalize(units.mean(0) - self.extractor.cohort, dim=0)


@dataclass(frozen=True, kw_only=True)
class OnnxExport:
    """What was written, and how far ONNX Runtime is from torch.

    ``difference`` is the largest absolute difference of any number in an embedding, ``images``
    how many images it was looked for in.
    """

    path: Path
    size: int
    opset: int
    difference: float
    images: int


def export_onnx(extractor: Extractor, path: str | Path) -> OnnxExport:
    """Write an extractor as ONNX, if ONNX Runtime then gives what torch gives.

    Parameters
    ----------
    extractor : Extractor
        On the CPU, in eval mode.
    path : str or Path
        File to make or replace.

    Returns
    -------
    OnnxExport

    Raises
    ------
    ModuleNotFoundError
        If the extra ``onnx`` is not installed.
    RuntimeError
        If an embedding differs by more than 0.001; nothing is written then.

    Notes
    -----
    The input is ``crops``, its first dimension is free; the outputs are those of
    `CropsToEmbeddings`. To embed many images in one run, average the ``crop_embeddings`` of each,
    subtract the cohort and normalise. The file's metadata has ``crop``, ``dim``, ``cohort`` (a
    JSON list) and ``extractor_hash``, which galleries are bound to.
    """
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise ModuleNotFoundError(
            f"ONNX export needs {', '.join(missing)}: pip install 'fpkit[onnx]'"
        )
    if not isinstance(extractor, Extractor):
        raise ValueError(
            f"only fpkit's own kind of extractor can be exported, got {type(extractor).__name__}"
        )
    if extractor.training or extractor.cohort.device.type != "cpu":
        raise ValueError("the extractor must be on the CPU and in eval mode: .eval().to('cpu')")
    content = _graph(extractor)
    images = _test_images(extractor.config.crop)
    difference = max(_difference(extractor, content, image) for image in images)
    if not difference <= TOLERANCE:
        raise RuntimeError(
            f"ONNX Runtime differs from torch by {difference:.2g}, more than {TOLERANCE:g}: "
            "nothing was written; try other versions of torch, onnxscript and onnxruntime"
        )
    path = Path(path)
    write_bytes_atomic(path, content)
    return OnnxExport(
        path=path, size=len(content), opset=OPSET, difference=difference, images=len(images)
    )


def _graph(extractor: Extractor) -> bytes:
    import onnx

    model = CropsToEmbeddings(extractor).eval()
    example = torch.rand(3, 3, extractor.config.crop, extractor.config.crop)
    with _quiet(), torch.no_grad():
        # strict: the other mode takes len() of a tensor for a constant
        program = torch.export.export(
            model, (example,), dynamic_shapes=({0: torch.export.Dim("n")},), strict=True
        )
        exported = torch.onnx.export(
            program,
            (),
            dynamo=True,
            opset_version=OPSET,
            input_names=["crops"],
            output_names=["crop_embeddings", "embedding"],
            verbose=False,
        )
    assert exported is not None  # it is, with dynamo=True
    proto = exported.model_proto
    metadata = {
        "crop": str(extractor.config.crop),
        "dim": str(extractor.dim),
        "cohort": json.dumps(extractor.cohort.tolist()),
        "extractor_hash": extractor.hash,
    }
    onnx.helper.set_model_props(proto, metadata)
    onnx.checker.check_model(proto)
    content: bytes = proto.SerializeToString()
    return content


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what torch's exporter says of itself, and of torchvision, from the user."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            yield
    finally:
        logger.setLevel(level)


def _test_images(crop: int) -> list[Tensor]:
    """Images that give one, two, four and nine crops."""
    image = procedural_images(1, 2 * crop, seed=0)[0]
    return [image[:, : crop + y, : crop + x] for y, x in ((0, 0), (0, 1), (1, 1), (crop, crop))]


def _difference(extractor: Extractor, content: bytes, image: Tensor) -> float:
    """Largest absolute difference of both outputs, for the crops of one image."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    crops = grid_crops(image, size=extractor.config.crop, grid=CROPS_PER_SIDE)
    units, embedding = session.run(None, {"crops": crops.numpy()})
    with torch.no_grad():
        expected = functional.normalize(extractor(crops)).numpy()
    whole = extractor.embed([image])[0].numpy()
    return float(max(np.abs(units - expected).max(), np.abs(embedding - whole).max()))
