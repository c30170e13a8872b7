"""``fpkit lineage`` and ``fpkit calibrate-lineage`` as a user runs them."""

import json
from dataclasses import asdict

import numpy as np
import pytest
import torch

from fpkit.cli import main
from fpkit.extractor import Extractor, ExtractorConfig, load_extractor
from fpkit.images import read_image, write_png
from fpkit.lineage import Calibration, nearest_bases, stored_calibration

SIDE = 40
CALIBRATION = Calibration(
    intercept=-1.0,
    slope=2.0,
    by_images=0.0,
    slope_by_images=0.5,
    fewest=0.5,
    most=8.0,
    bound=3.0,
)


@pytest.fixture
def extractor(tmp_path):
    """A tiny untrained extractor with a made-up calibration."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = Extractor(ExtractorConfig(crop=32, widths=(8, 8, 8), positions=1, dim=16))
    entry = {"extractor": network.hash, "calibration": asdict(CALIBRATION)}
    network.card = {"lineage": entry}
    network.save(tmp_path / "extractor")
    return tmp_path / "extractor"


@pytest.fixture
def trees(tmp_path):
    """Bases of noise blurred along an axis, and one fine-tune of the first: the same, darker."""
    blur = {"across": (1, 5), "down": (5, 1)}
    for seed in range(4):
        noise = torch.rand(3, SIDE + 4, SIDE + 4, generator=torch.Generator().manual_seed(seed))
        for name, size in blur.items():
            image = torch.nn.functional.avg_pool2d(noise, size, 1)[:, :SIDE, :SIDE]
            write_png(tmp_path / "bases" / name / f"{seed}.png", image)
            if name == "across" and seed > 1:
                write_png(tmp_path / "tunes" / "dark" / f"{seed}.png", image * 0.8)
    return tmp_path / "bases", tmp_path / "tunes"


@pytest.fixture
def gallery(trees, extractor, tmp_path, capsys):
    path = tmp_path / "bases.gallery"
    assert main(["enrol", str(path), str(trees[0]), "--extractor", str(extractor)]) == 0
    capsys.readouterr()
    return path


def run(capsys, *words, code=0):
    assert main([str(word) for word in words]) == code
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return captured.out, captured.err


@pytest.mark.parametrize("verb", ["lineage", "calibrate-lineage"])
def test_help_has_an_example(capsys, verb):
    with pytest.raises(SystemExit, match="0"):
        main([verb, "--help"])
    assert f"example:\n  fpkit {verb} " in capsys.readouterr().out


@pytest.mark.parametrize("wrong", [["--top", "0"], ["--prior", "1"], ["--prior", "x"]])
def test_wrong_usage_ends_with_two(wrong):
    with pytest.raises(SystemExit, match="2"):
        main(["lineage", "x.gallery", "folder", *wrong])


def test_json_is_what_the_library_says(capsys, gallery, trees, extractor):
    words = ["lineage", gallery, trees[1], "--extractor", extractor, "--prior", "0.2", "--json"]
    result = json.loads(run(capsys, *words)[0])
    assert result["calibrated"] and result["prior"] == 0.2 and result["skipped"] == 0
    (model,) = result["models"]
    assert (model["model"], model["images"]) == ("dark", 2)
    network = load_extractor(extractor)
    embeddings = network.embed([read_image(p) for p in sorted((trees[1] / "dark").iterdir())])
    from fpkit.gallery import Gallery

    expected = nearest_bases(
        embeddings.numpy(),
        Gallery.load(gallery, extractor_hash=network.hash),
        calibration=CALIBRATION,
        prior=0.2,
    )
    assert [base["base"] for base in model["bases"]] == [r.base for r in expected]
    for found, wanted in zip(model["bases"], expected, strict=True):
        assert found["score"] == pytest.approx(wanted.score, abs=1e-5)
        assert found["probability"] == pytest.approx(wanted.probability, abs=1e-5)


def test_table_and_top(capsys, gallery, trees, extractor):
    out, _ = run(capsys, "lineage", gallery, trees[1], "--extractor", extractor, "--top", 1)
    head, *rows = out.splitlines()
    assert head.split()[:4] == ["model", "images", "base", "score"] and "probability" in head
    assert len(rows) == 1 and rows[0].startswith("dark")


def test_a_folder_of_images_is_one_model(capsys, gallery, trees, extractor):
    folder = trees[1] / "dark"
    words = ["lineage", gallery, folder, "--extractor", extractor, "--json"]
    assert json.loads(run(capsys, *words)[0])["models"][0]["model"] == "dark"
    (folder / "more").mkdir()
    assert "taken for one model's" in run(capsys, *words)[1]


def test_without_calibration_there_are_scores_and_a_note(capsys, gallery, trees, extractor):
    (extractor / "extractor.json").write_text("{}")
    words = ["lineage", gallery, trees[1], "--extractor", extractor]
    out, err = run(capsys, *words, "--json")
    result = json.loads(out)
    assert not result["calibrated"]
    assert {base["probability"] for base in result["models"][0]["bases"]} == {None}
    assert "no lineage calibration: run `fpkit calibrate-lineage" in err
    assert " - " in run(capsys, *words)[0]


def test_bad_files_are_skipped_and_a_bad_folder_is_an_error(capsys, gallery, trees, extractor):
    (trees[1] / "dark" / "bad.png").write_text("no image")
    (trees[1] / "empty").mkdir()
    words = ["lineage", gallery, trees[1], "--extractor", extractor]
    out, err = run(capsys, *words)
    assert "skipped: " in err and "empty: no readable image" in err and "dark" in out
    run(capsys, *words, "--strict", code=1)
    bad = trees[1].parent / "bad"
    write_png(bad / "small.png", torch.zeros(3, 8, 8))
    out, err = run(capsys, "lineage", gallery, bad, "--extractor", extractor, code=1)
    assert out == "" and "none of its 1 images can be used" in err


def test_calibrate_refuses_an_untrained_extractor_and_keeps_the_card(capsys, extractor):
    before = (extractor / "extractor.json").read_text()
    words = ["calibrate-lineage", extractor, "--random", 8, "--images", 2]
    _, err = run(capsys, *words, code=1)
    assert "error: a calibration needs bases of at least 10 architectures, got 2" in err
    assert (extractor / "extractor.json").read_text() == before


def test_calibrate_writes_the_card(capsys, extractor, monkeypatch):
    from fpkit import finetunes
    from fpkit.finetunes import Kin

    centres = np.random.default_rng(0).standard_normal((2, 20, 3, 16)) * 0.3
    centres += np.random.default_rng(1).standard_normal((20, 1, 16))
    rows = (centres / np.linalg.norm(centres, axis=-1, keepdims=True)).astype(np.float32)
    kin = Kin(base=rows[0], tuned=rows[1], architecture=np.arange(20) // 2, description="made up")
    asked = {}
    monkeypatch.setattr(
        finetunes, "embed_kin", lambda extractor, **words: asked.update(words) or kin
    )
    network = load_extractor(extractor)
    card = json.loads((extractor / "extractor.json").read_text()) | {"steps": 7}
    (extractor / "extractor.json").write_text(json.dumps(card))
    words = ["calibrate-lineage", extractor, "--random", 12, "--images", 3, "--seed", 5]
    out, _ = run(capsys, *words, "--json")
    again = load_extractor(extractor)
    assert again.hash == network.hash and again.card["steps"] == 7
    assert again.card["lineage"] == json.loads(out) and again.card["lineage"]["from"] == "made up"
    assert stored_calibration(again.card, extractor_hash=again.hash) != CALIBRATION
    assert (asked["random"], asked["images"], asked["seed"]) == (12, 3, 5)
    assert "made up" in run(capsys, *words)[0]
