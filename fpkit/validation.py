"""How well an extractor does on synthetic models that it was not trained on."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from fpkit.extractor import Extractor
from fpkit.metrics import auc, eer, tar_at_far, threshold_at_far
from fpkit.stream import FingerprintStream
from fpkit.synthesizer import MixedSynthesizer, RandomSynthesizer, Synthesizer

FAR = 0.01  # false-accept rate of the threshold on the card
HELD_OUT, RANDOM = 16, 16  # models at most of the zoo, and random decoders


def validation_models(held_out: Sequence[str]) -> int:
    """How many models the validation tells apart, if these of the zoo are held out."""
    return min(len(held_out), HELD_OUT) + RANDOM


def validation_batch(stream: FingerprintStream, held_out: Synthesizer) -> tuple[Tensor, Tensor]:
    """Crops and labels of all models of `held_out`, and of 16 fresh random decoders.

    Eight crops of each, from 32 source images that all share; the seed is not the training's.
    The decoders are plain ones on pooled images, so that trainings can be compared.
    """
    models = held_out.classes + RANDOM
    config = replace(
        stream.config,
        models=models,
        images=8,
        sources=32,
        seed=stream.config.seed + 7919,
    )
    mixed = MixedSynthesizer(held_out, RandomSynthesizer(), share=RANDOM / models)
    return FingerprintStream(config, stream.sources, mixed, crop=stream.crop)[0]


@torch.no_grad()
def validate(extractor: Extractor, crops: Tensor, labels: Tensor) -> dict[str, float]:
    """How well single crops (n, 3, crop, crop) of models never trained on are told apart.

    Returns
    -------
    dict
        ``one_shot``: share of crops whose nearest template, made of the first crop of every
        model, is their own model's; ``auc``, ``eer``, ``tar`` at FAR 1%, and the ``threshold``
        that gives that FAR.
    """
    mode = extractor.training
    extractor.eval()
    unit = _unit_embeddings(extractor, crops)
    extractor.train(mode)
    # while it is being trained, its cohort is not known yet
    unit = functional.normalize(
        unit - (unit.mean(0) if mode and extractor.centred else extractor.cohort)
    )
    scores = (unit @ unit.T).cpu()
    same = labels[:, None] == labels[None]
    upper = torch.ones_like(same).triu(1)
    genuine = scores[same & upper].double().numpy()
    impostor = scores[~same & upper].double().numpy()
    first = torch.tensor([int((labels == k).nonzero()[0]) for k in labels.unique()])
    probes = torch.ones(len(labels), dtype=torch.bool)
    probes[first] = False
    nearest = labels[first][scores[probes][:, first].argmax(1)]
    return {
        "one_shot": (nearest == labels[probes]).double().mean().item(),
        "auc": auc(genuine, impostor),
        "eer": eer(genuine, impostor),
        "tar": tar_at_far(genuine, impostor, far=FAR),
        "threshold": threshold_at_far(impostor, far=FAR),
        "far": FAR,
    }


@torch.no_grad()
def cohort(
    extractor: Extractor, stream: FingerprintStream, *, start: int, batches: int = 8
) -> Tensor:
    """Mean unit embedding (dim,) over the batches from `start` on: the centre of all scores."""
    crops = torch.cat([stream[start + i][0] for i in range(batches)])
    return _unit_embeddings(extractor, crops).mean(0)


def _unit_embeddings(extractor: Extractor, crops: Tensor) -> Tensor:
    """(n, dim) unit embeddings of single crops, not centred, on the extractor's device."""
    device = extractor.cohort.device
    raw = torch.cat([extractor(part.to(device)) for part in crops.split(128)])
    return functional.normalize(raw)
