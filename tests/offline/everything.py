"""Use all of fpkit once, as small as can be; print what was used, as JSON.

python everything.py FOLDER NAME...      # of PARTS; FOLDER takes what they write
"""

import ast
import contextlib
import io
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SPEC = "K1-L1-Unearest-Anone-Nnone-Spost"


def tree(folder: Path) -> Path:
    """Three images of each of two models: noise, blurred along one axis."""
    import torch

    from fpkit.images import write_png

    for name, size in {"across": (1, 5), "down": (5, 1)}.items():
        for seed in range(3):
            noise = torch.rand(3, 140, 140, generator=torch.Generator().manual_seed(seed))
            image = torch.nn.functional.avg_pool2d(noise, size, 1)
            write_png(folder / name / f"{seed}.png", image[:, :130, :130])
    return folder


def run(*words: object) -> None:
    """One command; what it prints is dropped, and it must end well."""
    from fpkit.cli import main

    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = main([str(word) for word in words])
    if code != 0:
        raise SystemExit(f"fpkit {' '.join(map(str, words))} ended with {code}: {said.getvalue()}")


def verbs(folder: Path) -> Iterator[str]:
    """The verbs of the command line that take no minutes and start no server."""
    images = tree(folder / "images")
    one = images / "down" / "0.png"
    small = ("--extractor", "small")
    zoo = folder / "zoo"
    specs = [SPEC.replace("-Anone", f"-A{name}") for name in ("none", "relu", "tanh", "sigmoid")]
    run("synth", *specs, "--out", zoo, "--images", images, "--max-steps", 2)
    yield "synth"
    gallery = folder / "known.gallery"
    run("enrol", gallery, images, *small)
    yield "enrol"
    run("identify", gallery, one, *small)
    yield "identify"
    run("verify", one, images / "across" / "0.png", *small)
    yield "verify"
    for ending in ("html", "png", "npz"):
        run("fingerprint", one, "--out", folder / f"fingerprint.{ending}")
    yield "fingerprint"
    run("bench", images, "--method", "extractor", "--method", "colour", "--draws", 1, *small)
    yield "bench"
    run("embed", images, "--out", folder / "embeddings", *small)
    yield "embed"
    run("discover", images, "--gallery", gallery, "--out", folder / "clusters.html", *small)
    yield "discover"
    run("lineage", gallery, images / "down", *small)
    yield "lineage"
    run("zoo", "summary", zoo)
    yield "zoo summary"
    run("zoo", "report", "--zoo", zoo, "--images", 2, "--random", 2, "--draws", 2)
    yield "zoo report"


def long_verbs(folder: Path) -> Iterator[str]:
    """The verbs that take longer or start kernels of their own."""
    import torch

    from fpkit.extractor import Extractor, ExtractorConfig

    run("zoo", "build", "--preset", "tiny", "--out", folder / "built", "--archs", 2,
        "--seeds", 1, "--max-steps", 2, "--jobs", 2, "--device", "cpu")  # fmt: skip
    yield "zoo build"
    run("train", "--out", folder / "trained", "--zoo", folder / "built", "--procedural", 9,
        "--models", 2, "--images", 2, "--random-share", 0.5, "--steps", 1)  # fmt: skip
    yield "train"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        Extractor(ExtractorConfig(widths=(8, 8), positions=1, dim=16)).save(folder / "tiny")
    run("calibrate-lineage", folder / "tiny", "--random", 44, "--images", 4)
    yield "calibrate-lineage"
    run("calibrate-discovery", folder / "tiny", "--random", 40, "--images", 4)
    yield "calibrate-discovery"
    run("calibrate-verdicts", folder / "tiny", "--random", 44, "--images", 4, "--strangers", 24)
    yield "calibrate-verdicts"
    run("export-onnx", folder / "extractor.onnx", "--extractor", "small")
    yield "export-onnx"
    handed_in = folder / "in" / "ann" / "00_start_here.ipynb"
    handed_in.parent.mkdir(parents=True)
    handed_in.write_bytes((ROOT / "notebooks" / handed_in.name).read_bytes())
    run("grade", folder / "in")
    yield "grade"


def assets(folder: Path) -> Iterator[str]:
    """What fpkit ships, by its folder in data/."""
    import fpkit as fp
    from fpkit.residual import load_dncnn
    from fpkit.swap import load_swap_pair

    for name in ("dncnn6N", "dncnn17N"):
        load_dncnn(name)
    yield "denoiser"
    fp.load_encoder()
    yield "encoder"
    fp.load_extractor()
    yield "extractor"
    fp.load_extractor("small")
    yield "extractor-small"
    fp.real_fingerprints()
    yield "realworld"
    for name in ("deconv", "shuffle"):
        load_swap_pair(name)
    yield "swap"
    zoo = fp.Zoo.load()
    for model_id in zoo.model_ids:
        zoo.model(model_id)
    yield "zoo"


def widgets(folder: Path) -> Iterator[str]:
    """Every widget made; drawn, if it has something to draw before it is used."""
    import numpy as np

    import fpkit as fp
    from fpkit import widgets
    from fpkit.stream import Sources

    images = fp.procedural_images(4, 192, seed=0)
    widgets.BlockExplorer()
    yield "BlockExplorer"
    widgets.SynthesisExplorer(images, images[:2], max_steps=2).static()
    yield "SynthesisExplorer"
    widgets.FingerprintBrowser(*[one.model for one in fp.real_fingerprints()][:2]).static()
    yield "FingerprintBrowser"
    embeddings = np.random.default_rng(0).standard_normal((20, 4))
    widgets.EmbeddingMap(embeddings, {"model": ["a", "b"] * 10}, method="pca").static()
    yield "EmbeddingMap"
    widgets.AttributionDesk(extractor=fp.load_extractor("small"))
    yield "AttributionDesk"
    config = fp.TrainConfig(steps=1)
    widgets.TrainingMonitor(config, Sources(procedural=9), out=folder / "monitored")
    yield "TrainingMonitor"


def pipelines(folder: Path) -> Iterator[str]:
    """What only Python reaches: the estimators, and the index of a gallery that is called big."""
    import numpy as np

    from fpkit import estimators, gallery

    files = sorted(tree(folder / "piped").glob("*/*.png"))
    embeddings = estimators.FingerprintTransformer("small").fit_transform(files)
    yield "FingerprintTransformer"
    estimators.GalleryClassifier().fit(embeddings, ["a", "a", "a", "b", "b", "b"])
    yield "GalleryClassifier"
    gallery.EXACT = 99
    big = gallery.Gallery("extractor", 4)
    for turn, row in enumerate(np.random.default_rng(0).standard_normal((200, 1, 4))):
        big.enrol(f"model-{turn}", row)
    big.save(folder / "big.gallery")
    big.identify(row)
    yield "index"


def lesson_imports(folder: Path) -> Iterator[str]:
    """Every import of every lesson."""
    for path in sorted((ROOT / "notebooks" / "src").glob("[0-9]*.py")):
        found = [node for node in ast.walk(ast.parse(path.read_text("utf-8")))
                 if isinstance(node, ast.Import | ast.ImportFrom)]  # fmt: skip
        exec(compile(ast.Module(found, []), path.name, "exec"), {})
        yield path.stem


PARTS = {
    part.__name__: part for part in (verbs, long_verbs, assets, widgets, lesson_imports, pipelines)
}


def main() -> None:
    folder = Path(sys.argv[1])
    os.chdir(folder)
    print(json.dumps({name: list(PARTS[name](folder)) for name in sys.argv[2:]}))


if __name__ == "__main__":
    main()
