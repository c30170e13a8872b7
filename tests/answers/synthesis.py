"""Answers to the exercises of lesson 04: see tests/test_checks.py."""

from collections import Counter
from itertools import combinations, product

import numpy as np

from fpkit.arch import PAPER, ArchSpec


def option(entry, field):
    return getattr(ArchSpec.parse(entry["arch_id"]), field)


def counts(entries, field, only_reached=False):
    return Counter(option(e, field) for e in entries if e["reached"] or not only_reached)


def shares(entries, field):
    reached = counts(entries, field, only_reached=True)
    return {name: reached[name] / n for name, n in counts(entries, field).items()}


def shares_by_list(entries, field):
    flags = {}
    for entry in entries:
        flags.setdefault(option(entry, field), []).append(entry["reached"])
    return {name: np.mean(values) for name, values in flags.items()}


def without_zeros(entries, field):
    return {name: share for name, share in shares(entries, field).items() if share}


def reached_counts(entries, field):
    return {n: sum(e["reached"] for e in entries if option(e, field) == n) for n in
            {option(e, field) for e in entries}}  # fmt: skip


def of_all(entries, field):
    return {name: count / len(entries) for name, count in reached_counts(entries, field).items()}


def of_reached(entries, field):
    total = sum(entry["reached"] for entry in entries)
    return {name: count / total for name, count in reached_counts(entries, field).items()}


def per_cent(entries, field):
    return {name: 100 * share for name, share in shares(entries, field).items()}


def words(entries, field):
    return {str(name): share for name, share in shares(entries, field).items()}


def always_norm(entries, field):
    return shares(entries, "norm")


def norm_under_other_names(entries, field):
    values = list(shares(entries, "norm").values())
    return shares(entries, field) if field == "norm" else dict(zip((1, 2), values, strict=False))


def correlation(a, b):
    return np.corrcoef(a.ravel(), b.ravel())[0, 1]


def arch(name):
    return name.split("/")[0]


def same_and_other(patterns, pairs=combinations, compare=correlation, split=arch):
    found = {True: [], False: []}
    for a, b in pairs(patterns):
        found[split(a) == split(b)].append(compare(patterns[a], patterns[b]))
    return np.mean(found[True]), np.mean(found[False])


def by_pairs(patterns):
    return same_and_other(patterns, pairs=lambda names: combinations(names, 2))


def by_table(patterns):
    table = np.corrcoef([pattern.ravel() for pattern in patterns.values()])
    archs = np.array([name.split("/")[0] for name in patterns])
    same = archs[:, None] == archs
    off = ~np.eye(len(archs), dtype=bool)
    return [table[same & off].mean(), table[~same].mean()]


def with_diagonal(patterns):
    return same_and_other(patterns, pairs=lambda names: product(names, repeat=2))


def swapped(patterns):
    return by_pairs(patterns)[::-1]


def other_is_everything(patterns):
    pairs = combinations(patterns.values(), 2)
    return by_pairs(patterns)[0], np.mean([correlation(a, b) for a, b in pairs])


def by_distance(patterns):
    return same_and_other(
        patterns,
        pairs=lambda names: combinations(names, 2),
        compare=lambda a, b: -np.abs(a - b).mean(),
    )


def by_seed(patterns):
    return same_and_other(
        patterns, pairs=lambda names: combinations(names, 2), split=lambda n: n.split("/")[1]
    )


def only_first_letters(patterns):
    return same_and_other(
        patterns, pairs=lambda names: combinations(names, 2), split=lambda n: n[:10]
    )


def first_with_rest(patterns):
    names = list(patterns)
    first = [
        correlation(patterns[names[0]], patterns[n]) for n in names[1:] if arch(n) == arch(names[0])
    ]
    return np.mean(first), by_pairs(patterns)[1]


RIGHT = {
    "count-architectures": [
        (32, 640),
        [32, 640],
        (len(PAPER.restrict(upsample="deconv", norm="none")), np.int64(640)),
    ],
    "share-reached": [shares, shares_by_list],
    "same-and-other": [by_pairs, by_table],
}
WRONG = {
    "count-architectures": [(96, 1920), (288, 5760), (32, 32), (640, 32), 32, "32", (16, 320)],
    "share-reached": [
        without_zeros,
        reached_counts,
        of_all,
        of_reached,
        per_cent,
        words,
        always_norm,
        norm_under_other_names,
        lambda entries, field: 0.5,
        lambda entries: {},
    ],
    "same-and-other": [
        with_diagonal,
        swapped,
        other_is_everything,
        by_distance,
        by_seed,
        only_first_letters,
        first_with_rest,
        lambda patterns: 0.8,
        lambda patterns: (by_pairs(patterns)[0], 0.1),
    ],
}
OPEN = {
    "count-architectures": [..., None, (..., ...), (32, ...)],
    "share-reached": [..., lambda entries, field: ...],
    "same-and-other": [..., lambda patterns: ..., lambda patterns: (..., ...)],
}
