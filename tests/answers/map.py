"""Answers to the exercises of lesson 08: see tests/test_checks.py."""

import numpy as np


def nearest(x, k, *, skip=1):
    d = np.linalg.norm(x[:, None] - x[None], axis=2)
    return np.argsort(d, axis=1)[:, skip : k + skip]


def kept(points, coordinates, k):
    before, after = nearest(points, k), nearest(coordinates, k)
    return np.mean([len(set(a) & set(b)) / k for a, b in zip(before, after, strict=True)])


def kept_with_itself(points, coordinates, k):
    before, after = nearest(points, k, skip=0), nearest(coordinates, k, skip=0)
    return np.mean([len(set(a) & set(b)) / k for a, b in zip(before, after, strict=True)])


def kept_in_order(points, coordinates, k):
    return (nearest(points, k) == nearest(coordinates, k)).mean()


def kept_per_point(points, coordinates, k):
    before, after = nearest(points, k), nearest(coordinates, k)
    return [len(set(a) & set(b)) / k for a, b in zip(before, after, strict=True)]


def kept_farthest(points, coordinates, k):
    before = np.argsort(-((points[:, None] - points[None]) ** 2).sum(2), axis=1)[:, :k]
    after = np.argsort(-((coordinates[:, None] - coordinates[None]) ** 2).sum(2), axis=1)[:, :k]
    return np.mean([len(set(a) & set(b)) / k for a, b in zip(before, after, strict=True)])


def stranger(scores, models):
    return np.where(models[:, None] == models, -np.inf, scores).argmax(axis=1)


def stranger_by_loop(scores, models):
    return [max(np.flatnonzero(models != m), key=row.__getitem__) for row, m in zip(scores, models)]  # noqa: B905


def stranger_zeroed(scores, models):
    return (scores * (models[:, None] != models)).argmax(axis=1)


def not_itself(scores, models):
    return (scores - 1e9 * np.eye(len(scores))).argmax(axis=1)


def farthest_stranger(scores, models):
    return np.where(models[:, None] == models, np.inf, scores).argmin(axis=1)


def stranger_in_place(scores, models):
    scores[models[:, None] == models] = -np.inf
    return scores.argmax(axis=1)


RIGHT = {
    "map-chance": [lambda n, k: k / (n - 1)],
    "neighbours-kept": [kept, lambda p, c, k: float(kept(p, c, k))],
    "nearest-stranger": [stranger, stranger_by_loop],
}
WRONG = {
    "map-chance": [
        lambda n, k: k / n,
        lambda n, k: (k - 1) / (n - 1),
        lambda n, k: min(1.0, (k / (n - 1)) ** 2),
        lambda n, k: 1.0,
        15 / 299,
    ],
    "neighbours-kept": [
        kept_with_itself,
        kept_in_order,
        kept_per_point,
        kept_farthest,
        lambda p, c, k: 1.0,
        lambda p, c, k: k * kept(p, c, k),
    ],
    "nearest-stranger": [
        lambda s, m: s.argmax(axis=1),
        not_itself,
        farthest_stranger,
        stranger_zeroed,
        stranger_in_place,
        lambda s, m: m[stranger(s, m)],
        lambda s, m: s.max(axis=1),
        lambda s, m: stranger(s, m)[0],
        lambda s, m: stranger(s, m) + 20,
    ],
}
OPEN = {
    "map-chance": [..., lambda n, k: ...],
    "neighbours-kept": [..., lambda points, coordinates, k: None],
    "nearest-stranger": [..., lambda scores, models: ...],
}
