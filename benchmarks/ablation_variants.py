"""What benchmarks/ablate.py compares: each variant differs from the default in one thing."""

from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from ablation_bank import Damage, FrontEnd, Models, Recipe

Keep = Literal["all", "power", "coherence", "magnitudes", "three", "rgb"]
Loss = Literal["contrastive", "ce", "ce+triplet"]


@dataclass(frozen=True, kw_only=True)
class BackEnd:
    """From embeddings to scores."""

    centre: Literal["none", "cohort", "gallery"] = "cohort"
    norm: Literal["none", "z", "s"] = "none"
    wccn: bool = False
    rule: Literal["mean", "max", "nearest 3"] = "mean"


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One row of the table: what differs from the default, and what it is set against."""

    group: str = "default"
    against: str = "default"
    recipe: Recipe = Recipe()
    front: FrontEnd = FrontEnd()
    keep: Keep = "all"
    welch: bool = False  # average the spectra of two crops before the network
    widths: tuple[int, ...] = (24, 48, 96)
    positions: int = 4
    resnet: bool = False
    standardise: bool = True
    loss: Loss = "contrastive"
    temperature: float = 0.07
    queue: int = 0  # past embeddings that the contrastive loss looks at
    queue_from: float = 0.0  # the share of the steps after which it is filled
    models: Models = "all"
    tests: tuple[str, ...] = ("clean", "jpeg85")
    small: bool = False  # half the images to train on, half the models to test


DAMAGES: tuple[Damage, ...] = get_args(Damage)[1:]
CLEAN = Recipe(jpeg_share=0, off_grid_share=0)
TESTS = {
    "clean": CLEAN,
    "jpeg85": replace(CLEAN, jpeg_share=1, quality=85),
    "off grid": replace(CLEAN, off_grid_share=1),
    **{damage: replace(CLEAN, damage=damage, damage_share=1) for damage in DAMAGES},
}
BACK_ENDS = {
    "no centring": BackEnd(centre="none"),
    "centred by the gallery": BackEnd(centre="gallery"),
    "z-norm": BackEnd(norm="z"),
    "s-norm": BackEnd(norm="s"),
    "within-class whitening": BackEnd(wccn=True),
    "template: nearest image": BackEnd(rule="max"),
    "template: 3 nearest images": BackEnd(rule="nearest 3"),
}
TWO_CROPS = "two crops, embeddings averaged"


def _variants() -> dict[str, Variant]:
    def row(group: str, **change: Any) -> Variant:
        return Variant(group=group, **change)

    def recipe(tests: tuple[str, ...] = Variant.tests, **change: Any) -> Variant:
        return row("augmentation", recipe=Recipe(**change), tests=tests)

    def front(**change: Any) -> Variant:
        return row("spectrum", front=FrontEnd(**change))

    def models(name: Models, against: str = "default", group: str = "training models") -> Variant:
        return row(group, models=name, against=against)

    grid = ("clean", "jpeg85", "off grid")
    photos, images = "photographs only", "training images"
    small = "small default"
    cheap = {"against": small, "recipe": Recipe(crop=64), "models": "quarter", "small": True}
    return {
        "default": Variant(tests=tuple(TESTS)),
        "magnitude": front(scale="magnitude"),
        "log(1 + magnitude)": front(scale="log magnitude"),
        "no window": front(window=False),
        "level at full resolution added": replace(front(full=True), widths=(16, 24, 48, 96)),
        "power only": row("spectrum", keep="power"),
        "coherence only": row("spectrum", keep="coherence"),
        "magnitudes of coherence": row("spectrum", keep="magnitudes"),
        "coherence at 3 distances": row("spectrum", keep="three"),
        "cross-channel coherence added": front(cross=True),
        "no colour differences": row("spectrum", keep="rgb"),
        "autocorrelation of log power": front(scale="autocorrelation"),
        "two crops, spectra averaged": row("spectrum", welch=True, against=TWO_CROPS),
        "median": row("residual", front=FrontEnd(residual="median")),
        "highpass": row("residual", front=FrontEnd(residual="highpass")),
        small: row("residual", **cheap),
        "DnCNN": row("residual", front=FrontEnd(residual="dncnn"), **cheap),
        "per channel": row("standardisation", standardise=False),
        "cross entropy": row("loss", loss="ce"),
        "cross entropy and triplet": row("loss", loss="ce+triplet"),
        "temperature 0.03": row("loss", temperature=0.03),
        "temperature 0.2": row("loss", temperature=0.2),
        "memory bank": row("loss", queue=1024),
        "memory bank, last quarter": row("loss", queue=1024, queue_from=0.75),
        "trained only": models("trained"),
        "random plain only": models("plain"),
        "random wide only": models("wide"),
        "random only": models("random"),
        "paper space only": models("paper"),
        "extended space only": models("extended"),
        "a quarter of the architectures": models("quarter"),
        "paper space one seed": models("paper one seed", "paper space only"),
        "half the paper space two seeds": models("paper two seeds", "paper space one seed"),
        photos: models("photographs", "default", images),
        "procedural only": models("procedural", photos, images),
        "both": models("both images", photos, images),
        "no JPEG": recipe(jpeg_share=0),
        "JPEG always": recipe(jpeg_share=1),
        "always on the grid": recipe(grid, off_grid_share=0),
        "always off the grid": recipe(grid, off_grid_share=1),
        **{f"half {d}": recipe(("clean", "jpeg85", d), damage=d) for d in DAMAGES},
        "half the widths": row("network", widths=(12, 24, 48)),
        "double widths": row("network", widths=(48, 96, 192)),
        "no positions": row("network", positions=0),
        "ResNet-50, width 32": row("network", resnet=True),
        "the paper's choices together, without its denoiser": row(
            "network",
            front=FrontEnd(scale="magnitude", window=False),
            keep="power",
            positions=0,
            standardise=False,
            resnet=True,
            loss="ce+triplet",
            models="paper",
            recipe=Recipe(jpeg_share=0, off_grid_share=1),
        ),
        "crop 64": row("crop", recipe=Recipe(crop=64)),
        "crop 96": row("crop", recipe=Recipe(crop=96)),
    }


VARIANTS = _variants()
