"""Export of an extractor to ONNX, checked against torch, for use without Python or torch.

One file holds weights and arithmetic, from crops to embeddings; the Fourier transform becomes the
DFT operator of the standard. Cutting crops out of an image (:func:`fpkit.images.grid_crops`) stays
with the caller.
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
from fpkit.extractor import Extractor
from fpkit.images import grid_crops
from fpkit.procedural import procedural_images

OPSET = 20  # the first whose DFT takes its axis as an input; 17 brought the operator
TOLERANCE = 1e-3
NEEDED = ("onnx", "onnxruntime", "onnxscript")


class CropsToEmbeddings(nn.Module):
    """What the exported graph computes.

    ``crops`` (n, 3, crop, crop) float32 in [0, 1] -> ``crop_embeddings`` (n, dim), unit norm, and
    ``embedding`` (dim,), unit norm: that of one image if these are its crops, which is their mean
    minus the cohort, normalised.
    """

    def __init__(self, extractor: Extractor) -> None:
        super().__init__()
        self.extractor = extractor

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        units = functional.normalize(self.extractor(crops))
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
    crops = grid_crops(image, size=extractor.config.crop)
    units, embedding = session.run(None, {"crops": crops.numpy()})
    with torch.no_grad():
        expected = functional.normalize(extractor(crops)).numpy()
    whole = extractor.embed([image])[0].numpy()
    return float(max(np.abs(units - expected).max(), np.abs(embedding - whole).max()))
