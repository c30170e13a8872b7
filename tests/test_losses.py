import math

import pytest
import torch
from torch.nn import functional

from fpkit.losses import batch_hard_triplet, supervised_contrastive


def labelled(n=10, classes=3, dim=5):
    torch.manual_seed(0)
    embeddings = functional.normalize(torch.randn(n, dim, dtype=torch.float64))
    return embeddings.requires_grad_(), torch.arange(n) % classes


def test_triplet_equals_a_triple_loop():
    embeddings, labels = labelled()
    terms = []
    for anchor in range(10):
        far = near = None
        for other in range(10):
            distance = (embeddings[anchor] - embeddings[other]).norm().item()
            if labels[other] == labels[anchor] and other != anchor:
                far = distance if far is None else max(far, distance)
            elif labels[other] != labels[anchor]:
                near = distance if near is None else min(near, distance)
        terms.append(max(0.0, far - near + 0.3))
    assert batch_hard_triplet(embeddings, labels).item() == pytest.approx(sum(terms) / 10)


def test_triplet_geometry_on_the_circle():
    angle = torch.tensor([0.0, 0.2, math.pi, math.pi + 0.2])
    circle = torch.stack([angle.cos(), angle.sin()], 1)
    assert batch_hard_triplet(circle, torch.tensor([0, 0, 1, 1])).item() == 0
    wrong = batch_hard_triplet(circle, torch.tensor([0, 1, 0, 1])).item()
    assert wrong == pytest.approx(2 - 2 * math.sin(0.1) + 0.3, abs=1e-6)


def test_contrastive_equals_a_loop():
    embeddings, labels = labelled()
    total = 0.0
    for i in range(10):
        scores = [(embeddings[i] @ embeddings[j]).item() / 0.07 for j in range(10)]
        bottom = math.log(sum(math.exp(scores[j]) for j in range(10) if j != i))
        positives = [j for j in range(10) if j != i and labels[j] == labels[i]]
        total += -sum(scores[j] - bottom for j in positives) / len(positives)
    assert supervised_contrastive(embeddings, labels).item() == pytest.approx(total / 10)


@pytest.mark.parametrize("loss", [batch_hard_triplet, supervised_contrastive])
def test_degenerate_batches_give_zero_with_a_gradient(loss):
    embeddings, _ = labelled(4)
    value = loss(embeddings, torch.arange(4))  # no positives
    value.backward()
    assert value.item() == 0 and embeddings.grad.abs().sum() == 0
    if loss is batch_hard_triplet:
        assert loss(embeddings, torch.zeros(4, dtype=torch.int64)).item() == 0  # no negatives


@pytest.mark.parametrize("loss", [batch_hard_triplet, supervised_contrastive])
def test_order_does_not_matter_and_gradients_are_finite(loss):
    embeddings, labels = labelled()
    shuffle = torch.randperm(10)
    torch.testing.assert_close(loss(embeddings, labels), loss(embeddings[shuffle], labels[shuffle]))
    same = torch.ones(4, 3, requires_grad=True)  # all distances 0: the root's slope is infinite
    loss(functional.normalize(same), torch.tensor([0, 0, 1, 1])).backward()
    assert torch.isfinite(same.grad).all()


@pytest.mark.parametrize("loss", [batch_hard_triplet, supervised_contrastive])
def test_shapes_are_checked(loss):
    with pytest.raises(ValueError, match=r"\(4, 3\) and \(5,\)"):
        loss(torch.rand(4, 3), torch.zeros(5))
