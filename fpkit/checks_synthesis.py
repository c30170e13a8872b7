"""Checks of lesson 04, how to build synthetic models."""

from collections.abc import Iterable, Mapping
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fpkit.arch import PAPER, ArchSpec, model_id
from fpkit.checks import attempted, exercise

SEEDS = 20


@exercise("count-architectures")
def _count_architectures(answer: object) -> str | None:
    """(architectures with a deconvolution and no normalisation, models at 20 seeds each)."""
    if isinstance(answer, str) or not isinstance(answer, Iterable):
        return f"two numbers are asked for, (architectures, models), got {answer!r}"
    archs, models = (int(number) for number in answer)
    right = len(PAPER.restrict(upsample="deconv", norm="none"))
    if archs == len(PAPER.restrict(upsample="deconv")):
        return f"{archs} fulfil one of the two conditions: restrict upsampling and normalisation"
    if archs != right:
        return f"{archs} is not the number of architectures: multiply the options left on each axis"
    if models != SEEDS * right:
        return f"the architectures are right; {models} is not {SEEDS} models of each of them"
    return None


@exercise("share-reached")
def _share_reached(answer: object) -> str | None:
    """`answer(entries, field)` -> {option: share of its models that reached eta}."""
    entries = [
        _entry(ArchSpec(blocks=1 + k % 2, norm=norm), seed=k, reached=k < reached)
        for norm, count, reached in (("none", 4, 3), ("batch", 5, 1), ("instance", 2, 0))
        for k in range(count)
    ]
    shares = {"none": 0.75, "batch": 0.2, "instance": 0.0}
    given = _shares(answer, entries, "norm")
    if isinstance(given, str):
        return given
    if "instance" not in given:
        return "an option of which no model reached eta is missing: its share is 0"
    if set(given) != set(shares):
        return f"for the field 'norm' the keys must be the options found there, got {list(given)}"
    if all(np.isclose(given[k], 100 * shares[k]) for k in shares):
        return "these are per cent: a share lies between 0 and 1"
    if max(given.values()) > 1:
        return "a value is above 1: divide the count by the number of models with that option"
    if not all(np.isclose(given[k], shares[k]) for k in shares):
        return (
            "the shares of three options with 4, 5 and 2 models are wrong: divide by the number of "
            "models of that option, not by that of all or of those that reached eta"
        )
    blocks = _shares(answer, entries, "blocks")
    if isinstance(blocks, str):
        return blocks
    expected = {
        option: float(np.mean([e["reached"] for e in entries if e["arch_id"][1] == str(option)]))
        for option in (1, 2)
    }
    if blocks.keys() != expected.keys():
        return f"for the field 'blocks' the keys must be the numbers 1 and 2, got {list(blocks)}"
    if not all(np.isclose(blocks[k], expected[k]) for k in expected):
        return "right for 'norm' and wrong for 'blocks': use the field that is asked for"
    return None


def _entry(spec: ArchSpec, *, seed: int, reached: bool) -> dict[str, Any]:
    """As a zoo's manifest has it, as far as the exercise needs it."""
    return {
        "model_id": model_id(spec, seed),
        "arch_id": spec.id,
        "seed": seed,
        "residual": 0.004 if reached else 0.02,
        "reached": reached,
    }


def _shares(answer: object, entries: list[dict[str, Any]], field: str) -> dict[Any, float] | str:
    given = attempted(answer([dict(entry) for entry in entries], field))  # type: ignore[operator]
    if not isinstance(given, Mapping):
        return f"a dictionary from option to share is asked for, got {type(given).__name__}"
    return {option: float(share) for option, share in given.items()}


@exercise("same-and-other")
def _same_and_other(answer: object) -> str | None:
    """`answer(patterns)` -> mean correlations (same architecture, different architectures)."""
    patterns = _drawn_patterns()
    expected = _mean_correlations(patterns)
    given = attempted(answer(dict(patterns)))  # type: ignore[operator]
    try:
        same, other = (float(value) for value in given)
    except (TypeError, ValueError):
        return f"two numbers are asked for, (same, other), got {given!r}"
    if np.allclose((same, other), expected, atol=1e-6):
        return None
    if np.allclose((other, same), expected, atol=1e-6):
        return "the two numbers are right and in the wrong order: first the same architecture"
    if np.isclose(same, _with_itself(patterns), atol=1e-6):
        return "a model was compared with itself, which always gives 1: leave the diagonal out"
    if np.isclose(other, np.mean([*_correlations(patterns).values()]), atol=1e-6):
        return "`other` is the mean over all pairs: leave out those of one architecture"
    if np.isclose(same, expected[0], atol=1e-6):
        return f"`same` is right, `other` is not: got {other:.3f}"
    if np.isclose(other, expected[1], atol=1e-6):
        return f"`other` is right, `same` is not: got {same:.3f}"
    if max(abs(same), abs(other)) > 1:
        return f"a correlation lies between -1 and 1, got {same:.3f} and {other:.3f}"
    return (
        f"both are wrong on patterns with known answers, got {same:.3f} and {other:.3f}: the "
        'architecture is what stands before "/seed" in the name'
    )


Patterns = dict[str, NDArray[np.float64]]


def _drawn_patterns() -> Patterns:
    """Three architectures with 3, 2 and 4 seeds: a common part, one of each, and noise."""
    generator = np.random.default_rng(4)
    common = generator.normal(size=(16, 16))
    patterns: Patterns = {}
    specs = (ArchSpec(), ArchSpec(upsample="deconv"), ArchSpec(upsample="deconv", norm="none"))
    for spec, seeds in zip(specs, (3, 2, 4), strict=True):
        own = generator.normal(size=(16, 16))
        for seed in range(seeds):
            noise = generator.normal(size=(16, 16))
            patterns[model_id(spec, seed)] = 5 + 2 * common + 3 * own + 2 * noise
    return patterns


def _arch(name: str) -> str:
    return name.partition("/")[0]


def _correlations(patterns: Patterns) -> dict[tuple[str, str], float]:
    """Of all pairs of different models."""
    return {
        (a, b): float(np.corrcoef(patterns[a].ravel(), patterns[b].ravel())[0, 1])
        for a, b in combinations(patterns, 2)
    }


def _mean_correlations(patterns: Patterns) -> tuple[float, float]:
    pairs = _correlations(patterns).items()
    same = [value for (a, b), value in pairs if _arch(a) == _arch(b)]
    other = [value for (a, b), value in pairs if _arch(a) != _arch(b)]
    return float(np.mean(same)), float(np.mean(other))


def _with_itself(patterns: Patterns) -> float:
    """Mean over the blocks of the table with the diagonal."""
    pairs = [value for (a, b), value in _correlations(patterns).items() if _arch(a) == _arch(b)]
    return float(np.mean([*pairs, *pairs, *[1.0] * len(patterns)]))
