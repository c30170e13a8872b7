"""Answers to the exercises of lesson 06: see tests/test_checks.py."""

import numpy as np
import torch


def lonely(models, batch):
    return (1 - 1 / models) ** (batch - 1)


def counted(models, batch):
    """By trial, 200,000 times."""
    others = np.random.default_rng(0).random((200_000, 1)) < lonely(models, batch)
    return others.mean()


def pk(labels, models, images, generator):
    names, counts = np.unique(labels, return_counts=True)
    chosen = generator.choice(names[counts >= images], models, replace=False)
    places = [np.flatnonzero(labels == name) for name in chosen]
    return np.concatenate([generator.choice(of, images, replace=False) for of in places])


def pk_as_list(labels, models, images, generator):
    enough = [name for name in sorted(set(labels.tolist())) if (labels == name).sum() >= images]
    batch = []
    for name in generator.permutation(enough)[:models]:
        batch += generator.permutation(np.flatnonzero(labels == name))[:images].tolist()
    return batch


def pk_swapped(labels, models, images, generator):
    return pk(labels, images, models, generator)


def pk_any(labels, models, images, generator):
    return generator.choice(len(labels), models * images, replace=False)


def pk_twice(labels, models, images, generator):
    return np.repeat(pk(labels, models, 1, generator), images)


def pk_same_models(labels, models, images, generator):
    places = [np.flatnonzero(labels == name) for name in (3, 8, 11)[:models]]
    return np.concatenate([generator.choice(of, images, replace=False) for of in places])


def pk_same_images(labels, models, images, generator):
    names = generator.choice([3, 8, 11, 20, 42], models, replace=False)
    return np.concatenate([np.flatnonzero(labels == name)[:images] for name in names])


def pk_names(labels, models, images, generator):
    return labels[pk(labels, models, images, generator)]


def pk_sorts(labels, models, images, generator):
    places = pk(labels, models, images, generator)
    labels.sort()
    return places


def pk_own_dice(labels, models, images, generator):
    return pk(labels, models, images, np.random.default_rng())


def pk_floats(labels, models, images, generator):
    return pk(labels, models, images, generator) / 1


def pk_small_models(labels, models, images, generator):
    places = [np.flatnonzero(labels == name) for name in (7, 8, 11)]
    return np.concatenate([places[0], places[1][:6], places[2][:4]])


def distances(points):
    return torch.cdist(points, points)


def masks(labels):
    same = labels[:, None] == labels[None]
    return same & ~torch.eye(len(labels), dtype=torch.bool), ~same


def gaps(points, labels):
    positive, negative = masks(labels)
    apart = distances(points)
    farthest = apart.masked_fill(~positive, 0).amax(1)
    nearest = apart.masked_fill(~negative, 9).amin(1)
    return farthest, nearest


def hard(points, labels, margin):
    farthest, nearest = gaps(points, labels)
    return (farthest - nearest + margin).clamp_min(0).mean()


def hard_by_loops(points, labels, margin):
    losses = []
    for a in range(len(labels)):
        others = [b for b in range(len(labels)) if b != a]
        positive = [(points[a] - points[b]).norm() for b in others if labels[b] == labels[a]]
        negative = [(points[a] - points[b]).norm() for b in others if labels[b] != labels[a]]
        losses.append(torch.relu(max(positive) - min(negative) + margin))
    return sum(losses) / len(losses)


def hard_summed(points, labels, margin):
    return hard(points, labels, margin) * len(labels)


def hard_without_gradient(points, labels, margin):
    return hard(points, labels, margin).item()


def hard_squared(points, labels, margin):
    farthest, nearest = gaps(points, labels)
    return (farthest**2 - nearest**2 + margin).clamp_min(0).mean()


def hard_without_hinge(points, labels, margin):
    farthest, nearest = gaps(points, labels)
    return (farthest - nearest + margin).mean()


def hard_infinite_slope(points, labels, margin):
    positive, negative = masks(labels)
    apart = (points[:, None] - points[None]).square().sum(2).sqrt()
    farthest = (apart * positive).amax(1)
    return (farthest - (apart + 9 * ~negative).amin(1) + margin).clamp_min(0).mean()


def easy(points, labels, margin):
    positive, negative = masks(labels)
    apart = distances(points)
    nearest = apart.masked_fill(~positive, 9).amin(1)
    return (nearest - apart.masked_fill(~negative, 0).amax(1) + margin).clamp_min(0).mean()


def with_itself(points, labels, margin):
    positive, _ = masks(labels)
    apart = distances(points)
    return (apart.masked_fill(~positive, 0).amax(1) - apart.amin(1) + margin).clamp_min(0).mean()


def all_triplets(points, labels, margin):
    positive, negative = masks(labels)
    apart = distances(points)
    triplets = (apart[:, :, None] - apart[:, None] + margin).clamp_min(0)
    return triplets[positive[:, :, None] & negative[:, None]].mean()


def fixed_margin(points, labels, margin):
    return hard(points, labels, 0.3)


RIGHT = {
    "lonely-images": [lonely, counted],
    "pk-batch": [pk, pk_as_list],
    "batch-hard": [hard, hard_by_loops],
}
WRONG = {
    "lonely-images": [
        lambda models, batch: (1 - 1 / models) ** batch,
        lambda models, batch: 1 - lonely(models, batch),
        lambda models, batch: 1 - (batch - 1) / models,
        lambda models, batch: batch / models,
        0.97,
    ],
    "pk-batch": [
        pk_swapped, pk_any, pk_twice, pk_same_models, pk_same_images, pk_names, pk_sorts,
        pk_own_dice, pk_floats, pk_small_models, lambda labels: labels,
    ],
    "batch-hard": [
        hard_summed, hard_without_gradient, hard_squared, hard_without_hinge,
        hard_infinite_slope, easy, with_itself, all_triplets, fixed_margin, 0.3,
    ],
}  # fmt: skip
OPEN = {
    "lonely-images": [..., lambda models, batch: ...],
    "pk-batch": [..., lambda labels, models, images, generator: ...],
    "batch-hard": [..., lambda embeddings, labels, margin: ...],
}
