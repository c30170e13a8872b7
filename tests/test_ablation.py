"""The ablation table: right rows, right models in them, one command."""

import json

import numpy as np
import pytest
import torch

from fpkit.ablation import AblationConfig, ablation, source_pool, to_markdown
from fpkit.arch import PAPER, ArchSpec
from fpkit.blocks import SyntheticModel
from fpkit.cli import main
from fpkit.fidelity import Population, View, zoo_population
from fpkit.images import write_png
from fpkit.metrics import ffd
from fpkit.synthesis import Synthesis
from fpkit.zoo import Zoo

VIEW = View(images=2, crop=32)


def make_zoo(path, specs, *, seeds=(0,)) -> Zoo:
    """Untrained models; those of seed 0 count as trained to their target."""
    zoo = Zoo.create(path, source="none")
    for seed in seeds:
        for spec in specs:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                model = SyntheticModel(spec).eval()
            zoo.add(
                Synthesis(
                    spec=spec,
                    seed=seed,
                    model=model,
                    residual=0.1,
                    reached=seed == 0,
                    steps=0,
                    seconds=0.0,
                    history=np.zeros(0),
                )  # fmt: skip
            )
    return zoo


@pytest.fixture(scope="module")
def zoo(tmp_path_factory) -> Zoo:
    """8 architectures with 2 seeds: both orders, and bilinear or deconv."""
    small = PAPER.restrict(
        blocks=1, layers=1, upsample=("bilinear", "deconv"), activation=("relu", "none"),
        norm="none",
    )  # fmt: skip
    return make_zoo(tmp_path_factory.mktemp("zoos") / "zoo", list(small), seeds=(0, 1))


@pytest.fixture(scope="module")
def real() -> Population:
    profiles = np.random.default_rng(0).uniform(0.5, 2, (20, 3, 16)) / np.arange(1, 17)
    return Population(names=tuple(f"real{i}" for i in range(20)), profiles=tuple(profiles))


@pytest.fixture(scope="module")
def pool() -> torch.Tensor:
    return torch.rand(6, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def result(zoo, real, pool, tmp_path_factory) -> dict:
    bicubic = [ArchSpec(blocks=1, upsample="bicubic", norm=norm) for norm in ("none", "group")]
    extended = make_zoo(tmp_path_factory.mktemp("zoos") / "more", bicubic, seeds=range(4))
    config = AblationConfig(random=8, draws=40, view=VIEW)
    return ablation(zoo, real, pool, extended=extended, config=config)


def test_rows_hold_the_models_they_name(result):
    models = {row["title"]: row["models"] for row in result["rows"]}
    assert models == {
        "full space": 16,
        "without K (1 only)": 16,
        "without L (1 only)": 16,
        "without U (bilinear only)": 8,
        "without A (relu only)": 8,
        "without N (batch only)": 0,
        "without S (post only)": 8,
        "without seeds (one per architecture)": 8,
        "only those trained to their target": 8,
        "random decoders": 8,
        "random decoders, wide space": 8,
        "random decoders, wide space, trained encoder": 8,
        "extended space": 8,
        "no model: the source images": 20,
    }


def test_rows_are_compared_at_equal_n(result, zoo, real, pool):
    n = {row["title"]: row["n"] for row in result["rows"]}
    assert result["n"] == 10 and n["full space"] == n["without K (1 only)"] == 10
    assert n["without U (bilinear only)"] == 8 and n["without N (batch only)"] is None
    vectors = zoo_population(zoo, pool, view=VIEW).vectors()
    (full, *_), by_title = result["rows"], {row["title"]: row for row in result["rows"]}
    shared = {"draws": 40, "seed": 0}
    expected = ffd(real.vectors(), vectors, n=10, **shared)
    assert full["ffd"]["value"] == pytest.approx(expected.value)
    assert full["ffd"]["baseline"] == pytest.approx(expected.baseline)
    assert result["real"]["ffd"]["value"] == pytest.approx(expected.baseline)
    # a smaller row is compared with the full space at its own n
    row = by_title["without U (bilinear only)"]
    smaller = ffd(real.vectors(), vectors, n=8, **shared).value
    assert row["ffd_minus_full"]["value"] == pytest.approx(row["ffd"]["value"] - smaller)
    assert by_title["without K (1 only)"]["ffd_minus_full"]["value"] == pytest.approx(0)


def test_models_that_are_all_the_same_have_the_diversity_of_one(result):
    row = result["rows"][-1]
    assert row["title"].startswith("no model")
    # the pool has six images and a model draws two: some differ by more than resampling shows
    assert row["vendi"]["value"] < 2.5 * row["vendi"]["baseline"]
    full = result["rows"][0]
    assert full["vendi"]["value"] > row["vendi"]["value"]


def test_table(result):
    text = to_markdown(result)
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len(lines) == 2 + 1 + len(result["rows"])
    assert len({line.replace("\\|", "").count("|") for line in lines}) == 1
    empty = next(line for line in lines if "without N" in line)
    assert empty.split(" | ")[1:3] == ["0", "-"]
    assert "| 8 | 8 \\* |" in next(line for line in lines if "without U" in line)
    assert "n = 10" in text and "d = 16" in text
    named = to_markdown(result | {"compared": {"applied_to": "noise"}})
    assert named == "applied to: noise.  \n" + text
    json.dumps(result, allow_nan=False)


def test_every_option_has_its_row(zoo, real, pool):
    config = AblationConfig(random=0, every_option=True, draws=2, view=VIEW)
    rows = ablation(zoo, real, pool, config=config)["rows"]
    assert sum("only)" in row["title"] for row in rows) == 2 + 2 + 3 + 4 + 3 + 2
    assert {row["title"]: row["models"] for row in rows}["without S (pre only)"] == 8


def test_too_little_to_compare_is_refused(zoo, real, pool, tmp_path):
    few = real.select(lambda name: name < "real2")
    with pytest.raises(ValueError, match="at least 16 real models"):
        ablation(zoo, few, pool)
    other = make_zoo(tmp_path / "zoo", [ArchSpec(blocks=1, upsample="bicubic")])
    with pytest.raises(ValueError, match="no model of the paper's space"):
        ablation(other, real, pool)


def test_pool_of_photographs(tmp_path):
    np.save(tmp_path / "tiles.npy", np.full((2, 192, 192, 3), 51, np.uint8))
    pool = source_pool(tmp_path / "tiles.npy", count=3)
    assert pool.shape == (3, 3, 160, 160) and torch.allclose(pool, torch.tensor(0.2))
    assert source_pool(None, count=3).shape == (3, 3, 160, 160)


# ---- the command -------------------------------------------------------------------------------


def test_one_command_gives_the_table(zoo, tmp_path, capsys):
    words = ["zoo", "report", "--zoo", str(zoo.path), "--images", "1", "--random", "0",
             "--draws", "5"]  # fmt: skip
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert "38 real models" in shown and "| full space | 16 | 16 \\* |" in shown
    assert main([*words, "--out", str(tmp_path / "a.json")]) == 0
    captured = capsys.readouterr()
    assert captured.out == "" and "rows in" in captured.err
    written = json.loads((tmp_path / "a.json").read_text())
    assert written["compared"] == {
        "zoo": "zoo",
        "real": "shipped figures",
        "format": "png",
        "applied_to": "procedural images",
    }
    assert to_markdown(written) == shown


def test_command_measures_a_folder(zoo, tmp_path, capsys):
    generator = torch.Generator().manual_seed(0)
    for model in range(16):
        image = torch.rand(3, 128, 128, generator=generator)
        write_png(tmp_path / "tree" / f"m{model}" / "0.png", image)
    (tmp_path / "tree" / "m0" / "bad.png").write_text("no image")
    words = ["zoo", "report", "--zoo", str(zoo.path), "--real", str(tmp_path / "tree"), "--json",
             "--images", "1", "--random", "0", "--draws", "2"]  # fmt: skip
    assert main(words) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["real"]["models"] == 16
    assert "1 of 17 files skipped" in captured.err
    assert main([*words, "--strict"]) == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--out", "table.html"], "--out must end in .md or .json"),
        (["--images", "0"], "--images must be at least 1"),
    ],
)
def test_wrong_usage(words, message, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["zoo", "report", *words])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
