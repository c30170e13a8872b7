"""Answers to the exercises of lesson 11: see tests/test_checks.py."""

from itertools import combinations

import numpy as np


def purity(truth, found):
    right = 0
    for group in np.unique(found):
        right += np.unique(truth[found == group], return_counts=True)[1].max()
    return right / len(truth)


def purity_by_lists(truth, found):
    groups = {}
    for maker, group in zip(truth.tolist(), found.tolist(), strict=True):
        groups.setdefault(group, []).append(maker)
    return sum(max(map(members.count, members)) for members in groups.values()) / len(truth)


def purity_of_groups(truth, found):
    shares = []
    for group in np.unique(found):
        counts = np.unique(truth[found == group], return_counts=True)[1]
        shares.append(counts.max() / counts.sum())
    return np.mean(shares)


def pure_images(truth, found):
    return purity(truth, found) * len(truth)


def turned(truth, found):
    return purity(found, truth)


def without_singletons(truth, found):
    groups, counts = np.unique(found, return_counts=True)
    kept = np.isin(found, groups[counts > 1])
    return purity(truth[kept], found[kept])


def adjusted_rand(truth, found):
    i, j = np.triu_indices(len(truth), k=1)
    t, f = truth[i] == truth[j], found[i] == found[j]
    both, chance = np.sum(t & f), t.sum() * f.sum() / len(t)
    return (both - chance) / ((t.sum() + f.sum()) / 2 - chance)


def adjusted_by_loop(truth, found):
    both = made = put = count = 0
    for (a, x), (b, y) in combinations(zip(truth, found, strict=True), 2):
        count += 1
        made += a == b
        put += x == y
        both += a == b and x == y
    chance = made * put / count
    return (both - chance) / ((made + put) / 2 - chance)


def rand(truth, found):
    i, j = np.triu_indices(len(truth), k=1)
    return np.mean((truth[i] == truth[j]) == (found[i] == found[j]))


def overlap(truth, found):
    i, j = np.triu_indices(len(truth), k=1)
    t, f = truth[i] == truth[j], found[i] == found[j]
    return np.sum(t & f) / t.sum()


def with_itself(truth, found):
    t, f = truth[:, None] == truth, found[:, None] == found
    i, j = np.triu_indices(len(truth))
    t, f = t[i, j], f[i, j]
    chance = t.sum() * f.sum() / len(t)
    return (np.sum(t & f) - chance) / ((t.sum() + f.sum()) / 2 - chance)


def equal_names(truth, found):
    return np.mean(truth == found)


def means(embeddings, labels):
    found = {}
    for label in np.unique(labels[labels >= 0]):
        mean = embeddings[labels == label].mean(axis=0)
        found[label] = mean / np.linalg.norm(mean)
    return found


def means_of_all(embeddings, labels):
    found = means(embeddings, labels)
    rest = embeddings[labels < 0].mean(axis=0)
    return found | {-1: rest / np.linalg.norm(rest)}


def not_scaled(embeddings, labels):
    return {k: embeddings[labels == k].mean(axis=0) for k in np.unique(labels[labels >= 0])}


def sums(embeddings, labels):
    return {k: embeddings[labels == k].sum(axis=0) for k in np.unique(labels[labels >= 0])}


def first(embeddings, labels):
    return {k: embeddings[labels == k][0] for k in np.unique(labels[labels >= 0])}


def numbers(embeddings, labels):
    return {k: embeddings[labels == k].mean() for k in np.unique(labels[labels >= 0])}


def renamed(embeddings, labels):
    return dict(enumerate(means(embeddings, labels).values()))


def listed(embeddings, labels):
    return list(means(embeddings, labels).values())


RIGHT = {
    "purity": [purity, purity_by_lists],
    "adjusted-rand": [adjusted_rand, adjusted_by_loop],
    "group-means": [means],
}
WRONG = {
    "purity": [
        *(purity_of_groups, pure_images, turned, without_singletons, equal_names),
        *(lambda t, f: 0.8, lambda t, f: 0.8 if len(set(f)) != 10 else 1.0, 0.8),
    ],
    "adjusted-rand": [rand, overlap, with_itself, equal_names, lambda t, f: 1.0],
    "group-means": [means_of_all, not_scaled, sums, first, numbers, renamed, listed],
}
OPEN = {
    "purity": [..., lambda truth, found: ...],
    "adjusted-rand": [..., lambda truth, found: ...],
    "group-means": [..., lambda embeddings, labels: ..., lambda embeddings, labels: {0: ...}],
}
