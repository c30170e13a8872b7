"""What a training does, and the plans that have a name."""

from dataclasses import dataclass, field
from typing import Literal, get_args

from fpkit.extractor import ExtractorConfig
from fpkit.paper import PaperConfig
from fpkit.stream import StreamConfig
from fpkit.synthesis import Precision

Loss = Literal["contrastive", "ce+triplet", "teacher"]
TrainPreset = Literal["default", "small", "paper"]


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How to train.

    ``loss`` is supervised contrastive, or the paper's cross-entropy over the zoo's models plus
    batch-hard triplet, weights 1:1, or one minus the cosine to a teacher's embedding of the crop.
    ``held_out_share`` of the zoo's ARCHITECTURES never enter training: validation, the threshold
    and nothing else comes from them. Zoo models whose residual exceeds ``max_residual`` are left
    out. The learning rate rises linearly over ``warmup`` steps, stays, and falls linearly to zero
    over the last ``decay`` of the steps: until the fall begins, a training can be resumed with
    more ``steps`` or fewer. The class of ``extractor`` says which kind of network is trained.
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
    extractor: ExtractorConfig | PaperConfig = field(default_factory=ExtractorConfig)

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


def train_preset(name: TrainPreset) -> TrainConfig:
    """The plan of that name; change it with :func:`dataclasses.replace`.

    Parameters
    ----------
    name : {"default", "small", "paper"}
        ``"default"`` is what fpkit ships. ``"small"`` has a sixth of its weights and learns from
        it as a teacher. ``"paper"`` follows Yang et al. 2025: DnCNN residual,
        magnitude of the 2-D DFT and ResNet-50 (:class:`fpkit.paper.PaperExtractor`),
        cross-entropy over the zoo's models and batch-hard triplet loss with a margin of 0.3,
        AdamW at 1e-4, batches of 200, models of a zoo alone, images as they are.

    Notes
    -----
    Where ``"paper"`` knowingly departs: a batch is 50 models x 4 images, because among 200 models
    drawn out of thousands hardly an anchor has a positive; the network starts at random, not from
    ImageNet; the learning rate follows this module's rise and fall, not cosine restarts, so that
    a training of any length ends with a small one; the denoiser is another DnCNN of 17 layers,
    whose licence is free.
    """
    stream = StreamConfig(encoder="both", space="both")
    if name == "default":
        return TrainConfig(stream=stream)
    if name == "small":
        small = ExtractorConfig(widths=(32, 48, 64))
        return TrainConfig(loss="teacher", learning_rate=2e-3, stream=stream, extractor=small)
    if name == "paper":
        return TrainConfig(
            loss="ce+triplet",
            learning_rate=1e-4,
            weight_decay=0.01,  # AdamW's own; the paper names none
            stream=StreamConfig(
                models=50,
                images=4,
                random_share=0.0,
                jpeg_share=0.0,
                matched_share=0.0,
                off_grid_share=1.0,
            ),
            extractor=PaperConfig(),
        )
    raise ValueError(f"preset must be one of {get_args(TrainPreset)}, got {name!r}")
