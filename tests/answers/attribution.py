"""Answers to the exercises of lesson 07: see tests/test_checks.py."""

import numpy as np


def rates(genuine, impostor, threshold):
    return (impostor >= threshold).mean(), (genuine < threshold).mean()


def rates_by_sorting(genuine, impostor, threshold):
    below = np.searchsorted(np.sort(genuine), threshold)
    passed = impostor.size - np.searchsorted(np.sort(impostor), threshold)
    return [passed / impostor.size, below / genuine.size]


def shares_of_all(genuine, impostor, threshold):
    total = genuine.size + impostor.size
    return (impostor >= threshold).sum() / total, (genuine < threshold).sum() / total


def percent(genuine, impostor, threshold):
    return tuple(100 * rate for rate in rates(genuine, impostor, threshold))


def balanced(genuine, impostor, threshold):
    return ((genuine >= threshold).mean() + (impostor < threshold).mean()) / 2


def best(genuine, impostor):
    candidates = np.concatenate([genuine, impostor])
    return max(candidates, key=lambda t: balanced(genuine, impostor, t))


def best_between(genuine, impostor):
    scores = np.unique(np.concatenate([genuine, impostor]))
    return max((scores[1:] + scores[:-1]) / 2, key=lambda t: balanced(genuine, impostor, t))


def judge(dev_genuine, dev_impostor, test_genuine, test_impostor):
    return balanced(test_genuine, test_impostor, best(dev_genuine, dev_impostor))


def judge_between(dev_genuine, dev_impostor, test_genuine, test_impostor):
    return balanced(test_genuine, test_impostor, best_between(dev_genuine, dev_impostor))


def judge_on_dev(dev_genuine, dev_impostor, test_genuine, test_impostor):
    return balanced(dev_genuine, dev_impostor, best(dev_genuine, dev_impostor))


def choose_on_test(dev_genuine, dev_impostor, test_genuine, test_impostor):
    return balanced(test_genuine, test_impostor, best(test_genuine, test_impostor))


def judge_plain(dev_genuine, dev_impostor, test_genuine, test_impostor):
    threshold = best(dev_genuine, dev_impostor)
    right = (test_genuine >= threshold).sum() + (test_impostor < threshold).sum()
    return right / (test_genuine.size + test_impostor.size)


def judge_threshold(dev_genuine, dev_impostor, test_genuine, test_impostor):
    return best(dev_genuine, dev_impostor)


def interval(hits, model, generator):
    shares = np.array([hits[model == m].mean() for m in np.unique(model)])
    means = generator.choice(shares, size=(1000, len(shares))).mean(axis=1)
    return np.quantile(means, [0.025, 0.975])


def interval_by_loop(hits, model, generator):
    means = []
    for _ in range(500):
        drawn = generator.choice(np.unique(model), len(np.unique(model)))
        means.append(np.mean(np.concatenate([hits[model == m] for m in drawn])))
    return tuple(np.quantile(means, [0.025, 0.975]))


def over_probes(hits, model, generator):
    means = [generator.choice(hits, len(hits)).mean() for _ in range(500)]
    return tuple(np.quantile(means, [0.025, 0.975]))


def within_networks(hits, model, generator):
    means = []
    for _ in range(500):
        parts = [generator.choice(hits[model == m], 50).mean() for m in np.unique(model)]
        means.append(np.mean(parts))
    return tuple(np.quantile(means, [0.025, 0.975]))


def sorted_assumed(hits, model, generator):
    shares = hits.reshape(len(np.unique(model)), -1).mean(axis=1)
    means = generator.choice(shares, size=(1000, len(shares))).mean(axis=1)
    return tuple(np.quantile(means, [0.025, 0.975]))


def of_the_networks(hits, model, generator):
    shares = [hits[model == m].mean() for m in np.unique(model)]
    return tuple(np.quantile(shares, [0.025, 0.975]))


def verdict(score, refuse, accept):
    if score >= accept:
        return "known"
    return "unsure" if score >= refuse else "unknown"


def verdict_strict(score, refuse, accept):
    if score > accept:
        return "known"
    return "unsure" if score > refuse else "unknown"


def verdict_without_doubt(score, refuse, accept):
    return "known" if score >= accept else "unknown"


def verdict_fixed(score, refuse, accept):
    return verdict(score, 0.4, 0.8)


RIGHT = {
    "error-rates": [rates, rates_by_sorting],
    "dev-threshold": [judge, judge_between],
    "bootstrap-networks": [interval, interval_by_loop],
    "verdict": [verdict],
}
WRONG = {
    "error-rates": [
        lambda g, i, t: rates(g, i, t)[::-1],
        lambda g, i, t: ((i >= t).mean(), (g >= t).mean()),
        lambda g, i, t: ((i > t).mean(), (g <= t).mean()),
        lambda g, i, t: (0.125, 0.2, 0.0),
        shares_of_all,
        percent,
        0.1,
    ],
    "dev-threshold": [judge_on_dev, choose_on_test, judge_plain, judge_threshold, "0.7"],
    "bootstrap-networks": [
        over_probes,
        within_networks,
        sorted_assumed,
        of_the_networks,
        lambda hits, model, generator: (0.75, 0.25),
        lambda hits, model, generator: (0.25, 0.75),
    ],
    "verdict": [
        verdict_strict,
        verdict_without_doubt,
        verdict_fixed,
        lambda s, r, a: verdict(s, a, r),
        lambda s, r, a: verdict(s, r, a).upper(),
    ],
}
OPEN = {
    "error-rates": [..., lambda genuine, impostor, threshold: ...],
    "dev-threshold": [..., lambda *scores: None],
    "bootstrap-networks": [..., lambda hits, model, generator: ..., lambda h, m, g: (..., 1.0)],
    "verdict": [..., lambda score, refuse, accept: ...],
}
