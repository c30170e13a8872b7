"""Architectures of synthetic models: the axes K L U A N S, their options and readable ids.

No torch here: an :class:`ArchSpec` is a plain value that can be printed, compared, hashed and
stored in a manifest.
"""

import itertools
from dataclasses import dataclass
from typing import Literal, get_args

Upsample = Literal["nearest", "bilinear", "deconv"]
Activation = Literal["none", "relu", "sigmoid", "tanh"]
Norm = Literal["none", "batch", "instance"]
Order = Literal["pre", "post"]

# axis letter -> (field of ArchSpec, its options), in the order in which ids are written
AXES: dict[str, tuple[str, tuple[int | str, ...]]] = {
    "K": ("blocks", (1, 2)),
    "L": ("layers", (1, 2)),
    "U": ("upsample", get_args(Upsample)),
    "A": ("activation", get_args(Activation)),
    "N": ("norm", get_args(Norm)),
    "S": ("order", get_args(Order)),
}


@dataclass(frozen=True, kw_only=True)
class ArchSpec:
    """One architecture of the paper's space of 288.

    Parameters
    ----------
    blocks : {1, 2}
        K, how many up blocks (and, mirrored, down blocks) the model has.
    layers : {1, 2}
        L, convolutions per up block.
    upsample : {"nearest", "bilinear", "deconv"}
        U, the x2 upsampling; ``deconv`` is a learnt 3x3 transposed convolution of stride 2.
    activation : {"none", "relu", "sigmoid", "tanh"}
        A.
    norm : {"none", "batch", "instance"}
        N.
    order : {"pre", "post"}
        S, activation and normalisation before or after each convolution.

    Raises
    ------
    ValueError
        If an option is not one of its axis.

    References
    ----------
    Yang et al., "Model Synthesis for Zero-Shot Model Attribution", IEEE TMM 27, 2025.

    Examples
    --------
    >>> spec = ArchSpec(upsample="deconv", activation="tanh")
    >>> spec.id
    'K2-L1-Udeconv-Atanh-Nbatch-Spost'
    >>> ArchSpec.parse(spec.id) == spec
    True
    """

    blocks: int = 2
    layers: int = 1
    upsample: Upsample = "nearest"
    activation: Activation = "relu"
    norm: Norm = "batch"
    order: Order = "post"

    def __post_init__(self) -> None:
        for letter, (field, options) in AXES.items():
            value = getattr(self, field)
            if isinstance(value, bool) or value not in options:
                raise ValueError(f"{field} (axis {letter}) must be one of {options}, got {value!r}")

    @property
    def id(self) -> str:
        """Readable id, e.g. ``K2-L1-Unearest-Arelu-Nbatch-Spost``; round trips with `parse`."""
        return "-".join(f"{letter}{getattr(self, field)}" for letter, (field, _) in AXES.items())

    @classmethod
    def parse(cls, arch_id: str) -> "ArchSpec":
        """Return the spec of a readable id; raise ValueError naming what is wrong with it."""
        parts = arch_id.split("-")
        example = cls().id
        if [part[:1] for part in parts] != list(AXES):
            raise ValueError(
                f"arch_id must have the parts {'-'.join(AXES)}, as {example}; got {arch_id!r}"
            )
        fields: dict[str, int | str] = {}
        for part in parts:
            field, options = AXES[part[0]]
            names = {str(option): option for option in options}
            if part[1:] not in names:
                raise ValueError(
                    f"arch_id {arch_id!r}: {part!r} is no option of axis {part[0]} ({field}), "
                    f"which has {', '.join(part[0] + name for name in names)}"
                )
            fields[field] = names[part[1:]]
        return cls(**fields)  # type: ignore[arg-type]  # names were checked against AXES

    def __str__(self) -> str:
        return self.id


def paper_specs() -> tuple[ArchSpec, ...]:
    """All 2*2*3*4*3*2 = 288 architectures of the paper, in a fixed order.

    Examples
    --------
    >>> len(paper_specs()), paper_specs()[0].id
    (288, 'K1-L1-Unearest-Anone-Nnone-Spre')
    """
    fields = [field for field, _ in AXES.values()]
    options = [choices for _, choices in AXES.values()]
    rows = itertools.product(*options)
    return tuple(ArchSpec(**dict(zip(fields, row, strict=True))) for row in rows)


def model_id(spec: ArchSpec, seed: int) -> str:
    """``<arch_id>/seed<k>``, the name of one synthetic model."""
    return f"{spec.id}/seed{seed}"
