"""Digests of what a seed decides: equal digests mean equal bits.

    python benchmarks/same_again.py [--seed 0] [--threads 1 2 4] [--only NAME ...]

Prints one JSON line per number of threads: what was made (computed images, random decoders, a batch
of the training stream, a zoo of four models in two stacks, one model trained alone, a training of
an extractor, spectra, embeddings, a gallery) and the first digits of the SHA-256 of its bytes. Run
it twice, on another day, with another PYTHONHASHSEED: the lines must be the same. ``precision.py``
runs it in processes of its own and says what may differ.
"""

import argparse
import json
import os
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import fpkit as fp
from fpkit.stream import FingerprintStream, Sources, StreamConfig
from fpkit.zoo_build import TIMES

STREAM = StreamConfig(models=4, images=2, random_share=0.5, sources=4, jpeg_share=0.5)
ARCHS = tuple(
    fp.ArchSpec(blocks=1, norm="none", upsample=u, activation="none").id
    for u in ("deconv", "nearest")
)


def digest(tensors: Iterable[Tensor]) -> str:
    """First digits of the SHA-256 of these tensors' bytes."""
    found = sha256()
    for tensor in tensors:
        found.update(tensor.detach().contiguous().numpy().tobytes())
    return found.hexdigest()[:16]


def digests(*, seed: int, threads: int, only: Iterable[str] = ()) -> dict[str, str]:
    """Name of everything that is made, or of these things only -> digest, on this many threads."""
    names = set(only) or set(MADE)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with tempfile.TemporaryDirectory() as folder:
            where = Path(folder)
            return {name: make(seed, where) for name, make in MADE.items() if name in names}
    finally:
        torch.set_num_threads(before)


def _images(seed: int, folder: Path) -> str:
    return digest([fp.procedural_images(3, 96, seed=seed)])


def _decoders(seed: int, folder: Path) -> str:
    images = fp.procedural_images(2, 64, seed=0).expand(3, 2, 3, 64, 64)
    generator = torch.Generator().manual_seed(seed)
    return digest(fp.RandomSynthesizer(encoder="both", space="both")(images, generator=generator))


def _stream(seed: int, folder: Path) -> str:
    config = replace(STREAM, seed=seed)
    stream = FingerprintStream(config, Sources(procedural=4), config.synthesizer(fp.Zoo.load()))
    return digest(stream[1])


def _zoo(seed: int, folder: Path) -> str:
    """Two stacks of two models; all files but the times."""
    plan = fp.ZooPlan(archs=ARCHS, seeds=2, max_steps=4)
    images = fp.procedural_images(4, 64, seed=seed)
    zoo = fp.build_zoo(plan, images, out=folder / "zoo", source=str(seed), jobs=1, progress=False)
    found = sha256()
    for file in sorted(path for path in zoo.path.iterdir() if path.name != TIMES):
        found.update(file.name.encode() + file.read_bytes())
    return found.hexdigest()[:16]


def _synthesis(seed: int, folder: Path) -> str:
    images = fp.procedural_images(4, 64, seed=0)
    spec = fp.ArchSpec.parse(ARCHS[0])
    made = fp.synthesize(spec, images, seed=seed, max_steps=6, progress=False)
    return digest(made.model.state_dict().values())


def _training(seed: int, folder: Path) -> str:
    config = fp.TrainConfig(
        steps=3,
        warmup=1,
        validate_every=3,
        checkpoint_every=2,
        stream=replace(STREAM, seed=seed, random_share=1.0),
        extractor=fp.ExtractorConfig(crop=64, widths=(8, 8), dim=8),
    )
    sources = Sources(procedural=4)
    extractor = fp.train(config, sources=sources, out=folder / "extractor", progress=False)
    return extractor.hash[:16]


def _spectra(seed: int, folder: Path) -> str:
    images = fp.procedural_images(2, 128, seed=seed)
    spectra = [fp.average_spectrum(images, residual=name) for name in ("none", "median", "dncnn")]
    return digest(torch.from_numpy(spectrum) for spectrum in spectra)


def _embeddings(seed: int, folder: Path) -> str:
    images = fp.procedural_images(2, 160, seed=seed)
    return digest(fp.load_extractor(which).embed(images) for which in (None, "small"))


def _gallery(seed: int, folder: Path) -> str:
    """The bytes of its file."""
    rows = np.random.default_rng(seed).standard_normal((9, 5))
    gallery = fp.Gallery("extractor", dim=5)
    for model in range(3):
        gallery.enrol(f"model {model}", rows[3 * model : 3 * model + 3])
    gallery.save(folder / "gallery")
    return sha256((folder / "gallery").read_bytes()).hexdigest()[:16]


MADE: dict[str, Callable[[int, Path], str]] = {
    "computed images": _images,
    "random decoders": _decoders,
    "batch of the training stream": _stream,
    "zoo, in stacks": _zoo,
    "one model, trained alone": _synthesis,
    "training of an extractor": _training,
    "average spectra": _spectra,
    "embeddings": _embeddings,
    "gallery file": _gallery,
}
# A sum over several threads is cut into pieces, whose number its last bits follow: in training,
# and in embeddings, which are promised to 1e-5 only.
ANY_THREADS = frozenset(MADE) - {
    "one model, trained alone",
    "training of an extractor",
    "embeddings",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, nargs="+", default=[torch.get_num_threads()])
    parser.add_argument("--only", nargs="+", choices=list(MADE), default=(), metavar="NAME")
    arguments = parser.parse_args()
    for threads in arguments.threads:
        made = digests(seed=arguments.seed, threads=threads, only=arguments.only)
        environment = os.environ.get("OMP_NUM_THREADS")
        print(json.dumps({"threads": threads, "environment": environment, "made": made}))


if __name__ == "__main__":
    main()
