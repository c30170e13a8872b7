"""What a zoo shall hold: the plans behind the presets of ``fpkit zoo build``."""

import random
from dataclasses import dataclass
from typing import Literal

from fpkit.arch import EXTENDED, PAPER, ArchSpec, model_id
from fpkit.synthesis import ETA, MAX_STEPS, Precision
from fpkit.zoo import Storage

Preset = Literal["tiny", "starter", "paper", "extended"]


@dataclass(frozen=True, kw_only=True)
class ZooPlan:
    """Which models a zoo shall have and how they are trained.

    ``archs`` are ids in the order of work; each is trained with seeds 0 to ``seeds - 1``, until
    its residual is ``eta`` or for ``max_steps``; ``precision`` is that of the arithmetic,
    ``storage`` that of the files.
    """

    archs: tuple[str, ...]
    seeds: int
    eta: float = ETA
    max_steps: int = MAX_STEPS
    precision: Precision = "bfloat16"
    storage: Storage = "float32"

    def __post_init__(self) -> None:
        if not self.archs or len(set(self.archs)) < len(self.archs):
            raise ValueError(f"archs must be distinct and at least one, got {len(self.archs)}")
        if self.seeds < 1:
            raise ValueError(f"seeds must be at least 1, got {self.seeds}")

    @property
    def model_ids(self) -> list[str]:
        """All models, in the order of the manifest."""
        return [name for arch in self.archs for name in self.stack(arch)]

    def stack(self, arch: str) -> list[str]:
        """The models of one architecture, which train together."""
        return [model_id(ArchSpec.parse(arch), seed) for seed in range(self.seeds)]


def preset_plan(preset: Preset) -> ZooPlan:
    """The plan of a preset.

    ``tiny`` (8 models) is for a first try; ``starter`` (80 architectures of the paper's space,
    one seed each) is what ships; ``paper`` (5760) is the paper's whole space with 20 seeds;
    ``extended`` (4000) has 1000 architectures drawn from the extended space, with 4 seeds.
    The order is a seeded shuffle: any beginning of it covers the axes.
    """
    paper = [spec.id for spec in PAPER]
    random.Random(0).shuffle(paper)
    if preset == "tiny":
        return ZooPlan(archs=tuple(paper[:4]), seeds=2, max_steps=60)
    if preset == "starter":
        return ZooPlan(archs=tuple(paper[:80]), seeds=1, storage="float16")
    if preset == "paper":
        return ZooPlan(archs=tuple(paper), seeds=20)
    if preset == "extended":
        drawn = EXTENDED.sample(1000, seed=0)
        return ZooPlan(archs=tuple(spec.id for spec in drawn), seeds=4)
    raise ValueError(f"preset must be tiny, starter, paper or extended, got {preset!r}")
