"""Build the photograph tiles that the shipped extractor was trained on.

    python data/photos/make_photos.py --out photos.npy --tiles 6000

Downloads freely licensed packages with the system's own clients (`apt-get download` for Debian's
wallpaper packages, pip for two wheels), takes the photographs in them and writes randomly placed,
downscaled tiles as one array, (n, 192, 192, 3) uint8. No photograph enters this repository. The
package gcompris-qt-data is left out on purpose: its photographs are part of an evaluation set.

Needs Debian (or a system with apt-get and dpkg), pip and Pillow; `--folder` takes any folder of
photographs instead.
"""

import argparse
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

TILE = 192
# package -> patterns of its photographs (drawings and logos are left out)
DEBIAN = {
    "lomiri-wallpapers-16.04": ["*.jpg"],
    "lomiri-wallpapers-20.04": ["Fossa*.jpg", "Kleiber*.jpg", "Infinite*.jpg"],
    "mate-backgrounds": ["nature/*.jpg", "Elephants_5640x3172.jpg"],
    "plasma-workspace-wallpapers": [
        *("Autumn/*.jpg", "BytheWater/*.jpg", "ColdRipple/*.jpg", "ColorfulCups/*.jpg"),
        *("EveningGlow/*.jpg", "FallenLeaf/*.jpg", "Grey/*.jpg", "OneStandsOut/*.jpg"),
        *("Kite/*.jpg", "Path/*.jpg", "summer_1am/*.jpg", "DarkestHour/*.jpg"),
    ],
    "lxqt-themes": [
        *("after-the-rain.jpg", "appleflower.png", "beam.png", "butterfly.png", "cloud.png"),
        *("drop.png", "flowers.png", "fog.jpg", "this-is-not-windows.jpg", "Valendas.png"),
    ],
    "ukui-wallpapers": [
        *("calla.png", "the-mouse.jpg", "goldfish.png", "string.jpg", "rhythm.jpg"),
    ],
}
WHEELS = {
    "scikit-image": [
        *("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "ihc.png", "grass.png"),
        *("gravel.png", "brick.png", "motorcycle_left.png", "hubble_deep_field.jpg"),
    ],
    "scikit-learn": ["china.jpg", "flower.jpg"],
}
FILTERS = [Image.Resampling.BOX, Image.Resampling.BILINEAR, Image.Resampling.HAMMING]
FILTERS += [Image.Resampling.BICUBIC, Image.Resampling.LANCZOS]


def download(folder: Path) -> list[Path]:
    """Fetch and unpack all packages below `folder`; return the photographs, sorted."""
    for package in DEBIAN:
        subprocess.run(["apt-get", "download", package], cwd=folder, check=True)
        archive = next(folder.glob(f"{package}_*.deb"))
        subprocess.run(["dpkg", "-x", archive, folder / package], check=True)
    for package in WHEELS:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "-q", package]
        subprocess.run(command, cwd=folder, check=True)
        wheel = next(folder.glob(f"{package.replace('-', '_')}-*.whl"))
        with zipfile.ZipFile(wheel) as contents:
            contents.extractall(folder / package)
    found = {
        path
        for package, patterns in (DEBIAN | WHEELS).items()
        for pattern in patterns
        for path in (folder / package).rglob(pattern)
        if path.is_file() and not path.is_symlink()
    }
    return sorted(found)


def tiles(paths: list[Path], count: int, seed: int) -> np.ndarray:
    """`count` tiles (count, TILE, TILE, 3) uint8, the same number from every photograph."""
    rng = np.random.default_rng(seed)
    result = np.empty((count, TILE, TILE, 3), np.uint8)
    share = np.array_split(np.arange(count), len(paths))
    for path, rows in zip(tqdm(paths, unit="photo"), share, strict=True):
        with Image.open(path) as opened:
            photo = opened.convert("RGB")
        # at least 2x smaller than published, so that traces of JPEG and of the camera are gone
        largest = max(1.0, min(photo.size) / TILE)
        for row in rows:
            factor = min(largest, 2 * (largest / 2) ** (rng.random() * 0.9))
            side = int(TILE * factor)
            left = rng.integers(photo.width - side + 1)
            top = rng.integers(photo.height - side + 1)
            box = (left, top, left + side, top + side)
            filter_ = FILTERS[rng.integers(len(FILTERS))]
            result[row] = np.asarray(photo.resize((TILE, TILE), filter_, box=box))
    return result[rng.permutation(count)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="the .npy file to write")
    parser.add_argument("--tiles", type=int, default=6000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="photographs of your own, instead")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        if arguments.folder:
            files = sorted(arguments.folder.rglob("*"))
            paths = [f for f in files if f.suffix.lower() in {".jpg", ".jpeg", ".png"}]
        else:
            paths = download(Path(scratch))
        if not paths:
            parser.error(f"no photographs (.jpg, .jpeg, .png) below {arguments.folder}")
        array = tiles(paths, arguments.tiles, arguments.seed)
    partial = arguments.out.with_suffix(".part.npy")
    np.save(partial, array, allow_pickle=False)
    partial.replace(arguments.out)
    print(f"{len(array)} tiles of {len(paths)} photographs in {arguments.out}")


if __name__ == "__main__":
    main()
