"""What changes from step to step of a training: network, classifier, optimiser."""

import json
from dataclasses import asdict
from functools import reduce
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from fpkit.artefacts import check_fields, parse_json, shown
from fpkit.assets import save_safetensors_atomic
from fpkit.distributed import Ranks, share_batch_norm
from fpkit.extractor import Extractor, build_extractor
from fpkit.losses import batch_hard_triplet, supervised_contrastive
from fpkit.paper import PaperExtractor
from fpkit.stream import FingerprintStream
from fpkit.tensor_files import open_tensors
from fpkit.train_plan import TrainConfig

Row = dict[str, float]  # of the log: step, loss, seconds, sometimes figures of the validation

HEADER_BYTES = 2**26  # of a checkpoint: its log takes some 80 bytes a step

# what may change between two parts of one training without changing its result; the number of
# steps may until the learning rate begins to fall
_FREE = ("workers", "checkpoint_every", "steps")


class Learner:
    """Takes steps, and keeps and restores its state.

    Parameters
    ----------
    config : TrainConfig
    synthesis : str
        Description of the synthesizer: what made a checkpoint's images must go on making them.
    classes : int
        Models that come back in other batches.
    device : torch.device
    ranks : Ranks
        The processes that share every batch.
    teacher : Extractor or PaperExtractor, optional
        Whose embeddings to learn, with the loss ``"teacher"``; it must see the same maps.

    Attributes
    ----------
    extractor : Extractor or PaperExtractor
    """

    def __init__(
        self,
        config: TrainConfig,
        *,
        synthesis: str,
        classes: int,
        device: torch.device,
        ranks: Ranks,
        teacher: Extractor | PaperExtractor | None = None,
    ) -> None:
        if (teacher is None) == (config.loss == "teacher"):
            raise ValueError(
                f"a teacher goes with the loss 'teacher', got loss {config.loss!r} with "
                f"{'no teacher' if teacher is None else 'a teacher'}"
            )
        self.config = config
        self.teacher = None if teacher is None else teacher.to(device).eval()
        self.synthesis = synthesis
        self.device = device
        self.ranks = ranks
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.stream.seed)
            self.extractor = build_extractor(config.extractor)
            classifier = nn.Linear(self.extractor.dim, max(1, classes))
        if ranks.count > 1:
            share_batch_norm(self.extractor)
        self.modules = nn.ModuleDict({"extractor": self.extractor, "classifier": classifier})
        self.modules.to(device)
        self.optimiser = torch.optim.AdamW(
            self.modules.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )

    def measure(self, stream: FingerprintStream, batches: int = 8) -> None:
        """Let the extractor measure what it standardises its maps by, on the first batches.

        One with a teacher takes over the teacher's, so that both see the same.
        """
        if isinstance(self.teacher, Extractor) and isinstance(self.extractor, Extractor):
            self.extractor.standardise.load_state_dict(self.teacher.standardise.state_dict())
        elif self.ranks.first and isinstance(self.extractor, Extractor):
            crops = (stream[index][0].to(self.device) for index in range(batches))
            maps = zip(*(self.extractor.maps(part) for part in crops), strict=True)
            self.extractor.measure([torch.cat(level) for level in maps])
        self.ranks.copy_from_first(self.modules)

    def begin_with(self, initial: Extractor | PaperExtractor) -> None:
        """Take the weights of another extractor, and what it standardises its maps by."""
        if initial.config != self.config.extractor:
            raise ValueError(
                f"the initial extractor is {initial.config}, this training makes "
                f"{self.config.extractor}: take one of the same shape"
            )
        self.extractor.load_state_dict(initial.state_dict())

    def step(self, crops: Tensor, labels: Tensor, step: int) -> float:
        """One step of the optimiser; the loss before it.

        Parameters
        ----------
        crops : Tensor, (n, 3, crop, crop)
            The share of this rank.
        labels : Tensor, (n,)
            Theirs.
        step : int
            Decides the learning rate.
        """
        config, ranks = self.config, self.ranks
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
            if self.teacher is not None:
                with torch.no_grad():
                    target = self.teacher.encode(maps)
        if self.teacher is None:
            loss = self.loss(ranks.gather(raw.float()), ranks.gather(labels.to(self.device)))
        else:
            both = (ranks.gather(x.float()) for x in (raw, target))
            loss = 1 - functional.cosine_similarity(*both).mean()
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        # the classifier saw the embeddings of all ranks: its gradient is whole already
        ranks.sum_gradients(self.extractor.parameters())
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

    def save(self, path: Path, step: int, seconds: float, log: list[Row]) -> None:
        """Write everything that `load` needs."""
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

    def load(self, path: Path) -> tuple[int, float, list[Row]]:
        """Restore a checkpoint; return its step, seconds and log.

        Raises
        ------
        ValueError
            If it is damaged, or was made with another configuration.
        """
        modules = dict(self.modules.state_dict())
        try:
            with open_tensors(path, header=HEADER_BYTES) as file:
                step, seconds, log = _progress(file.metadata)
                changed = self._changed(file.metadata, step)
                if not changed:
                    # of a parameter that never had a gradient the optimiser keeps nothing
                    kept = {
                        index: several
                        for index, several in self._optimiser_tensors().items()
                        if several.keys() & file.layout.keys()
                    }
                    file.expect(reduce(dict.__or__, kept.values(), modules))
                    tensors = file.read()
        except ValueError as error:
            raise ValueError(f"{path} is no checkpoint of fpkit: {error}") from error
        if changed:
            raise ValueError(
                f"{path} was made with another configuration ({', '.join(changed)} differ): "
                "take the same options, or another folder"
            )
        self.modules.load_state_dict({name: tensors[name] for name in modules})
        state = self.optimiser.state_dict()
        for index, several in kept.items():
            state["state"][index] = {name.rpartition(".")[2]: tensors[name] for name in several}
        self.optimiser.load_state_dict(state)
        return step, seconds, log

    def _optimiser_tensors(self) -> dict[int, dict[str, Tensor]]:
        """What the optimiser may keep for each parameter, by the names that `save` gives it."""
        return {
            index: {
                f"optimiser.{name}.step": torch.zeros(()),
                f"optimiser.{name}.exp_avg": parameter,
                f"optimiser.{name}.exp_avg_sq": parameter,
            }
            for index, (name, parameter) in enumerate(self.modules.named_parameters())
        }

    def _changed(self, metadata: dict[str, str], step: int) -> list[str]:
        """In what this training, which would not have come to this checkpoint, differs."""
        stored = parse_json(metadata.get("config", "null"))
        if not isinstance(stored, dict) or type(stored.get("steps")) is not int:
            raise ValueError("its configuration has no number of steps")
        ours = json.loads(json.dumps(asdict(self.config)))
        changed = [key for key in ours if stored.get(key) != ours[key] and key not in _FREE]
        if metadata.get("synthesis") != self.synthesis:
            changed.append("synthesizer or zoo")
        theirs = TrainConfig(steps=stored["steps"], decay=self.config.decay)
        differ = theirs.steps != self.config.steps
        if differ and step > min(self.config.fall, theirs.fall):
            changed.append("steps")
        return changed


def _progress(metadata: dict[str, str]) -> tuple[int, float, list[Row]]:
    """Step, seconds and log of a checkpoint's header."""
    kinds: dict[str, type] = {"step": int, "seconds": float, "log": list}
    stored = {name: parse_json(metadata.get(name, "null")) for name in kinds}
    step, seconds, log = check_fields(stored, kinds).values()
    for row in log:
        if not isinstance(row, dict) or {type(v) for v in row.values()} - {int, float}:
            raise ValueError(f"its log has the row {shown(row)}")
    if seconds < 0 or [row.get("step") for row in log] != list(range(1, step + 1)):
        raise ValueError(f"its log does not lead to step {step}")
    return step, float(seconds), log
