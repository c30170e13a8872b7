"""The verb ``discover``: how many generators made these images, and which belong together?"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from fpkit.assets import write_text_atomic
from fpkit.cli_attribute import open_extractor
from fpkit.cli_io import (
    Skipped,
    Verbs,
    add_verb,
    expand,
    note,
    plural,
    print_json,
    print_table,
    writable,
)
from fpkit.cli_verdicts import calibrated, check_far, look, note_uncalibrated
from fpkit.images import ImageReadError, decode_image, read_image

if TYPE_CHECKING:
    import pyarrow as pa
    from torch import Tensor

    from fpkit.discovery import Cluster, Discovery
    from fpkit.extractor import Extractor

SHOWN = 3  # typical images of a cluster, in the table


@dataclass(frozen=True, kw_only=True, eq=False)
class Found:
    """Images that can be used: names, embeddings (n, d), crops and compression (n,).

    ``load`` gives the image (3, h, w) at a place; None where it is not known what that was.
    """

    names: list[str]
    embeddings: np.ndarray
    crops: np.ndarray
    jpeg: np.ndarray
    total: int
    load: Callable[[int], Tensor] | None


def add_to(verbs: Verbs) -> argparse.ArgumentParser:
    """Declare the verb; options that verbs share are added by the caller."""
    parser = add_verb(
        verbs,
        "discover",
        run,
        "how many generators made these images, and which belong together?",
        example="fpkit discover embeddings --gallery my.gallery --out clusters.html",
    )
    add = parser.add_argument
    add("embeddings", metavar="EMBEDDINGS", help="made by fpkit embed; or a folder of images")
    add("--gallery", metavar="GALLERY", help="compare every cluster with these models")
    add("--out", metavar="FILE.html", help="a map of the clusters, as a page")
    add("--pictures", action="store_true", help="small copies of the typical images in the page")
    add("--seed", type=int, default=0, help="of the map, and of chunks of many images")

    def check(arguments: argparse.Namespace) -> None:
        if arguments.out and Path(arguments.out).suffix.lower() != ".html":
            parser.error(f"--out must end in .html, got {arguments.out}")
        if arguments.pictures and not arguments.out:
            parser.error("--pictures go into a page: name it with --out")

    parser.set_defaults(check=check)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Cluster the images, compare the clusters with a gallery, and draw a map."""
    from fpkit.discovery import discover, stored_discovery
    from fpkit.gallery import Gallery

    extractor = open_extractor(arguments)
    calibration = stored_discovery(extractor.card, extractor_hash=extractor.hash)
    gallery = verdicts = None
    if arguments.gallery:
        gallery = Gallery.load(arguments.gallery, extractor_hash=extractor.hash)
        verdicts = calibrated(extractor)
        if verdicts is None:
            note_uncalibrated()
        else:
            check_far(verdicts.galleries, arguments.far)
    skipped = Skipped()
    found = _read(Path(arguments.embeddings), extractor, skipped)
    if arguments.pictures and found.load is None:
        raise ValueError(
            "--pictures needs the whole folder of a run of fpkit embed, or the images themselves: "
            "one file of embeddings does not say where its images are"
        )
    result = discover(
        found.embeddings,
        calibration=calibration,
        gallery=gallery,
        verdicts=verdicts,
        crops=found.crops,
        jpeg=found.jpeg,
        far=arguments.far,
        seed=arguments.seed,
    )
    if arguments.out:
        from fpkit.discovery_report import page

        title = f"Generators in {Path(arguments.embeddings).resolve().name}"
        pictures = _pictures(found, result) if arguments.pictures else None
        text = page(result, found.names, title=title, pictures=pictures, seed=arguments.seed)
        write_text_atomic(Path(arguments.out), text)
    if arguments.json:
        print_json(as_json(result, found.names) | {"skipped": skipped.count})
    else:
        _print(result, found.names, compared=gallery is not None)
        if arguments.out:
            print(f"map: {writable(arguments.out)}")
    return skipped.finish(found.total, strict=arguments.strict)


def as_json(result: Discovery, names: list[str]) -> dict[str, Any]:
    """All that was found, for machines; places of images became their names."""

    def facts(cluster: Cluster) -> dict[str, Any]:
        known: dict[str, Any] = {
            "images": [names[i] for i in cluster.images],
            "typical": cluster.typical.tolist(),
        }
        if cluster.nearest is not None:
            verdict = cluster.verdict and asdict(cluster.verdict)
            known |= {
                "nearest": cluster.nearest,
                "score": cluster.score,
                "answer": cluster.answer or None,
                "verdict": verdict,
            }
        return known

    return {
        "images": len(names),
        "clusters": [facts(cluster) for cluster in result.clusters],
        "alone": [names[i] for i in result.alone],
    }


def _read(path: Path, extractor: Extractor, skipped: Skipped) -> Found:
    """Embeddings of a run of fpkit embed, or of the images of a folder."""
    if path.suffix.lower() == ".parquet" or (path / "plan.parquet").is_file():
        return _read_table(path, extractor.hash, skipped)
    paths = expand([str(path)], on_error=skipped)
    seen = list(look(extractor, paths, skipped))
    if not seen:
        raise ValueError(f"{path}: none of its {len(paths)} images can be used")
    return Found(
        names=[str(image.path) for image in seen],
        embeddings=np.stack([image.embedding for image in seen]),
        crops=np.array([image.evidence.crops for image in seen]),
        jpeg=np.array([image.evidence.compressed for image in seen]),
        total=len(paths),
        load=lambda place: read_image(seen[place].path),
    )


def _read_table(path: Path, identity: str, skipped: Skipped) -> Found:
    from fpkit.columns import from_arrow
    from fpkit.corpus import extractor_hash, read_embeddings

    table = read_embeddings(path, usable=False)
    made_with = extractor_hash(table)
    if made_with != identity:
        raise ValueError(
            f"{path} was made with the extractor {made_with[:12]}, the one in use is "
            f"{identity[:12]}: use that extractor, or embed the images again"
        )
    total = len(table)
    import pyarrow.compute as pc

    usable = np.flatnonzero(pc.is_null(table["error"]).to_numpy())
    bad = table.filter(pc.is_valid(table["error"]))
    for name, error in zip(bad["path"].to_pylist(), bad["error"].to_pylist(), strict=True):
        skipped(ValueError(f"{name}: {error}"))
    table = table.take(usable)
    if not len(table):
        raise ValueError(f"{path}: none of its {total} images can be used")
    return Found(
        names=table["path"].to_pylist(),
        embeddings=from_arrow(table["embedding"]),
        crops=table["crops"].to_numpy(),
        jpeg=np.array(table["compressed"].to_pylist(), bool),
        total=total,
        load=_loader(path, usable, table) if path.is_dir() else None,
    )


def _loader(folder: Path, places: np.ndarray, table: pa.Table) -> Callable[[int], Tensor]:
    """Reads what was embedded, again: files that have changed since are refused.

    `places` in the plan are those of the table's rows. The plan is opened for the first image.
    """
    from fpkit.corpus import Corpus

    opened = cache(lambda: Corpus(folder))

    def load(place: int) -> Tensor:
        data, name = opened().read(int(places[place])), table["path"][place].as_py()
        if sha256(data).hexdigest() != table["sha256"][place].as_py():
            raise ImageReadError(f"{name}: no longer the file that was embedded")
        return decode_image(data, name=name)

    return load


def _pictures(found: Found, result: Discovery) -> dict[int, bytes]:
    """Small pictures of the images that a page names; what cannot be read has none."""
    from fpkit.discovery_report import named_places, thumbnail

    assert found.load is not None  # run has asked
    pictures, missing = {}, 0
    places = named_places(result)
    for place in tqdm(places, unit="picture", disable=None, leave=False):
        try:
            pictures[place] = thumbnail(found.load(place))
        except (OSError, ValueError):
            missing += 1
    if missing:
        note(f"{missing} of {plural(len(places), 'picture')} cannot be read any more")
    return pictures


def _print(result: Discovery, names: list[str], *, compared: bool) -> None:
    from fpkit.discovery_report import common_folder, summary

    folder = common_folder(names)
    names = [name[len(folder) :] for name in names]
    print(summary(result) + (f"; names are below {writable(folder)}" if folder else ""))
    columns = ["cluster", "images", *(["answer", "nearest", "score"] if compared else [])]
    rows = []
    for place, cluster in enumerate(result.clusters):
        row: list[Any] = [place + 1, len(cluster.images)]
        if compared:
            row += [cluster.answer or "-", cluster.nearest, cluster.score]
        rows.append([*row, ", ".join(names[i] for i in cluster.images[:SHOWN])])
    if rows:
        print_table([*columns, "most typical"], rows)
    if len(result.alone):
        note(f"alone: {', '.join(names[i] for i in result.alone[:20])}")
        if len(result.alone) > 20:
            note(f"and {len(result.alone) - 20} more, see --json")
