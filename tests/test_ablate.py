"""The ablation of the extractor: its maps, its scores, its table, and a tiny real run."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from torch.nn import functional

from fpkit.arch import ArchSpec
from fpkit.coherence import FLOOR
from fpkit.extractor import Extractor, ExtractorConfig
from fpkit.images import quantise, random_crop
from fpkit.procedural import procedural_images
from fpkit.synthesis import synthesize
from fpkit.zoo import Zoo

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))
import ablate
import ablation_bank
from ablation_bank import (
    Bank,
    FrontEnd,
    Models,
    Recipe,
    averaged,
    crop_of,
    spectra,
)

# ---- crops and maps ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def crops():
    images = procedural_images(4, 72, seed=1)
    generator = torch.Generator().manual_seed(0)
    return torch.stack([random_crop(image, 64, generator=generator) for image in images])


def test_pooling_the_full_level_gives_the_next_one(crops):
    full, half, _ = spectra(crops, FrontEnd(full=True))
    power = functional.avg_pool2d(full.exp() - FLOOR, 3, 2, 1, count_include_pad=False)
    assert full.shape == (4, 5, 64, 33) and half.shape == (4, 5, 32, 17)
    torch.testing.assert_close(torch.log(power + FLOOR), half, rtol=0, atol=1e-2)


def test_scales_of_magnitude(crops):
    plain = spectra(crops, FrontEnd(scale="magnitude"))
    logs = spectra(crops, FrontEnd(scale="log magnitude"))
    torch.testing.assert_close(plain[0].log1p(), logs[0])
    torch.testing.assert_close(plain[1][:, :5].log1p(), logs[1][:, :5])
    torch.testing.assert_close(plain[1][:, 5:], spectra(crops, FrontEnd())[1][:, 5:])


def test_autocorrelation_holds_the_mean_log_power_at_lag_zero_and_is_symmetric(crops):
    lags, coherence = spectra(crops, FrontEnd(scale="autocorrelation"))
    full = spectra(crops, FrontEnd(full=True))[0]
    weights = torch.tensor([1.0] + [2.0] * 31 + [1.0])  # columns that stand for two
    torch.testing.assert_close(lags[:, :, 16, 0], (full * weights).sum((2, 3)) / 64**2)
    torch.testing.assert_close(lags[:, :, 1:16, 0], lags[:, :, 17:, 0].flip(-1))
    assert lags.shape == (4, 5, 32, 17) and coherence.shape[1] == 33


def test_channels_of_a_grey_image_are_coherent(crops):
    grey = crops.mean(1, keepdim=True).expand(-1, 3, -1, -1)
    found = spectra(grey, FrontEnd(cross=True))[1][:, 38:]
    expected = torch.tensor([1.0, 0.0] * 3)[:, None, None].expand_as(found)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-2)
    assert spectra(crops, FrontEnd(cross=True))[1][:, 38::2].amin() < 0.9


def test_averaged_spectra(crops):
    maps = spectra(crops, FrontEnd())
    for once, twice in zip(maps, averaged(maps, maps), strict=True):
        torch.testing.assert_close(once, twice)
    other = [level.roll(1, 0) for level in maps]
    both = averaged(maps, other)
    torch.testing.assert_close(both[0].exp(), (maps[0].exp() + other[0].exp()) / 2)
    # copies of opposite sign cancel
    assert (both[1][:, 27:] <= (maps[1][:, 27:] + other[1][:, 27:]) / 2 + 1e-5).all()


@pytest.mark.parametrize(
    ("keep", "first", "last", "power"),
    [
        ("all", 5, 38, 5),
        ("power", 5, 5, 5),
        ("coherence", 0, 33, 0),
        ("magnitudes", 5, 16, 5),
        ("three", 5, 14, 5),
        ("rgb", 3, 36, 3),
    ],
)
def test_channels_that_are_kept(crops, keep, first, last, power):
    maps = spectra(crops, FrontEnd())
    found = [ablate.kept(level, ablate.Variant(keep=keep)) for level in maps]
    assert [(level.shape[1], n) for level, n in found] == [(first, power), (last, power)]
    halves, sizes = maps[1][:, 5:27].unflatten(1, (11, 2)), maps[1][:, 27:]
    torch.testing.assert_close(halves.square().sum(2).sqrt(), sizes)
    if keep == "three":
        halves, sizes = found[1][0][:, 5:11].unflatten(1, (3, 2)), found[1][0][:, 11:]
        torch.testing.assert_close(halves.square().sum(2).sqrt(), sizes)
    if keep == "magnitudes":
        assert torch.equal(found[1][0][:, 5:], sizes)
    if keep == "rgb":
        assert torch.equal(found[0][0], maps[0][:, :3])


def test_crops_begin_where_the_recipe_says():
    rows, columns = torch.meshgrid(torch.arange(160), torch.arange(160), indexing="ij")
    image = torch.stack([rows, columns, rows]) / 255

    def starts(**options):
        recipe = Recipe(jpeg_share=0, **options)
        found = [crop_of(image, recipe, seed=(0, i))[:2, 0, 0] * 255 for i in range(64)]
        return torch.stack(found).round().long()

    there, back = (starts(off_grid_share=0, opposite=opposite) for opposite in (False, True))
    assert set(there.flatten().tolist()) == {0, 8, 16, 24, 32}
    assert (there + back == 32).all()
    there, back = (starts(off_grid_share=1, opposite=opposite) for opposite in (False, True))
    assert set((there % 8).flatten().tolist()) == set(range(8))
    assert ((there - back) % 8 == 0).all() and there.max() <= 32
    shares = [(starts(off_grid_share=s) % 8 != 0).any(1).float().mean() for s in (0.2, 0.6)]
    assert 0.05 < shares[0] < 0.35 < shares[1]


def test_damages_change_an_image_at_their_share():
    image = quantise(procedural_images(1, 160, seed=2)[0])
    clean = Recipe(jpeg_share=0, off_grid_share=0)
    for recipe in ablate.TESTS.values():
        changed = [
            not torch.equal(crop_of(image, recipe, seed=(1, i)), crop_of(image, clean, seed=(1, i)))
            for i in range(4)
        ]
        assert all(changed) if recipe != clean else not any(changed)
        crop = crop_of(image, recipe, seed=(1, 0))
        assert (
            crop.shape == (3, 128, 128) and (crop * 255 - (crop * 255).round()).abs().max() < 1e-3
        )


# ---- scores ------------------------------------------------------------------------------------


def embeddings(models, images, *, noise, seed):
    generator = torch.Generator().manual_seed(seed)
    middles = torch.randn(models, 1, 16, generator=generator)
    around = torch.randn(models, images, 16, generator=generator)
    return functional.normalize(middles + noise * around, dim=-1)


@pytest.mark.parametrize("back_end", [ablate.BackEnd(), *ablate.BACK_ENDS.values()])
def test_back_ends_tell_what_can_be_told(back_end):
    cohort = embeddings(40, 3, noise=0.3, seed=1)
    easy = ablate.judge(embeddings(20, 9, noise=0.1, seed=2), cohort, back_end)
    assert easy["identification"] == 1 and easy["auc"] > 0.999
    hopeless = embeddings(20, 9, noise=0.0, seed=3)[:, :1].expand(-1, 9, -1)
    shuffled = hopeless.flatten(0, 1)[torch.randperm(180, generator=torch.Generator())]
    chance = ablate.judge(shuffled.unflatten(0, (20, 9)), cohort, back_end)
    assert chance["identification"] < 0.3 and abs(chance["auc"] - 0.5) < 0.12


def test_back_ends_are_what_they_are_called():
    cohort, test = embeddings(40, 3, noise=0.3, seed=1), embeddings(5, 7, noise=1.0, seed=2)
    probes, enrolled = test[:, 6], test[:, :6]

    def scores(**options):
        return ablate.back_end_scores(probes, enrolled, cohort, ablate.BackEnd(**options))

    plain = scores(centre="none", rule="max")
    torch.testing.assert_close(plain, torch.einsum("pd,mkd->pmk", probes, enrolled).amax(2))
    # whitening undoes any linear map of all embeddings, up to the shrinkage
    skew = torch.diag(torch.linspace(1, 3, 16))
    one, other = (
        ablate.back_end_scores(
            probes @ m, enrolled @ m, cohort @ m, ablate.BackEnd(wccn=True, centre="none")
        )
        for m in (torch.eye(16), skew)
    )
    raw = ablate.back_end_scores(
        probes @ skew, enrolled @ skew, cohort @ skew, ablate.BackEnd(centre="none")
    )
    assert (one - other).abs().mean() < 0.5 * (one - raw).abs().mean()
    strangers = torch.einsum("cjd,md->mcj", _seen(cohort, cohort), _templates(enrolled, cohort))
    z = (scores() - strangers.flatten(1).mean(1)) / strangers.flatten(1).std(1)
    torch.testing.assert_close(scores(norm="z"), z)


def _seen(x, cohort):
    return functional.normalize(x - cohort.mean((0, 1)), dim=-1)


def _templates(enrolled, cohort):
    return functional.normalize(_seen(enrolled, cohort).mean(1), dim=-1)


# ---- the table ---------------------------------------------------------------------------------


def result(variant, seed, rate):
    figures = {"identification": rate, "auc": 0.9}
    return {"variant": variant, "seed": seed, "tests": {"clean": figures, "jpeg85": figures}}


def test_differences_are_paired_by_seed():
    lines = [result("default", seed, 0.5 + seed / 10) for seed in (0, 1, 2)]
    lines += [result("median", seed, 0.5 + seed / 10 + d) for seed, d in ((2, 0.1), (0, 0.2))]
    lines += [result("median", 1, 0.5 + 1 / 10 + 0.3), result("DnCNN", 0, 0.4)]
    lines += [result("highpass", seed, 0.5 + seed / 10) for seed in (0, 1, 2)]
    found = {name: f["clean"]["identification"] for name, f in ablate.compare(lines).items()}
    assert found["median"]["mean"] == pytest.approx(0.8)
    assert found["median"]["differences"] == pytest.approx([0.2, 0.3, 0.1])
    # variances 0.01 and 0, pooled over 4 degrees of freedom
    assert found["median"]["interval"] == pytest.approx(2.776 * (0.005 / 3) ** 0.5, rel=0.02)
    assert found["highpass"]["interval"] == found["median"]["interval"]
    text = ablate.table(lines)
    assert "| median | 3 | 80.0 | **+20.0 ± 11.1** | 0.900 | +0.000 ± 0.000 |" in text
    assert "| default | 3 | 60.0 |  | 0.900 |  |" in text
    assert "| DnCNN (against small default) | 1 | 40.0 |  |" in text


def test_students_quantile():
    assert [ablate.student(n) for n in (5, 10, 30)] == pytest.approx(
        [2.571, 2.228, 2.042], rel=0.01
    )


def test_variants_change_one_thing():
    default = ablate.VARIANTS["default"]
    about = {"group", "against", "tests"}
    more = {"level at full resolution added": 2, "small default": 3, "DnCNN": 4}
    more |= {"memory bank, last quarter": 2}
    more |= {"the paper's choices together, without its denoiser": 8}
    for name, variant in ablate.VARIANTS.items():
        changed = {k for k, v in vars(variant).items() if v != vars(default)[k]} - about
        assert len(changed) == more.get(name, int(name != "default")), (name, changed)
        assert variant.against in ablate.references()
        assert set(ablate.Variant.tests) <= set(variant.tests) <= set(ablate.TESTS)


# ---- a tiny real run ---------------------------------------------------------------------------

SPECS = [
    ArchSpec(blocks=1, upsample=upsample, activation="none", norm="none", kernel=kernel)
    for upsample in ("nearest", "bilinear")
    for kernel in (1, 3)
]
TINY = ablate.Budget(steps=2, models=3, images=2, train_images=2, test_models=3)


@pytest.fixture(scope="module")
def bank(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ablation")
    tiles = np.random.default_rng(0).integers(0, 256, (48, 24, 24, 3), dtype=np.uint8)
    np.save(folder / "photos.npy", tiles.repeat(8, 1).repeat(8, 2))
    zoo = Zoo.create(folder / "zoo", source="two images")
    images = procedural_images(2, 64, seed=0)
    for spec in SPECS:
        for seed in (0, 1):
            zoo.add(synthesize(spec, images, seed=seed, max_steps=2, progress=False))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ablation_bank, "WORST", 1.0)  # two steps of training make no good models
        zoos = {"paper": folder / "zoo"}
        ablation_bank.build_bank(folder, folder / "photos.npy", zoos, decoders=4, images=8)
    return Bank.load(folder)


def test_the_bank_keeps_architectures_apart(bank):
    assert bank.images.shape == (20, 8, 3, 160, 160) and bank.images.dtype == np.uint8
    assert len(np.unique(bank.images[:, 0], axis=0)) == 20  # no two models alike
    held = bank.held_out(100)
    assert len(held) == 4 and bank.held_out(2) == [held[0], held[-1]]
    archs = {bank.rows[i]["arch"] for i in held}
    counts = {}
    for models in get_args(Models):
        chosen = bank.training(models)
        assert chosen == sorted(set(chosen)) and not set(chosen) & set(held)
        assert not archs & {bank.rows[i]["arch"] for i in chosen}
        counts[models] = len(chosen)
    assert counts["all"] == counts["trained"] + counts["random"] == 6 + 8
    assert counts["paper one seed"] == 3 and counts["paper two seeds"] == 4
    assert counts["photographs"] == counts["procedural"] == counts["both images"] == 2
    assert {bank.rows[i]["kind"] for i in bank.training("both images")} == {"plain", "procedural"}


def test_a_run_trains_tests_and_resumes(bank, tmp_path):
    names = [
        "default",
        "two crops, spectra averaged",
        "coherence only",
        "memory bank, last quarter",
    ]
    names += ["cross entropy and triplet", "level at full resolution added"]
    names += ["autocorrelation of log power", "per channel"]
    out = tmp_path / "results.jsonl"
    ablate.run(bank, out, names[:2], [0], TINY)
    first = ablate.read_results(out)
    assert [line["variant"] for line in first] == [
        "default", ablate.TWO_CROPS, *ablate.BACK_ENDS, "two crops, spectra averaged"
    ]  # fmt: skip
    assert set(first[0]["tests"]) == set(ablate.TESTS)
    assert first[0]["models"] == 14 and first[0]["budget"]["steps"] == 2
    ablate.run(bank, out, names, [0], TINY)
    lines = ablate.read_results(out)
    assert lines[: len(first)] == first and len(lines) == len(first) + len(names) - 2
    for line in lines:
        assert {"clean", "jpeg85"} <= set(line["tests"])
        for figures in line["tests"].values():
            assert 0 <= figures["identification"] <= 1 and 0 <= figures["auc"] <= 1
    text = ablate.table(lines)
    assert text.count("\n| ") > len(lines) and "**spectrum**" in text


def test_training_learns_and_depends_on_the_seed_alone(bank):
    variant, budget = ablate.VARIANTS["default"], replace(TINY, steps=20, rate=1e-2)
    one, again, other = (ablate.train(bank, variant, budget, seed=s) for s in (0, 0, 1))
    torch.testing.assert_close(one[1], again[1], rtol=0, atol=0)
    assert one[1].shape == (14, 2, 128) and not torch.equal(one[1], other[1])
    untrained = ablate.train(bank, variant, replace(budget, steps=1), seed=0)
    assert one[2] < 0.5 * untrained[2]


def test_the_network_is_the_extractors(bank):
    config = ExtractorConfig(widths=(24, 48, 96))
    network = ablate.train(bank, ablate.VARIANTS["default"], TINY, seed=0)[0]
    extractor = Extractor(config).eval()
    missing, unexpected = extractor.load_state_dict(network.state_dict(), strict=False)
    assert missing == ["cohort"] and not unexpected
    crops = torch.from_numpy(bank.images[:3, 0, :, :128, :128].copy()) / 255
    torch.testing.assert_close(network(spectra(crops, FrontEnd())), extractor(crops))


def test_mistakes_are_explained(bank, tmp_path):
    with pytest.raises(FileNotFoundError, match="make one with"):
        Bank.load(tmp_path)
    with pytest.raises(ValueError, match="only 0 of those called 'extended'"):
        ablate.train(bank, ablate.VARIANTS["extended space only"], TINY, seed=0)
    with pytest.raises(ValueError, match="zoos must be named paper and extended, got other"):
        ablate.main(["bank", str(tmp_path), "--photos", "x.npy", "--zoo", "other=somewhere"])


def test_table_from_the_command_line(tmp_path, capsys):
    path = tmp_path / "results.jsonl"
    path.write_text(json.dumps(result("default", 0, 0.25)) + "\n")
    ablate.main(["table", str(path)])
    assert "| default | 1 | 25.0 |  | 0.900 |  | 25.0 |" in capsys.readouterr().out
