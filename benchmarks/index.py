"""A gallery of a million models: how fast, how exact, how large; and why faiss.

    python benchmarks/index.py [--models 1000000] [--bank FILE.npz] [--real FOLDER] [--quick]
    python benchmarks/index.py engines --models 200000 [--bank FILE.npz]

The first enrols models that lie as densely as synthetic ones do (``index_population.py``), saves
the gallery, and asks for images one by one, each a new image of an enrolled model or of a stranger:
median and 99th percentile of the time of ``Gallery.identify``, how often it names the model that a
scan of all templates names, and what building, loading, and enrolling some more take. With
``--real`` the models of a folder-per-model tree are enrolled among them, by half of their images,
and the other half is asked about. It exits with 1 unless the median is below 10 ms and 99% of the
answers are those of the scan. The last line is one JSON object.

``engines`` compares libraries on the same directions: those that are installed among faiss,
usearch, hnswlib and lancedb. Times are of the processor, with one thread.
"""

import argparse
import json
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from index_engines import compare
from index_population import Points, Population, measured
from tqdm import tqdm

import fpkit as fp
from fpkit.gallery import Gallery
from fpkit.gallery_search import index_path

MOST_MS, LEAST_RECALL = 10.0, 0.99
MORE = 100  # models enrolled into the finished gallery
STRANGERS = 0.2  # share of the questions that are about models that are not enrolled


class Clock:
    """Wall-clock and processor seconds of named steps."""

    def __init__(self) -> None:
        self.seconds: dict[str, tuple[float, float]] = {}

    def __call__(self, name: str, work, *arguments):
        wall, busy = time.perf_counter(), time.process_time()
        found = work(*arguments)
        self.seconds[name] = time.perf_counter() - wall, time.process_time() - busy
        print(
            f"{name:>28} {self.seconds[name][0]:9.2f} s {self.seconds[name][1]:9.2f} s busy",
            flush=True,
        )
        return found


def real_images(folder: Path) -> Iterator[tuple[str, Points]]:
    """Model and embeddings (n, d) of the images of a folder-per-model tree."""
    extractor = fp.load_extractor()
    folders = sorted(path for path in folder.iterdir() if path.is_dir())
    for path in tqdm(folders, unit="folder", disable=None):
        files = sorted(file for file in path.rglob("*") if file.is_file())
        images = [image for _, image in fp.read_images(files, on_error=lambda _: None)]
        if len(images) > 1:
            yield path.name, np.concatenate([extractor.embed([i]).numpy() for i in images])


def filled(population: Population, models: int) -> tuple[Gallery, Points, np.ndarray]:
    """A gallery, and what draws more images of its models."""
    middles, kin = population.models(models)
    means, counts = population.enrolments(middles, kin)
    gallery = Gallery("benchmark", means.shape[1])
    for place in tqdm(range(models), unit="model", disable=None):
        # one embedding stands for the mean of several: their sum points the same way
        gallery.enrol(f"model-{place:07d}", means[place][None], images=[f"{place:032x}"])
    return gallery, middles, kin


def megabytes(path: Path) -> float:
    return path.stat().st_size / 1e6


def resident() -> float:
    """GB of memory that this process has now."""
    return int(Path("/proc/self/statm").read_text("utf-8").split()[1]) * 4096 / 1e9


def ask(gallery: Gallery, probes: Points) -> tuple[np.ndarray, list]:
    """Milliseconds of every question, and the answers."""
    times, answers = [], []
    for probe in probes:
        start = time.perf_counter()
        answers += gallery.identify(probe[None])
        times.append(1000 * (time.perf_counter() - start))
    return np.array(times), answers


def measure(arguments: argparse.Namespace) -> dict[str, float]:
    clock = Clock()
    population = Population(
        measured(arguments.bank, quick=arguments.quick, seed=arguments.seed), seed=arguments.seed
    )
    real = list(real_images(arguments.real)) if arguments.real else []
    gallery, middles, kin = clock("enrol", filled, population, arguments.models)
    for name, images in real:
        gallery.enrol(name, images[::2])
    count = arguments.questions
    of = population.generator.choice(arguments.models, count, replace=False)
    strange, theirs = population.models(int(STRANGERS * count))
    probes = np.concatenate([
        next(population.images(middles[of], kin[of], 1)),
        next(population.images(strange, theirs, 1)),
        *[images[1::2] for _, images in real],
    ])  # fmt: skip
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as folder:
        path = Path(folder) / "my.gallery"
        clock("save", gallery.save, path)
        del gallery, middles
        gallery = clock("load", lambda: Gallery.load(path, extractor_hash="benchmark"))
        clock("index, first question", gallery.identify, probes[:1])
        gallery = clock("load again", lambda: Gallery.load(path, extractor_hash="benchmark"))
        clock("first question then", gallery.identify, probes[:1])
        held = resident()
        times, answers = ask(gallery, probes)
        exact = clock("scan for the truth", lambda: gallery.identify(probes, exact=True))
        right = [a.model == b.model for a, b in zip(answers, exact, strict=True)]
        more, more_kin = population.models(MORE)
        new = next(population.images(more, more_kin, 1))
        new /= np.linalg.norm(new, axis=1, keepdims=True)  # as templates are: each finds itself

        def enrol() -> None:
            with Gallery.edit(path, extractor_hash="benchmark", dim=new.shape[1]) as edited:
                for turn, row in enumerate(new):
                    edited.enrol(f"new-{turn}", row[None])

        del gallery
        clock(f"enrol {MORE} more, in its file", enrol)
        gallery = Gallery.load(path, extractor_hash="benchmark")
        found = clock("first question then again", gallery.identify, new)
        result = {
            "models": len(gallery),
            "questions": len(probes),
            "p50_ms": float(np.median(times)),
            "p99_ms": float(np.quantile(times, 0.99)),
            "recall_at_1": float(np.mean(right)),
            "recall_at_1_real": float(np.mean(right[len(of) + len(strange) :])) if real else None,
            "recall_at_1_new": float(np.mean([a.score > 1 - 1e-6 for a in found])),
            "gallery_mb": megabytes(path),
            "index_mb": megabytes(index_path(path)),
            "resident_gb": held,
            "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
        }
    result |= {f"{name}_s": wall for name, (wall, _) in clock.seconds.items()}
    result |= {f"{name}_busy_s": busy for name, (_, busy) in clock.seconds.items()}
    return {
        name: round(value, 4) if isinstance(value, float) else value
        for name, value in result.items()
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="?", choices=("gallery", "engines"), default="gallery")
    parser.add_argument("--models", type=int, help="a million; --quick: 120,000")
    parser.add_argument("--questions", type=int, default=2000)
    parser.add_argument("--bank", type=Path, help="what benchmarks/verdicts.py --bank has kept")
    parser.add_argument("--real", type=Path, metavar="FOLDER", help="enrol and ask for real ones")
    parser.add_argument("--scratch", type=Path, help="folder for temporary files")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="few models, and few embedded")
    arguments = parser.parse_args()
    arguments.models = arguments.models or (120_000 if arguments.quick else 1_000_000)
    if arguments.what == "engines":
        images = measured(arguments.bank, quick=arguments.quick, seed=arguments.seed)
        compare(Population(images, seed=arguments.seed), arguments.models, arguments.questions)
        return 0
    result = measure(arguments)
    kept = result["p50_ms"] < MOST_MS and result["recall_at_1"] >= LEAST_RECALL
    print(json.dumps(result | {"kept": kept}))
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
