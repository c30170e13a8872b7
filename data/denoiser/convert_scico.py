"""Convert the trained DnCNN denoisers of SCICO into the safetensors files beside this script.

Usage, in a folder of your choice::

    pip download --no-deps scico==0.0.7
    pip install msgpack
    python data/denoiser/convert_scico.py scico-0.0.7-py3-none-any.whl

Needs msgpack, which fpkit itself does not. Each batch normalisation is folded into the
convolution before it (in float64), kernels are stored (out, in, row, column) as float16.
"""

from __future__ import annotations

import argparse
import hashlib
import zipfile
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import torch

from fpkit.assets import save_safetensors_atomic, write_bytes_atomic

WHEEL_SHA256 = "0fd6ba6b1d1e321d8bba39d8000ec1101fa6109db26a08f58af952c5e7cde4c1"
VARIANTS = ("dncnn6N", "dncnn17N")
EPSILON = 1e-5  # of the batch normalisations, scico/flax/_models.py
LICENSE_IN_WHEEL = "scico-0.0.7.dist-info/licenses/LICENSE"


def unpack_array(code: int, data: bytes) -> np.ndarray:
    """Flax writes an array as msgpack extension 1: (shape, name of the dtype, bytes)."""
    if code != 1:
        raise ValueError(f"msgpack extension {code} is not an array of flax")
    shape, dtype, content = msgpack.unpackb(data)
    return np.frombuffer(content, dtype=dtype).reshape(shape)


def convert(variables: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Weights and biases of the plain stack of convolutions, in order."""
    parameters, statistics = variables["params"], variables["batch_stats"]
    kernels = [(parameters["conv_start"]["kernel"], None)]
    for index in range(len(statistics)):
        name = f"ConvBNBlock_{index}"
        norm = parameters[name]["BatchNorm_0"] | statistics[name]["BatchNorm_0"]
        kernels.append((parameters[name]["Conv_0"]["kernel"], norm))
    kernels.append((parameters["conv_end"]["kernel"], None))
    tensors = {}
    for index, (kernel, norm) in enumerate(kernels):
        weight = kernel.astype(np.float64).transpose(3, 2, 0, 1)  # flax: row, column, in, out
        bias = np.zeros(len(weight))
        if norm is not None:
            gain = norm["scale"].astype(np.float64) / np.sqrt(norm["var"] + EPSILON)
            weight = weight * gain[:, None, None, None]
            bias = norm["bias"] - norm["mean"] * gain
        if index == len(kernels) - 1:
            weight, bias = weight[:1], bias[:1]  # the second output belongs to the noise level
        tensors[f"{index}.weight"] = torch.from_numpy(np.ascontiguousarray(weight)).half()
        tensors[f"{index}.bias"] = torch.from_numpy(bias).half()
    return tensors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("wheel", type=Path)
    wheel = parser.parse_args().wheel
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if digest != WHEEL_SHA256:
        raise SystemExit(f"{wheel} is not the wheel of scico 0.0.7: its sha256 is {digest}")
    here = Path(__file__).parent
    with zipfile.ZipFile(wheel) as archive:
        write_bytes_atomic(here / "LICENSE", archive.read(LICENSE_IN_WHEEL))
        for variant in VARIANTS:
            packed = archive.read(f"scico/data/flax/{variant}.mpk")
            tensors = convert(msgpack.unpackb(packed, ext_hook=unpack_array))
            source = {"source": f"scico 0.0.7 (BSD-3-Clause), scico/data/flax/{variant}.mpk"}
            save_safetensors_atomic(here / f"{variant}.safetensors", tensors, metadata=source)
            print(f"{variant}: {sum(t.numel() for t in tensors.values())} numbers")


if __name__ == "__main__":
    main()
