"""Architectures of synthetic models: their axes, options and readable ids, and spaces of them.

No torch here: an :class:`ArchSpec` is a plain value that can be printed, compared, hashed and
stored in a manifest; an :class:`ArchSpace` says which of them there are.
"""

import itertools
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal, get_args

Upsample = Literal["nearest", "bilinear", "deconv", "bicubic", "shuffle", "fir", "unpatch"]
Activation = Literal["none", "relu", "sigmoid", "tanh", "leaky", "silu", "gelu", "elu"]
Norm = Literal["none", "batch", "instance", "group", "layer"]
Order = Literal["pre", "post"]
Kernel = Literal[1, 3, 5, "mix"]
Skip = Literal["none", "shortcut"]
Option = int | str

# axis letter -> (field of ArchSpec, all its options), in the order in which ids are written
_ALL_AXES: dict[str, tuple[str, tuple[Option, ...]]] = {
    "K": ("blocks", (1, 2, 3)),
    "L": ("layers", (1, 2)),
    "U": ("upsample", get_args(Upsample)),
    "A": ("activation", get_args(Activation)),
    "N": ("norm", get_args(Norm)),
    "S": ("order", get_args(Order)),
    "F": ("kernel", get_args(Kernel)),
    "X": ("skip", get_args(Skip)),
}
_PAPER_LETTERS = tuple("KLUANS")  # always in an id; the others only where they are not default


@dataclass(frozen=True, kw_only=True)
class ArchSpec:
    """One architecture; the defaults of ``kernel`` and ``skip`` are the paper's.

    Parameters
    ----------
    blocks : {1, 2, 3}
        K, how many up blocks (and, mirrored, down blocks) the model has; 3 is the factor 8 of
        the autoencoders of latent diffusion.
    layers : {1, 2}
        L, convolutions per up block.
    upsample : {"nearest", "bilinear", "deconv", "bicubic", "shuffle", "fir", "unpatch"}
        U, the x2 upsampling. ``deconv`` is a learnt 3x3 transposed convolution of stride 2;
        ``shuffle`` a 3x3 convolution to four times the channels, then pixel shuffle; ``fir``
        zero insertion and a fixed low-pass filter of 12 taps, as in StyleGAN3. ``unpatch`` is
        the patch un-embedding of transformers: the blocks before the last keep the low
        resolution, and the last one maps every position to a patch of 2**blocks pixels at once.
    activation : {"none", "relu", "sigmoid", "tanh", "leaky", "silu", "gelu", "elu"}
        A; ``leaky`` has the slope 0.2 below zero.
    norm : {"none", "batch", "instance", "group", "layer"}
        N; ``group`` has 8 groups (one, where there are only the 3 channels of the image),
        ``layer`` normalises all channels and positions of an image together.
    order : {"pre", "post"}
        S, activation and normalisation before or after each convolution.
    kernel : {1, 3, 5, "mix"}
        F, size of the convolutions of the up blocks; ``mix`` sums 1x1, 3x3 and 5x5 branches
        with learnt weights.
    skip : {"none", "shortcut"}
        X; ``shortcut`` adds to every up block a 1x1 convolution of its upsampled input, so that
        the marks of the upsampling reach the output past the kernels and activations.

    Raises
    ------
    ValueError
        If an option is not one of its axis.

    References
    ----------
    Axes K L U A N S: Yang et al., "Model Synthesis for Zero-Shot Model Attribution", IEEE TMM 27,
    2025. Mixed kernels: "One for All: synthesis-free fingerprint learning", AAAI 2026.

    Examples
    --------
    >>> spec = ArchSpec(upsample="deconv", activation="tanh")
    >>> spec.id
    'K2-L1-Udeconv-Atanh-Nbatch-Spost'
    >>> ArchSpec(blocks=3, upsample="bicubic", kernel="mix", skip="shortcut").id
    'K3-L1-Ubicubic-Arelu-Nbatch-Spost-Fmix-Xshortcut'
    >>> ArchSpec.parse(spec.id) == spec
    True
    """

    blocks: int = 2
    layers: int = 1
    upsample: Upsample = "nearest"
    activation: Activation = "relu"
    norm: Norm = "batch"
    order: Order = "post"
    kernel: Kernel = 3
    skip: Skip = "none"

    def __post_init__(self) -> None:
        for letter, (name, options) in _ALL_AXES.items():
            value = getattr(self, name)
            if isinstance(value, bool) or value not in options:
                raise ValueError(f"{name} (axis {letter}) must be one of {options}, got {value!r}")

    @property
    def id(self) -> str:
        """Readable id, e.g. ``K2-L1-Unearest-Arelu-Nbatch-Spost``; round trips with `parse`."""
        return "-".join(
            f"{letter}{getattr(self, name)}"
            for letter, (name, _) in _ALL_AXES.items()
            if letter in _PAPER_LETTERS or getattr(self, name) != getattr(type(self), name)
        )

    @property
    def factor(self) -> int:
        """How many times smaller the sides of the code are; sides of images are multiples of it."""
        return 2**self.blocks

    @classmethod
    def parse(cls, arch_id: str) -> "ArchSpec":
        """Return the spec of a readable id; raise ValueError naming what is wrong with it."""
        parts = arch_id.split("-")
        letters = [part[:1] for part in parts]
        known = len(_PAPER_LETTERS)
        extra = [letter for letter in _ALL_AXES if letter not in _PAPER_LETTERS]
        if letters[:known] != list(_PAPER_LETTERS) or not set(letters[known:]) <= set(extra):
            raise ValueError(
                f"arch_id must have the parts {'-'.join(_PAPER_LETTERS)}, as {cls().id}, "
                f"then perhaps {' and '.join(extra)}; got {arch_id!r}"
            )
        chosen: dict[str, Option] = {}
        for part in parts:
            name, options = _ALL_AXES[part[0]]
            names = {str(option): option for option in options}
            if part[1:] not in names:
                raise ValueError(
                    f"arch_id {arch_id!r}: {part!r} is no option of axis {part[0]} ({name}), "
                    f"which has {', '.join(part[0] + option for option in names)}"
                )
            chosen[name] = names[part[1:]]
        spec = cls(**chosen)  # type: ignore[arg-type]  # names were checked against the axes
        if spec.id != arch_id:  # a default spelt out, a part twice, parts in another order
            raise ValueError(f"arch_id {arch_id!r} must be written {spec.id!r}")
        return spec

    def __str__(self) -> str:
        return self.id


@dataclass(frozen=True, kw_only=True)
class ArchSpace:
    """The architectures that combine the options of every axis, less the excluded combinations.

    Parameters
    ----------
    blocks, layers, upsample, activation, norm, order, kernel, skip : tuple
        The options of every field of :class:`ArchSpec`; the defaults are the paper's.
    excluded : tuple of mappings from field to options
        A spec is left out if for any of these mappings all its named fields have one of the
        options given there.

    Raises
    ------
    ValueError
        If an option is unknown, given twice, or an axis has none.

    Examples
    --------
    >>> len(PAPER), len(PAPER.restrict(upsample="bilinear")), PAPER.sample(1, seed=0)[0] in PAPER
    (288, 96, True)
    >>> next(iter(EXTENDED.restrict(blocks=3, kernel=("mix",)))).id
    'K3-L1-Unearest-Anone-Nnone-Spre-Fmix'
    """

    blocks: tuple[int, ...] = (1, 2)
    layers: tuple[int, ...] = (1, 2)
    upsample: tuple[Upsample, ...] = ("nearest", "bilinear", "deconv")
    activation: tuple[Activation, ...] = ("none", "relu", "sigmoid", "tanh")
    norm: tuple[Norm, ...] = ("none", "batch", "instance")
    order: tuple[Order, ...] = ("pre", "post")
    kernel: tuple[Kernel, ...] = (3,)
    skip: tuple[Skip, ...] = ("none",)
    excluded: tuple[Mapping[str, tuple[Option, ...]], ...] = field(default=(), hash=False)

    def __post_init__(self) -> None:
        for letter, (name, options) in _ALL_AXES.items():
            chosen = getattr(self, name)
            if not isinstance(chosen, tuple) or not chosen or len(set(chosen)) < len(chosen):
                raise ValueError(f"{name} must be a tuple of distinct options, got {chosen!r}")
            for value in chosen:
                if isinstance(value, bool) or value not in options:
                    raise ValueError(f"{name} (axis {letter}) has {options}, got {value!r}")
        unknown = {name for rule in self.excluded for name in rule} - set(_FIELDS)
        if unknown:
            raise ValueError(f"excluded must name fields out of {_FIELDS}, got {sorted(unknown)}")

    @cached_property
    def _rows(self) -> tuple[tuple[Option, ...], ...]:
        """The valid specs as rows of options, in the order of iteration."""
        rows = itertools.product(*(getattr(self, name) for name in _FIELDS))
        return tuple(row for row in rows if self._allows(dict(zip(_FIELDS, row, strict=True))))

    def _allows(self, chosen: Mapping[str, Option]) -> bool:
        return not any(
            all(chosen[name] in options for name, options in rule.items()) for rule in self.excluded
        )

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[ArchSpec]:
        return map(_spec, self._rows)

    def __contains__(self, spec: object) -> bool:
        if not isinstance(spec, ArchSpec):
            return False
        chosen = {name: getattr(spec, name) for name in _FIELDS}
        inside = all(value in getattr(self, name) for name, value in chosen.items())
        return inside and self._allows(chosen)

    def sample(self, n: int, *, seed: int) -> tuple[ArchSpec, ...]:
        """Draw `n` specs, each valid spec being equally likely.

        None comes twice before all have come once. A larger `n` continues a smaller one with the
        same seed.
        """
        if n < 0 or (n and not len(self)):
            raise ValueError(f"cannot draw {n} specs from a space of {len(self)}")
        generator = random.Random(seed)
        rows: list[tuple[Option, ...]] = []
        while len(rows) < n:
            rows += generator.sample(self._rows, len(self))
        return tuple(map(_spec, rows[:n]))

    def restrict(self, **options: Option | Sequence[Option]) -> "ArchSpace":
        """Return the smaller space with only these options of the named fields.

        Answers: what does an axis contribute? ``PAPER.restrict(upsample="bilinear")`` is the
        paper's space without U.

        Raises
        ------
        ValueError
            If a field is unknown, or an option is not in this space.
        """
        smaller: dict[str, tuple[Option, ...]] = {}
        for name, given in options.items():
            if name not in _FIELDS:
                raise ValueError(f"restrict knows the fields {_FIELDS}, got {name!r}")
            smaller[name] = (given,) if isinstance(given, int | str) else tuple(given)
            missing = [value for value in smaller[name] if value not in getattr(self, name)]
            if missing:
                raise ValueError(f"{name} has {getattr(self, name)} in this space, got {missing}")
        return replace(self, **smaller)  # type: ignore[arg-type]  # options were checked above


_FIELDS = tuple(name for name, _ in _ALL_AXES.values())


def _spec(row: tuple[Option, ...]) -> ArchSpec:
    return ArchSpec(**dict(zip(_FIELDS, row, strict=True)))  # type: ignore[arg-type]


PAPER = ArchSpace()
"""The paper's 2*2*3*4*3*2 = 288 architectures."""

EXTENDED = ArchSpace(
    **dict(_ALL_AXES.values()),  # type: ignore[arg-type]  # every option of every axis
    excluded=(
        # 1x1 kernels after nearest upsampling cannot make anything but constant squares
        {"upsample": ("nearest",), "kernel": (1,)},
        # without an activation the shortcut is one more tap of the same kernel
        {"skip": ("shortcut",), "activation": ("none",)},
        # the only normalisation is that of the 3 output channels: one group is a layer norm
        {"norm": ("group",), "blocks": (1,), "layers": (1,), "order": ("post",)},
    ),
)
"""The paper's space and what generators since then are made of; contains `PAPER`."""

AXES: dict[str, tuple[str, tuple[Option, ...]]] = {
    letter: (_ALL_AXES[letter][0], getattr(PAPER, _ALL_AXES[letter][0]))
    for letter in _PAPER_LETTERS
}
"""Axis letter to (field of ArchSpec, its options in the paper), in the order of ids."""


def model_id(spec: ArchSpec, seed: int) -> str:
    """``<arch_id>/seed<k>``, the name of one synthetic model."""
    return f"{spec.id}/seed{seed}"
