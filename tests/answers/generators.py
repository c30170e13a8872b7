"""Answers to the exercises of lesson 09: see tests/test_checks.py."""

import numpy as np


def border_step(image, first=7, axis=1, measure=abs):
    steps = measure(np.diff(image, axis=axis)).mean(axis=1 - axis)
    border = np.arange(len(steps)) % 8 == first
    return steps[border].mean() / steps[~border].mean()


def by_slices(image):
    steps = np.abs(image[:, 1:] - image[:, :-1])
    border = steps[:, 7::8]
    rest = (steps.sum() - border.sum()) / (steps.size - border.size)
    return border.mean() / rest


def difference(image):
    steps = abs(np.diff(image, axis=1)).mean(axis=0)
    border = np.arange(len(steps)) % 8 == 7
    return 1 + steps[border].mean() - steps[~border].mean()


RIGHT = {
    "p-value": [
        lambda observed, shuffled: (1 + np.sum(shuffled >= observed)) / (1 + len(shuffled)),
        lambda observed, shuffled: np.mean(np.append(shuffled, observed) >= observed),
    ],
    "border-step": [border_step, by_slices],
    "moved-peak": [0.25 / 0.8, 0.3125, -0.3125, np.float64(0.3125)],
}
WRONG = {
    "p-value": [
        lambda observed, shuffled: np.mean(shuffled >= observed),
        lambda observed, shuffled: (1 + np.sum(shuffled > observed)) / (1 + len(shuffled)),
        lambda observed, shuffled: (1 + np.sum(shuffled <= observed)) / (1 + len(shuffled)),
        lambda observed, shuffled: np.mean(shuffled < observed),
        0.01,
    ],
    "border-step": [
        lambda image: border_step(image, first=0),
        lambda image: border_step(image, first=6),
        lambda image: border_step(image, axis=0),
        lambda image: border_step(image, measure=np.square),
        lambda image: border_step(image, measure=lambda steps: steps),
        lambda image: 1 / border_step(image),
        difference,
        1.2,
    ],
    "moved-peak": [0.2, 3.2, 0.25, 0.8, "0.3125 cycles"],
}
OPEN = {
    "p-value": [..., lambda observed, shuffled: ...],
    "border-step": [..., lambda image: None],
    "moved-peak": [..., None],
}
