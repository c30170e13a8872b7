"""Checks of lesson 10, attribute your own folder."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from fpkit.checks import attempted, exercise

Facts = dict[str, list[tuple[str, int, int]]]


@exercise("give-aways")
def _give_aways(answer: Any) -> str | None:
    """`answer(facts)` names the models that no other shares a (format, width, height) with."""
    png, large, jpeg = ("PNG", 128, 128), ("PNG", 256, 128), ("JPEG", 128, 128)
    facts: Facts = {"a": [png, png], "b": [png, large], "c": [jpeg, jpeg, jpeg]}
    if _names(answer, facts) != {"c"}:
        return "of three models, two with PNG of one size and one with JPEG only, it must name one"
    facts = {"a": [png], "b": [png, png], "c": [png]}
    if _names(answer, facts):
        return "all images have the same format and size, and a model was named all the same"
    facts = {"a": [png], "b": [("PNG", 128, 256)], "c": [png, large], "d": [large, jpeg]}
    if _names(answer, facts) != {"b"}:
        return "one model alone has another size (128 x 256, not 256 x 128), and must be named"
    facts = {"a": [png, jpeg], "b": [png], "c": [jpeg, large], "d": [large]}
    if _names(answer, facts):
        return "each of these models shares a format and size with another: none gives itself away"
    return None


def _names(answer: Any, facts: Facts) -> set[str]:
    found = attempted(answer({name: list(rows) for name, rows in facts.items()}))
    if isinstance(found, str):
        raise TypeError(f"expected a list of names, got the text {found!r}")
    return set(found)


@exercise("split")
def _split(answer: Any) -> str | None:
    """`answer(count, k, generator)` gives k random places to enrol, and all others to ask about."""
    drawn = []
    for seed in range(8):
        enrolled, probes = attempted(answer(20, 5, np.random.default_rng(seed)))
        enrolled, probes = [int(i) for i in enrolled], [int(i) for i in probes]
        if len(enrolled) != 5:
            return f"5 of 20 images were to be enrolled, got {len(enrolled)}"
        if set(enrolled) & set(probes):
            return "an image is enrolled and asked about as well: its score would flatter"
        if sorted(enrolled + probes) != list(range(20)):
            return "every place from 0 to count - 1 must be in one of the two, once"
        drawn.append(tuple(sorted(enrolled)))
    if len(set(drawn)) < 5:
        return "other generators must draw other images: the first files may be alike"
    again = attempted(answer(20, 5, np.random.default_rng(0)))
    if tuple(sorted(int(i) for i in again[0])) != drawn[0]:
        return "the same generator must give the same split: draw from `generator` only"
    return None


@exercise("honest-report")
def _honest_report(answer: Any) -> str | None:
    """`answer(truth, named, decisions, enrolled)`: three shares, every model counting alike."""
    truth = ["a"] * 8 + ["b"] * 2 + ["x"] * 4 + ["y"]
    named = ["a"] * 6 + ["b", "b"] + ["b", "a"] + ["a", "a", "b", "b"] + ["b"]
    decisions = (
        ["same"] * 4 + ["unsure", "different", "same", "unsure"]
        + ["different", "same"]
        + ["same", "different", "unsure", "different"] + ["same"]
    )  # fmt: skip
    found = attempted(answer(truth, named, decisions, ["a", "b"]))
    if not isinstance(found, Mapping) or set(found) != {"right", "wrong", "strangers"}:
        return f"expected a dictionary with right, wrong and strangers, got {found!r}"
    shares = {name: float(value) for name, value in found.items()}
    expected = {
        "right": (4 / 8 + 0) / 2,
        "wrong": (1 / 8 + 1 / 2) / 2,
        "strangers": (1 / 4 + 1) / 2,
    }
    pooled = {"right": 4 / 10, "wrong": 2 / 10, "strangers": 2 / 5}
    hints = {
        "right": "accepted, and under the right name; of the enrolled models only",
        "wrong": "accepted, and under a wrong name; of the enrolled models only",
        "strangers": "accepted at all; of the models that are not enrolled",
    }
    for name, value in expected.items():
        if abs(shares[name] - value) > 1e-6:
            if abs(shares[name] - pooled[name]) < 1e-6:
                return f"{name}: a model with many images counts more; take the mean over models"
            return f"{name} is {shares[name]:.3f}, which is not the share: {hints[name]}"
    return None
