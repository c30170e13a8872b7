"""Answers to the exercises of lesson 05: see tests/test_checks.py."""

import numpy as np


def diagonal(first, second):
    means = first.mean(axis=0) - second.mean(axis=0)
    deviations = first.std(axis=0, ddof=1) - second.std(axis=0, ddof=1)
    return float((means**2).sum() + (deviations**2).sum())


def diagonal_by_trace(first, second):
    one, two = first.var(axis=0, ddof=1), second.var(axis=0, ddof=1)
    means = ((first.mean(axis=0) - second.mean(axis=0)) ** 2).sum()
    return means + (one + two - 2 * np.sqrt(one * two)).sum()


def parts(first, second, ddof=1):
    means = first.mean(axis=0) - second.mean(axis=0)
    return means, first.std(axis=0, ddof=ddof), second.std(axis=0, ddof=ddof)


def divided_by_n(first, second):
    means, one, two = parts(first, second, ddof=0)
    return (means**2).sum() + ((one - two) ** 2).sum()


def of_variances(first, second):
    means, one, two = parts(first, second)
    return (means**2).sum() + ((one**2 - two**2) ** 2).sum()


def one_sided(first, second):
    means, one, two = parts(first, second)
    return diagonal(first, second) if len(first) > len(second) else (means**2).sum() + one.sum()


def height(sizes, distances):
    return np.polyfit(1 / np.asarray(sizes), distances, 1)[1]


def height_by_solving(sizes, distances):
    columns = np.stack([np.ones(len(sizes)), 1 / np.array(sizes)], axis=1)
    return np.linalg.lstsq(columns, np.array(distances), rcond=None)[0][0]


def two_points(sizes, distances):
    (n, m), (a, b) = sizes[-2:], distances[-2:]
    return (m * b - n * a) / (m - n)


def distances_between(a, b):
    return np.linalg.norm(a[:, None] - b[None], axis=2)


def covered(real, synthetic, k, *, column=0):
    radius = np.sort(distances_between(synthetic, synthetic), axis=1)[:, k + column]
    return (distances_between(real, synthetic) <= radius).any(axis=1).mean()


def covered_by_loop(real, synthetic, k):
    hits = 0
    for point in real:
        for i, centre in enumerate(synthetic):
            others = np.delete(synthetic, i, axis=0)
            radius = np.sort(np.linalg.norm(others - centre, axis=1))[k - 1]
            if np.linalg.norm(point - centre) <= radius:
                hits += 1
                break
    return hits / len(real)


def real_radius(real, synthetic, k):
    radius = np.sort(distances_between(real, real), axis=1)[:, k]
    return (distances_between(real, synthetic) <= radius[:, None]).any(axis=1).mean()


def every_pair(real, synthetic, k):
    radius = np.sort(distances_between(synthetic, synthetic), axis=1)[:, k]
    return (distances_between(real, synthetic) <= radius).mean()


RIGHT = {
    "diagonal-distance": [diagonal, diagonal_by_trace],
    "at-infinity": [height, height_by_solving],
    "coverage": [covered, covered_by_loop],
}
WRONG = {
    "diagonal-distance": [
        lambda a, b: (parts(a, b)[0] ** 2).sum(),
        lambda a, b: ((parts(a, b)[1] - parts(a, b)[2]) ** 2).sum(),
        lambda a, b: diagonal(a, b) ** 0.5,
        lambda a, b: diagonal(a, b) / a.shape[1],
        divided_by_n,
        of_variances,
        one_sided,
        0.0,
    ],
    "at-infinity": [
        lambda n, d: np.polyfit(1 / np.array(n), d, 1)[0],
        lambda n, d: np.polyfit(n, d, 1)[1],
        lambda n, d: d[-1],
        lambda n, d: np.mean(d),
        lambda n, d: 0.0,
        two_points,
    ],
    "coverage": [
        real_radius,
        every_pair,
        lambda real, synthetic, k: covered(synthetic, real, k),
        lambda real, synthetic, k: covered(real, synthetic, k, column=-1),
        lambda real, synthetic, k: 100 * covered(real, synthetic, k),
        "all",
    ],
}
OPEN = {
    "diagonal-distance": [..., lambda first, second: ...],
    "at-infinity": [..., lambda sizes, distances: None],
    "coverage": [..., lambda real, synthetic, k: ...],
}
