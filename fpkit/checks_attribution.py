"""Checks of lesson 07, verify and identify."""

import numpy as np

from fpkit.checks import attempted, exercise

GENUINE = np.array([0.9, 0.7, 0.7, 0.5, 0.2])
IMPOSTOR = np.array([0.7, 0.4, 0.3, 0.1, 0.0, -0.1, -0.2, -0.3])


@exercise("error-rates")
def _error_rates(answer: object) -> str | None:
    """`answer(genuine, impostor, threshold)` is the pair (FAR, FRR)."""
    # 0.7 is a score of both kinds: what is at the threshold is accepted
    for threshold, far, frr in ((0.45, 0.125, 0.2), (0.7, 0.125, 0.4), (-1.0, 1.0, 0.0)):
        got = attempted(answer(GENUINE, IMPOSTOR, threshold))  # type: ignore[operator]
        pair = tuple(float(attempted(value)) for value in got)
        if len(pair) != 2:
            return f"a pair (far, frr) was expected, got {len(pair)} values"
        if not all(0 <= value <= 1 for value in pair):
            return f"shares lie in [0, 1], got {pair}"
        if np.allclose(pair, (far, frr)):
            continue
        if np.allclose(pair, (frr, far)):
            return "the two are swapped: false ACCEPTS come from impostor pairs, and come first"
        if np.isclose(pair[0], far) and np.isclose(pair[1], 1 - frr):
            return "the second is the share accepted (TAR): the share refused was asked for"
        if threshold == 0.7:
            return "a score equal to the threshold is accepted: look at the two comparisons"
        return (
            f"at the threshold {threshold}, {IMPOSTOR.size} impostor and {GENUINE.size} genuine "
            f"scores give other shares than {pair}: each error is a share of its own kind of pairs"
        )
    return None


# far more impostors than genuine pairs, and test scores shifted against dev: every shortcut shows
_DEV = (np.array([0.60, 0.70, 0.80, 0.90]), np.array([0.10, 0.20, 0.30, 0.50, 0.65, 0.15]))
_TEST = (
    np.array([0.35, 0.42, 0.62, 0.85]),
    np.array([-0.2, -0.1, 0.0, 0.05, 0.12, 0.22, 0.25, 0.28, 0.29, 0.64]),
)


def _balanced(genuine: np.ndarray, impostor: np.ndarray, threshold: float) -> float:
    return float(((genuine >= threshold).mean() + (impostor < threshold).mean()) / 2)


@exercise("dev-threshold")
def _dev_threshold(answer: object) -> str | None:
    """`answer(dev genuine, impostor, test genuine, impostor)`: test accuracy, dev threshold."""
    value = float(attempted(answer(*_DEV, *_TEST)))  # type: ignore[operator]
    # the best dev thresholds are those above 0.5, up to 0.6: no test score is there
    threshold = 0.55
    if np.isclose(value, _balanced(*_TEST, threshold)):
        return None
    if np.isclose(value, _balanced(*_DEV, threshold)):
        return "that is the accuracy on dev: the threshold is right, now judge it on test"
    if np.isclose(value, _balanced(*_TEST, 0.32)):
        return "that is the best that any threshold does on test: it must come from dev"
    plain = ((_TEST[0] >= threshold).sum() + (_TEST[1] < threshold).sum()) / 14
    if np.isclose(value, plain):
        return "that counts pairs; take the mean of the two shares, as there are more impostors"
    return f"{value:.3f} is not the balanced accuracy on test at the best dev threshold"


@exercise("bootstrap-networks")
def _bootstrap_networks(answer: object) -> str | None:
    """`answer(hits, model, generator)`: 95% interval of the share of hits, networks redrawn."""
    # 6 of 12 networks always named rightly, 6 never, 50 probes each, shuffled: networks drawn anew
    # give binomial(12, 1/2) / 12, whose quantiles are 3/12 and 9/12; probes drawn anew 0.46 to 0.54
    order = np.random.default_rng(1).permutation(600)
    model = np.repeat(np.arange(12), 50)[order]
    low, high = _interval(answer, model % 2 == 0, model)
    if not low < 0.5 < high:
        return f"{low:.2f} to {high:.2f} does not hold the share of hits itself, 0.50"
    if high - low < 0.15:
        return (
            f"{low:.2f} to {high:.2f} is far too narrow: half of 12 networks are always right and "
            "half never; drawing probes keeps every network in the sample"
        )
    if not (0.15 < low < 0.34 and 0.66 < high < 0.85):
        return f"{low:.2f} to {high:.2f} is not the range from the 2.5% to the 97.5% quantile"
    low, high = _interval(answer, np.full(600, True), model)
    if (low, high) != (1.0, 1.0):
        return f"where every probe is a hit, every resample is: expected 1 and 1, got {low}, {high}"
    return None


def _interval(answer: object, hits: np.ndarray, model: np.ndarray) -> tuple[float, float]:
    generator = np.random.default_rng(2)
    low, high = attempted(answer(hits, model, generator))  # type: ignore[operator]
    return float(attempted(low)), float(attempted(high))


@exercise("verdict")
def _verdict(answer: object) -> str | None:
    """`answer(score, refuse, accept)` is one of three words."""
    wanted = {0.9: "known", 0.6: "unsure", 0.1: "unknown", 0.8: "known", 0.4: "unsure"}
    for score, word in wanted.items():
        got = attempted(answer(score, 0.4, 0.8))  # type: ignore[operator]
        if got not in ("known", "unsure", "unknown"):
            return f"expected 'known', 'unsure' or 'unknown', got {got!r}"
        if got != word:
            at = " (a score at a threshold has reached it)" if score in (0.4, 0.8) else ""
            return f"score {score} with refuse 0.4 and accept 0.8 gave {got!r}{at}"
    if attempted(answer(-0.2, -0.5, -0.1)) != "unsure":  # type: ignore[operator]
        return "are the thresholds taken from the arguments? -0.2 lies between -0.5 and -0.1"
    return None
