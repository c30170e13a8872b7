"""Answers to the exercises of lesson 10: see tests/test_checks.py."""

import numpy as np


def give_aways(facts):
    return [
        name
        for name, rows in facts.items()
        if not any(set(rows) & set(facts[other]) for other in facts if other != name)
    ]


def by_set(facts):
    return [n for n in facts if not any(set(facts[n]) == set(facts[o]) for o in facts if o != n)]


def by_format(facts):
    formats = {name: {row[0] for row in rows} for name, rows in facts.items()}
    return [n for n in facts if not any(formats[n] & formats[o] for o in facts if o != n)]


def split(count, k, generator):
    order = generator.permutation(count)
    return order[:k], order[k:]


def first(count, k, generator):
    return np.arange(k), np.arange(k, count)


def overlapping(count, k, generator):
    return generator.permutation(count)[:k], np.arange(count)


def replaced(count, k, generator):
    enrolled = generator.integers(count, size=k)
    return enrolled, np.setdiff1d(np.arange(count), enrolled)


def unseeded(count, k, generator):
    order = np.random.default_rng().permutation(count)
    return order[:k], order[k:]


def tally(truth, named, decisions, enrolled, *, pooled=False, unsure=False):
    def share(known, event):
        models = [m for m in dict.fromkeys(truth) if (m in enrolled) == known]
        rows = [[event(i) for i in range(len(truth)) if truth[i] == m] for m in models]
        if pooled:
            return np.mean([hit for row in rows for hit in row])
        return np.mean([np.mean(row) for row in rows])

    def accepted(i):
        return decisions[i] != "different" if unsure else decisions[i] == "same"

    return {
        "right": share(True, lambda i: accepted(i) and named[i] == truth[i]),
        "wrong": share(True, lambda i: accepted(i) and named[i] != truth[i]),
        "strangers": share(False, accepted),
    }


def pooled(*arguments):
    return tally(*arguments, pooled=True)


def unsure(*arguments):
    return tally(*arguments, unsure=True)


RIGHT = {
    "give-aways": [give_aways, lambda facts: set(give_aways(facts))],
    "split": [split],
    "honest-report": [tally],
}
WRONG = {
    "give-aways": [by_set, by_format, lambda facts: list(facts), lambda facts: "c", "c"],
    "split": [first, overlapping, replaced, unseeded, lambda count, k, generator: (0, 1)],
    "honest-report": [pooled, unsure, lambda *a: 0.25, lambda truth: {}],
}
OPEN = {
    "give-aways": [..., lambda facts: ...],
    "split": [..., lambda count, k, generator: ...],
    "honest-report": [..., lambda truth, named, decisions, enrolled: ...],
}
