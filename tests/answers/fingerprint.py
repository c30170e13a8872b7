"""Answers to the exercises of lesson 01: see tests/test_checks.py."""

import numpy as np


def relative_variance(spectra, n, ddof=1, power=1.0, over=1):
    groups = spectra.reshape(-1, n, *spectra.shape[1:]).mean(axis=1)
    found = groups.var(axis=0, ddof=ddof) / groups.mean(axis=0) ** 2
    return (found.mean() / over) ** power


def step_by_step(spectra, n):
    groups = np.stack([spectra[i : i + n].mean(axis=0) for i in range(0, len(spectra), n)])
    deviations = groups - groups.mean(axis=0)
    variance = (deviations**2).sum(axis=0) / (len(groups) - 1)
    return float(np.mean(variance / groups.mean(axis=0) ** 2))


def divided_late(spectra, n):
    groups = spectra.reshape(-1, n, *spectra.shape[1:]).mean(axis=1)
    return groups.var(axis=0, ddof=1).mean() / groups.mean() ** 2


def images_until(target, n, r):
    return n * (1 - r) / r * target / (1 - target)


def locked_share(residuals):
    f, n = np.fft.fft2(residuals), len(residuals)
    share = abs(f.mean(axis=0)) ** 2 / (abs(f) ** 2).mean(axis=0)
    return (share - 1 / n) / (1 - 1 / n)


def biased(residuals):
    f = np.fft.fft2(residuals)
    return abs(f.mean(axis=0)) ** 2 / (abs(f) ** 2).mean(axis=0)


def absolute_first(residuals):
    f, n = np.fft.fft2(residuals), len(residuals)
    share = abs(f).mean(axis=0) ** 2 / (abs(f) ** 2).mean(axis=0)
    return (share - 1 / n) / (1 - 1 / n)


RIGHT = {
    "relative-variance": [relative_variance, step_by_step],
    "images-until": [images_until, lambda target, n, r: n * (1 / r - 1) / (1 / target - 1)],
    "locked-share": [locked_share],
    "repeat-distance": [4, -4, np.int64(4), 4.0],
}
WRONG = {
    "relative-variance": [
        lambda spectra, n: relative_variance(spectra, n, ddof=0),
        lambda spectra, n: relative_variance(spectra, n, power=0.5),
        lambda spectra, n: relative_variance(spectra, n, over=n),
        lambda spectra, n: relative_variance(spectra, 1),
        divided_late,
        lambda spectra: 1.0,
        1.0,
    ],
    "images-until": [
        lambda target, n, r: n * target / r,
        lambda target, n, r: n * (target / r) ** 2,
        lambda target, n, r: round(images_until(target, n, r) + 0.3),
        lambda target, n, r: n * (1 - r) / r,
        16,
    ],
    "locked-share": [
        biased,
        absolute_first,
        lambda residuals: locked_share(residuals).mean(),
        lambda residuals: np.zeros(residuals.shape[1:]),
        lambda residuals: biased(residuals) - 1 / len(residuals),
        0.3,
    ],
    "repeat-distance": [2, 0, 1, 8, 0.25, "four", [4, 8]],
}
OPEN = {
    "relative-variance": [..., lambda spectra, n: ...],
    "images-until": [..., lambda target, n, r: ...],
    "locked-share": [..., lambda residuals: ...],
    "repeat-distance": [..., None],
}
