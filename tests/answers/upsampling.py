"""Answers to the exercises of lesson 02: see tests/test_checks.py."""

import numpy as np


def grid(n):
    return [k / 2**n for k in range(1, 2 ** (n - 1) + 1)]


def even(taps):
    fixed = np.array(taps, dtype=float)
    fixed[0::2] /= fixed[0::2].sum()
    fixed[1::2] /= fixed[1::2].sum()
    return fixed


def even_in_place(taps):
    taps[0::2] /= taps[0::2].sum()
    taps[1::2] /= taps[1::2].sum()
    return taps


def bump(power, n):
    row = 10 * np.log10(power[64])
    i = 64 + 128 // 2**n
    return row[i] - np.median(row[i - 6 : i + 7])


def count(power):
    return next((n for n in (3, 2) if bump(power, n) > 6), 1)


def strongest(power):
    """The strongest peak of the upper half: any of the copies."""
    return {16: 3, 32: 2}.get(int(power[64, 72:].argmax()) + 8, 1)


def absolute(power):
    """Levels instead of neighbours: as wrong as the scene is loud."""
    return next((n for n in (3, 2) if power[64, 64 + 128 // 2**n] > 0.004), 1)


RIGHT = {
    "upsampling-grid": [grid, lambda n: np.array(grid(n))[::-1]],
    "nearest-gain": [
        lambda f: 4 * np.cos(np.pi * f) ** 2,
        lambda f: 2 + 2 * np.cos(2 * np.pi * f),
        lambda f: abs(1 + np.exp(-2j * np.pi * f)) ** 2,
    ],
    "even-taps": [even],
    "count-upsamplings": [count],
}
WRONG = {
    "upsampling-grid": [
        lambda n: [0.5],
        lambda n: [k / (2 * n) for k in range(1, n + 1)],
        lambda n: [0.5**k for k in range(1, n + 1)],
        lambda n: [k / 2**n for k in range(2 ** (n - 1) + 1)],
        lambda n: [k / 2**n for k in range(1, 2**n)],
        lambda n: 0.5,
        [0.5],
    ],
    "nearest-gain": [
        lambda f: 2 * np.cos(np.pi * f),
        lambda f: 4 * np.cos(2 * np.pi * f) ** 2,
        lambda f: np.cos(np.pi * f) ** 2,
        lambda f: 4 * np.cos(np.pi * f / 2) ** 2,
        lambda f: 4 * (1 - 2 * f),
        lambda f: 1 + np.exp(-2j * np.pi * f),
        lambda f: 4.0,
    ],
    "even-taps": [
        lambda taps: taps / taps.sum(),
        lambda taps: 2 * taps / taps.sum(),
        lambda taps: np.full(len(taps), 1 / len(taps)),
        lambda taps: np.where(np.arange(len(taps)) < 2, 1.0, 0.0),
        lambda taps: even(taps)[:2],
        even_in_place,
    ],
    "count-upsamplings": [
        lambda power: 1,
        lambda power: 2 ** count(power),
        strongest,
        absolute,
        lambda power: str(count(power)),
        2,
    ],
}
OPEN = {
    "upsampling-grid": [..., lambda n: ...],
    "nearest-gain": [..., lambda f: ...],
    "even-taps": [..., lambda taps: ...],
    "count-upsamplings": [..., lambda power: ...],
}
