"""The command line: the verbs of the library from a shell.

Results go to stdout, notes and errors to stderr. Exit codes: 0 done (a negative verdict too),
1 error, 2 wrong usage, 130 and 143 stopped by Ctrl-C and by SIGTERM. A module is loaded only by
the verb that needs it.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import get_args

from fpkit import (
    cli_app,
    cli_attribute,
    cli_calibrate,
    cli_corpus,
    cli_discover,
    cli_enrol,
    cli_export,
    cli_grade,
    cli_lineage,
    cli_make,
    cli_verdicts,
    cli_zoo,
)
from fpkit.assets import FULL
from fpkit.bench import METHODS
from fpkit.cli_io import Verbs, add_verb, note
from fpkit.degrade import DEGRADATIONS, Degradation
from fpkit.interrupts import interrupting_signal, termination_interrupts
from fpkit.residual import RESIDUALS
from fpkit.stream import StreamConfig
from fpkit.synthesis import ETA, MAX_STEPS, Precision
from fpkit.synthesizer import EncoderKind, SpaceKind
from fpkit.train_plan import Loss, TrainConfig, TrainPreset

START = "00_start_here.ipynb"
PICTURES = (".html", ".png", ".npz")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Parameters
    ----------
    argv
        Its words without the program's name; None takes those of the process.

    Returns
    -------
    int
        Exit code 0 or 1, or 128 and the number of the signal that stopped it. Wrong usage raises
        SystemExit(2), as argparse does.
    """
    parser = build_parser()
    arguments, rest = parser.parse_known_args(argv)
    if arguments.verb == "lab":
        arguments.rest = rest
    elif rest:
        parser.error(f"unknown arguments: {' '.join(rest)}")
    arguments.check(arguments)
    go_on = _go_on(arguments, sys.argv[1:] if argv is None else argv)
    try:
        with termination_interrupts():
            return arguments.run(arguments)
    except KeyboardInterrupt as error:
        note(f"interrupted{go_on}")
        return 128 + interrupting_signal(error)
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (ValueError, OSError, KeyError) as error:
        if os.environ.get("FPKIT_DEBUG"):
            raise
        stopped = isinstance(error, OSError) and error.errno in FULL
        note(f"error: {_one_line(error)}{go_on if stopped else ''}")
        return 1


def _go_on(arguments: argparse.Namespace, words: Sequence[str]) -> str:
    """How to go on with this command once it was stopped, for the end of a line."""
    option = getattr(arguments, "go_on", None)
    if option is None:
        return ""
    if option == "--cache" and not arguments.cache:
        return ", nothing is kept; a run with --cache DIR can be gone on with"
    again = ["fpkit", *map(str, words)]
    if option == "--resume" and not arguments.resume:
        again.append(option)
    return f"; what was finished is kept, to go on: {shlex.join(again)}"


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    text = error.args[0] if isinstance(error, KeyError) and error.args else error
    return " ".join(str(text).split()) or type(error).__name__


# ---- grammar -----------------------------------------------------------------------------------


def build_parser() -> argparse.ArgumentParser:
    """The grammar of all verbs."""
    parser = argparse.ArgumentParser(
        prog="fpkit",
        description="Which network made this image? Fingerprints of image-generating networks.",
        epilog="fpkit VERB --help shows an example of each. FPKIT_DEBUG=1 shows tracebacks.",
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for add in (
        _synth,
        _train,
        _enrol,
        _identify,
        _verify,
        _fingerprint,
        _bench,
        _embed,
        _discover,
        cli_lineage.add_to,
        cli_calibrate.add_to,
        cli_export.add_to,
        cli_zoo.add_to,
        cli_grade.add_to,
        _lab,
        cli_app.add_to,
    ):
        add(verbs)
    return parser


def _json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON, for machines")


def _batch(parser: argparse.ArgumentParser) -> None:
    _json(parser)
    parser.add_argument(
        "--strict",
        action="store_true",
        help="exit with 1 if any file had to be skipped (the rest is done all the same)",
    )


def _device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="cpu", help="cpu (default), cuda, cuda:1, ...")


def _extractor(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--extractor",
        metavar="FOLDER",
        help="another extractor: a folder, or small for the smaller one that ships",
    )
    _device(parser)


def _far(parser: argparse.ArgumentParser, of: str) -> None:
    parser.add_argument(
        "--far", type=float, default=0.01, metavar="SHARE", help=f"share of {of} (default 0.01)"
    )


def _synth(verbs: Verbs) -> None:
    parser = add_verb(
        verbs,
        "synth",
        cli_make.synth,
        "train a synthetic model and add it to a zoo",
        example="fpkit synth K2-L1-Udeconv-Arelu-Nbatch-Spost --out my_zoo",
    )
    parser.add_argument("spec", nargs="*", metavar="SPEC_ID", help="architectures, see --list")
    parser.add_argument("--list", action="store_true", help="print the ids of all 288 and stop")
    parser.add_argument(
        "--images",
        default="procedural",
        metavar="FOLDER",
        help="training images, at least 128x128; or 'procedural' (default): computed ones",
    )
    parser.add_argument("--out", metavar="DIR", help="the zoo, made if it is not there")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--eta", type=float, default=ETA, help=f"residual to stop at ({ETA})")
    steps = f"steps to stop at ({MAX_STEPS})"
    parser.add_argument("--max-steps", type=int, default=MAX_STEPS, help=steps)
    _device(parser)
    _batch(parser)

    def check(arguments: argparse.Namespace) -> None:
        if not arguments.list and not (arguments.spec and arguments.out):
            parser.error("give a SPEC_ID and --out DIR, or --list")

    parser.set_defaults(check=check)


def _train(verbs: Verbs) -> None:
    defaults, stream = TrainConfig(), StreamConfig()
    parser = add_verb(
        verbs,
        "train",
        cli_make.train,
        "train an extractor on synthetic models, never on images of real ones",
        example="fpkit train --out my_extractor --steps 1000",
    )
    add = parser.add_argument
    add("--out", required=True, metavar="DIR", help="for weights, model card, checkpoint and log")
    add("--zoo", metavar="DIR", help="synthetic models, see fpkit synth (those of fpkit)")
    add("--photos", metavar="FILE.npy", help="photograph tiles made by data/photos/make_photos.py")
    add("--procedural", type=int, default=384, metavar="N", help="computed images (384)")
    what = "the plan: fpkit's own (default), or as in the paper; options below change single parts"
    add("--preset", choices=get_args(TrainPreset), default="default", help=what)
    add("--steps", type=int, help=f"({defaults.steps})")
    add("--initial", metavar="DIR", help="begin with the weights of this extractor")
    add("--teacher", metavar="DIR", help="learn this extractor's embeddings (loss teacher)")
    add("--resume", action="store_true", help="go on from the checkpoint in DIR")
    parser.set_defaults(go_on="--resume")
    add("--loss", choices=get_args(Loss), help=f"({defaults.loss})")
    add("--models", type=int, help=f"per batch ({stream.models})")
    add("--images", type=int, help=f"per model ({stream.images})")
    share = f"random decoders among the models, 0 to 1 ({stream.random_share})"
    add("--random-share", type=float, metavar="SHARE", help=share)
    what = f"what random decoders decode: pooled images or a trained latent ({stream.encoder})"
    add("--encoder", choices=get_args(EncoderKind), help=what)
    space = f"options that random decoders draw from ({stream.space})"
    add("--space", choices=get_args(SpaceKind), help=space)
    share = f"models brought to the spectrum of their sources, 0 to 1 ({stream.matched_share})"
    add("--matched-share", type=float, metavar="SHARE", help=share)
    add("--precision", choices=get_args(Precision), help=f"({defaults.precision})")
    add("--workers", type=int, metavar="N", help="processes that make batches (0)")
    add("--seed", type=int, help=f"({stream.seed})")
    _device(parser)
    _json(parser)


def _enrol(verbs: Verbs) -> None:
    parser = cli_enrol.add_to(verbs)
    _extractor(parser)
    _batch(parser)
    parser.set_defaults(go_on="again")


def _identify(verbs: Verbs) -> None:
    parser = add_verb(
        verbs,
        "identify",
        cli_verdicts.identify,
        "name the enrolled model that made each image, or none of them",
        example="fpkit identify my.gallery unknown/*.png --far 0.05",
    )
    parser.add_argument("gallery", metavar="GALLERY", help="gallery file, see fpkit enrol")
    parser.add_argument("image", nargs="+", metavar="IMAGE", help="image files, or folders of them")
    _far(parser, "images of models not enrolled that may get a name")
    _extractor(parser)
    _batch(parser)


def _verify(verbs: Verbs) -> None:
    parser = add_verb(
        verbs,
        "verify",
        cli_verdicts.verify,
        "did one model make both images?",
        example="fpkit verify a.png b.png",
    )
    parser.add_argument("a", metavar="A", help="image file")
    parser.add_argument("b", metavar="B", help="image file")
    _far(parser, "pairs of two models that may be taken for one")
    _extractor(parser)
    _json(parser)


def _fingerprint(verbs: Verbs) -> None:
    parser = add_verb(
        verbs,
        "fingerprint",
        cli_attribute.fingerprint,
        "average spectrum of an image or a folder",
        example="fpkit fingerprint generators/dcgan --out dcgan.html",
    )
    parser.add_argument("input", metavar="IMAGE_OR_FOLDER")
    parser.add_argument(
        "--out",
        required=True,
        metavar="FILE",
        help=".html (interactive), .png (picture) or .npz (numbers)",
    )
    parser.add_argument("--residual", choices=RESIDUALS, default="median", help="default: median")
    parser.add_argument("--crop", type=int, default=128, help="side of the crops (128 pixels)")
    _batch(parser)

    def check(arguments: argparse.Namespace) -> None:
        if Path(arguments.out).suffix.lower() not in PICTURES:
            parser.error(f"--out must end in {', '.join(PICTURES)}, got {arguments.out}")
        if arguments.crop < 8:
            parser.error(f"--crop must be at least 8, got {arguments.crop}")

    parser.set_defaults(check=check)


def _bench(verbs: Verbs) -> None:
    parser = add_verb(
        verbs,
        "bench",
        cli_attribute.bench,
        "measure attribution on a folder-per-model tree",
        example="fpkit bench generators/ --method extractor --method spectrum",
    )
    parser.add_argument(
        "folder",
        metavar="FOLDER",
        help="holds one folder of images per model and, if you like, a manifest.csv",
    )
    parser.add_argument(
        "--method", action="append", choices=METHODS, help="repeatable; default: extractor"
    )
    parser.add_argument("--draws", type=int, default=20, help="galleries drawn (20)")
    parser.add_argument("--seed", type=int, default=0)
    add = parser.add_argument
    only = "only models of this content (column of the manifest), repeatable"
    add("--content", action="append", default=[], metavar="NAME", help=only)
    without = "no models of this content, repeatable"
    add("--without-content", action="append", default=[], metavar="NAME", help=without)
    add("--format", metavar="NAME", help="only images stored so: png, jpeg, ...")
    first = "send every image through this JPEG first, so that formats are alike"
    add("--recompress", type=int, metavar="QUALITY", help=first)
    worse = f"degrade the probes, repeatable: {', '.join(DEGRADATIONS)}, or another number"
    add("--degrade", action="append", default=[], metavar="NAME", help=worse)
    kept = "keep what the extractor makes of each image: a run that was stopped goes on from there"
    add("--cache", metavar="DIR", help=kept)
    parser.set_defaults(go_on="--cache")
    _extractor(parser)
    _batch(parser)

    def check(arguments: argparse.Namespace) -> None:
        try:
            for name in arguments.degrade:
                Degradation.parse(name)
            if arguments.recompress is not None:
                Degradation(kind="jpeg", amount=arguments.recompress)
        except ValueError as error:
            parser.error(str(error))

    parser.set_defaults(check=check)


def _discover(verbs: Verbs) -> None:
    parser = cli_discover.add_to(verbs)
    _far(parser, "images of models not enrolled that may be called like one")
    _extractor(parser)
    _batch(parser)


def _embed(verbs: Verbs) -> None:
    parser = cli_corpus.add_to(verbs)
    _extractor(parser)
    parser.set_defaults(device=None)  # with --ray: GPUs, where there are any
    _batch(parser)


def _lab(verbs: Verbs) -> None:
    text = "open the notebooks in JupyterLab, for this machine only; further arguments go to it"
    add_verb(verbs, "lab", lab, text, example="fpkit lab --no-browser")


# ---- notebooks ---------------------------------------------------------------------------------


def lab(arguments: argparse.Namespace) -> int:
    """Open JupyterLab on the first notebook."""
    if find_spec("jupyterlab") is None:
        raise ValueError("JupyterLab is not installed: pip install 'fpkit[lab]'")
    notebook = Path(__file__).resolve().parent.parent / "notebooks" / START
    if not notebook.is_file():
        raise FileNotFoundError(f"no {notebook}: the notebooks come with the repository of fpkit")
    # Jupyter refuses to serve root (containers, CI) unless it is told to
    root = ["--allow-root"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    repository = notebook.parent.parent
    place = [
        f"--ServerApp.root_dir={repository}",
        f"--LabApp.default_url=/lab/tree/notebooks/{START}",  # the address it prints and opens
    ]
    silent = [  # no look for news, updates or extensions on the network
        "--LabApp.news_url=None",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
        "--LabApp.extension_manager=readonly",
    ]
    command = [sys.executable, "-m", "fpkit.lab_server", *root, *place, *silent, *arguments.rest]
    if os.name == "posix":
        os.execv(sys.executable, command)  # Ctrl-C then talks to Jupyter itself
    return subprocess.call(command)
