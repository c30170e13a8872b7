"""The ablation table: which synthetic models shape spectra as the real ones do?

Every row is a population of synthetic models (all of a zoo, or those without an axis of the
space, random decoders, ...) against the same real models, at equal n. See
:mod:`fpkit.populations` for what the figures are.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor

from fpkit.arch import AXES, PAPER, ArchSpace, ArchSpec
from fpkit.clouds import FloatArray, Radius
from fpkit.decoders import RandomDecoder
from fpkit.encoder import load_encoder
from fpkit.fidelity import (
    CROP,
    MARGIN,
    Population,
    View,
    random_population,
    source_population,
    zoo_population,
)
from fpkit.populations import Estimate, coverage, diversity, ffd
from fpkit.procedural import procedural_images
from fpkit.stream import Sources
from fpkit.zoo import Zoo

Result = dict[str, Any]

# "without an axis": only this option of it is left; U as in the paper, the others our choice
ONLY: dict[str, int | str] = {
    "K": 1,
    "L": 1,
    "U": "bilinear",
    "A": "relu",
    "N": "batch",
    "S": "post",
}
LEAST = 8  # fewer models than this give no row of figures
BANDWIDTH = 1.0  # dB; the same model seen on other images is 0.3 (real) to 0.6 dB away


@dataclass(frozen=True, kw_only=True)
class AblationConfig:
    """What is compared, and how.

    Attributes
    ----------
    random
        Number of random decoders of each kind; 0 leaves them out.
    every_option
        A row for every single option of every axis, not for one per axis.
    k
        Neighbours of :func:`fpkit.populations.coverage`.
    draws, seed
        Of all estimates.
    view
        How images are made and looked at; its residual must be that of the real models.
    """

    random: int = 40
    every_option: bool = False
    k: int = 3
    draws: int = 500
    seed: int = 0
    view: View = View()


def source_pool(tiles: str | Path | None, *, count: int = 192, seed: int = 0) -> Tensor:
    """Images to apply synthetic models to: (count, 3, 160, 160) in [0, 1].

    Parameters
    ----------
    tiles
        Photograph tiles, see :class:`fpkit.stream.Sources`; None: procedural images.
    count, seed
        How many, and the seed of their choice.
    """
    side = CROP + 2 * MARGIN
    if tiles is None:
        return procedural_images(count, side, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    return Sources(tiles, share=0.0).draw(count, generator=generator)[..., :side, :side]


def ablation(
    zoo: Zoo,
    real: Population,
    pool: Tensor,
    *,
    extended: Zoo | None = None,
    config: AblationConfig | None = None,
    progress: bool = False,
) -> Result:
    """Compare a zoo, parts of it and other synthetic models with real models.

    Parameters
    ----------
    zoo
        Its models of the paper's space are the full space; rows without an axis are parts.
    real
        Real models, at least 16, see :func:`fpkit.realworld.real_population`.
    pool
        Images to apply the synthetic models to, see :func:`source_pool`.
    extended
        A zoo of the extended space.
    config
        By default ``AblationConfig()``.
    progress
        Show bars on stderr.

    Returns
    -------
    dict
        ``n``, ``d``, ``config``, ``real`` (how the real models stand among themselves), ``rows``
        and ``seconds``; JSON can hold it. n is half the number of real models; a row of fewer
        models is computed at their number and says so, one of fewer than 8 has no figures.

    Raises
    ------
    ValueError
        If there are too few real models, or the zoo has no model of the paper's space.
    """
    config = AblationConfig() if config is None else config
    start = time.perf_counter()
    n = len(real) // 2
    if n < LEAST:
        raise ValueError(f"at least {2 * LEAST} real models are needed, got {len(real)}")
    specs = {entry["model_id"]: ArchSpec.parse(entry["arch_id"]) for entry in zoo.entries}
    inside = [name for name, spec in specs.items() if spec in PAPER]
    if not inside:
        raise ValueError(f"{zoo.path} has no model of the paper's space")
    view = config.view
    full = zoo_population(zoo, pool, names=inside, view=view, progress=progress)
    populations: dict[str, Population | None] = {"full space": full}
    for title, space in _parts(config.every_option):
        populations[title] = full.select(lambda name, space=space: specs[name] in space)
    oldest: dict[str, str] = {}  # architecture to the model of its lowest seed
    for entry in sorted(zoo.entries, key=lambda entry: entry["seed"]):
        oldest.setdefault(entry["arch_id"], entry["model_id"])
    first = set(oldest.values())
    populations["without seeds (one per architecture)"] = full.select(first.__contains__)
    reached = {entry["model_id"] for entry in zoo.entries if entry["reached"]}
    populations["only those trained to their target"] = full.select(reached.__contains__)
    for title, decoder in _decoders().items() if config.random else ():
        populations[title] = random_population(
            config.random, pool, decoder=decoder, view=view, progress=progress
        )
    if extended is not None:
        populations["extended space"] = zoo_population(extended, pool, view=view, progress=progress)
    populations["no model: the source images"] = source_population(len(real), pool, view=view)
    scaled = real.vectors()
    rows = [_row(title, found, full, scaled, n, config) for title, found in populations.items()]
    return {
        "n": n,
        "d": scaled.shape[1],
        "config": asdict(config),
        "real": _real_row(real, n, config),
        "rows": rows,
        "seconds": round(time.perf_counter() - start, 1),
    }


def _parts(every_option: bool) -> list[tuple[str, ArchSpace]]:
    """Title and space of each row without an axis."""
    rows = []
    for letter, (field, options) in AXES.items():
        for option in options if every_option else (ONLY[letter],):
            rows.append((f"without {letter} ({option} only)", PAPER.restrict(**{field: option})))
    return rows


def _decoders() -> dict[str, Callable[[int], RandomDecoder]]:
    """Title and maker of each kind of random decoder."""
    return {
        "random decoders": RandomDecoder,
        "random decoders, wide space": partial(RandomDecoder, space="wide"),
        "random decoders, wide space, trained encoder": partial(
            RandomDecoder, space="wide", encoder=load_encoder()
        ),
    }


def _row(
    title: str,
    population: Population | None,
    full: Population,
    real: FloatArray,
    n: int,
    config: AblationConfig,
) -> Result:
    models = 0 if population is None else len(population)
    if population is None or models < LEAST:
        return {"title": title, "models": models, "n": None}
    n = min(n, models, len(full))
    found = _comparisons(real, population.vectors(), n, config)
    row = {
        "title": title,
        "models": models,
        "n": n,
        **{name: _figures(estimate) for name, estimate in found.items()},
        **_diversities(population, n, config),
    }
    if population is not full:
        of_full = ffd(real, full.vectors(), n=n, draws=config.draws, seed=config.seed)
        gap, interval = found["ffd"].minus(of_full)
        row["ffd_minus_full"] = {"value": gap, "interval": list(interval)}
    return row


def _real_row(real: Population, n: int, config: AblationConfig) -> Result:
    """The real models among themselves: half against half, the baseline of every comparison."""
    vectors = real.vectors()
    halves = {
        name: {"value": found.baseline, "interval": list(found.baseline_interval or ())}
        for name, found in _comparisons(vectors, vectors, n, config).items()
    }
    return {"models": len(real), "n": n, **halves, **_diversities(real, n, config)}


def _comparisons(
    real: FloatArray, synthetic: FloatArray, n: int, config: AblationConfig
) -> dict[str, Estimate]:
    draws, seed = config.draws, config.seed
    found = {"ffd": ffd(real, synthetic, n=n, draws=draws, seed=seed)}
    for radius in get_args(Radius):
        found[f"coverage_{radius}_radius"] = coverage(
            real, synthetic, k=config.k, radius=radius, n=n, draws=draws, seed=seed
        )
    return found


def _diversities(population: Population, n: int, config: AblationConfig) -> Result:
    """Vendi score, and mean pairwise distance as root mean square dB over the rings."""
    scale = np.sqrt(population.profiles[0].shape[1])
    vectors = population.vectors() / scale
    within = population.resampled(n, seed=config.seed) / scale
    shared = {"within": within, "n": n, "draws": config.draws, "seed": config.seed}
    return {
        "vendi": _figures(diversity(vectors, bandwidth=BANDWIDTH, **shared)),
        "distance_db": _figures(diversity(vectors, variety="distance", **shared)),
    }


def _figures(estimate: Estimate) -> Result:
    found: Result = {"value": estimate.value, "interval": list(estimate.interval)}
    if estimate.baseline is not None and estimate.baseline_interval is not None:
        found["baseline"] = estimate.baseline
        found["baseline_interval"] = list(estimate.baseline_interval)
    return found


# ---- as text -----------------------------------------------------------------------------------

HEADS = (
    "synthetic models",
    "models",
    "n",
    "FFD",
    "FFD minus full space",
    "Vendi score",
    "distance, dB",
    "coverage, synthetic radius",
    "coverage, real radius",
)


def to_markdown(result: Result) -> str:
    """The result of :func:`ablation` as a Markdown table with what is needed to read it.

    An entry ``"compared"`` (name to text) that was added to the result is printed above it.
    """
    view = result["config"]["view"]
    n, real = result["n"], result["real"]
    quality = view["jpeg_quality"]
    stored = "8-bit" if quality is None else f"JPEG {quality}"
    compared = result.get("compared", {})
    lines = [
        *(f"{name.replace('_', ' ')}: {what}.  " for name, what in compared.items()),
        f"{real['models']} real models; synthetic images: {view['images']} per model, {stored}, "
        f"residual `{view['residual']}`, {view['crop']} pixels; d = {result['d']} rings, in dB.",
        "",
        _line(HEADS),
        _line(["---", *["---:"] * (len(HEADS) - 1)]),
        _line(_cells("*real models, half against half*", real, n)),
        *(_line(_cells(row["title"], row, n)) for row in result["rows"]),
        "",
        f"Means over groups of n = {n} models (rows of fewer models: of their number, marked \\*); "
        f"95% intervals from {result['config']['draws']} draws of half of the models "
        "(too narrow for rows of fewer than 2 n). FFD: lower is closer; half of the real models "
        f"against the other half have {_number(real['ffd']['value'])}. Vendi score (bandwidth "
        f"{BANDWIDTH:g} dB) and mean "
        "pairwise distance (root mean square over the rings): in brackets what other images of "
        "one and the same model give. Coverage: share of the real models with a synthetic one in "
        "reach; the radius is how far the synthetic (or the real) model is from its neighbour "
        f"number {result['config']['k']} of its own kind.",
    ]
    return "\n".join(lines) + "\n"


def _cells(title: str, row: Mapping[str, Any], n: int) -> list[str]:
    if row["n"] is None:
        return [title, str(row["models"]), *["-"] * (len(HEADS) - 2)]
    mark = " \\*" if row["n"] < n else ""
    gap = row.get("ffd_minus_full")
    return [
        title,
        str(row["models"]),
        f"{row['n']}{mark}",
        _with_interval(row["ffd"]),
        "" if gap is None else _with_interval(gap, sign="+"),
        _with_baseline(row["vendi"]),
        _with_baseline(row["distance_db"]),
        _number(row["coverage_synthetic_radius"]["value"]),
        _number(row["coverage_real_radius"]["value"]),
    ]


def _with_interval(found: Mapping[str, Any], sign: str = "") -> str:
    low, high = (_number(value, sign) for value in found["interval"])
    return f"{_number(found['value'], sign)} [{low}, {high}]"


def _with_baseline(found: Mapping[str, Any]) -> str:
    return f"{_number(found['value'])} ({_number(found['baseline'])})"


def _number(value: float, sign: str = "") -> str:
    digits = 0 if abs(value) >= 20 else 1 if abs(value) >= 10 else 2
    return f"{value:{sign}.{digits}f}"


def _line(cells: list[str] | tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |"
