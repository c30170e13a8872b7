"""The verb ``embed``: any number of images into a folder of embeddings, in steps."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from tqdm import tqdm

from fpkit.cli_attribute import open_extractor
from fpkit.cli_io import Verbs, add_verb, note, plural, print_json
from fpkit.embedder import Precision

if TYPE_CHECKING:
    from fpkit.corpus import Corpus
    from fpkit.corpus_unit import OnImages

EVERY = 60.0  # seconds between two lines about the progress, where nobody is looking

_NOTES = """\
A SOURCE is a folder (with folders, tars and Parquets in it), a tar of images (WebDataset), a
Parquet with their bytes in a column image.bytes, image or bytes (Hugging Face), an image, or a text
file with the path of one of these files on every line.

DIR gets plan.parquet, which lists the images once and for all, and one Parquet per unit of images:
path, sha256, width, height, format, jpeg_quality, compressed, crops, embedding and error. Give the
same command again to go on after whatever stopped it. Images that came later need another DIR.
"""


def add_to(verbs: Verbs) -> argparse.ArgumentParser:
    """Declare the verb; options that verbs share are added by the caller."""
    parser = add_verb(
        verbs,
        "embed",
        embed,
        "embed folders, lists, tars or Parquets of images, however many",
        example="fpkit embed photos/ shards/*.tar --out embeddings",
    )
    parser.epilog = f"{_NOTES}\n{parser.epilog}"
    add = parser.add_argument
    add("source", nargs="+", metavar="SOURCE", help="where the images are")
    add("--out", required=True, metavar="DIR", help="for the embeddings")
    add("--unit", type=int, metavar="N", help="images per file, the most that a kill costs (512)")
    add("--precision", choices=get_args(Precision), default="float32", help="of the network")
    add("--workers", type=int, metavar="N", help="threads that decode and embed (one per core)")
    add("--retry-errors", action="store_true", help="do units with errors again")
    add("--ray", metavar="ADDRESS", help="use processes of Ray: local, or auto or HOST:PORT")
    parser.set_defaults(go_on="again")
    return parser


def embed(arguments: argparse.Namespace) -> int:
    """Embed what is not embedded yet."""
    from fpkit.corpus import Corpus, embed_corpus
    from fpkit.corpus_plan import PLAN, UNIT, CorpusConfig
    from fpkit.ray_run import Processor, embed_on_ray
    from fpkit.shards import pyarrow_parquet

    try:
        pyarrow_parquet()
    except ModuleNotFoundError as error:
        raise ValueError(str(error)) from error
    processor = arguments.device
    if arguments.ray is not None:
        if processor not in (None, *get_args(Processor)):
            raise ValueError(f"--device is cpu or cuda with --ray, got {processor}")
        arguments.device = None  # the processes have it
    arguments.device = arguments.device or "cpu"
    extractor = open_extractor(arguments)
    out = Path(arguments.out)
    unit = arguments.unit
    if unit is None:
        unit = Corpus(out).config.unit if (out / PLAN).is_file() else UNIT
    config = CorpusConfig(
        sources=tuple(os.path.abspath(source) for source in arguments.source),
        extractor_hash=extractor.hash,
        dim=extractor.dim,
        unit=unit,
        precision=arguments.precision,
    )
    corpus = Corpus.plan(out, config)
    with progress(corpus, retry_errors=arguments.retry_errors) as on_images:
        if arguments.ray is not None:
            summary = embed_on_ray(
                corpus,
                address=arguments.ray,
                extractor=arguments.extractor,
                processor=processor,
                workers=arguments.workers,
                retry_errors=arguments.retry_errors,
                on_images=on_images,
            )
        else:
            summary = embed_corpus(
                corpus,
                extractor,
                workers=arguments.workers,
                retry_errors=arguments.retry_errors,
                on_images=on_images,
            )
    if arguments.json:
        facts = {"images": summary.images, "errors": summary.errors, "new": summary.new}
        print_json({"out": str(out), "units": len(corpus.counts)} | facts)
    else:
        print(
            f"{plural(summary.images, 'image')} in {out}: {summary.images - summary.errors} "
            f"embedded, {plural(summary.errors, 'error')}"
        )
    if summary.errors and not arguments.json:
        note("the column `error` says what is wrong with which file")
    return int(bool(summary.errors) and arguments.strict)


@contextmanager
def progress(corpus: Corpus, *, retry_errors: bool) -> Iterator[OnImages]:
    """A bar on a terminal, else a line every minute: images, images per second, time left."""
    from fpkit.corpus import pending

    left = pending(corpus, corpus.finished(), retry_errors=retry_errors)
    before = corpus.images - sum(corpus.counts[unit] for unit in left)
    if before:
        note(f"{before} of {plural(corpus.images, 'image')} were embedded before")
    if sys.stderr.isatty():
        with tqdm(total=corpus.images, initial=before, unit="image", leave=False) as bar:
            yield lambda count: bar.update(count) and None
        return
    began = said = time.monotonic()
    done = 0

    def on_images(count: int) -> None:
        nonlocal done, said
        done += count
        if (now := time.monotonic()) - said >= EVERY:
            said = now
            line = tqdm.format_meter(
                before + done, corpus.images, now - began, ncols=0, unit="image", initial=before
            )
            note(line.strip())

    yield on_images
