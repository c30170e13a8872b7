"""Folders full of hostile files, and what the verbs of the command line make of them."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from hostile_blocks import KINDS
from hostile_files import file_name, made
from hostile_places import PLACES, sound_png

from fpkit.folders import list_folders, list_images

SECONDS = 300
ADDRESSES = 24 * 2**30  # bytes that a verb may map; torch alone maps several GB
FOLDERS = {
    "escape sequence": "\x1b[31mred\nblue",
    "marks of direction": "\u202eledom",
    "markup": "<img src=x onerror=alert(1)>",
    "bytes that are no text": os.fsdecode(b"\xff\xfemodel"),
}


@dataclass(frozen=True)
class Batch:
    """A command, and what was wrong with how it ended; nothing if it was good."""

    verb: str
    files: int
    wrong: str

    @property
    def good(self) -> bool:
        return not self.wrong

    def __str__(self) -> str:
        return f"fpkit {self.verb}, {self.files} hostile files: {self.wrong or 'good'}"


def run_batches(folder: Path) -> list[Batch]:
    """Build a tree of models and run the verbs on it."""
    tree = folder / "tree"
    build_tree(tree)
    flat = tree / "hostile"
    total = sum(len(list_images(path)) for path in list_folders(tree))
    listed = len(list_images(flat))
    (tree / "locked").chmod(0)
    out = folder / "out"
    out.mkdir()
    gallery = out / "a.gallery"
    small = ["--extractor", "small"]
    reached = total - 4 + 1  # the locked folder counts as one

    def enrolled(value: dict) -> bool:
        return sum(value["models"].values()) + value["known"] + value["skipped"] == reached

    def attributed(value: list) -> bool:
        return {Path(answer["image"]) for answer in value} < set(list_images(flat))

    return [
        batch("enrol", reached, [gallery, tree, "--json", *small], complete=enrolled),
        batch("identify", listed, [gallery, flat, "--json", *small], complete=attributed),
        batch("identify", listed, [gallery, flat, *small]),
        batch(
            "fingerprint",
            listed,
            [flat, "--out", out / "a.html", "--json"],
            complete=lambda value: value["images"] + value["skipped"] == listed,
        ),
        batch(
            "bench",
            reached,
            [tree, "--draws", "2", "--json", *small],
            complete=lambda value: value["images"] + len(value["skipped"]) == reached - 1,
        ),
        batch("bench", reached, [tree, "--draws", "2", *small]),
    ]


def build_tree(tree: Path) -> None:
    """Sound models, one of hostile files, one that may not be read, and names that act."""
    rng = np.random.default_rng(0)
    for model in ("sound a", "sound b", "locked", *FOLDERS.values()):
        (tree / model).mkdir(parents=True)
        for number in range(4):
            (tree / model / f"{number}.png").write_bytes(sound_png(rng))
    hostile = tree / "hostile"
    hostile.mkdir()
    for kind in KINDS.values():
        if not kind.heavy:
            (hostile / file_name(kind, 0)).write_bytes(made(kind, 0)[0])
    for place in PLACES.values():
        place.put(hostile, sound_png(rng))
    rows = "".join(f"{name!r},0.png,gan\n" for name in FOLDERS)
    noise = b'\x00"' + rng.bytes(20).replace(b"\n", b"") + b'",\xc3\xa9'
    head = f"model,file,family\n{rows}".encode()
    (tree / "manifest.csv").write_bytes(head + noise.decode("latin-1").encode())


def batch(
    verb: str, files: int, words: list[object], *, complete: Callable[[Any], bool] | None = None
) -> Batch:
    """Run a verb; it must end well, print no control character, and be whole."""
    command = [sys.executable, "-m", "fpkit", verb, *map(str, words)]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=SECONDS,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (ADDRESSES, ADDRESSES)),
        )
    except subprocess.TimeoutExpired:
        return Batch(verb, files, f"not done after {SECONDS} s")
    told = done.stderr.decode("utf-8", "replace")
    if done.returncode:
        return Batch(verb, files, f"exit code {done.returncode}: {told.splitlines()[-1:]}")
    try:
        text = done.stdout.decode()
        acting = sorted({c for c in text + told if not c.isprintable()} - {"\n"})
        if acting:
            return Batch(verb, files, f"prints {acting}")
        value = json.loads(text) if "--json" in words else None
    except ValueError as error:
        return Batch(verb, files, f"output is no UTF-8 or no JSON: {error}")
    if complete is not None and not complete(value):
        return Batch(verb, files, "files are unaccounted for")
    if "skipped: " not in told:
        return Batch(verb, files, "no file was reported as skipped")
    return Batch(verb, files, "")
