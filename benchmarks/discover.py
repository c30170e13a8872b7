"""Does `fpkit discover` find the generators of a folder? Against the truth, on real ones.

    python benchmarks/discover.py real FOLDER [--spectra FILE.npz] [--zoo zoo] [--photos photos.npy]
    python benchmarks/discover.py compare --bank FILE.npz [--quick]
    python benchmarks/discover.py size [--images 20000]

``real``: FOLDER has one folder of images per model and a manifest (see `fpkit bench`). Each format
is clustered by itself; part 2 are the networks that saw one set of photographs (contents
``photos...``), part 1 the others. Truth is the model, or the decoder, which some models share. The
extractor's calibration comes from its card, so from synthetic models; raw spectra
(`fpkit.baselines`) get a threshold from spectra of synthetic models in the same way, and once more
with a projection from these too. ``--spectra`` keeps them for the next time. Intervals are over
random halves of the models. Nothing is chosen on FOLDER. It exits with 1 unless at decoder level,
on the lossless images of part 1, ARI is at least 0.45 and 0.15 above raw spectra.

``compare``: on folders of synthetic models (a bank as `benchmarks/verdicts.py compare` keeps it),
the clustering that ships beside HDBSCAN, Ward's method and average linkage, each with the best
setting for one half of the architectures, on folders of the other half. It exits with 1 unless what
ships is the best.

``size``: processor time and peak memory for many embeddings.
"""

import argparse
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage
from sklearn.cluster import HDBSCAN
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
from torch.nn import functional
from tqdm import tqdm

import fpkit as fp
from fpkit.agglomeration import agglomerate
from fpkit.baselines import SpectrumMethod
from fpkit.discovery import DiscoveryCalibration, discover, find_clusters, stored_discovery
from fpkit.discovery_calibration import (
    THRESHOLDS,
    calibrate_discovery,
    draw_folder,
    fit_projection,
    judge_folder,
    within_models,
)
from fpkit.embedder import CROPS_PER_SIDE, Embedder
from fpkit.gallery import unit
from fpkit.images import grid_crops
from fpkit.manifest import PHOTO, ImageFacts, read_facts
from fpkit.verdict_bank import Bank, embed_bank

LEAST, AHEAD = 0.45, 0.15
COUNTS = ("clusters", "alone")
DIM = 128
SHARED = "photos"  # contents that begin so are one set of sources, seen by many networks
Rows = NDArray[np.float64]


@dataclass(frozen=True)
class Shown:
    """Vectors (n, d) of images, and what is known about these."""

    rows: Rows
    facts: list[ImageFacts]

    def of(self, keep: Callable[[ImageFacts], bool]) -> "Shown":
        places = [i for i, fact in enumerate(self.facts) if keep(fact)]
        return Shown(self.rows[places], [self.facts[i] for i in places])


def purity(truth: NDArray[np.intp], found: NDArray[np.intp]) -> float:
    """Share of images that are of the commonest source of their cluster."""
    table = np.zeros((found.max() + 1, truth.max() + 1))
    np.add.at(table, (found, truth), 1)
    return float(table.max(axis=1).sum() / len(truth))


def figures(shown: Shown, calibration: DiscoveryCalibration) -> dict[str, dict[str, float]]:
    """Against models and against decoders; an image that is like no other is its own cluster."""
    result = discover(shown.rows, calibration=calibration)
    found = result.labels.copy()
    found[result.alone] = len(result.clusters) + np.arange(len(result.alone))
    measured = {}
    for level in ("model", "decoder"):
        _, truth = np.unique([getattr(f, level) for f in shown.facts], return_inverse=True)
        measured[level] = {
            "ARI": adjusted_rand_score(truth, found),
            "NMI": normalized_mutual_info_score(truth, found),
            "purity": purity(truth, found),
            "clusters": len(result.clusters),
            "alone": len(result.alone),
            "true": truth.max() + 1,
        }
    return measured


def with_draws(
    shown: Shown, calibration: DiscoveryCalibration, *, draws: int
) -> dict[str, dict[str, Rows]]:
    """Figures (1 + draws,): of all models, and of random halves of them, the same every time."""
    names, generator = sorted({f.model for f in shown.facts}), np.random.default_rng(0)
    whole, drawn = figures(shown, calibration), []
    for _ in range(draws):
        kept = set(generator.permutation(names)[: -(-len(names) // 2)])
        drawn.append(figures(shown.of(lambda f, kept=kept: f.model in kept), calibration))
    return {
        level: {
            key: np.array([value, *(d[level][key] for d in drawn)]) for key, value in of.items()
        }
        for level, of in whole.items()
    }


class SpectrumEmbedder:
    """Raw spectra of crops in the place of an extractor's embeddings, as 128 numbers.

    The numbers are principal components of the spectra of crops of synthetic models.
    """

    def __init__(self, crop: int, held_out: list[str]) -> None:
        self.config = SimpleNamespace(crop=crop)
        self.card = {"held_out_architectures": held_out}
        self.method = SpectrumMethod()
        self.cohort = torch.zeros(DIM)
        self.middle: Rows | None = None
        self.axes = np.zeros((1, DIM))
        self.met: list[NDArray[np.float32]] = []

    def __call__(self, crops: torch.Tensor) -> torch.Tensor:
        rows = np.stack([self.method.features(crop) for crop in crops])
        if self.middle is None:
            self.met.append(rows[::4])
            return torch.from_numpy(rows[:, :DIM])
        return torch.from_numpy((rows - self.middle) @ self.axes).float()

    def fit(self) -> None:
        spectra = np.concatenate(self.met)
        self.middle = spectra.mean(axis=0)
        self.axes = np.linalg.svd(spectra - self.middle, full_matrices=False)[2][:DIM].T
        self.met = []

    def embed(self, image: torch.Tensor) -> NDArray[np.float32]:
        crops = grid_crops(image, size=self.config.crop, grid=CROPS_PER_SIDE)
        mean = functional.normalize(self(crops)).mean(0)
        return functional.normalize(mean - self.cohort, dim=0).numpy()


def spectral(extractor: Embedder, arguments: argparse.Namespace) -> tuple[SpectrumEmbedder, Bank]:
    """Spectra of synthetic models, and what makes such of images; kept in a file."""
    held_out = list(extractor.card["held_out_architectures"])
    seen, path = SpectrumEmbedder(extractor.config.crop, held_out), arguments.spectra
    names = ("crops", "strangers", "architecture", "kind")
    if path is None or not path.exists():
        zoo = fp.Zoo.load(arguments.zoo)
        random, images = (24, 6) if arguments.quick else (120, 10)
        made = dict(zoo=zoo, tiles=arguments.photos, strangers=1, progress=sys.stderr.isatty())
        embed_bank(seen, random=40, images=4, seed=1, part=(0, 5), **made)
        seen.fit()
        bank = embed_bank(seen, random=random, images=images, **made)
        seen.cohort = torch.from_numpy(bank.crops.mean(axis=(0, 1, 2, 3, 4)))
        kept = {name: getattr(bank, name) for name in names}
        kept |= {"middle": seen.middle, "axes": seen.axes, "cohort": seen.cohort.numpy()}
        if path is None:
            return seen, replace(bank, cohort=seen.cohort.numpy())
        np.savez(path, **kept)
    with np.load(path, allow_pickle=False) as file:
        seen.middle, seen.axes = file["middle"], file["axes"]
        seen.cohort = torch.from_numpy(file["cohort"])
        of = {name: file[name] for name in names}
        return seen, Bank(**of, cohort=file["cohort"], description="spectra")


def threshold_only(bank: Bank, *, folders: int, seed: int = 0) -> DiscoveryCalibration:
    """No direction counts more than another: what is calibrated is the threshold."""
    generator, inside, same = np.random.default_rng(seed), within_models(bank), np.eye(DIM)
    levels = tuple(np.geomspace(0.3, 4, 31).tolist())  # spectra that were not projected lie wider
    total = np.zeros(len(levels))
    for _ in range(folders):
        folder = draw_folder(bank, generator, inside)
        total += [ari for ari, _, _ in judge_folder(folder, same, levels)]
    return DiscoveryCalibration(projection=same.tolist(), threshold=levels[total.argmax()])


def real(arguments: argparse.Namespace) -> bool:
    extractor = fp.load_extractor(arguments.extractor)
    folders, draws = (40, 20) if arguments.quick else (160, 100)
    seen, bank = spectral(extractor, arguments)
    methods = {
        "extractor": stored_discovery(extractor.card, extractor_hash=extractor.hash),
        "spectrum": threshold_only(bank, folders=folders),
        "spectrum, projected": calibrate_discovery(bank, folders=folders)[0],
    }
    facts = [fact for fact in read_facts(arguments.folder) if fact.family != PHOTO]
    rows: dict[str, list[NDArray[np.float32]]] = {"extractor": [], "spectrum": []}
    for fact in tqdm(facts, unit="image", disable=not sys.stderr.isatty()):
        image = fp.read_image(fact.path)
        rows["extractor"].append(extractor.embed([image])[0].numpy())
        rows["spectrum"].append(seen.embed(image))
    parts = {
        "part 1, png": lambda f: f.format == "png" and not f.content.startswith(SHARED),
        "part 2, png": lambda f: f.format == "png" and f.content.startswith(SHARED),
        "all, png": lambda f: f.format == "png",
        "all, jpeg": lambda f: f.format == "jpeg",
        "all": lambda f: True,
    }
    keys = ("ARI", "NMI", "purity", "clusters", "alone")
    print(f"{'images':12s} {'truth':8s} {'method':20s}" + "".join(f"{k:>20s}" for k in keys))
    promised: dict[str, Rows] = {}
    for part, keep in parts.items():
        for method, calibration in methods.items():
            stack = np.stack(rows[method.split(",")[0]])
            shown = Shown(stack, facts).of(keep)
            if not shown.facts:
                continue
            for level, of in with_draws(shown, calibration, draws=draws).items():
                cells = "".join(f"{in_words(of[key], whole=key in COUNTS):>20s}" for key in keys)
                print(f"{part:12s} {level:8s} {method:20s}{cells}   of {of['true'][0]:.0f}")
                if (part, level) == ("part 1, png", "decoder"):
                    promised[method] = of["ARI"]
    if not promised:
        return True
    mine, theirs = promised["extractor"], promised["spectrum"]
    ahead = mine - theirs
    print(f"part 1, png, decoders: ARI {in_words(mine)}, raw spectra {in_words(theirs)}, "
          f"difference {in_words(ahead)}")  # fmt: skip
    return bool(mine[0] >= LEAST and ahead[0] >= AHEAD)


def in_words(values: Rows, *, whole: bool = False) -> str:
    """The figure of all models; 2.5th and 97.5th percentile over the halves."""
    low, high = np.quantile(values[1:], [0.025, 0.975])
    digits = 0 if whole else 2
    return f"{values[0]:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


# ---- synthetic models --------------------------------------------------------------------------


def single(found: NDArray[np.intp]) -> NDArray[np.intp]:
    """Labels in which everything that HDBSCAN calls noise is alone."""
    noise = found < 0
    return np.where(noise, found.max() + 1 + np.cumsum(noise), found)


def compare(arguments: argparse.Namespace) -> bool:
    with np.load(arguments.bank, allow_pickle=False) as file:
        of = {name: file[name] for name in ("crops", "strangers", "cohort", "architecture", "kind")}
    bank, generator = Bank(**of, description=""), np.random.default_rng(0)
    architectures = np.unique(bank.architecture)
    half = np.isin(bank.architecture, generator.permutation(architectures)[::2])
    folders = 20 if arguments.quick else 100

    def linked(method: str, levels: Rows) -> list[Callable[[Rows], NDArray[np.intp]]]:
        return [lambda points, t=t: fcluster(linkage(points, method), t, "distance")
                for t in levels]  # fmt: skip

    settings = {
        "ships": [lambda p, t=t: find_clusters(p, t)[0] for t in THRESHOLDS],
        "same, one round": [lambda p, t=t: agglomerate(p, t) for t in THRESHOLDS],
        "Ward": linked("ward", np.geomspace(0.7, 3, 13)),
        "average": linked("average", np.linspace(0.4, 1.3, 13)),
        "HDBSCAN": [
            lambda p, m=m, s=s: single(HDBSCAN(m, min_samples=s, copy=True).fit_predict(p))
            for m in (2, 3, 5) for s in (1, 2, 3)
        ],
    }  # fmt: skip
    scores: dict[str, list[float]] = {name: [] for name in settings}
    for mine, theirs in ((half, ~half), (~half, half)):
        projection, inside = fit_projection(bank.of(mine)), within_models(bank.of(mine))
        drawn = {}
        for side, models in (("mine", mine), ("theirs", theirs)):
            drawn[side] = [draw_folder(bank.of(models), generator, inside) for _ in range(folders)]
        for name, several in settings.items():
            best = max(several, key=lambda way: sum(ari_of(way, drawn["mine"], projection)))
            scores[name] += ari_of(best, drawn["theirs"], projection)
    means = {name: np.mean(found) for name, found in scores.items()}
    for name, mean in means.items():
        gap = np.array(scores["ships"]) - np.array(scores[name])
        error = gap.std() / np.sqrt(len(gap))
        print(f"{name:18s} ARI {mean:.3f}; what ships is {gap.mean():+.3f} +- {error:.3f} better")
    print(f"{len(scores['ships'])} folders of synthetic models: ARI {means['ships']:.2f}, best of "
          f"the others {max(v for k, v in means.items() if k != 'ships'):.2f}")  # fmt: skip
    return means["ships"] == max(means.values())


def ari_of(
    way: Callable[[Rows], NDArray[np.intp]],
    folders: list[tuple[Rows, NDArray[np.intp]]],
    projection: Rows,
) -> list[float]:
    return [
        adjusted_rand_score(truth, way(unit(rows @ projection)))
        if len(rows) > 5 else float(len(np.unique(truth)) == 1)
        for rows, truth in folders
    ]  # fmt: skip


def size(arguments: argparse.Namespace) -> bool:
    generator, count = np.random.default_rng(0), arguments.images
    models = 3 if arguments.quick else 100
    centres = generator.normal(size=(models, DIM)) / np.sqrt(DIM)
    truth = generator.integers(models, size=count)
    rows = centres[truth] + 0.5 * generator.normal(size=(count, DIM)) / np.sqrt(DIM)
    rows = unit(rows).astype(np.float32)
    began = time.process_time()
    found = discover(rows)
    took = time.process_time() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{count} images of {models} models: {len(found.clusters)} clusters, ARI "
          f"{adjusted_rand_score(truth, found.labels):.2f}, {took:.0f} s of processor time, peak "
          f"memory {peak:.0f} MB")  # fmt: skip
    return adjusted_rand_score(truth, found.labels) > 0.9


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    on_real = verbs.add_parser("real")
    on_real.add_argument("folder", type=Path)
    on_real.add_argument("--extractor")
    on_real.add_argument("--zoo", help="has the architectures held out from training")
    on_real.add_argument("--photos", type=Path)
    on_real.add_argument("--spectra", type=Path, help="keeps spectra of synthetic models")
    on_bank = verbs.add_parser("compare")
    on_bank.add_argument("--bank", type=Path, required=True)
    many = verbs.add_parser("size")
    many.add_argument("--images", type=int, default=20_000)
    for verb, run in ((on_real, real), (on_bank, compare), (many, size)):
        verb.add_argument("--quick", action="store_true")
        verb.set_defaults(run=run)
    arguments = parser.parse_args()
    return 0 if arguments.run(arguments) else 1


if __name__ == "__main__":
    raise SystemExit(main())
