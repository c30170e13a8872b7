"""Losses on embeddings: batch-hard triplet (the paper's) and supervised contrastive."""

import torch
from torch import Tensor
from torch.nn import functional


def batch_hard_triplet(embeddings: Tensor, labels: Tensor, *, margin: float = 0.3) -> Tensor:
    """Hinge on the farthest positive against the nearest negative of every anchor.

    Parameters
    ----------
    embeddings : Tensor, (n, d)
    labels : Tensor, (n,) int64
        Which model made each image.
    margin : float
        0.3 in Yang et al. 2025, sec. III-D.

    Returns
    -------
    Tensor, scalar
        Mean over the anchors that have a positive and a negative; 0 (with a gradient) if none
        has, as in a batch of a single model.

    References
    ----------
    Hermans, Beyer and Leibe, "In Defense of the Triplet Loss", arXiv 1703.07737, 2017.
    """
    _check(embeddings, labels)
    # squared distances lose digits near 0: clamp before the root, whose slope there is infinite
    gram = embeddings @ embeddings.T
    squares = gram.diagonal()
    distance = (squares[:, None] + squares[None] - 2 * gram).clamp_min(1e-12).sqrt()
    same = labels[:, None] == labels[None]
    positive = same & ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    farthest = distance.masked_fill(~positive, float("-inf")).amax(1)
    nearest = distance.masked_fill(same, float("inf")).amin(1)
    valid = positive.any(1) & (~same).any(1)
    if not bool(valid.any()):
        return embeddings.sum() * 0
    return functional.relu(farthest[valid] - nearest[valid] + margin).mean()


def supervised_contrastive(
    embeddings: Tensor, labels: Tensor, *, temperature: float = 0.07
) -> Tensor:
    """Cross-entropy of every positive against all others in the batch, averaged per anchor.

    Parameters
    ----------
    embeddings : Tensor, (n, d), unit norm
    labels : Tensor, (n,) int64
    temperature : float
        Scores are cosines divided by this.

    Returns
    -------
    Tensor, scalar
        Mean over the anchors that have a positive; 0 (with a gradient) if none has.

    References
    ----------
    Khosla et al., "Supervised Contrastive Learning", NeurIPS 2020, eq. 2 (L_out).
    """
    _check(embeddings, labels)
    itself = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    scores = (embeddings @ embeddings.T / temperature).masked_fill(itself, float("-inf"))
    log_share = functional.log_softmax(scores, dim=1).masked_fill(itself, 0)
    positive = (labels[:, None] == labels[None]) & ~itself
    count = positive.sum(1)
    valid = count > 0
    if not bool(valid.any()):
        return embeddings.sum() * 0
    return -((log_share * positive).sum(1)[valid] / count[valid]).mean()


def _check(embeddings: Tensor, labels: Tensor) -> None:
    if embeddings.dim() != 2 or labels.shape != embeddings.shape[:1]:
        raise ValueError(
            f"embeddings must be (n, d) with labels (n,), "
            f"got {tuple(embeddings.shape)} and {tuple(labels.shape)}"
        )
