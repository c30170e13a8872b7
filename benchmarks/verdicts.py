"""Where do the two thresholds of a verdict lie, and what do they do on real generators?

    python benchmarks/verdicts.py [FOLDER] [--batches 4] [--enrolled 10]

Single crops of models that the extractor was not trained on: random decoders, and the models of
the starter zoo whose architectures were held out. Prints the thresholds that `fpkit.verdicts`
ships, and, for a folder-per-model tree of real images, how often they err there (one model per
decoder, each format by itself). Nothing is chosen on the real images.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import fpkit as fp
from fpkit.embedder import Embedder
from fpkit.gallery import centred_scores, template
from fpkit.manifest import PHOTO, read_facts
from fpkit.stream import FingerprintStream, Sources, StreamConfig
from fpkit.verdicts import IDENTIFY, Thresholds, verification_thresholds

SHOTS, DRAWS = 5, 40  # images enrolled per model; galleries drawn
IMAGES, MODELS = 16, 40  # per synthetic model; models per batch

Scores = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Scores of the best enrolled model: of its own images, rightly named or not, and of others."""

    known: Scores
    right: NDArray[np.bool_]
    unknown: Scores


def synthetic(extractor: Embedder, batch: int) -> tuple[Scores, NDArray[np.intp]]:
    """Embeddings and models of one batch that no training saw."""
    config = StreamConfig(
        models=MODELS, images=IMAGES, sources=64, random_share=0.75, encoder="both", space="both",
        jpeg_share=0.0, off_grid_share=0.0, seed=424242 + batch,
    )  # fmt: skip
    zoo = fp.Zoo.load()
    kept_out = set(extractor.card["held_out_architectures"])
    held_out = [name for name in zoo.model_ids if name.split("/")[0] in kept_out]
    stream = FingerprintStream(
        config, Sources(procedural=128), config.synthesizer(zoo, held_out), crop=128
    )
    return extractor.embed(stream[0][0]).numpy(), np.repeat(np.arange(MODELS), IMAGES)


def real(extractor: Embedder, folder: Path, form: str) -> tuple[Scores, NDArray[np.intp], Scores]:
    """Embeddings and models of the images stored as `form`, and embeddings of photographs."""
    first: dict[str, str] = {}
    facts = [fact for fact in read_facts(folder) if fact.format == form]
    for fact in facts:
        first.setdefault(fact.decoder, fact.model)
    models = [f for f in facts if f.family != PHOTO and first[f.decoder] == f.model]
    photos = [fact for fact in facts if fact.family == PHOTO]
    rows = [extractor.embed([fp.read_image(f.path)])[0].numpy() for f in models + photos]
    _, model = np.unique([fact.model for fact in models], return_inverse=True)
    empty = np.zeros((0, extractor.dim))
    return np.stack(rows[: len(models)]), model, np.array(rows[len(models) :] or empty)


def pairs(rows: Scores, model: NDArray[np.intp]) -> tuple[Scores, Scores]:
    """Scores of all genuine and of all impostor pairs."""
    upper = np.triu(np.ones((len(rows), len(rows)), bool), k=1)
    same = model[:, None] == model
    scores = rows @ rows.T
    return scores[same & upper], scores[~same & upper]


def identification(rows: Scores, model: NDArray[np.intp], enrolled: int) -> Asked:
    """Galleries of `enrolled` random models, asked about all other images."""
    generator = np.random.default_rng(0)
    known, right, unknown = [], [], []
    for _ in range(DRAWS):
        order = generator.permutation(model.max() + 1)
        templates, probes, own = [], [], []
        for place, name in enumerate(order[:enrolled]):
            images = generator.permutation(np.flatnonzero(model == name))
            templates.append(template(rows[images[:SHOTS]]))
            probes.append(images[SHOTS:])
            own.append(np.full(len(images[SHOTS:]), place))
        scores = centred_scores(rows[np.concatenate(probes)], templates)
        known.append(scores.max(1))
        right.append(scores.argmax(1) == np.concatenate(own))
        others = rows[np.isin(model, order[enrolled:])]
        unknown.append(centred_scores(others, templates).max(1))
    return Asked(known=np.concatenate(known), right=np.concatenate(right),
                 unknown=np.concatenate(unknown))  # fmt: skip


def shares(scores: Scores, thresholds: Thresholds) -> str:
    decisions = [thresholds.decide(score) for score in scores]
    words = ("accepted", "unsure", "refused")
    return ", ".join(f"{decisions.count(word) / len(decisions):4.0%} {word}" for word in words)


def report(name: str, rows: Scores, model: NDArray[np.intp], enrolled: int, card: dict) -> Asked:
    genuine, impostor = pairs(rows, model)
    asked = identification(rows, model, enrolled)
    verify = verification_thresholds(card)
    print(f"{name}: {model.max() + 1} models, {len(rows)} images")
    print(f"  pairs of one model      {shares(genuine, verify)}")
    print(f"  pairs of two models     {shares(impostor, verify)}")
    print(f"  of an enrolled model    {shares(asked.known, IDENTIFY)}")
    accepted = asked.right[asked.known >= IDENTIFY.accept]
    print(f"    named rightly         {asked.right.mean():.0%}, of the accepted ", end="")
    print(f"{accepted.mean():.0%}" if len(accepted) else "-")
    print(f"  of a model not enrolled {shares(asked.unknown, IDENTIFY)}")
    return asked


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--batches", type=int, default=4)
    parser.add_argument("--enrolled", type=int, default=10)
    arguments = parser.parse_args()

    extractor = fp.load_extractor()
    found = {"verify": [], "identify": []}
    for batch in range(arguments.batches):
        rows, model = synthetic(extractor, batch)
        found["verify"].append(Thresholds.measured(*pairs(rows, model)))
        name = f"synthetic, batch {batch}"
        asked = report(name, rows, model, arguments.enrolled, extractor.card)
        right = asked.known[asked.right]
        found["identify"].append(Thresholds.measured(right, asked.unknown))
    for name, several in found.items():
        accept = np.array([thresholds.accept for thresholds in several])
        refuse = np.array([thresholds.refuse for thresholds in several])
        print(f"{name}: accept {accept.mean():.2f} ({accept.min():.2f} to {accept.max():.2f}), "
              f"refuse {refuse.mean():.2f} ({refuse.min():.2f} to {refuse.max():.2f})")  # fmt: skip
    for form in ("png", "jpeg") if arguments.folder else ():
        rows, model, photos = real(extractor, arguments.folder, form)
        report(f"real, {form}", rows, model, arguments.enrolled, extractor.card)
        if len(photos):
            generator = np.random.default_rng(1)
            scores = []
            for _ in range(DRAWS):
                names = generator.permutation(model.max() + 1)[: arguments.enrolled]
                templates = [template(rows[model == name][:SHOTS]) for name in names]
                scores.append(centred_scores(photos, templates).max(1))
            print(f"  photographs             {shares(np.concatenate(scores), IDENTIFY)}")


if __name__ == "__main__":
    main()
