"""Make the picture of the README's first screen: notebooks/images/fingerprints.png.

    python benchmarks/readme_picture.py
    python benchmarks/readme_picture.py --real FOLDER [--names NAME[=LABEL] ...]

Synthetic models of the starter zoo repaint one image: image, residual and fingerprint of each.
With ``--real``, a folder with one folder of images per model, a row of average spectra of real
generators follows; none of their pixels get into the picture.
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


def real(folder: Path, names: list[str]) -> dict[str, Cell]:
    """Average spectra of real models by label."""
    models = fp.list_models(folder)
    cells = {}
    for choice in names or list(models)[: len(MODELS)]:
        name, _, label = choice.partition("=")
        if name not in models:
            raise SystemExit(f"{folder} has no model {name!r}: it has {', '.join(models)}")
        images = (image for _, image in fp.read_images(models[name]))
        cells[label or name] = Cell(values=fp.to_db(fp.average_spectrum(images).mean(axis=0)))
    return cells


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--real", type=Path, metavar="FOLDER", help="one folder per real model")
    parser.add_argument(
        "--names", nargs="+", default=[], metavar="NAME[=LABEL]", help="models of FOLDER to show"
    )
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    torch.set_grad_enabled(False)
    sheets = [montage(synthetic(MODELS), columns=titles(MODELS), cell_size=CELL)]
    if arguments.real:
        cells = real(arguments.real, arguments.names)
        columns = [name if len(name) <= 18 else name[:17] + "…" for name in cells]
        row = {"fingerprint\n(real model)": list(cells.values())}
        sheets.append(montage(row, columns=columns, cell_size=CELL))
    content = png_bytes(stack(sheets), colours=256)
    write_bytes_atomic(arguments.out, content)
    print(f"{arguments.out}: {len(content) / 1000:.0f} kB")


if __name__ == "__main__":
    main()
