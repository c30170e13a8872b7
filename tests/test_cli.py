"""Every verb as a user runs it: outputs, messages and exit codes."""

import json
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fpkit.arch import PAPER
from fpkit.bench import bench
from fpkit.cli import main
from fpkit.cli_io import expand, plural, print_table
from fpkit.extractor import Extractor, ExtractorConfig, load_extractor
from fpkit.gallery import Gallery
from fpkit.images import read_image, write_png
from fpkit.spectrum import average_spectrum
from fpkit.verdicts import ENTRY, Scale, VerdictCalibration
from fpkit.zoo import Zoo

SIDE = 136


def draw(kind: str, seed: int) -> torch.Tensor:
    """Images of three 'generators': noise blurred along one axis or both."""
    noise = torch.rand(3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))
    height, width = {"across": (1, 7), "down": (7, 1), "smooth": (7, 7)}[kind]
    blurred = torch.nn.functional.avg_pool2d(
        noise, (height, width), 1, (height // 2, width // 2), count_include_pad=False
    )
    return ((blurred - 0.5) / blurred.std() / 8 + 0.5).clamp(0, 1)


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "models"
    for kind in ("across", "down", "smooth"):
        for seed in range(4):
            write_png(folder / kind / f"{seed}.png", draw(kind, seed))
    return folder


@pytest.fixture(scope="module")
def extractor(tmp_path_factory) -> Path:
    """A tiny untrained extractor: a real file, a real network."""
    folder = tmp_path_factory.mktemp("extractor")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = Extractor(ExtractorConfig(widths=(8, 8), positions=1, dim=16))
    network.card = {"verification": {"threshold": 0.25, "far": 0.01}}
    network.save(folder)
    return folder


@pytest.fixture(scope="module")
def calibrated(extractor, tmp_path_factory) -> Path:
    """The same extractor, with a calibration that can be followed by hand."""
    network = load_extractor(extractor)
    scale = Scale(
        weights={"score": 4.0}, bound=3.0, crops=(1,), models=(1,), fars=(0.001, 0.01, 0.1),
        accept=[[[[3.5, 2.0, 1.0]]], [[[3.5, 2.5, 1.0]]]], refuse=[[[-0.5]], [[-0.5]]],
    )  # fmt: skip
    pairs = replace(scale, weights={"one": -27.0, "score": 30.0})
    calibration = VerdictCalibration(pairs=pairs, galleries=scale)
    network.card["verdicts"] = ENTRY.of(calibration, {}, extractor_hash=network.hash)
    folder = tmp_path_factory.mktemp("calibrated")
    network.save(folder)
    return folder


@pytest.fixture
def bad(tmp_path) -> Path:
    """A folder of one good image and five bad files."""
    folder = tmp_path / "bad"
    write_png(folder / "good.png", draw("down", 9))
    write_png(folder / "small.png", torch.zeros(3, 40, 40))
    (folder / "empty.png").touch()
    (folder / "text.png").write_text("no image at all\n")
    content = (folder / "good.png").read_bytes()
    (folder / "truncated.png").write_bytes(content[: len(content) // 2])
    (folder / "z.jpg").write_bytes(b"\xff\xd8\xff\xe0 broken")
    return folder


class Shell:
    """Runs the command line in this process; keeps what it printed."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys
        self.out = self.err = ""

    def __call__(self, *words: object, code: int = 0) -> str:
        try:
            result = main([str(word) for word in words])
        except SystemExit as stop:
            result = stop.code
        self.out, self.err = self.capsys.readouterr()
        assert result == code, self.err
        assert "Traceback" not in self.err
        return self.out

    def error(self, *words: object) -> str:
        """The single error line of a command that fails, without output."""
        assert self(*words, code=1) == ""
        lines = [line for line in self.err.splitlines() if line.startswith("fpkit: error: ")]
        assert len(lines) == 1, self.err
        return lines[0]


@pytest.fixture
def fpkit(capsys) -> Shell:
    return Shell(capsys)


@pytest.fixture
def gallery(fpkit, tree, extractor, tmp_path) -> Path:
    path = tmp_path / "three.gallery"
    fpkit("enrol", path, tree, "--extractor", extractor)
    return path


# ---- usage -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "verb", ["synth", "train", "enrol", "identify", "verify", "fingerprint", "bench", "zoo", "lab"]
)
def test_help_has_an_example(fpkit, verb):
    assert f"example:\n  fpkit {verb} " in fpkit(verb, "--help")
    assert f"\n    {verb}" in fpkit("--help")


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["nonsense"],
        ["verify", "only_one.png"],
        ["verify", "a.png", "b.png", "--unknown"],
        ["identify", "x.gallery"],
        ["enrol", "x.gallery"],
        ["synth", "K1-L1-Unearest-Anone-Nnone-Spre"],
        ["synth", "--out", "zoo"],
        ["train"],
        ["train", "--out", "x", "--loss", "none"],
        ["fingerprint", "a.png", "--out", "a.jpg"],
        ["fingerprint", "a.png", "--out", "a.png", "--crop", "4"],
        ["fingerprint", "a.png", "--out", "a.png", "--residual", "wavelet"],
        ["bench", "folder", "--method", "magic"],
        ["bench", "folder", "--degrade", "fog"],
        ["bench", "folder", "--recompress", "0"],
    ],
    ids=" ".join,
)
def test_wrong_usage_ends_with_two(fpkit, words):
    assert fpkit(*words, code=2) == ""
    assert "usage: fpkit" in fpkit.err


def test_as_a_module_in_a_shell(tree, extractor):
    command = [sys.executable, "-W", "error", "-m", "fpkit"]
    done = subprocess.run([*command, "synth", "--list"], capture_output=True, text=True)
    assert done.returncode == 0 and len(done.stdout.split()) == 288 and done.stderr == ""
    missing = [*command, "verify", "no.png", "no.png", "--extractor", str(extractor)]
    done = subprocess.run(missing, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "fpkit: error: no.png: no such file\n"


def test_debug_shows_the_traceback(fpkit, extractor, monkeypatch):
    monkeypatch.setenv("FPKIT_DEBUG", "1")
    with pytest.raises(ValueError, match="no such file"):
        main(["verify", "no.png", "no.png", "--extractor", str(extractor)])


def test_unknown_device_and_missing_extractor(fpkit, tree, extractor, tmp_path):
    image = tree / "down" / "0.png"
    line = fpkit.error("verify", image, image, "--extractor", extractor, "--device", "abacus")
    assert "no device 'abacus'" in line
    assert "holds no extractor" in fpkit.error("verify", image, image, "--extractor", tmp_path)


# ---- enrol, identify, verify -------------------------------------------------------------------


def test_enrol_makes_adds_removes_and_lists(fpkit, tree, extractor, tmp_path):
    path, use = tmp_path / "g", ("--extractor", extractor, "--json")
    made = json.loads(fpkit("enrol", path, tree, *use))
    counts = {"across": 4, "down": 4, "smooth": 4}
    assert made == {"gallery": str(path), "models": counts, "skipped": 0, "known": 0}
    removed = json.loads(fpkit("enrol", path, "--remove", "down", "--remove", "smooth", *use))
    assert removed["models"] == {"across": 4}
    write_png(tmp_path / "more" / "across" / "9.png", draw("across", 9))
    fpkit("enrol", path, tmp_path / "more", *use)
    before = path.read_bytes()
    assert json.loads(fpkit("enrol", path, "--list", *use))["models"] == {"across": 5}
    assert path.read_bytes() == before
    table = fpkit("enrol", path, "--list", "--extractor", extractor)
    assert table.split() == ["model", "images", "across", "5"]


def test_enrolled_gallery_is_that_of_the_library(gallery, tree, extractor):
    network = load_extractor(extractor)
    stored = Gallery.load(gallery, extractor_hash=network.hash)
    for model in ("across", "down", "smooth"):
        images = torch.stack([read_image(tree / model / f"{seed}.png") for seed in range(4)])
        mean = network.embed(images).double().mean(0)
        expected = (mean / mean.norm()).numpy()
        row = stored.templates[stored.models.index(model)]
        np.testing.assert_allclose(row, expected, atol=1e-5)


def test_identify_names_the_makers(fpkit, gallery, tree, extractor):
    answers = json.loads(fpkit("identify", gallery, tree, "--extractor", extractor, "--json"))
    assert [Path(a["image"]).parent.name for a in answers] == [a["model"] for a in answers]
    assert len(answers) == 12
    for answer in answers:
        assert answer["answer"] is answer["ratio"] is answer["far"] is None  # not calibrated
        assert answer["evidence"]["crops"] == 1 and answer["evidence"]["format"] == "PNG"
        assert set(answer["scores"]) == {"across", "down", "smooth"}
        assert answer["score"] == max(answer["scores"].values())
        assert answer["scores"][answer["model"]] == answer["score"]


def test_identify_table(fpkit, gallery, tree, extractor):
    lines = fpkit("identify", gallery, tree / "smooth", "--extractor", extractor).splitlines()
    columns = ["image", "answer", "LR", "nearest", "score", "second best", "warnings"]
    assert lines[0].split() == " ".join(columns).split()
    assert [line.split()[1:4] for line in lines[1:5]] == [["-", "-", "smooth"]] * 4
    assert lines[5].startswith("warning, small: 136x136 pixels give 1 crop of 128")
    assert lines[5].endswith("(0.png, and 3 more)") and len(lines) == 6
    assert fpkit.err.startswith("fpkit: scores without verdicts: this extractor is not calibrated")


def test_identify_reports_bad_files_and_goes_on(fpkit, gallery, bad, extractor):
    words = ("identify", gallery, bad, bad / "missing.png", "--extractor", extractor, "--json")
    answers = json.loads(fpkit(*words))
    assert [Path(answer["image"]).name for answer in answers] == ["good.png"]
    for name, reason in {
        "empty.png": "the file is empty",
        "missing.png": "no such file",
        "small.png": "image is 40x40, smaller than one 128x128 crop",
        "text.png": "not an image",
        "truncated.png": "",
        "z.jpg": "",
    }.items():
        assert f"fpkit: skipped: {bad / name}: {reason}" in fpkit.err
    assert "6 of 7 files skipped" in fpkit.err
    assert json.loads(fpkit(*words, "--strict", code=1)) == answers


def test_nothing_usable_is_an_error(fpkit, gallery, bad, extractor):
    (bad / "good.png").unlink()
    use = ("--extractor", extractor)
    assert "none of the 5 images can be used" in fpkit.error("identify", gallery, bad, *use)
    line = fpkit.error("enrol", gallery.with_name("new"), bad.parent, *use)
    assert "none of its 5 images can be used" in line
    assert not gallery.with_name("new").exists()


def test_bad_folders_have_clear_messages(fpkit, gallery, tree, extractor, tmp_path):
    use = ("--extractor", extractor)
    empty = tmp_path / "empty"
    empty.mkdir()
    new = tmp_path / "new"
    assert "empty: expected one folder per model" in fpkit.error("enrol", new, empty, *use)
    assert "holds 4 images directly" in fpkit.error("enrol", new, tree / "down", *use)
    assert "nowhere: no such folder" in fpkit.error("enrol", new, tmp_path / "nowhere", *use)
    assert "is a folder, expected a gallery file" in fpkit.error("enrol", tree, tree, *use)
    assert "no images in this folder" in fpkit.error("identify", gallery, empty, *use)
    assert "no gallery at" in fpkit.error("identify", new, tree, *use)
    assert "is not a gallery" in fpkit.error("identify", tree / "down" / "0.png", tree, *use)
    assert "'dcgan' is not enrolled; enrolled: across" in fpkit.error(
        "enrol", gallery, "--remove", "dcgan", *use
    )


def test_a_model_without_images_is_told_and_left_out(fpkit, tree, bad, extractor, tmp_path):
    (bad / "good.png").unlink()
    write_png(bad.parent / "fine" / "0.png", draw("down", 3))
    words = ("enrol", tmp_path / "g", bad.parent, "--extractor", extractor, "--json")
    assert json.loads(fpkit(*words))["models"] == {"fine": 1}
    assert "bad: no readable image, not enrolled" in fpkit.err
    assert "5 of 6 files skipped" in fpkit.err


def test_one_model_is_said_to_win_always(fpkit, tree, extractor, tmp_path):
    use = ("--extractor", extractor)
    write_png(tmp_path / "one" / "only" / "0.png", draw("down", 3))
    fpkit("enrol", tmp_path / "g", tmp_path / "one", *use)
    assert "one enrolled model" in fpkit.err
    answers = json.loads(fpkit("identify", tmp_path / "g", tree / "smooth", *use, "--json"))
    assert {answer["model"] for answer in answers} == {"only"}
    assert "one enrolled model" in fpkit.err


def test_another_extractors_gallery_is_refused(fpkit, gallery, tree, tmp_path):
    other = Extractor(ExtractorConfig(widths=(8, 8), positions=1, dim=16))
    other.save(tmp_path / "other")
    line = fpkit.error("identify", gallery, tree, "--extractor", tmp_path / "other")
    assert "was made with the extractor" in line


def test_identify_says_who_none_or_unsure(fpkit, gallery, tree, calibrated):
    use = (gallery, tree, "--extractor", calibrated, "--json")
    answers = json.loads(fpkit("identify", *use))
    ratios = [min(3.0, 4 * answer["score"]) for answer in answers]
    assert [a["log_ratio"] for a in answers] == pytest.approx(ratios)
    said = ["same" if r >= 2 else "different" if r < -0.5 else "unsure" for r in ratios]
    assert [a["answer"] for a in answers] == said and "same" in said
    answers = json.loads(fpkit("identify", *use, "--far", 0.001))
    assert "same" not in {a["answer"] for a in answers}
    table = fpkit("identify", gallery, tree / "down", "--extractor", calibrated)
    assert [line.split()[1:4] for line in table.splitlines()[1:5]] == [["down", "20", "down"]] * 4
    assert fpkit.err == ""


def test_verify_gives_answer_ratio_and_evidence(fpkit, tree, calibrated):
    use, a, b = ("--extractor", calibrated), tree / "down" / "0.png", tree / "smooth" / "0.png"
    answer = json.loads(fpkit("verify", a, a, *use, "--json"))
    assert (answer["answer"], answer["far"]) == ("same", 0.01)
    assert (answer["log_ratio"], answer["accept"], answer["refuse"]) == pytest.approx(
        (3.0, 2.0, -0.5)
    )
    assert answer["score"] == pytest.approx(1, abs=1e-5)
    assert answer["ratio"] == pytest.approx(np.exp(3))
    assert answer["evidence"]["a"]["width"] == 136
    # a negative verdict is no error
    first, second = load_extractor(calibrated).embed([read_image(a), read_image(b)])
    score = float(first @ second)
    answer = json.loads(fpkit("verify", a, b, *use, "--json"))
    assert answer["score"] == pytest.approx(score, abs=1e-5)
    assert answer["log_ratio"] == pytest.approx(max(-3, 30 * score - 27), abs=1e-3)
    assert answer["answer"] == "different" and answer["log_ratio"] < -0.5
    lines = fpkit("verify", a, b, *use).splitlines()
    assert lines[0] == "two models"
    assert "times likelier if two models did than if one model made both" in lines[1]
    assert "same from LR 7.39 on (1% of" in lines[2] and "below LR 0.607" in lines[2]
    assert lines[3] == f"{a}: PNG, 136x136, 1 crop" and lines[4].startswith("  warning, small:")
    assert fpkit("verify", a, a, *use).startswith("same model\nLR 20: 20 times likelier if one")
    assert fpkit("verify", a, a, *use, "--far", 0.001).startswith("unsure\nLR 20")
    for far in (0, 1e-5, 0.3, "nan"):
        line = fpkit.error("verify", a, a, *use, "--far", far)
        assert "far must be from 0.001" in line and "to 0.1" in line


def test_a_jpeg_is_judged_as_one(fpkit, tree, calibrated, tmp_path):
    with Image.open(tree / "down" / "0.png") as image:
        image.save(tmp_path / "a.jpg", quality=40)
    use = ("--extractor", calibrated)
    answer = json.loads(fpkit("verify", tree / "down/0.png", tmp_path / "a.jpg", *use, "--json"))
    assert answer["accept"] == 2.5  # 2 without JPEG
    assert answer["evidence"]["b"]["jpeg_quality"] == 40
    said = fpkit("verify", tree / "down/0.png", tmp_path / "a.jpg", *use)
    assert "a.jpg: JPEG 40, 136x136, 1 crop\n  warning, compressed hard: JPEG of quality 40" in said


def test_verify_without_a_calibration_gives_the_score(fpkit, tree, extractor):
    image = tree / "down" / "0.png"
    answer = json.loads(fpkit("verify", image, image, "--extractor", extractor, "--json"))
    assert answer["score"] == pytest.approx(1, abs=1e-5) and answer["answer"] is None
    assert fpkit("verify", image, image, "--extractor", extractor).startswith("score 1.0000\n")
    assert "run `fpkit calibrate-verdicts FOLDER`" in fpkit.err


def test_a_calibration_of_other_weights_is_refused(fpkit, tree, calibrated, tmp_path):
    network = load_extractor(calibrated)
    network.card["verdicts"]["extractor"] = "0" * 64
    network.save(tmp_path)
    image = tree / "down" / "0.png"
    line = fpkit.error("verify", image, image, "--extractor", tmp_path)
    assert "made for the extractor" in line and "000000000000" in line


def test_verify_needs_two_good_images(fpkit, tree, bad, extractor):
    for name in ("small.png", "empty.png", "truncated.png"):
        line = fpkit.error("verify", tree / "down/0.png", bad / name, "--extractor", extractor)
        assert str(bad / name) in line


# ---- fingerprint -------------------------------------------------------------------------------


def test_fingerprint_numbers_are_the_average_spectrum(fpkit, tree, tmp_path):
    out = tmp_path / "sub" / "a.npz"
    fpkit("fingerprint", tree / "across", "--out", out, "--residual", "highpass")
    images = [read_image(path) for path in sorted((tree / "across").iterdir())]
    with np.load(out, allow_pickle=False) as stored:
        expected = average_spectrum(images, residual="highpass")
        np.testing.assert_allclose(stored["power"], expected, rtol=1e-6)
        assert stored["frequency"].shape == stored["profile"].shape


def test_fingerprint_picture_and_page(fpkit, tree, tmp_path):
    image = tree / "down" / "0.png"
    assert "1 image\n" in fpkit("fingerprint", image, "--out", tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as picture:
        assert min(picture.size) >= 256
        assert len(picture.convert("RGB").getcolors(1 << 20)) > 50
    said = json.loads(fpkit("fingerprint", tree, "--out", tmp_path / "a.html", "--json"))
    assert said == {"out": str(tmp_path / "a.html"), "images": 12, "skipped": 0}
    page = (tmp_path / "a.html").read_text("utf-8")
    assert "Plotly.newPlot" in page and "12 images" in page
    assert 'src="http' not in page  # opens without a network


def test_fingerprint_of_bad_files(fpkit, bad, tmp_path):
    words = ("fingerprint", bad, "--out", tmp_path / "a.npz", "--json")
    assert json.loads(fpkit(*words)) == {
        "out": str(tmp_path / "a.npz"),
        "images": 1,
        "skipped": 5,
    }
    assert "5 of 6 files skipped" in fpkit.err
    fpkit(*words, "--strict", code=1)
    assert "none of its 1 images" in fpkit.error(
        "fingerprint", bad / "small.png", "--out", tmp_path / "b.png"
    )
    assert not (tmp_path / "b.png").exists()


# ---- synth -------------------------------------------------------------------------------------

SPEC = "K1-L1-Unearest-Anone-Nnone-Spost"


def test_synth_lists_the_architectures(fpkit):
    ids = [spec.id for spec in PAPER]
    assert fpkit("synth", "--list").split() == ids
    assert json.loads(fpkit("synth", "--list", "--json")) == ids


def test_synth_makes_a_zoo_and_adds_to_it(fpkit, tree, tmp_path):
    out = tmp_path / "zoo"
    words = ("synth", SPEC, "--out", out, "--images", tree, "--max-steps", 3, "--json")
    (entry,) = json.loads(fpkit(*words))
    assert entry["model_id"] == f"{SPEC}/seed0" and entry["steps"] == 3
    assert "eta 0.005 was not reached" in fpkit.err
    fpkit(*words, "--seed", 5)
    zoo = Zoo.load(out)
    assert zoo.model_ids == [f"{SPEC}/seed0", f"{SPEC}/seed5"]
    assert zoo.source == "12 images of models"
    assert zoo.apply(zoo.model_ids[0], torch.rand(1, 3, 64, 64)).shape == (1, 3, 64, 64)


def test_synth_stops_at_eta(fpkit, tmp_path):
    table = fpkit("synth", SPEC, "--out", tmp_path / "zoo", "--eta", 0.5, "--max-steps", 200)
    assert fpkit.err == ""
    assert table.splitlines()[1].split()[0] == f"{SPEC}/seed0"
    entry = Zoo.load(tmp_path / "zoo").entries[0]
    assert entry["reached"] and entry["steps"] < 100


def test_synth_errors(fpkit, tree, bad, tmp_path):
    words = ("--out", tmp_path / "zoo", "--max-steps", 2)
    assert "K9" in fpkit.error("synth", SPEC.replace("K1", "K9"), *words)
    line = fpkit.error("synth", SPEC, "--images", "nowhere.png", *words)
    assert "none of its 1 images can be used" in line and "no such file" in fpkit.err
    fpkit("synth", SPEC, "--images", tree, *words)
    assert "use another --out" in fpkit.error("synth", SPEC, "--images", tree / "down", *words)
    two = bad.parent / "two"
    write_png(two / "0.png", draw("down", 1))
    write_png(two / "1.png", draw("down", 2))
    (two / "2.png").touch()
    fpkit("synth", SPEC, "--images", two, "--out", tmp_path / "b", "--max-steps", 2, "--strict",
          code=1)  # fmt: skip
    assert "1 of 3 files skipped" in fpkit.err
    assert len(Zoo.load(tmp_path / "b")) == 1


# ---- train -------------------------------------------------------------------------------------


def test_train_makes_an_extractor_that_verifies(fpkit, tree, tmp_path):
    for spec in (SPEC, SPEC.replace("nearest", "deconv")):
        fpkit("synth", spec, "--out", tmp_path / "zoo", "--images", tree, "--max-steps", 2)
    out = tmp_path / "extractor"
    words = ("train", "--out", out, "--zoo", tmp_path / "zoo", "--procedural", 9, "--models", 2,
             "--images", 2, "--random-share", 0.5, "--space", "wide", "--steps", 2)  # fmt: skip
    made = json.loads(fpkit(*words, "--json"))
    network = load_extractor(out)
    assert made["out"] == str(out) and made["steps"] == 2 and made["hash"] == network.hash
    assert made["verification"] == network.card["verification"]
    command = network.card["command"]
    assert command.startswith("fpkit train --zoo zoo --out extractor --procedural 9")
    assert "--random-share 0.5 --encoder both --space wide" in command
    assert network.card["config"]["stream"]["random_share"] == 0.5
    image = tree / "down" / "0.png"
    answer = json.loads(fpkit("verify", image, image, "--extractor", out, "--json"))
    assert answer["score"] == pytest.approx(1, abs=1e-5)
    assert "resume" in fpkit.error(*words)
    assert f"extractor {network.hash[:12]} after 2 steps" in fpkit(*words, "--resume")


# ---- bench and lab -----------------------------------------------------------------------------


def test_bench_json_and_table(fpkit, tree, extractor):
    words = ("bench", tree, "--extractor", extractor, "--draws", 2)
    two = ("--method", "spectrum", "--method", "extractor")
    result = json.loads(fpkit(*words, *two, "--json"))
    direct = bench(
        tree,
        methods=("spectrum", "extractor"),
        draws=2,
        extractor=load_extractor(extractor),
        progress=False,
    )
    assert (result["models"], result["images"]) == (3, 12)
    assert list(result["methods"]) == ["spectrum", "extractor"]
    for method, figures in result["methods"].items():
        for key in ("identification", "auc", "eer", "tar_at_far_0.01"):
            assert figures[key] == direct["methods"][method][key]
    table = fpkit(*words)
    assert "extractor" in table and "spectrum" not in table


def test_bench_options_reach_the_benchmark(fpkit, tree, tmp_path):
    rows = ["model,file,content,format"]
    for path in sorted(tree.glob("*/*.png")):
        name = path.parent.name
        content = "dark" if name == sorted(p.name for p in tree.iterdir())[0] else "light"
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / path.name).write_bytes(path.read_bytes())
        rows.append(f"{name},{path.name},{content},png")
    (tmp_path / "manifest.csv").write_text("\n".join(rows) + "\n")
    words = ["bench", tmp_path, "--method", "colour", "--draws", 2, "--json"]
    words += ["--without-content", "dark", "--content", "light", "--format", "png"]
    words += ["--recompress", 80, "--degrade", "jpeg50", "--degrade", "blur"]
    result = json.loads(fpkit(*words))
    expected = {"contents": ["light"], "without_contents": ["dark"], "format": "png"}
    assert result["subset"] == expected and result["models"] == 2
    assert result["recompress"] == 80
    assert list(result["methods"]["colour"]["degraded"]) == ["jpeg50", "blur"]
    assert "no image has the content 'fog'" in fpkit.error(*words, "--content", "fog")


def test_bench_of_bad_trees(fpkit, tree, bad, extractor, tmp_path):
    use = ("--extractor", extractor, "--draws", 1)
    assert "nowhere" in fpkit.error("bench", tmp_path / "nowhere", *use)
    assert "at least 2 models" in fpkit.error("bench", bad.parent, *use)
    mixed = tmp_path / "mixed"
    for kind in ("down", "smooth"):
        for seed in range(2):
            write_png(mixed / kind / f"{seed}.png", draw(kind, seed))
    (mixed / "down" / "broken.png").write_text("x")
    fpkit("bench", mixed, *use)
    assert "1 of 5 files skipped" in fpkit.err
    fpkit("bench", mixed, *use, "--strict", code=1)


def test_lab_passes_its_arguments_on():
    command = [sys.executable, "-m", "fpkit", "lab", "--version"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == version("jupyterlab")


def test_lab_without_notebooks(fpkit, tmp_path, monkeypatch):
    from fpkit import cli

    monkeypatch.setattr(cli, "__file__", str(tmp_path / "fpkit" / "cli.py"))
    assert "come with the repository" in fpkit.error("lab")


# ---- what the verbs share ----------------------------------------------------------------------


def test_expand_takes_files_folders_and_trees(tree, tmp_path):
    direct = [str(path) for path in expand([str(tree / "down")])]
    assert direct == [str(tree / "down" / f"{seed}.png") for seed in range(4)]
    assert len(expand([str(tree), "missing.png"])) == 13


def test_table_aligns(capsys):
    print_table(["name", "n", "score"], [["a", 5, 0.5], ["longer", 10, -0.25]])
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["name     n    score", "a        5   0.5000", "longer  10  -0.2500"]
    assert (plural(1, "file"), plural(0, "file")) == ("1 file", "0 files")
