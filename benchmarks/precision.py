"""How exact fpkit's figures are: against float64, against other libraries, call against call.

    python benchmarks/precision.py [FOLDER] [--quick] [--seed 0]

Five tables: spectra and embeddings in float32 against the same written from the definitions in
numpy float64 (``float64_references.py``); embeddings in bfloat16 and by ONNX Runtime; an image
embedded in other company; what a seed decides, made again (``same_again.py``, in processes of its
own); figures of merit beside scipy, scikit-learn and torchmetrics (``precision_libraries.py``).
FOLDER, a folder of images per model, adds real images, one per model, to the first two. Needs
``pip install 'fpkit[test]'``. Takes two minutes, with ``--quick`` one. Exits with 1 if
something is less exact than docs/precision.md promises; the last line can be quoted.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import float64_references as references
import numpy as np
import precision_libraries as libraries
import precision_spectra as spectra
import same_again
import torch
from device import hardware
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

import fpkit as fp
from fpkit.assets import extractor_path
from fpkit.embedder import CROPS_PER_SIDE, Embedder
from fpkit.images import jpeg, quantise
from fpkit.onnx_export import export_onnx
from fpkit.paper import PaperConfig, PaperExtractor

FloatArray = NDArray[np.float64]
SIDE = 128
SPECTRUM = 1e-5  # median relative error of a power
EMBEDDING = 1e-5  # of any number of an embedding: float64, ONNX, batch, threads, order, company
BFLOAT16 = 0.05  # change of a score
LIBRARY = 1e-9
BATCHES = (1, 2, 3, 5, 8, 16, 31, 33, 64)
THREADS = (1, 2, 4, 8)
STEPS = 40  # of a model in a stack, and alone


# ---- embeddings --------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Change:
    """How far embeddings (n, d) are from others of the same images."""

    name: str
    number: float  # largest absolute difference of any number
    cosine: float  # 1 - the smallest cosine of the two
    score: float  # largest change of a score between two of the images

    @classmethod
    def between(cls, name: str, found: object, exact: object) -> Change:
        ours, true = np.asarray(found, np.float64), np.asarray(exact, np.float64)
        return cls(
            name=name,
            number=float(np.abs(ours - true).max()),
            cosine=float(1 - (ours * true).sum(1).min()),
            score=float(np.abs(ours @ ours.T - true @ true.T).max()),
        )


def exact_embeddings(folder: Path, images: Sequence[Tensor]) -> FloatArray:
    """(n, dim) float64 of the extractor in `folder`."""
    reference = references.Reference(folder)
    size = fp.load_extractor(folder).config.crop
    return np.stack(
        [
            reference.embed(fp.grid_crops(image, size=size, grid=CROPS_PER_SIDE).double().numpy())
            for image in tqdm(images, desc=f"{folder.name} in float64", leave=False)
        ]
    )


def arithmetic_changes(folder: Path, images: Sequence[Tensor], *, onnx: bool) -> Iterator[Change]:
    """Float32, bfloat16 and ONNX against float64, and as a yardstick small changes of the image."""
    extractor = fp.load_extractor(folder)
    exact = exact_embeddings(folder, images)
    name = folder.name
    yield Change.between(f"{name}, float32", extractor.embed(images), exact)
    yield Change.between(f"{name}, bfloat16", extractor.embed(images, precision="bfloat16"), exact)
    if onnx:
        yield Change.between(f"{name}, ONNX Runtime", _by_onnx(extractor, images), exact)
    touched = [image.clone() for image in images]
    for image in touched:
        image[:, 64, 64] += torch.where(image[:, 64, 64] > 0.5, -1, 1) / 255
    yield Change.between(f"{name}, one pixel one step off", extractor.embed(touched), exact)
    compressed = [jpeg(image, 95, 0) for image in images]
    yield Change.between(f"{name}, JPEG 95", extractor.embed(compressed), exact)


def _by_onnx(extractor: Embedder, images: Sequence[Tensor]) -> NDArray[np.float32]:
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        path = export_onnx(extractor, Path(folder) / "extractor.onnx").path
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        crops = [fp.grid_crops(image, grid=CROPS_PER_SIDE).numpy() for image in images]
        return np.stack([session.run(["embedding"], {"crops": part})[0] for part in crops])


def small_for_default(images: Sequence[Tensor]) -> tuple[float, float]:
    """Another extractor, no rounding: correlation and distance of the scores of all pairs."""
    pairs = np.triu_indices(len(images), 1)
    embeddings = (fp.load_extractor(which).embed(images).numpy() for which in (None, "small"))
    one, other = ((rows @ rows.T)[pairs] for rows in embeddings)
    return float(np.corrcoef(one, other)[0, 1]), float(np.sqrt(((one - other) ** 2).mean()))


def company_changes(name: str, extractor: Embedder, images: Sequence[Tensor]) -> Iterator[Change]:
    """The same images in other batches, on other threads, in another order, with others, alone."""
    alone = torch.cat([extractor.embed([image]) for image in images])

    def worst(how: str, others: Sequence[Tensor]) -> Change:
        changes = [Change.between(f"{name}, {how}", other, alone) for other in others]
        return max(changes, key=lambda change: change.number)

    yield worst("the same call again", [torch.cat([extractor.embed([i]) for i in images])])
    most = max(BATCHES)
    several = [extractor.embed(images, batch=batch) for batch in BATCHES]
    yield worst(f"batches of 1 to {most} crops", several)
    yield worst("another order", [extractor.embed(images[::-1]).flip(0)])
    others = [torch.rand(3, 200, 300), torch.zeros(3, 128, 128), torch.ones(3, 128, 128)]
    company = extractor.embed([others[0], *images, *others[1:]])[1:-2]
    yield worst("other images in the call", [company])
    before = torch.get_num_threads()
    threaded = []
    for threads in THREADS:
        torch.set_num_threads(threads)
        threaded.append(extractor.embed(images))
    torch.set_num_threads(before)
    yield worst(f"1 to {max(THREADS)} threads", threaded)


def paper_extractor() -> Embedder:
    """Random weights, a narrow network: the arithmetic is that of the paper's."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return PaperExtractor(PaperConfig(width=8, denoiser="dncnn6N")).eval()


# ---- the same seed again -----------------------------------------------------------------------


def again(seed: int, threads: Sequence[int], *, environment: str) -> dict[int, dict[str, str]]:
    """Digests by number of threads, from a fresh process with this OMP_NUM_THREADS."""
    command = [sys.executable, same_again.__file__, "--seed", str(seed), "--threads"]
    own = {**os.environ, "OMP_NUM_THREADS": environment, "PYTHONHASHSEED": environment}
    command += [str(number) for number in threads]
    lines = subprocess.run(command, env=own, check=True, capture_output=True, text=True).stdout
    return {line["threads"]: line["made"] for line in map(json.loads, lines.splitlines())}


def repeatability(seed: int, threads: Sequence[int]) -> list[tuple[str, dict[str, bool]]]:
    """For everything that is made: which of its repetitions gave the same bits."""
    one, *more = threads
    here = same_again.digests(seed=seed, threads=one)
    columns = {"same process": same_again.digests(seed=seed, threads=one)}
    there = again(seed, threads, environment="2")
    columns |= {"other process": there[one]}
    columns |= {f"{number} threads": there[number] for number in more}
    return [
        (name, {column: made[name] == digest for column, made in columns.items()})
        for name, digest in here.items()
    ]


def stacked_and_alone(seed: int) -> tuple[float, float]:
    """Largest difference of a weight, and of a residual, of models trained in a stack and alone."""
    images = fp.procedural_images(6, 64, seed=seed)
    spec = fp.ArchSpec(blocks=1, upsample="deconv", activation="none", norm="none")
    options = {"max_steps": STEPS, "eta": 0.0, "progress": False}
    weights, residuals = [], []
    for stacked in fp.synthesize_stack(spec, images, seeds=[0, 1, 2], **options):
        alone = fp.synthesize(spec, images, seed=stacked.seed, **options)
        pairs = zip(stacked.model.parameters(), alone.model.parameters(), strict=True)
        weights += [(one - other).abs().max().item() for one, other in pairs]
        residuals.append(abs(stacked.residual / alone.residual - 1))
    return max(weights), max(residuals)


# ---- the tables --------------------------------------------------------------------------------


class Ledger:
    """Prints rows, counts figures, remembers broken promises."""

    def __init__(self) -> None:
        self.figures = 0
        self.broken: list[str] = []

    def row(self, name: str, cells: str, *, value: float = 0.0, bound: float = np.inf) -> None:
        """`value` must not exceed `bound`; NaN does."""
        self.figures += 1
        kept = value <= bound
        print(f"{name:<52} {cells}{'' if kept else f'   ABOVE {bound:g}'}")
        if not kept:
            self.broken.append(f"{name}: {value:.2g} instead of at most {bound:g}")


def changes_table(ledger: Ledger, title: str, changes: Iterator[Change]) -> float:
    """Print them; the largest change of a number among those that are promised to be small."""
    print(f"\n{title:<52} {'a number':>9} {'1 - cosine':>10} {'a score':>9}")
    worst = 0.0
    for change in changes:
        cells = f"{change.number:>9.1e} {max(change.cosine, 0):>10.1e} {change.score:>9.1e}"
        if "bfloat16" in change.name:
            ledger.row(change.name, cells, value=change.score, bound=BFLOAT16)
        elif "pixel" in change.name or "JPEG" in change.name:
            ledger.row(change.name, cells)
        else:
            again_bound = 0.0 if "same call" in change.name else EMBEDDING
            ledger.row(change.name, cells, value=change.number, bound=again_bound)
            worst = max(worst, change.number)
    return worst


def real_images(folder: Path) -> list[Tensor]:
    """The first image of every model that is large enough."""
    first = [fp.read_image(paths[0]) for paths in fp.list_models(folder).values()]
    return [image for image in first if min(image.shape[1:]) >= SIDE]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, help="a folder of images per model")
    parser.add_argument("--quick", action="store_true", help="fewer images, no ONNX, one process")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    quick, seed = arguments.quick, arguments.seed
    print(f"{hardware(torch.device('cpu'))}, torch {torch.__version__}, numpy {np.__version__}")
    ledger = Ledger()

    print(f"\n{'float32 against float64':<52} {'median':>9} {'largest':>10} {'of rms':>9}")
    computed = list(quantise(fp.procedural_images(3 if quick else 12, 256, seed=seed)))
    real = [] if arguments.folder is None else real_images(arguments.folder)
    for kind, images in (("", computed), (", real", real)):
        crops = [image[:, :SIDE, :SIDE] for image in images]
        for errors in spectra.spectral_errors(crops) if crops else ():
            largest = "-" if errors.largest is None else f"{errors.largest:.1e}"
            cells = f"{errors.median:>9.1e} {largest:>10} {errors.of_rms:>9.1e}"
            ledger.row(f"{errors.name}{kind}", cells, value=errors.median, bound=SPECTRUM)
    fine, coarse = spectra.deepest()
    print(f"a wave: float32 adds at most {fine:.0f} dB, 8-bit rounding {coarse:.0f} dB on average")
    weights, residual = stacked_and_alone(seed)
    print(
        f"a model after {STEPS} steps, in a stack of three and alone: weights {weights:.1e} apart "
        f"at most, residuals {residual:.1e} (relative)"
    )

    folders = [extractor_path(small=small) for small in (False, True)]
    away = 0.0
    for folder in folders:
        for kind, images in (("computed", computed), ("real", real)):
            if images:
                title = f"{folder.name}, {len(images)} {kind} images: change of"
                changes = arithmetic_changes(folder, images, onnx=not quick and kind == "computed")
                away = max(away, changes_table(ledger, title, changes))

    correlation, apart = small_for_default(computed + real)
    print(
        f"\nextractor-small instead of extractor, {len(computed + real)} images: scores correlate "
        f"by {correlation:.3f} and are {apart:.3f} apart (root mean square)"
    )

    sizes = [computed[0], computed[1][:, :128, :130], computed[2][:, :, :150]]
    extractors = {folder.name: fp.load_extractor(folder) for folder in folders}
    extractors["paper, random"] = paper_extractor()
    company = 0.0
    for name, extractor in extractors.items():
        changes = company_changes(name, extractor, sizes)
        company = max(
            company, changes_table(ledger, "an image in other company: change of", changes)
        )

    threads = (1, 2) if quick else (1, 2, 4)
    table = repeatability(seed, threads)
    print(f"\n{'the same bits?':<30}" + "".join(f"{column:>15}" for column in table[0][1]))
    for name, same in table:
        promised = [c for c in same if "threads" not in c or name in same_again.ANY_THREADS]
        cells = "".join(f"{'yes' if equal else 'no':>15}" for equal in same.values())
        print(f"{name:<30}{cells}")
        ledger.figures += len(same)
        ledger.broken += [f"{name}: other bits, {c}" for c in promised if not same[c]]

    print(f"\n{'against other libraries: largest difference':<42} {'':<42}")
    rows = [*libraries.scores_rows(seed), *libraries.clouds_rows(seed)]
    for name, other, difference in rows:
        ledger.row(f"{name} / {other}", f"{difference:>9.1e}", value=difference, bound=LIBRARY)
    print("\n32 vectors of length 64 against themselves: Frechet distance")
    for name, _, value in libraries.singular_rows(seed):
        bound = LIBRARY if "frechet" in name else np.inf
        ledger.row(name, f"{value:>9.1e}", value=value, bound=bound)

    print()
    for complaint in ledger.broken:
        print(f"BROKEN {complaint}")
    print(
        f"{ledger.figures} figures, {len(ledger.broken)} promises broken; embeddings within "
        f"{away:.0e} of float64, within {company:.0e} in any batch, order, company, threads"
    )
    return 1 if ledger.broken else 0


if __name__ == "__main__":
    sys.exit(main())
