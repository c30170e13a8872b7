"""The observations behind the method, checked: print how exact the closed forms are.

    python benchmarks/observations.py

Upsampling repeats the spectrum and a kernel weights the replicas; a convolution multiplies by its
frequency response; an activation makes harmonics; normalisation leaves the shape of a spectrum
alone and changes the kernels that training finds. A minute on two cores.
"""

from typing import get_args

import torch

from fpkit.arch import ArchSpec
from fpkit.harmonics import ActivationName, harmonics
from fpkit.normalisation import normalisation_effect
from fpkit.observations import Upsampling, convolution, replicas
from fpkit.procedural import procedural_images

SPEC = ArchSpec(blocks=1, layers=1, upsample="nearest", activation="relu", order="pre")


def main() -> None:
    generator = torch.Generator().manual_seed(0)
    print("replicas: largest error of the power, as a share of its maximum")
    for upsampling in get_args(Upsampling):
        signal = torch.randn(4 if upsampling == "shuffle" else 1, 32, 32, generator=generator)
        weight = torch.randn(1, 1, 3, 3, generator=generator) if upsampling == "deconv" else None
        print(f"  {upsampling:10}{replicas(upsampling, signal, weight=weight).error:.1e}")
    kernel = torch.randn(3, 2, 5, 5, generator=generator)
    error = convolution(torch.randn(2, 32, 32, generator=generator), kernel).error
    print(f"convolution: {error:.1e}")
    print("harmonics of a cosine: largest error of an amplitude; amplitudes 0 to 4")
    for activation in get_args(ActivationName):
        found = harmonics(activation)
        rounded = found.measured[:5].round(3) + 0.0
        amplitudes = " ".join(f"{value:6.3f}" for value in rounded)
        print(f"  {activation:10}{found.error:.1e}  {amplitudes}")
    images = procedural_images(32, 64, seed=0)
    effect = normalisation_effect(SPEC, images, seeds=range(5))
    print(f"normalisation, {SPEC.id} with none, batch and instance norm, 5 seeds, 100 steps;")
    print("root mean square change of shape in dB [95% interval]")
    print(f"  through the layer itself          {effect.direct:.1e}")
    for name, across, within in (
        ("kernels", effect.kernels_across, effect.kernels_within),
        ("fingerprints", effect.fingerprints_across, effect.fingerprints_within),
    ):
        for pair, difference in (*across.items(), ("two seeds, one norm", within)):
            print(
                f"  {name + ', ' + pair:34}{difference.mean:.2f} "
                f"[{difference.low:.2f}, {difference.high:.2f}]"
            )


if __name__ == "__main__":
    main()
