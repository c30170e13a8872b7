"""What makes an extractor generalise: change one thing at a time, at a small fixed budget.

    python benchmarks/ablate.py bank BANK --photos photos.npy --zoo paper=ZOO --zoo extended=ZOO
    OMP_NUM_THREADS=1 python benchmarks/ablate.py run BANK --out results.jsonl [--only NAME ...]
    python benchmarks/ablate.py table results.jsonl

`bank` stores images of trained models (zoos of the paper's space and of the extended one) and of
random decoders; a quarter of the architectures is held out, and shown other photographs. `run`
trains a small network per variant and seed, all variants of a seed before the next, tests it on
held-out models and adds a line per result; what is there already is skipped, so it may be stopped
at any time. `table` sets every variant against its reference of the same seed. Real images take
no part.
"""

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import mean, variance
from typing import Any

import numpy as np
import torch
from ablation_bank import PAIRS, Bank, averaged, build_bank, pooled_maps
from ablation_variants import BACK_ENDS, TESTS, TWO_CROPS, VARIANTS, BackEnd, Variant
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from fpkit.extractor import COLOUR, Stage, Standardise
from fpkit.losses import batch_hard_triplet, supervised_contrastive
from fpkit.metrics import auc
from fpkit.resnet import ResNet50

SHOTS, DRAWS = 6, 4  # images enrolled per model, and how often they are drawn anew
DIM = 128


# ---- the network and its training --------------------------------------------------------------


class Network(nn.Module):
    """The extractor's network, or a ResNet-50, on whatever maps a variant makes."""

    def __init__(self, sample: list[Tensor], variant: Variant, *, dim: int = DIM) -> None:
        super().__init__()
        self.variant = variant
        rows, columns = sample[0].shape[-2:]
        self.positions = nn.Parameter(torch.randn(variant.positions, rows, columns) * 0.1)
        self.standardise = nn.ModuleList()
        channels = []
        for level in sample:
            maps, power = kept(level, variant)
            channels.append(maps.shape[1])
            if maps.shape[1] == 0:
                self.standardise.append(nn.Identity())
                continue
            standardise = Standardise(*maps.shape[1:], power=power)
            standardise.measure(maps)
            if not variant.standardise:  # one mean and deviation for all bins of a channel
                by_channel = maps.transpose(0, 1).flatten(1)
                standardise.mean.copy_(by_channel.mean(1)[:, None, None].expand_as(maps[0]))
                standardise.std.copy_(by_channel.std(1)[:, None, None].expand_as(maps[0]))
            self.standardise.append(standardise)
        if variant.resnet:
            self.resnet = ResNet50(variant.positions + sum(channels), width=32)
            self.head = nn.Linear(self.resnet.dim, dim)
            return
        self.stages = nn.ModuleList()
        inputs = variant.positions
        for level, width in enumerate(variant.widths):
            self.stages.append(Stage(inputs + sum(channels[level : level + 1]), width))
            inputs, rows, columns = width, (rows + 1) // 2, (columns + 1) // 2
        self.head = nn.Linear(inputs * rows * columns, dim)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Maps of n crops -> raw embeddings (n, dim)."""
        levels = [
            standardise(kept(level, self.variant)[0])
            for standardise, level in zip(self.standardise, maps, strict=True)
        ]
        x = self.positions.expand(len(maps[0]), -1, -1, -1)
        if self.variant.resnet:
            size = x.shape[-2:]
            levels = [functional.interpolate(level, size) for level in levels]
            x = torch.cat([x, *levels], 1).contiguous(memory_format=torch.channels_last)
            return self.head(self.resnet(x).float())
        for level, stage in enumerate(self.stages):
            x = torch.cat([x, *levels[level : level + 1]], 1)
            x = stage(x.contiguous(memory_format=torch.channels_last))
        return self.head(x.flatten(1))


def kept(maps: Tensor, variant: Variant) -> tuple[Tensor, int]:
    """The channels of a level that a variant looks at, and how many of them are log power."""
    count, n = maps.shape[1], len(COLOUR)
    coherence = range(n, count)
    if variant.front.scale == "autocorrelation":
        return maps, 0
    channels = {
        "all": range(count),
        "power": range(n),
        "coherence": coherence,
        "magnitudes": [*range(n), *coherence[PAIRS:]],
        "three": [*range(n), *coherence[:6], *coherence[PAIRS : PAIRS + 3]],
        "rgb": [*range(3), *coherence],
    }[variant.keep]
    return maps[:, list(channels)], sum(c < n for c in channels)


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What every variant gets."""

    steps: int = 120
    models: int = 16
    images: int = 4
    rate: float = 2e-3
    train_images: int = 8
    test_models: int = 160


def picked(
    pools: list[list[NDArray[np.float16]]], models: NDArray[np.intp], images: NDArray[np.intp]
) -> list[Tensor]:
    """Maps of some crops; where there are two pools, the mean spectra of both."""
    found = [[torch.from_numpy(level[models, images]).float() for level in p] for p in pools]
    return averaged(*found) if len(found) == 2 else found[0]


def train(
    bank: Bank, variant: Variant, budget: Budget, *, seed: int
) -> tuple[Network, Tensor, float]:
    """Train a variant; the network, embeddings (models, 2, dim) of its models, the last loss."""
    chosen = bank.training(variant.models)
    if len(chosen) < budget.models:
        raise ValueError(
            f"a batch draws {budget.models} models, but the bank has only {len(chosen)} of those "
            f"called {variant.models!r}: make a larger bank, with zoos of both spaces"
        )
    shared = set(chosen) <= set(bank.training())
    pool_models = bank.training() if shared else chosen
    recipes = [replace(variant.recipe, opposite=o) for o in (False, True)[: 1 + variant.welch]]
    pools = [
        pooled_maps(bank, recipe, variant.front, pool_models, images=budget.train_images)
        for recipe in recipes
    ]
    where = {model: place for place, model in enumerate(pool_models)}
    places = np.array([where[model] for model in chosen])
    random = np.random.default_rng(seed)

    def batch() -> tuple[list[Tensor], Tensor]:
        labels = random.choice(len(chosen), budget.models, replace=False)
        images = [random.choice(budget.train_images, budget.images, replace=False) for _ in labels]
        labels = labels.repeat(budget.images)
        return picked(pools, places[labels], np.concatenate(images)), torch.from_numpy(labels)

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        sample = [torch.cat(parts) for parts in zip(*(batch()[0] for _ in range(6)), strict=True)]
        network = Network(sample, variant)
        classify = nn.Linear(DIM, len(chosen))
    modules = nn.ModuleList([network, classify]).train()
    optimiser = torch.optim.AdamW(modules.parameters(), lr=budget.rate, weight_decay=0.02)
    warm, fall = 0.15 * budget.steps, 0.4 * budget.steps
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min((step + 1) / warm, 1, (budget.steps - step) / fall)
    )
    past, past_labels = torch.zeros(0, DIM), torch.zeros(0, dtype=torch.int64)
    for step in range(budget.steps):
        maps, labels = batch()
        with torch.autocast("cpu", torch.bfloat16):
            raw = network(maps)
        raw = raw.float()
        unit = functional.normalize(raw)
        if variant.loss == "contrastive":
            seen, names = torch.cat([unit, past]), torch.cat([labels, past_labels])
            loss = supervised_contrastive(seen, names, temperature=variant.temperature)
            if step >= variant.queue_from * budget.steps:
                past, past_labels = seen.detach()[: variant.queue], names[: variant.queue]
        else:
            loss = functional.cross_entropy(classify(raw), labels)
            if variant.loss == "ce+triplet":
                loss = loss + batch_hard_triplet(unit, labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    network.eval()
    own = [[level[places, :2] for level in pool] for pool in pools]
    return network, embeddings(network, own), loss.item()


@torch.no_grad()
def embeddings(network: Network, pools: list[list[NDArray[np.float16]]]) -> Tensor:
    """Unit embeddings (models, images, dim) of the crops of a pool."""
    count, images = pools[0][0].shape[:2]
    models, places = (x.ravel() for x in np.indices((count, images)))
    parts = []
    for start in range(0, len(models), 128):
        few = slice(start, start + 128)
        with torch.autocast("cpu", torch.bfloat16):
            raw = network(picked(pools, models[few], places[few]))
        parts.append(functional.normalize(raw.float()))
    return torch.cat(parts).unflatten(0, (count, images))


# ---- scores ------------------------------------------------------------------------------------


def judge(test: Tensor, cohort: Tensor, back_end: BackEnd | None = None) -> dict[str, float]:
    """How well held-out models are told apart by unit embeddings (models, images, dim).

    Returns
    -------
    dict
        ``identification``, the share of single crops whose highest score is their own model's
        among all, and ``auc``, of their scores against their own and all other models. 6 random
        images of each model are enrolled, the others asked about; mean of 4 draws.
    """
    back_end = back_end or BackEnd()
    generator = torch.Generator().manual_seed(0)
    rates, areas = [], []
    for _ in range(DRAWS):
        order = torch.randperm(test.shape[1], generator=generator)
        probes = test[:, order[SHOTS:]].flatten(0, 1)
        scores = back_end_scores(probes, test[:, order[:SHOTS]], cohort, back_end)
        own = torch.arange(len(test)).repeat_interleave(test.shape[1] - SHOTS)
        rates.append((scores.argmax(1) == own).double().mean().item())
        genuine = own[:, None] == torch.arange(len(test))
        areas.append(auc(scores[genuine].numpy(), scores[~genuine].numpy()))
    return {"identification": mean(rates), "auc": mean(areas)}


def back_end_scores(probes: Tensor, enrolled: Tensor, cohort: Tensor, back_end: BackEnd) -> Tensor:
    """Scores (p, m) of probes (p, d) against m models by images (m, k, d), higher is more alike.

    ``cohort`` (c, j, d) are embeddings of the models trained on: their mean is the centre; z-norm
    puts the scores of a template against their images to mean 0 and variance 1, s-norm averages
    this with the same for the probe against their templates; whitening makes their images' spread
    about their models' means, shrunk a little, the unit.
    """
    if back_end.wccn:
        apart = (cohort - cohort.mean(1, keepdim=True)).flatten(0, 1)
        spread = apart.T @ apart / (len(cohort) * (cohort.shape[1] - 1))
        spread += 0.1 * spread.diagonal().mean() * torch.eye(len(spread))
        whiten = torch.linalg.cholesky(torch.linalg.inv(spread))
        probes, enrolled, cohort = probes @ whiten, enrolled @ whiten, cohort @ whiten
    centres = {
        "none": 0 * probes[0],
        "cohort": cohort.mean((0, 1)),
        "gallery": enrolled.mean((0, 1)),
    }
    probes, enrolled, cohort = (
        functional.normalize(x - centres[back_end.centre], dim=-1)
        for x in (probes, enrolled, cohort)
    )
    if back_end.rule != "mean":
        each = torch.einsum("pd,mkd->pmk", probes, enrolled)
        return each.topk(1 if back_end.rule == "max" else 3, dim=-1).values.mean(-1)
    templates = functional.normalize(enrolled.mean(1), dim=-1)
    scores = probes @ templates.T
    if back_end.norm == "none":
        return scores
    strangers = cohort.flatten(0, 1) @ templates.T
    by_template = (scores - strangers.mean(0)) / strangers.std(0)
    if back_end.norm == "z":
        return by_template
    strangers = probes @ functional.normalize(cohort.mean(1), dim=-1).T
    return (by_template + (scores - strangers.mean(1)[:, None]) / strangers.std(1)[:, None]) / 2


# ---- running, and the table --------------------------------------------------------------------


def run_variant(bank: Bank, name: str, budget: Budget, *, seed: int) -> list[dict[str, Any]]:
    """Train and test one variant with one seed; the default brings the back ends along."""
    variant = VARIANTS[name]
    if variant.small:
        few = (budget.train_images // 2, budget.test_models // 2)
        budget = replace(budget, train_images=few[0], test_models=few[1])
    began = time.process_time()
    network, cohort, loss = train(bank, variant, budget, seed=seed)
    found: dict[str, dict[str, dict[str, float]]] = {name: {}}
    for test in variant.tests:
        usual = test in Variant.tests
        pools = [
            pooled_maps(
                bank,
                replace(TESTS[test], crop=variant.recipe.crop, opposite=opposite),
                variant.front,
                bank.held_out(budget.test_models),
                images=bank.images.shape[1],
            )
            for opposite in (False, True)[: 1 + (variant.welch or name == "default" and usual)]
        ]
        if name != "default" or not usual:
            found[name][test] = judge(embeddings(network, pools), cohort)
            continue
        one = embeddings(network, pools[:1])
        found[name][test] = judge(one, cohort)
        both = functional.normalize(one + embeddings(network, pools[1:]), dim=-1)
        found.setdefault(TWO_CROPS, {})[test] = judge(both, cohort)
        for other, back_end in BACK_ENDS.items():
            found.setdefault(other, {})[test] = judge(one, cohort, back_end)
    facts = {
        "seed": seed,
        "budget": asdict(budget),
        "models": len(cohort),
        "loss": loss,
        "cpu_seconds": time.process_time() - began,
    }
    return [{"variant": key, "tests": tests, **facts} for key, tests in found.items()]


def run(bank: Bank, out: Path, names: Sequence[str], seeds: Sequence[int], budget: Budget) -> None:
    """Add a line to `out` per variant and seed that is not there yet."""
    done = {(line["variant"], line["seed"]) for line in read_results(out)}
    for seed in seeds:
        for name in names:
            if (name, seed) in done:
                continue
            lines = run_variant(bank, name, budget, seed=seed)
            with out.open("a", encoding="utf-8") as file:
                file.write("".join(json.dumps(line) + "\n" for line in lines))
            print(
                f"{name}, seed {seed}: {lines[0]['cpu_seconds']:.0f} s",
                lines[0]["tests"],
                flush=True,
            )


def read_results(path: Path) -> list[dict[str, Any]]:
    """Lines that `run` wrote; none if there is no such file."""
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def compare(lines: list[dict[str, Any]]) -> dict[str, dict[str, dict[str, Any]]]:
    """Figures of every variant: [variant][test][what] with what of identification and auc.

    Each holds the ``mean`` over its seeds, the paired ``differences`` to the reference of the same
    seed, and ``interval``, half the width of the 95% interval of their mean (None for want of
    seeds), by Student's t with the scatter over seeds pooled over all variants, because three
    seeds say little about it; that of back ends, which share a network, apart.
    """
    tests = {(line["variant"], line["seed"]): line["tests"] for line in lines}
    found: dict[str, dict[str, dict[str, Any]]] = {}
    alike: dict[tuple[bool, str, str], list[dict[str, Any]]] = {}
    for name, reference in references().items():
        seeds = sorted(seed for variant, seed in tests if variant == name)
        for test in tests[name, seeds[0]] if seeds else ():
            for what in ("identification", "auc"):
                own = {seed: tests[name, seed][test][what] for seed in seeds}
                entry = {"mean": mean(own.values()), "interval": None, "differences": [
                    value - tests[reference, seed][test][what]
                    for seed, value in own.items()
                    if name != reference and test in tests.get((reference, seed), {})
                ]}  # fmt: skip
                found.setdefault(name, {}).setdefault(test, {})[what] = entry
                alike.setdefault((name in VARIANTS, test, what), []).append(entry)
    for entries in alike.values():
        several = [e["differences"] for e in entries if len(e["differences"]) > 1]
        degrees = sum(len(differences) - 1 for differences in several)
        for entry in entries:
            if degrees and entry["differences"]:
                squares = sum(variance(d) * (len(d) - 1) for d in several)
                spread = (squares / degrees / len(entry["differences"])) ** 0.5
                entry["interval"] = student(degrees) * spread
    return found


def student(degrees: int) -> float:
    """97.5% quantile of Student's t: Abramowitz and Stegun, 26.7.5, to 1% from 5 degrees on."""
    z = 1.95996
    second = (5 * z**5 + 16 * z**3 + 3 * z) / (96 * degrees**2)
    return z + (z**3 + z) / (4 * degrees) + second


def references() -> dict[str, str]:
    """What every variant is set against, in the order of the table."""
    after = dict.fromkeys((TWO_CROPS, *BACK_ENDS), "default")
    return {name: variant.against for name, variant in VARIANTS.items()} | after


def table(lines: list[dict[str, Any]]) -> str:
    """Markdown: all variants, clean and after JPEG; then those that met their own degradation."""
    found = compare(lines)
    heads = ("identification", "difference", "AUC", "difference")
    rows = [
        (
            "variant",
            "seeds",
            *(f"{head}, {test}" for test in ("clean", "JPEG 85") for head in heads),
        )
    ]
    group = "default"
    for name, figures in found.items():
        own = VARIANTS[name].group if name in VARIANTS else "back end"
        if own != group:
            rows.append((f"**{own}**", *[""] * (len(rows[0]) - 1)))
            group = own
        seeds = str(sum(line["variant"] == name for line in lines))
        rows.append((_label(name), seeds, *_cells(figures["clean"]), *_cells(figures["jpeg85"])))
    blocks = [rows]
    rows = [("trained with, tested on", *heads)]
    for name, figures in found.items():
        for test in figures:
            if test not in Variant.tests:
                rows.append((f"{name}, {test}", *_cells(figures[test])))
    blocks.append(rows)
    return "\n\n".join(map(_markdown, blocks))


def _label(name: str) -> str:
    reference = references()[name]
    return name if reference in ("default", name) else f"{name} (against {reference})"


def _cells(figures: dict[str, Any]) -> list[str]:
    """Mean and difference of identification, in per cent, and of AUC; bold if it is certain."""
    cells = []
    for what, scale, digits in (("identification", 100, 1), ("auc", 1, 3)):
        entry = figures[what]
        cells.append(f"{scale * entry['mean']:.{digits}f}")
        if not entry["differences"]:
            cells.append("")
            continue
        difference = mean(entry["differences"])
        text = f"{scale * difference:+.{digits}f}"
        if entry["interval"] is not None:
            text += f" ± {scale * entry['interval']:.{digits}f}"
            text = f"**{text}**" if abs(difference) > entry["interval"] else text
        cells.append(text)
    return cells


def _markdown(rows: list[tuple[str, ...]]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]])


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    made = verbs.add_parser("bank", help="store images of many models")
    made.add_argument("bank", type=Path)
    made.add_argument("--photos", type=Path, required=True, help="of data/photos/make_photos.py")
    made.add_argument("--zoo", action="append", default=[], metavar="paper=FOLDER")
    made.add_argument("--decoders", type=int, default=256, help="random ones of each kind")
    ran = verbs.add_parser("run", help="train and test variants")
    ran.add_argument("bank", type=Path)
    ran.add_argument("--out", type=Path, required=True, help="lines of JSON, added to")
    ran.add_argument("--only", nargs="*", default=list(VARIANTS), choices=list(VARIANTS))
    ran.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    ran.add_argument("--steps", type=int, default=Budget.steps)
    shown = verbs.add_parser("table", help="write the table")
    shown.add_argument("results", type=Path)
    args = parser.parse_args(argv)
    if args.verb == "bank":
        zoos = {name: Path(path) for name, _, path in (item.partition("=") for item in args.zoo)}
        build_bank(args.bank, args.photos, zoos, decoders=args.decoders)
    elif args.verb == "run":
        budget = Budget(steps=args.steps)
        run(Bank.load(args.bank), args.out, args.only, args.seeds, budget)
    else:
        print(table(read_results(args.results)))


if __name__ == "__main__":
    main()
