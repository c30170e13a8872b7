"""Answers to the exercises of lesson 00: see tests/test_checks.py."""

import numpy as np


def correlate(spectrum, fingerprints):
    return max(
        fingerprints, key=lambda n: np.corrcoef(spectrum.ravel(), fingerprints[n].ravel())[0, 1]
    )


def nearest(spectrum, fingerprints):
    return min(fingerprints, key=lambda n: np.abs(spectrum - fingerprints[n]).sum())


def product(spectrum, fingerprints):
    centred = spectrum - spectrum.mean()
    return max(fingerprints, key=lambda n: -np.abs(centred - fingerprints[n]).sum())


RIGHT = {
    "peak-frequency": [0.25, -0.25, 0.5, -0.5, np.float64(0.2578125 - 0.0078125)],
    "closest-fingerprint": [correlate],
}
WRONG = {
    "peak-frequency": [32, 0.1, 0.35, float("nan"), "a quarter", [0.25, 0.5]],
    "closest-fingerprint": [nearest, product, lambda s, f: "a", lambda s: "a", "a", 3],
}
OPEN = {
    "peak-frequency": [..., None],
    "closest-fingerprint": [..., lambda spectrum, fingerprints: ...],
}
