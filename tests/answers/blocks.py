"""Answers to the exercises of lesson 03: see tests/test_checks.py."""

import numpy as np


def notch(frequency):
    a = 1 / (2 - 2 * np.cos(2 * np.pi * frequency))
    return [a, 1 - 2 * a, a]


def notch_by_solving(frequency):
    rows = [[2, 1], [2 * np.cos(2 * np.pi * frequency), 1]]
    a, b = np.linalg.solve(rows, [1, 0])
    return np.array([a, b, a])


def fold(frequency):
    rest = frequency % 1
    return min(rest, 1 - rest)


def fold_by_rounding(frequency):
    return abs(frequency - np.round(frequency))


def second(frequency, order):
    passing = 2 * frequency if order == "pre" else frequency
    return 2 / (3 * np.pi) * np.cos(np.pi * passing) ** 2


def second_measured(frequency, order):
    theta = 2 * np.pi * np.arange(1000) / 1000
    c2 = np.abs(np.fft.rfft(np.maximum(np.cos(theta), 0)))[2] / 500
    return c2 * (1 + np.cos(2 * np.pi * frequency * (2 if order == "pre" else 1))) / 2


RIGHT = {
    "notch-filter": [notch, notch_by_solving],
    "fold-frequency": [fold, fold_by_rounding],
    "second-harmonic": [second, second_measured],
    "blocks-that-sign": [2, 2.0, np.int64(2)],
}
WRONG = {
    "notch-filter": [
        lambda f: [0.25, 0.5, 0.25],
        lambda f: [1, -2 * np.cos(2 * np.pi * f), 1],
        lambda f: [0.0, 1.0, 0.0],
        lambda f: notch(f)[:2],
        lambda f: [0.5, 0.0, 0.4],
        0.5,
    ],
    "fold-frequency": [
        lambda f: f % 0.5,
        lambda f: 1 - f,
        lambda f: min(abs(f), 0.5),
        lambda f: abs(1 - f) if f > 0.5 else abs(f),
        "0.4",
    ],
    "second-harmonic": [
        lambda f, order: second(f, "pre"),
        lambda f, order: second(f, {"pre": "post", "post": "pre"}[order]),
        lambda f, order: second(f, order) * 3 * np.pi / 2,
        lambda f, order: 2 / (3 * np.pi) * np.cos(np.pi * f) ** 4,
        lambda f: 0.2,
    ],
    "blocks-that-sign": [1, 3, 4, 0, "two", 0.96],
}
OPEN = {
    "notch-filter": [..., lambda frequency: ...],
    "fold-frequency": [..., lambda frequency: None],
    "second-harmonic": [..., lambda frequency, order: ...],
    "blocks-that-sign": [..., None],
}
