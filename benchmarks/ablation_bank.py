"""The images that benchmarks/ablate.py trains and tests on, and the maps that are made of them.

A bank holds images of many synthetic models, twelve of each. A recipe says what is done to them
before a network sees a crop, a front end which maps are made of crops. Maps are made once.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from fpkit.assets import write_text_atomic
from fpkit.coherence import CYCLIC, FLOOR
from fpkit.degrade import Degradation
from fpkit.extractor import COLOUR, Extractor, ExtractorConfig, colour_power, pool
from fpkit.images import GRID, jpeg, load_tiles, quantise
from fpkit.procedural import procedural_images
from fpkit.residual import ResidualName
from fpkit.synthesizer import RandomSynthesizer
from fpkit.zoo import Zoo

SIDE, MARGIN = 160, 16  # pixels of a bank's images; what was cut off, marked by padding
TRAINED, RANDOM = ("paper", "extended"), ("plain", "wide")
PAIRS = 2 * len(CYCLIC)  # channels of real and imaginary parts of coherence
WORST = 0.08  # residual of a trained model above which it shows little of its source image

Kind = Literal["paper", "extended", "plain", "wide", "procedural"]
Damage = Literal["none", "resize", "blur", "gamma", "noise"]
Scale = Literal["log power", "magnitude", "log magnitude", "autocorrelation"]
Models = Literal[
    "all", "trained", "plain", "wide", "random", "paper", "extended", "quarter",
    "paper one seed", "paper two seeds", "photographs", "procedural", "both images",
]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What is done to an image of the bank before a network sees a crop of it.

    ``damage`` befalls ``damage_share`` of the images, then JPEG of 65 to 98 (or of ``quality``)
    ``jpeg_share`` of them; ``off_grid_share`` of the crops begin anywhere and not on the 8-pixel
    grid. ``opposite`` takes the second crop of an image, point-reflected about its middle.
    """

    crop: int = 128
    jpeg_share: float = 0.5
    quality: int | None = None
    off_grid_share: float = 0.2
    damage: Damage = "none"
    damage_share: float = 0.5
    opposite: bool = False


@dataclass(frozen=True, kw_only=True)
class FrontEnd:
    """Which maps are made of crops: by default those of :class:`fpkit.extractor.Extractor`."""

    residual: ResidualName = "none"
    scale: Scale = "log power"
    window: bool = True
    full: bool = False  # one level more, at every bin
    cross: bool = False  # coherence of the colour channels with one another


@dataclass(frozen=True, kw_only=True)
class Bank:
    """Images (models, per model, 3, 160, 160) uint8 and a row of facts for every model."""

    images: NDArray[np.uint8]
    rows: list[dict[str, Any]]
    folder: Path

    @classmethod
    def load(cls, folder: str | Path) -> "Bank":
        """Open what `build_bank` wrote; the images stay on disk."""
        folder = Path(folder)
        if not (folder / "rows.json").is_file():
            raise FileNotFoundError(f"{folder} holds no bank: make one with `ablate.py bank`")
        rows = json.loads((folder / "rows.json").read_text(encoding="utf-8"))
        return cls(images=np.load(folder / "images.npy", mmap_mode="r"), rows=rows, folder=folder)

    def held_out(self, most: int) -> list[int]:
        """Indices of at most `most` held-out models, evenly over all."""
        found = [i for i, row in enumerate(self.rows) if row["held_out"]]
        places = np.linspace(0, len(found) - 1, min(most, len(found))).round()
        return [found[int(place)] for place in places]

    def training(self, models: Models = "all") -> list[int]:
        """Indices, rising, of the models that a variant is trained on."""
        rows = [(i, row) for i, row in enumerate(self.rows) if not row["held_out"]]
        of = {kind: [i for i, row in rows if row["kind"] == kind] for kind in get_args(Kind)}
        trained = sorted(i for kind in TRAINED for i in of[kind])
        random = sorted(i for kind in RANDOM for i in of[kind])
        n = len(of["procedural"])

        def share(indices: list[int], step: int) -> list[int]:
            archs = list(dict.fromkeys(self.rows[i]["arch"] for i in indices))
            return [i for i in indices if self.rows[i]["arch"] in set(archs[::step])]

        return {
            **of,
            "all": sorted(trained + random),
            "trained": trained,
            "random": random,
            "quarter": share(sorted(trained + random), 4),
            "paper one seed": [i for i in of["paper"] if self.rows[i]["seed"] == 0],
            "paper two seeds": share(of["paper"], 2),
            "photographs": of["plain"][:n],
            "both images": of["plain"][: n // 2] + of["procedural"][: n - n // 2],
        }[models]


def build_bank(
    folder: Path, photos: Path, zoos: dict[str, Path], *, decoders: int = 256, images: int = 12
) -> None:
    """Write images of the models of zoos and of random decoders, on photographs, to `folder`.

    Of each zoo every fourth architecture is held out, and a fifth of the random decoders of each
    kind. Half as many random plain decoders again see procedural images.
    """
    if not set(zoos) <= set(TRAINED):
        raise ValueError(f"zoos must be named {' and '.join(TRAINED)}, got {', '.join(zoos)}")
    side = SIDE + 2 * MARGIN
    tiles = load_tiles(photos, side=side, least=6 * images)
    generator = torch.Generator().manual_seed(5)
    order = torch.randperm(len(tiles), generator=generator)[: 6 * images].numpy()
    photographs = torch.from_numpy(tiles[order][:, :side, :side]).permute(0, 3, 1, 2) / 255
    pools = {False: photographs[: 4 * images], True: photographs[4 * images :]}
    rows: list[dict[str, Any]] = []
    parts: list[NDArray[np.uint8]] = []

    def drawn(sources: Tensor) -> Tensor:
        return sources[torch.randperm(len(sources), generator=generator)[:images]][None]

    def add(outputs: Tensor) -> None:
        inner = outputs[..., MARGIN:-MARGIN, MARGIN:-MARGIN]
        parts.append((inner * 255).round().to(torch.uint8).numpy())

    for name, path in zoos.items():
        zoo = Zoo.load(path)
        archs = list(dict.fromkeys(entry["arch_id"] for entry in zoo.entries))
        for entry in zoo.entries:
            if entry["residual"] <= WORST:
                held = entry["arch_id"] in archs[3::4]
                row = {"kind": name, "arch": entry["arch_id"], "seed": entry["seed"]}
                rows.append(row | {"held_out": held})
                add(zoo.apply_many([entry["model_id"]], drawn(pools[held])))
    wide = RandomSynthesizer(encoder="trained", space="wide")
    plain = RandomSynthesizer()
    made = procedural_images(4 * images, side, seed=0)
    for kind, synthesizer, held, count, sources in (
        ("plain", plain, False, decoders, pools[False]),
        ("plain", plain, True, decoders // 4, pools[True]),
        ("wide", wide, False, decoders, pools[False]),
        ("wide", wide, True, decoders // 4, pools[True]),
        ("procedural", plain, False, decoders // 2, made),
    ):
        for _ in range(count):
            row = {"kind": kind, "arch": f"{kind}{len(rows)}", "seed": 0}
            rows.append(row | {"held_out": held})
            add(synthesizer(drawn(sources), generator=generator)[0])
    folder.mkdir(parents=True, exist_ok=True)
    _save(folder / "images.npy", np.concatenate(parts))
    write_text_atomic(folder / "rows.json", json.dumps(rows))


def _save(path: Path, array: NDArray[Any]) -> None:
    partial = path.with_suffix(f".{os.getpid()}.npy")
    np.save(partial, array, allow_pickle=False)
    os.replace(partial, path)


def crop_of(image: Tensor, recipe: Recipe, *, seed: Sequence[int]) -> Tensor:
    """One (3, crop, crop) crop of a (3, 160, 160) image, treated as the recipe says."""
    random = np.random.default_rng(seed)
    damaged, compressed, shifted = random.random(3)
    amount, quality = random.random(), int(random.integers(65, 99))
    if damaged < recipe.damage_share:
        image = _damage(image, recipe.damage, amount, random)
    if compressed < recipe.jpeg_share:
        image = jpeg(image, recipe.quality or quality)
    room = [side - recipe.crop for side in image.shape[1:]]
    beyond = random.integers(0, GRID, 2) * (shifted < recipe.off_grid_share)
    start = []
    for most, extra in zip(room, np.minimum(beyond, room), strict=True):
        last = int(most - extra) // GRID
        place = int(random.integers(0, last + 1))
        start.append(int(extra) + GRID * (last - place if recipe.opposite else place))
    top, left = start
    return image[:, top : top + recipe.crop, left : left + recipe.crop]


def _damage(image: Tensor, kind: Damage, amount: float, random: np.random.Generator) -> Tensor:
    if kind == "blur":
        return Degradation(kind="blur", amount=0.4 + 0.6 * amount)(image, generator=random)
    if kind == "gamma":
        return quantise(image ** float(2 ** (amount - 0.5)))
    if kind == "noise":
        noise = random.standard_normal(image.shape, dtype=np.float32)
        return quantise(image + torch.from_numpy(noise) * 2 / 255)
    if kind == "resize":
        side = round(SIDE * (0.8 + 0.45 * amount))
        return quantise(
            functional.interpolate(image[None], (side, side), mode="bicubic", antialias=True)[0]
        )
    return image


def spectra(crops: Tensor, front: FrontEnd) -> list[Tensor]:
    """Maps of crops (n, 3, s, s), finest level first; the last holds coherence behind power."""
    extractor = _extractor(crops.shape[-1], front.residual, front.window)
    levels = extractor.maps(crops)
    if front == FrontEnd(residual=front.residual, window=front.window):
        return levels
    centred = crops - crops.mean((-2, -1), keepdim=True)
    fourier = torch.fft.rfft2(centred * extractor.window)
    power = colour_power(fourier)
    if front.scale == "autocorrelation":
        lags = torch.fft.irfft2(torch.log(power + FLOOR))
        rows, columns = levels[0].shape[-2:]
        lags = torch.fft.fftshift(
            torch.cat([lags[:, :, : rows // 2], lags[:, :, -rows // 2 :]], 2), -2
        )
        return [lags[..., :columns], levels[1][:, len(COLOUR) :]]
    power = torch.fft.fftshift(power, dim=-2)
    if front.scale != "log power":
        steps = [pool(255 * power.sqrt(), *size) for size in ((3, 2), (7, 4))]  # 8-bit steps
        if front.scale == "log magnitude":
            steps = [torch.log1p(step) for step in steps]
        levels = [steps[0], torch.cat([steps[1], levels[1][:, len(COLOUR) :]], 1)]
    if front.cross:
        shifted = torch.fft.fftshift(fourier, dim=-2)
        levels[1] = torch.cat([levels[1], _cross(shifted)], 1)
    return [torch.log(power + FLOOR), *levels] if front.full else levels


@lru_cache(maxsize=2)
def _extractor(crop: int, residual: ResidualName, window: bool) -> Extractor:
    extractor = Extractor(ExtractorConfig(crop=crop, residual=residual))
    if not window:
        extractor.window.fill_(1 / crop)
    return extractor


def _cross(fourier: Tensor) -> Tensor:
    """Real and imaginary coherence of G with R, B with G and B with R: (n, 6, s / 4, s / 8 + 1)."""
    power = pool(fourier.abs().square(), 7, 4)
    found = []
    for i, j in ((0, 1), (1, 2), (0, 2)):
        product = fourier[:, i] * fourier[:, j].conj()
        parts = pool(torch.stack([product.real, product.imag], 1), 7, 4)
        found.append(parts * (power[:, i] * power[:, j] + FLOOR**2).rsqrt()[:, None])
    return torch.cat(found, 1)


def averaged(one: list[Tensor], other: list[Tensor]) -> list[Tensor]:
    """Maps of the mean spectra of two crops: of powers before the log, of complex coherences."""
    n = len(COLOUR)
    power = [
        torch.logaddexp(a[:, :n], b[:, :n]) - np.log(2) for a, b in zip(one, other, strict=True)
    ]
    parts = (one[-1][:, n : n + PAIRS] + other[-1][:, n : n + PAIRS]) / 2
    size = parts.unflatten(1, (-1, 2)).square().sum(2).sqrt()
    return [*power[:-1], torch.cat([power[-1], parts, size], 1)]


def pooled_maps(
    bank: Bank, recipe: Recipe, front: FrontEnd, models: list[int], *, images: int
) -> list[NDArray[np.float16]]:
    """Maps of one fixed crop of the first images of some models: (models, images, c, h, w) each.

    Made once and kept in the folder ``maps`` of the bank, which may be deleted.
    """
    key = repr((recipe, front, models, images))
    stem = bank.folder / "maps" / sha256(key.encode()).hexdigest()[:16]
    done = stem.with_suffix(".json")
    if not done.is_file():
        stem.parent.mkdir(exist_ok=True)
        levels: list[list[Tensor]] = []
        for model in models:
            shown = torch.from_numpy(bank.images[model, :images].copy()) / 255
            crops = [crop_of(x, recipe, seed=(model, i)) for i, x in enumerate(shown)]
            maps = spectra(torch.stack(crops), front)
            levels.append([level.clamp(-6e4, 6e4).half() for level in maps])
        for number, parts in enumerate(zip(*levels, strict=True)):
            _save(Path(f"{stem}-{number}.npy"), torch.stack(parts).numpy())
        write_text_atomic(done, json.dumps({"levels": len(levels[0]), "of": key}))
    count = json.loads(done.read_text(encoding="utf-8"))["levels"]
    return [np.load(f"{stem}-{number}.npy", mmap_mode="r") for number in range(count)]
