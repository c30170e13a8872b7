"""Train an extractor on synthetic models only, resumable at any step."""

import json
import platform
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal, get_args

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from fpkit.assets import save_safetensors_atomic
from fpkit.extractor import Extractor, ExtractorConfig
from fpkit.losses import batch_hard_triplet, supervised_contrastive
from fpkit.stream import FingerprintStream, Sources, StreamConfig
from fpkit.synthesis import Precision
from fpkit.synthesizer import RandomSynthesizer, Synthesizer, ZooSynthesizer
from fpkit.validation import cohort, validate, validation_batch
from fpkit.zoo import Zoo

Loss = Literal["contrastive", "ce+triplet"]
CHECKPOINT = "checkpoint.safetensors"


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How to train.

    ``loss`` is supervised contrastive, or the paper's cross-entropy over the zoo's models plus
    batch-hard triplet, weights 1:1. ``held_out_share`` of the zoo's ARCHITECTURES never enter
    training: validation, the threshold and nothing else comes from them. Zoo models whose residual
    exceeds ``max_residual`` are left out. The learning rate rises linearly over ``warmup`` steps,
    stays, and falls linearly to zero over the last ``decay`` of the steps: until the fall begins,
    a training can be resumed with more ``steps`` or fewer.
    """

    steps: int = 4000
    loss: Loss = "contrastive"
    temperature: float = 0.07
    margin: float = 0.3
    learning_rate: float = 1e-3
    weight_decay: float = 0.02
    warmup: int = 100
    decay: float = 0.3
    max_residual: float = 0.08
    held_out_share: float = 0.125
    validate_every: int = 250
    checkpoint_every: int = 100
    workers: int = 0
    precision: Precision = "float32"
    stream: StreamConfig = field(default_factory=StreamConfig)
    extractor: ExtractorConfig = field(default_factory=ExtractorConfig)

    def __post_init__(self) -> None:
        if self.loss not in get_args(Loss):
            raise ValueError(f"loss must be one of {get_args(Loss)}, got {self.loss!r}")
        if self.precision not in get_args(Precision):
            raise ValueError(
                f"precision must be one of {get_args(Precision)}, got {self.precision!r}"
            )
        for name in ("steps", "checkpoint_every", "validate_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("held_out_share", "decay"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be in [0, 1), got {getattr(self, name)}")

    @property
    def fall(self) -> int:
        """The step at which the learning rate begins to fall."""
        return round(self.steps * (1 - self.decay))


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
    resume: bool = True,
    device: str | torch.device = "cpu",
    stop_after: int | None = None,
    progress: bool = True,
) -> Extractor:
    """Train an extractor and write it, with its model card, into folder `out`.

    Ctrl-C finishes the step, writes a checkpoint and raises KeyboardInterrupt.

    Parameters
    ----------
    config : TrainConfig
    sources : Sources
        The images that pass through the models.
    out : str or Path
        Receives ``extractor.safetensors``, ``extractor.json`` and ``checkpoint.safetensors``.
    zoo : Zoo, optional
        Trained synthetic models; some architectures are held out. Not needed if all models are
        random decoders (``random_share=1``).
    synthesizer : Synthesizer, optional
        The models to train on; by default what ``config.stream`` says, with the zoo's models that
        are not held out.
    resume : bool
        Go on from the checkpoint in `out`, if there is one; the result is the same as that of
        an undisturbed run. Without it, a checkpoint there is an error.
    device : str or torch.device
    stop_after : int, optional
        Leave after this many steps with a checkpoint, as an interruption would.
    progress : bool
        Show a progress bar.

    Returns
    -------
    Extractor
        In eval mode.

    Raises
    ------
    ValueError
        If the checkpoint in `out` was made with another configuration.
    """
    out = Path(out)
    training_ids, held_out = split_zoo(zoo, config) if zoo is not None else ([], [])
    if synthesizer is None:
        synthesizer = config.stream.synthesizer(zoo, training_ids)
    stream = FingerprintStream(
        config.stream, sources, synthesizer, crop=config.extractor.crop, steps=config.steps
    )
    run = _Run(config, synthesizer, device)
    log: list[dict[str, float]] = []
    start, seconds = 0, 0.0
    if (out / CHECKPOINT).is_file():
        if not resume:
            raise ValueError(f"{out} holds a checkpoint already: resume, or take another folder")
        start, seconds, log = run.load(out / CHECKPOINT)
    else:
        run.measure_bins(stream)
    unseen = RandomSynthesizer() if zoo is None else ZooSynthesizer(zoo, held_out[:16])
    validation = validation_batch(stream, unseen)

    last = config.steps if stop_after is None else min(config.steps, start + stop_after)
    loader = DataLoader(
        stream,
        batch_size=None,
        sampler=range(start, last),
        num_workers=config.workers,
        multiprocessing_context="spawn" if config.workers else None,
        prefetch_factor=4 if config.workers else None,
    )
    began = time.perf_counter()
    step, elapsed = start, seconds
    with (
        _held_interrupts() as interrupted,
        tqdm(total=config.steps, initial=start, unit="step", disable=not progress) as bar,
    ):
        try:
            for crops, labels in loader:
                loss = run.step(crops, labels, step)
                step += 1
                elapsed = seconds + time.perf_counter() - began
                row: dict[str, float] = {"step": step, "loss": loss, "seconds": round(elapsed, 1)}
                if step % config.validate_every == 0 or step == config.steps:
                    row |= validate(run.extractor, *validation)
                log.append(row)
                bar.update()
                bar.set_postfix({k: f"{v:.3f}" for k, v in row.items() if k not in _QUIET})
                if step % config.checkpoint_every == 0:
                    run.save(out / CHECKPOINT, step, elapsed, log)
                if interrupted:
                    break
        except RuntimeError:  # the terminal's Ctrl-C ends the workers too
            if not interrupted:
                raise
    run.save(out / CHECKPOINT, step, elapsed, log)
    if interrupted:
        raise KeyboardInterrupt

    extractor = run.extractor.eval()
    extractor.cohort.copy_(cohort(extractor, stream, start=config.steps))
    extractor.card = {
        "steps": step,
        "seconds": round(elapsed),
        "hardware": f"{torch.device(device).type}, {platform.machine()}, "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}",
        "images": sources.description,
        "synthesis": synthesizer.description,
        "zoo": None
        if zoo is None
        else {"models": len(zoo), "trained_on": len(training_ids), "source": zoo.source},
        "held_out_architectures": sorted({name.split("/")[0] for name in held_out}),
        "config": asdict(config),
        "verification": validate(extractor, *validation),
        "curve": [row for row in log if len(row) > 3 or row["step"] % 100 == 0],
    }
    extractor.save(out)
    return extractor


@contextmanager
def _held_interrupts() -> Iterator[list[int]]:
    """Collect Ctrl-C, to act on it between two steps: a checkpoint must hold whole steps."""
    held: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield held  # only the main thread gets signals
        return
    previous = signal.signal(signal.SIGINT, lambda number, _: held.append(number))
    try:
        yield held
    finally:
        signal.signal(signal.SIGINT, previous)


_QUIET = ("step", "seconds", "threshold", "far")


class _Run:
    """Everything that changes from step to step: network, classifier, optimiser."""

    def __init__(
        self, config: TrainConfig, synthesizer: Synthesizer, device: str | torch.device
    ) -> None:
        self.config = config
        self.synthesis = synthesizer.description
        self.device = torch.device(device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.stream.seed)
            self.extractor = Extractor(config.extractor)
            classifier = nn.Linear(config.extractor.dim, max(1, synthesizer.classes))
        self.modules = nn.ModuleDict({"extractor": self.extractor, "classifier": classifier})
        self.modules.to(device)
        self.optimiser = torch.optim.AdamW(
            self.modules.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )

    def measure_bins(self, stream: FingerprintStream, batches: int = 8) -> None:
        """Mean and standard deviation of every bin's log power over the first batches."""
        crops = torch.cat([stream[i][0] for i in range(batches)])
        self.extractor.measure(self.extractor.maps(crops.to(self.device)))

    def step(self, crops: Tensor, labels: Tensor, step: int) -> float:
        """One step of the optimiser; the loss before it."""
        config = self.config
        rising = (step + 1) / (config.warmup + 1)
        falling = (config.steps - step) / (config.steps - config.fall + 1)
        for group in self.optimiser.param_groups:
            group["lr"] = config.learning_rate * min(1.0, rising, falling)
        self.modules.train()
        with torch.no_grad():
            maps = self.extractor.maps(crops.to(self.device))
        with torch.autocast(
            self.device.type, torch.bfloat16, enabled=config.precision == "bfloat16"
        ):
            raw = self.extractor.encode(maps)
        loss = self.loss(raw.float(), labels.to(self.device))
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()
        return loss.item()

    def loss(self, raw: Tensor, labels: Tensor) -> Tensor:
        """The configured loss of raw embeddings (n, dim)."""
        unit = functional.normalize(raw)
        if self.config.loss == "contrastive":
            return supervised_contrastive(unit, labels, temperature=self.config.temperature)
        total = batch_hard_triplet(unit, labels, margin=self.config.margin)
        classifier = self.modules["classifier"]
        known = labels < classifier.out_features  # a random decoder is seen once: no class
        if bool(known.any()):
            total = total + functional.cross_entropy(classifier(raw[known]), labels[known])
        return total

    def save(self, path: Path, step: int, seconds: float, log: list[dict[str, float]]) -> None:
        tensors = dict(self.modules.state_dict())
        names = [name for name, _ in self.modules.named_parameters()]
        for index, state in self.optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{names[index]}.{key}": value for key, value in state.items()}
        metadata = {
            "step": str(step),
            "seconds": str(seconds),
            "synthesis": self.synthesis,
            "config": json.dumps(asdict(self.config), sort_keys=True),
            "log": json.dumps(log),
        }
        save_safetensors_atomic(path, tensors, metadata=metadata)

    def load(self, path: Path) -> tuple[int, float, list[dict[str, float]]]:
        """Restore a checkpoint; return its step, seconds and log."""
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                stored = json.loads(metadata["config"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}
        except (SafetensorError, KeyError, ValueError) as error:
            raise ValueError(f"{path} is no checkpoint of fpkit: {error}") from error
        ours = json.loads(json.dumps(asdict(self.config)))
        changed = [key for key in ours if stored.get(key) != ours[key] and key not in _FREE]
        if metadata.get("synthesis") != self.synthesis:
            changed.append("synthesizer or zoo")
        step = int(metadata["step"])
        if stored.get("steps") != self.config.steps and step > min(
            self.config.fall, TrainConfig(steps=stored["steps"], decay=self.config.decay).fall
        ):
            changed.append("steps")
        if changed:
            raise ValueError(
                f"{path} was made with another configuration ({', '.join(changed)} differ): "
                "take the same options, or another folder"
            )
        self.modules.load_state_dict(
            {k: v for k, v in tensors.items() if not k.startswith("optimiser.")}
        )
        state = self.optimiser.state_dict()
        for index, (name, _) in enumerate(self.modules.named_parameters()):
            prefix = f"optimiser.{name}."
            found = {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}
            if found:
                state["state"][index] = found
        self.optimiser.load_state_dict(state)
        return step, float(metadata["seconds"]), json.loads(metadata["log"])


# what may change between two parts of one training without changing its result; the number of
# steps may until the learning rate begins to fall
_FREE = ("workers", "checkpoint_every", "steps")
