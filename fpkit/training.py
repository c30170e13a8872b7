"""Train an extractor on synthetic models only, resumable at any step."""

import json
import platform
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

import torch
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from fpkit.assets import append_line, write_text_atomic
from fpkit.distributed import Ranks, joined_ranks, rank_device
from fpkit.embedder import WEIGHTS
from fpkit.extractor import Extractor, build_extractor, load_extractor
from fpkit.interrupts import held_interrupts
from fpkit.learner import HEADER_BYTES, Learner, Row
from fpkit.locks import locked
from fpkit.paper import PaperExtractor
from fpkit.stream import FingerprintStream, Sources
from fpkit.synthesizer import RandomSynthesizer, Synthesizer, ZooSynthesizer
from fpkit.tensor_files import open_tensors
from fpkit.train_plan import TrainConfig
from fpkit.validation import HELD_OUT, cohort, validate, validation_batch
from fpkit.zoo import Zoo

CHECKPOINT = "checkpoint.safetensors"
LOG = "log.jsonl"

Callback = Callable[[Row, Extractor | PaperExtractor], object]


def split_zoo(zoo: Zoo, config: TrainConfig) -> tuple[list[str], list[str]]:
    """Model ids for training and held-out ones, split by architecture.

    Of the models with a residual of at most ``config.max_residual``, every
    ``1 / held_out_share``-th architecture, in the order of the manifest, is held out with all
    its seeds.
    """
    usable = [entry for entry in zoo.entries if entry["residual"] <= config.max_residual]
    share = config.held_out_share
    architectures = list(dict.fromkeys(entry["arch_id"] for entry in usable))
    every = round(1 / share) if share else 0
    held = set(architectures[every - 1 :: every]) if every else set()
    entries = [(entry["model_id"], entry["arch_id"] in held) for entry in usable]
    return [m for m, out in entries if not out], [m for m, out in entries if out]


def train(
    config: TrainConfig,
    *,
    sources: Sources,
    out: str | Path,
    zoo: Zoo | None = None,
    synthesizer: Synthesizer | None = None,
    initial: str | Path | None = None,
    teacher: str | Path | None = None,
    resume: bool = True,
    device: str | torch.device = "cpu",
    stop_after: int | None = None,
    progress: bool = True,
    callback: Callback | None = None,
) -> Extractor | PaperExtractor:
    """Train an extractor and write it, with its model card, into folder `out`.

    Ctrl-C (SIGTERM too) finishes the step, writes a checkpoint and raises KeyboardInterrupt. Under
    ``torchrun`` the processes share every batch, and a step is that of one process up to rounding.
    While one training is at work in a folder, another is refused (BlockingIOError).

    Parameters
    ----------
    config : TrainConfig
    sources : Sources
        The images that pass through the models.
    out : str or Path
        Receives ``extractor.safetensors``, ``extractor.json``, ``checkpoint.safetensors`` and
        ``log.jsonl``, a line per step with its loss, and with the figures of the validation where
        there was one. Several machines must share the folder.
    zoo : Zoo, optional
        Trained synthetic models; some architectures are held out. Not needed if all models are
        random decoders (``random_share=1``).
    synthesizer : Synthesizer, optional
        The models to train on; by default what ``config.stream`` says, with the zoo's models that
        are not held out.
    initial : str or Path, optional
        Folder of an extractor of the same shape, whose weights and standardisation to begin with;
        the checkpoint of a training that was stopped will do.
    teacher : str or Path, optional
        Folder of an extractor that sees the same, for the loss ``"teacher"``: the new one learns
        its embeddings.
    resume : bool
        Go on from the checkpoint in `out`, if there is one; the result is the same as that of
        an undisturbed run. Without it, a checkpoint there is an error.
    device : str or torch.device
        Under ``torchrun``, ``"cuda"`` is a GPU of its own for every process of a machine.
    stop_after : int, optional
        Leave after this many steps with a checkpoint, as an interruption would.
    progress : bool
        Show a progress bar.
    callback : callable, optional
        Called after every step, on the first process alone, with the row of the log (``step``,
        ``loss``, ``seconds``, sometimes figures of the validation) and the extractor, in train
        mode, to look at. What it raises ends the training as Ctrl-C would, with a checkpoint to
        resume from, and is raised on: the way to stop a training in a thread, for Ctrl-C reaches
        the main thread alone.

    Returns
    -------
    Extractor or PaperExtractor
        In eval mode; the same on all ranks, the card on the first.

    Raises
    ------
    ValueError
        If the checkpoint in `out` was made with another configuration, or the processes cannot
        share a batch equally.
    """
    device, out = rank_device(device), Path(out)
    with joined_ranks(device) as ranks, ExitStack() as stack:
        if ranks.first:
            out.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked(out, wait=0))
        return _train(
            config,
            sources=sources,
            out=out,
            zoo=zoo,
            synthesizer=synthesizer,
            initial=None if initial is None else _begun(Path(initial), config),
            teacher=None if teacher is None else load_extractor(teacher),
            resume=resume,
            device=device,
            stop_after=stop_after,
            progress=progress and ranks.first,
            callback=callback,
            ranks=ranks,
        )


def _train(
    config: TrainConfig,
    *,
    sources: Sources,
    out: Path,
    zoo: Zoo | None,
    synthesizer: Synthesizer | None,
    initial: Extractor | PaperExtractor | None,
    teacher: Extractor | PaperExtractor | None,
    resume: bool,
    device: torch.device,
    stop_after: int | None,
    progress: bool,
    callback: Callback | None,
    ranks: Ranks,
) -> Extractor | PaperExtractor:
    """`train`, once the ranks are connected."""
    if config.stream.models % ranks.count:
        raise ValueError(
            f"{config.stream.models} models cannot be shared equally by {ranks.count} processes: "
            "take a multiple"
        )
    training_ids, held_out = split_zoo(zoo, config) if zoo is not None else ([], [])
    if synthesizer is None:
        synthesizer = config.stream.synthesizer(zoo, training_ids)
    whole, own = (
        FingerprintStream(
            config.stream,
            sources,
            synthesizer,
            crop=config.extractor.crop,
            steps=config.steps,
            part=part,
        )
        for part in ((0, 1), (ranks.rank, ranks.count))
    )
    learner = Learner(
        config,
        synthesis=synthesizer.description,
        classes=synthesizer.classes,
        device=device,
        ranks=ranks,
        teacher=teacher,
    )
    log: list[Row] = []
    start, seconds = 0, 0.0
    if (out / CHECKPOINT).is_file():
        if not resume:
            raise ValueError(f"{out} holds a checkpoint already: resume, or take another folder")
        start, seconds, log = learner.load(out / CHECKPOINT)
    starts = ranks.gather(torch.tensor([start])).tolist()
    if len(set(starts)) > 1:
        raise ValueError(
            f"the processes found checkpoints of steps {starts} in {out}: it must be one folder "
            "that all machines share"
        )
    if start == 0 and initial is not None:
        learner.begin_with(initial)
    elif start == 0:
        learner.measure(whole)
    extractor = learner.extractor
    unseen = RandomSynthesizer() if zoo is None else ZooSynthesizer(zoo, held_out[:HELD_OUT])
    validation = validation_batch(whole, unseen) if ranks.first else None

    last = config.steps if stop_after is None else min(config.steps, start + stop_after)
    loader = DataLoader(
        own,
        batch_size=None,
        sampler=range(start, last),
        num_workers=config.workers,
        multiprocessing_context="spawn" if config.workers else None,
        prefetch_factor=4 if config.workers else None,
    )
    began = time.perf_counter()
    step, elapsed = start, seconds
    raised: BaseException | None = None
    torn = False
    write = _log_writer(out / LOG, log, ranks)
    with (
        held_interrupts() as interrupted,
        tqdm(total=config.steps, initial=start, unit="step", disable=not progress) as bar,
    ):
        try:
            for crops, labels in loader:
                torn = True
                loss = learner.step(crops, labels, step)
                step += 1
                elapsed = seconds + time.perf_counter() - began
                row: Row = {"step": step, "loss": loss, "seconds": round(elapsed, 1)}
                due = step % config.validate_every == 0 or step == config.steps
                if validation is not None and due:
                    row |= validate(extractor, *validation)
                log.append(row)
                torn = False
                write(row)
                bar.update()
                bar.set_postfix({k: f"{v:.3f}" for k, v in row.items() if k not in _QUIET})
                if ranks.first and step % config.checkpoint_every == 0:
                    learner.save(out / CHECKPOINT, step, elapsed, log)
                if callback is not None and ranks.first:
                    try:
                        callback(row, extractor)
                    except BaseException as error:  # raised on, once there is a checkpoint
                        raised = error
                leaving = bool(interrupted) or raised is not None
                if ranks.any(leaving):  # on any: all must leave at the same step
                    interrupted.append(signal.SIGINT)  # unless a signal came before
                    break
        except RuntimeError as error:  # a signal to all processes ends the workers too
            if not interrupted and "DataLoader worker" in str(error):
                raise ChildProcessError(
                    "a process that made batches was killed, perhaps for want of memory: resume "
                    f"with fewer than {config.workers} workers"
                ) from error
            if not interrupted:
                raise
    if ranks.first and not torn:  # half a step is none: the last checkpoint stays
        learner.save(out / CHECKPOINT, step, elapsed, log)
    if raised is not None:
        raise raised
    if interrupted:
        raise KeyboardInterrupt(interrupted[0])

    extractor.eval()
    if validation is not None:  # on the first rank
        if extractor.centred:
            extractor.cohort.copy_(cohort(extractor, whole, start=config.steps))
        extractor.card = {
            "steps": step,
            "seconds": round(elapsed),
            "hardware": f"{device.type}, {platform.machine()}, "
            f"{torch.get_num_threads()} threads, torch {torch.__version__}",
            "processes": ranks.count,
            "images": sources.description,
            "synthesis": synthesizer.description,
            "zoo": None
            if zoo is None
            else {"models": len(zoo), "trained_on": len(training_ids), "source": zoo.source},
            "held_out_architectures": sorted({name.split("/")[0] for name in held_out}),
            "initial": None if initial is None else initial.hash,
            "teacher": None if teacher is None else teacher.hash,
            "config": asdict(config),
            "verification": validate(extractor, *validation),
            "curve": [row for row in log if len(row) > 3 or row["step"] % 100 == 0],
        }
        extractor.save(out)
    ranks.copy_from_first(extractor)
    return extractor


def _begun(folder: Path, config: TrainConfig) -> Extractor | PaperExtractor:
    """The extractor in a folder, or as far as its checkpoint had come."""
    if (folder / WEIGHTS).is_file() or not (folder / CHECKPOINT).is_file():
        return load_extractor(folder)
    extractor = build_extractor(config.extractor)
    prefix = "extractor."
    try:
        with open_tensors(folder / CHECKPOINT, header=HEADER_BYTES) as file:
            file.expect({prefix + k: v for k, v in extractor.state_dict().items()}, others=True)
            tensors = file.read()
    except ValueError as error:
        raise ValueError(
            f"{folder / CHECKPOINT} is no checkpoint of a {config.extractor}: {error}"
        ) from error
    extractor.load_state_dict(
        {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    )
    return extractor


def _log_writer(path: Path, rows: list[Row], ranks: Ranks) -> Callable[[Row], object]:
    """A function that appends a line to `path`, behind those of the checkpoint."""
    if not ranks.first:
        return lambda row: None
    write_text_atomic(path, "".join(json.dumps(row) + "\n" for row in rows))
    return lambda row: append_line(path, json.dumps(row))


_QUIET = ("step", "seconds", "threshold", "far")
