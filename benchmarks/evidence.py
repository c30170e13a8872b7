"""How often are the warnings beside a verdict right, and how often wrong?

    python benchmarks/evidence.py [--photos photos.npy] [--quick] [--seed 0] [--real FOLDER]

Images of three kinds, photographs (if given), procedural ones and those of synthetic models, have
something done to them, and every detector of `fpkit.evidence` is asked: hits where it was done,
false alarms on the untouched. Thresholds were chosen on such images; `--real` counts alarms on a
folder of real images (untouched as far as is known), on which nothing was chosen. Exits with 1 if a
promise in PROMISES is broken.
"""

import argparse
import io
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

import fpkit as fp
from fpkit.cli_io import print_table
from fpkit.degrade import Degradation
from fpkit.embedder import CROPS_PER_SIDE
from fpkit.evidence import gather_evidence, heads
from fpkit.folders import list_models
from fpkit.images import ImageReadError, jpeg, load_tiles, quantise, read_image

SIDE, CROP, MARGIN = 192, 128, 16
FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC,
           "Lanczos": Image.Resampling.LANCZOS}  # fmt: skip
# warning, what was done -> least share of hits, over all kinds of images
PROMISES = {
    ("once a JPEG", "JPEG 75"): 0.9,
    ("once a JPEG", "JPEG 85"): 0.9,
    ("once a JPEG", "JPEG 95"): 0.9,
    ("once a JPEG", "JPEG 85, cropped by (3, 6)"): 0.9,
    ("resized", "enlarged 1.5, bicubic"): 0.8,
    ("resized", "enlarged 1.7, bicubic"): 0.8,
    ("no fine detail", "blur 2"): 0.9,
    ("grey", "grey"): 1.0,
    ("flat", "two thirds clipped"): 0.9,
}
FALSE_ALARMS = {"once a JPEG": 0.01, "resized": 0.03, "grey": 0.02}  # the others are facts
QUALITY_RIGHT = 0.95  # of the JPEG files: their quality read from the table


def resized(factor: float, how: str) -> Callable[[Tensor], Tensor]:
    def change(image: Tensor) -> Tensor:
        pixels = (image * 255).round().byte().permute(1, 2, 0).numpy()
        size = [round(factor * side) for side in (image.shape[2], image.shape[1])]
        array = np.asarray(Image.fromarray(pixels).resize(size, FILTERS[how]), np.float32) / 255
        return torch.from_numpy(array.transpose(2, 0, 1).copy())

    return change


def blurred(sigma: float) -> Callable[[Tensor], Tensor]:
    degradation = Degradation(kind="blur", amount=sigma)
    return lambda image: degradation(image, generator=np.random.default_rng(0))


def clipped(image: Tensor) -> Tensor:
    changed = image.clone()
    changed[:, : 2 * image.shape[1] // 3] = 1.0
    return changed


CHANGES: dict[str, Callable[[Tensor], Tensor]] = {
    "nothing": lambda image: image,
    **{f"JPEG {q}": lambda image, q=q: jpeg(image, q) for q in (30, 50, 75, 85, 90, 95, 97)},
    "JPEG 85, cropped by (3, 6)": lambda image: jpeg(image, 85)[:, 3:, 6:],
    **{f"enlarged {f:.3g}, {how}": resized(f, how)
       for f in (1.1, 1.2, 4 / 3, 1.5, 1.7, 2, 2.3) for how in FILTERS},
    "enlarged 1.5, bicubic, JPEG 85": lambda image: jpeg(resized(1.5, "bicubic")(image), 85),
    **{f"made smaller {f}": resized(f, "bicubic") for f in (0.75, 0.9)},
    **{f"blur {s}": blurred(s) for s in (0.5, 1, 2)},
    "grey": lambda image: image.mean(0, keepdim=True).expand(3, -1, -1).contiguous(),
    "two thirds clipped": clipped,
}  # fmt: skip


def untouched(photos: Path | None, count: int, seed: int) -> dict[str, list[Tensor]]:
    """`count` images of each kind."""
    generator = np.random.default_rng(seed)
    images = {"procedural": list(quantise(fp.procedural_images(count, SIDE, seed=seed)))}
    if photos is not None:
        tiles = load_tiles(photos, side=SIDE, least=count)
        rows = generator.choice(len(tiles), count, replace=False)
        images["photograph"] = [
            torch.from_numpy(tiles[i].astype(np.float32).transpose(2, 0, 1) / 255) for i in rows
        ]
    zoo = fp.Zoo.load()
    scenes = [image for several in zip(*images.values(), strict=True) for image in several]
    models = generator.choice(zoo.model_ids, count)
    images["synthetic"] = [
        quantise(zoo.apply(model, functional.pad(scene[None], (MARGIN,) * 4, mode="reflect")))[
            0, :, MARGIN:-MARGIN, MARGIN:-MARGIN
        ]
        for model, scene in zip(models, scenes, strict=False)
    ]
    return images


def warned(image: Tensor) -> set[str]:
    """What the warnings are about; sizes are no question here."""
    found = gather_evidence(image, crop=CROP, grid=CROPS_PER_SIDE).warnings
    return {heads([warning]) for warning in found} - {"small"}


def table(images: dict[str, list[Tensor]]) -> dict[tuple[str, str, str], float]:
    """(warning, change, kind of image) -> share of the images that were warned of."""
    shares: dict[tuple[str, str, str], float] = {}
    for change, apply in tqdm(CHANGES.items(), unit="change", disable=None):
        for kind, several in images.items():
            found = [warned(apply(image)) for image in several]
            for warning in ("once a JPEG", "resized", "no fine detail", "flat", "grey"):
                shares[warning, change, kind] = float(np.mean([warning in one for one in found]))
    return shares


def qualities(images: list[Tensor]) -> float:
    """Share of JPEG files, of random quality, whose quality is told from the file."""
    generator, right = np.random.default_rng(0), []
    for image in images:
        buffer, quality = io.BytesIO(), int(generator.integers(1, 101))
        pixels = (image * 255).round().byte().permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(buffer, format="JPEG", quality=quality)
        found = gather_evidence(image, source=buffer.getvalue(), crop=CROP, grid=CROPS_PER_SIDE)
        right.append(found.jpeg_quality == quality)
    return float(np.mean(right))


def real(folder: Path, most: int) -> None:
    """Alarms on the images of a folder-per-model tree, by format."""
    rows: dict[str, list[set[str]]] = {}
    for paths in tqdm(list_models(folder).values(), unit="model", disable=None):
        for path in paths[:most]:
            try:
                image = read_image(path)
                found = gather_evidence(image, source=path, crop=CROP, grid=CROPS_PER_SIDE)
            except (ImageReadError, ValueError):
                continue
            names = {heads([warning]) for warning in found.warnings}
            rows.setdefault(found.format, []).append(names)
    kinds = sorted(set().union(*[one for several in rows.values() for one in several]))
    print_table(
        ["format", "images", *kinds],
        [
            [form, len(several), *(f"{np.mean([k in one for one in several]):.1%}" for k in kinds)]
            for form, several in rows.items()
        ],
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, help="tiles of data/photos/make_photos.py")
    parser.add_argument("--real", type=Path, metavar="FOLDER", help="count alarms on real images")
    parser.add_argument("--count", type=int, default=200, help="images of each kind (200)")
    parser.add_argument("--quick", action="store_true", help="20 images of each kind")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    count = 20 if arguments.quick else arguments.count
    images = untouched(arguments.photos, count, arguments.seed)
    shares = table(images)
    columns = ["warning", "done to the image", *images]
    rows = []
    for warning in ("once a JPEG", "resized", "no fine detail", "flat", "grey"):
        for change in CHANGES:
            found = [shares[warning, change, kind] for kind in images]
            alarms = [shares[warning, "nothing", kind] for kind in images]
            if change == "nothing" or np.subtract(found, alarms).max() > 0.06:
                rows.append([warning, change, *(f"{share:.1%}" for share in found)])
    print_table(columns, rows)
    right = qualities(images["synthetic"])
    print(f"quality of JPEG files, 1 to 100, told exactly: {right:.1%}")

    broken = [] if right >= QUALITY_RIGHT else ["quality of files"]
    mean = {
        (warning, change): np.mean([shares[warning, change, kind] for kind in images])
        for warning, change, _ in shares
    }
    broken += [f"{w} after {c}: {mean[w, c]:.1%}" for (w, c), p in PROMISES.items()
               if mean[w, c] < p]  # fmt: skip
    broken += [f"false alarms of {w}: {mean[w, 'nothing']:.1%}" for w, p in FALSE_ALARMS.items()
               if mean[w, "nothing"] > p + 1 / count]  # fmt: skip
    if arguments.real:
        real(arguments.real, most=4 if arguments.quick else 1000)
    total = sum(map(len, images.values())) * len(CHANGES)
    worst = max(mean[warning, "nothing"] for warning in FALSE_ALARMS)
    print(f"{total} images asked about, {len(PROMISES)} promised detections, {len(broken)} broken, "
          f"at most {worst:.1%} false alarms of compression, resizing and grey")  # fmt: skip
    for text in broken:
        print(f"BROKEN: {text}")
    return int(bool(broken))


if __name__ == "__main__":
    sys.exit(main())
