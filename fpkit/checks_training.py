"""Checks of lesson 06, how an extractor is trained."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from fpkit.checks import attempted, exercise


@exercise("lonely-images")
def _lonely_images(answer: object) -> str | None:
    """`answer(models, batch)`: probability that nobody else in a random batch has my model."""
    for models, batch in ((2, 2), (3, 1), (10, 5), (70, 32), (5760, 200)):
        value = float(attempted(answer(models, batch)))  # type: ignore[operator]
        where = f"for {models} models and batches of {batch}"
        if not 0 <= value <= 1:
            return f"{where} it is {value:.4g}, which is no probability"
        right = (1 - 1 / models) ** (batch - 1)
        if abs(value - right) <= 0.01:
            continue
        if abs(value - (1 - 1 / models) ** batch) < 1e-9:
            return f"{where}: an image is no partner of itself, so how many others are there?"
        if abs(value - (1 - right)) < 1e-9:
            return f"{where} it is {value:.4g}: that is how probable it is to HAVE a partner"
        return f"{where} it is {value:.4g}: every other image must come from another model"
    return None


@exercise("pk-batch")
def _pk_batch(answer: object) -> str | None:
    """`answer(labels, models, images, generator)`: places of P different models, K images each."""
    labels = np.random.default_rng(5).permutation(np.repeat([3, 8, 11, 20, 42, 7], [6] * 5 + [2]))
    drawn = []
    for seed in (0, 0, 1, 2, 3, 4, 5, 6, 7):
        given = labels.copy()
        result = answer(given, 3, 4, np.random.default_rng(seed))  # type: ignore[operator]
        places = np.asarray(attempted(result))
        if not (given == labels).all():
            return "labels came back changed: sort or shuffle a copy"
        if (wrong := _wrong_places(places, labels, models=3, images=4)) is not None:
            return wrong
        drawn.append(frozenset(places.tolist()))
    if drawn[0] != drawn[1]:
        return "two generators of the same seed gave different batches: draw from generator alone"
    batches = [{int(labels[place]) for place in batch} for batch in drawn]
    if all(batch == batches[0] for batch in batches):
        return f"every batch had the models {sorted(batches[0])}: draw them anew"
    for model in set(labels.tolist()) - {7}:
        seen = {frozenset(p for p in batch if labels[p] == model) for batch in drawn[1:]} - {
            frozenset()
        }
        if len(seen) > 1:
            return None
    return "a model always came with the same images: draw these too"


def _wrong_places(
    places: np.ndarray, labels: np.ndarray, *, models: int, images: int
) -> str | None:
    if places.shape != (models * images,):
        return (
            f"{models} models x {images} images make {models * images} places, got {places.shape}"
        )
    if not np.issubdtype(places.dtype, np.integer):
        return f"expected places in labels (whole numbers), got {places.dtype}"
    if places.min() < 0 or places.max() >= len(labels):
        return f"places must be 0 to {len(labels) - 1}: these are labels, or out of range"
    if len(set(places.tolist())) < len(places):
        return "an image was drawn twice: a copy is too easy a partner"
    names, counts = np.unique(labels[places], return_counts=True)
    if 7 in names:
        return "model 7 has only 2 images: leave out models that have too few"
    if len(names) != models or set(counts.tolist()) != {images}:
        found = dict(zip(names.tolist(), counts.tolist(), strict=True))
        return f"expected {models} models with {images} images each, got {found}"
    return None


@exercise("batch-hard")
def _batch_hard(answer: object) -> str | None:
    """`answer(embeddings, labels, margin)`: farthest positive against nearest negative."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1, 2])
    near = functional.one_hot(labels, 4) + 0.2 * torch.randn(9, 4, generator=generator)
    far = torch.randn(9, 4, generator=generator)
    for name, raw in (("random points", far), ("well-separated points", near)):
        for margin in (0.3, 1.0):
            points = functional.normalize(raw.double()).requires_grad_()
            loss = attempted(answer(points, labels.clone(), margin))  # type: ignore[operator]
            right = _triplets(points, labels, margin)
            value = float(loss.detach() if isinstance(loss, Tensor) else loss)
            if abs(value - float(right["hard"])) > 1e-4:
                found = {k: v for k, v in right.items() if abs(value - float(v)) < 1e-6}
                return f"for {name}, margin {margin}: {_MISTAKES[next(iter(found), '')]}"
            if not isinstance(loss, Tensor) or not loss.requires_grad:
                return "the value is right, but it has no gradient: stay with torch to the end"
            if not loss.any():
                continue
            (slope,) = torch.autograd.grad(loss, points)
            if not torch.isfinite(slope).all():
                return (
                    "the value is right, but its gradient is not finite: the root of a distance "
                    "of 0 (each image to itself) has an infinite slope"
                )
    return None


_MISTAKES = {
    "": "not the mean of max(0, farthest positive - nearest negative + margin) over the anchors",
    "all": "this is the mean over all triplets: keep the hardest of each anchor",
    "sum": "a sum over the anchors: take the mean, or the loss grows with the batch",
    "squared": "these are squared distances: take the root",
    "no hinge": "anchors that are right by more than the margin must count 0, not less",
    "easy": "the nearest positive or the farthest negative was taken: these are the easiest",
    "itself": "the nearest 'negative' is an image of the same model: leave those out",
}


def _triplets(points: Tensor, labels: Tensor, margin: float) -> dict[str, Tensor]:
    """The right loss, and what plausible mistakes would give, by loops over triplets."""
    distance = (points[:, None] - points[None]).detach().norm(dim=2)
    values: dict[str, list[Tensor]] = {name: [] for name in ("hard", "squared", "raw", "easy")}
    every, itself = [], []
    for a in range(len(labels)):
        same = [i for i in range(len(labels)) if labels[i] == labels[a] and i != a]
        other = [i for i in range(len(labels)) if labels[i] != labels[a]]
        positive, negative = distance[a, same], distance[a, other]
        gap = positive.max() - negative.min()
        values["raw"].append(gap + margin)
        values["hard"].append((gap + margin).clamp_min(0))
        squares = positive.max() ** 2 - negative.min() ** 2
        values["squared"].append((squares + margin).clamp_min(0))
        values["easy"].append((positive.min() - negative.max() + margin).clamp_min(0))
        every += [(p - n + margin).clamp_min(0) for p in positive for n in negative]
        itself.append(positive.max() + margin)
    hard = torch.stack(values["hard"])
    return {
        "hard": hard.mean(),
        "sum": hard.sum(),
        "all": torch.stack(every).mean(),
        "squared": torch.stack(values["squared"]).mean(),
        "no hinge": torch.stack(values["raw"]).mean(),
        "easy": torch.stack(values["easy"]).mean(),
        "itself": torch.stack(itself).mean(),
    }
