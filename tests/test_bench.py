"""The protocol with made-up methods whose figures are known, and the baselines on small images."""

import csv
import json

import numpy as np
import pytest
import torch
from PIL import Image

from fpkit.baselines import BASELINES, ColourMethod, ExtractorMethod, SpectrumMethod
from fpkit.bench import bench
from fpkit.degrade import Degradation
from fpkit.features import extract
from fpkit.gallery import Gallery
from fpkit.images import ImageReadError, jpeg, write_png
from fpkit.manifest import read_facts
from fpkit.metrics import auc
from fpkit.protocol import Plan
from fpkit.tables import format_table


class PixelMethod:
    """Features of an image from its first pixel: red chooses the direction, green perturbs it."""

    prior = 0.0

    def __init__(self, name="pixel", *, spread=0.0, long=False):
        self.name, self.spread = name, spread
        self.rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(700, 16)))[0]
        self.long = long

    def features(self, image):
        red, green = (round(255 * float(v)) for v in image[:2, 0, 0])
        noise = np.random.default_rng(green).normal(size=16)
        vector = np.eye(16)[red] + self.spread * noise
        return (self.rotation @ vector if self.long else vector).astype(np.float32)


class ConstantMethod:
    name, prior = "constant", 0.0

    def features(self, image):
        return np.ones(3, np.float32)


def make_tree(folder, models, *, rows=None, suffix=".png"):
    """models: name -> (red, images). Every image is a flat colour, its green value unique."""
    unique = 0
    for name, (red, images) in models.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for index in range(images):
            image = torch.tensor([red, unique, 0.0])[:, None, None].expand(3, 8, 8) / 255
            write_png(folder / name / f"{index:03}{suffix}", image)
            unique += 1
    if rows is not None:
        with (folder / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, ["model", "file", *next(iter(rows.values()))])
            writer.writeheader()
            for name, (_, images) in models.items():
                for index in range(images if name in rows else 0):
                    file_name = f"{index:03}{suffix}"
                    writer.writerow({"model": name, "file": file_name, **rows[name]})
    return folder


def run(folder, *methods, **options):
    return bench(folder, methods=methods, **{"progress": False, "draws": 5, **options})


# ---- known results -----------------------------------------------------------------------------


def test_a_perfect_method_is_perfect(tmp_path):
    result = run(make_tree(tmp_path, {"a": (0, 4), "b": (1, 4), "c": (2, 4)}), PixelMethod())
    figures = result["methods"]["pixel"]
    for k in ("1", "5", "10"):
        entry = figures["identification"][k]
        assert entry["mean"] == 1.0 and entry["ci95"] == [1.0, 1.0]
    assert (figures["auc"], figures["eer"], figures["tar_at_far_0.01"]) == (1.0, 0.0, 1.0)
    assert figures["per_model"] == {m: {"1": 1.0, "5": 1.0, "10": 1.0} for m in "abc"}
    assert figures["taken_for"] == {m: {} for m in "abc"}
    assert (result["models"], result["images"]) == (3, 12)


def test_a_method_that_sees_nothing_is_at_chance(tmp_path):
    tree = make_tree(tmp_path, {name: (0, 4) for name in "abcd"})
    figures = run(tree, ConstantMethod())["methods"]["constant"]
    # all templates are the same, so the first gets every probe
    assert figures["taken_for"] == {"a": {}, **{m: {"a": 1.0} for m in "bcd"}}
    assert figures["identification"]["1"]["mean"] == 0.25
    assert figures["auc"] == figures["eer"] == 0.5 and figures["tar_at_far_0.01"] == 0.0


def test_against_galleries_filled_by_hand(tmp_path):
    tree = make_tree(tmp_path, {"a": (0, 9), "b": (1, 6), "c": (2, 12)})
    method = PixelMethod(spread=0.5)
    found = run(tree, method, draws=3, seed=7)["methods"]["pixel"]
    facts = read_facts(tree)
    vectors = np.stack([method.features(_read(fact.path)) for fact in facts])
    plan = Plan.draw(facts, 3, 7)
    for k in (1, 5, 10):
        recalls = []
        for rank in plan.rank:
            gallery = Gallery("x", dim=16)
            for j, (name, n) in enumerate({"a": 9, "b": 6, "c": 12}.items()):
                chosen = (plan.model == j) & (rank < min(k, n // 2))
                gallery.enrol(name, vectors[chosen])
                rank = np.where(chosen, -1, rank)
            for j, name in enumerate("abc"):
                probes = vectors[(plan.model == j) & (rank >= 0)]
                answers = gallery.identify(probes, prior=0.0)
                recalls.append(np.mean([answer.model == name for answer in answers]))
        entry = found["identification"][str(k)]
        assert 0.4 < entry["mean"] < 1
        assert entry["mean"] == entry["kin_as_rivals"] == pytest.approx(np.mean(recalls))
        assert entry["ci95"][0] <= entry["mean"] <= entry["ci95"][1]


def test_verification_against_a_loop_over_pairs(tmp_path):
    tree = make_tree(tmp_path, {"a": (0, 6), "b": (1, 6), "c": (2, 6)})
    method = PixelMethod(spread=0.5)
    facts = read_facts(tree)
    vectors = np.stack([method.features(_read(fact.path)) for fact in facts]).astype(float)
    rank = Plan.draw(facts, 1, 0).rank[0]
    model = np.array([fact.model for fact in facts])
    means = [vectors[(model == m) & (rank < 3)].mean(axis=0) for m in "abc"]
    centre = np.mean([mean / np.linalg.norm(mean) for mean in means], axis=0)
    genuine, impostor = [], []
    probes = [i for i in range(18) if rank[i] >= 3]
    for position, i in enumerate(probes):
        for j in probes[:position]:
            x, y = vectors[i] - centre, vectors[j] - centre
            score = x @ y / np.linalg.norm(x) / np.linalg.norm(y)
            (genuine if model[i] == model[j] else impostor).append(score)
    assert len(genuine) == 9 and len(impostor) == 27
    found = run(tree, method, draws=1)["methods"]["pixel"]["auc"]
    assert 0.5 < found < 1 and found == pytest.approx(auc(genuine, impostor))


def test_long_features_score_as_the_short_ones_they_come_from(tmp_path):
    tree = make_tree(tmp_path, {"a": (0, 6), "b": (1, 6), "c": (2, 6)})
    result = run(tree, PixelMethod("short", spread=0.5), PixelMethod("long", spread=0.5, long=True))
    short, long = (_without_times(result["methods"][name]) for name in ("short", "long"))
    assert json.loads(json.dumps(short)) == _approximately(long)


# ---- kin, photographs, formats -----------------------------------------------------------------


def test_kin_are_neither_rivals_nor_impostors(tmp_path):
    models = {"a1": (0, 6), "a2": (0, 6), "b": (1, 6)}
    rows = {"a1": {"decoder": "a"}, "a2": {"decoder": "a"}, "b": {"decoder": ""}}
    with_kin = run(make_tree(tmp_path / "kin", models, rows=rows), PixelMethod())
    figures = with_kin["methods"]["pixel"]
    entry = figures["identification"]["1"]
    assert (entry["mean"], entry["decoder_level"], figures["auc"]) == (1.0, 1.0, 1.0)
    assert entry["kin_as_rivals"] == pytest.approx(2 / 3)  # of equal scores the first wins: a1
    figures = run(make_tree(tmp_path / "plain", models), PixelMethod())["methods"]["pixel"]
    assert figures["identification"]["1"]["mean"] == pytest.approx(2 / 3)
    # probes: 3 per model. 9 genuine pairs; 9 impostor pairs a1-a2 tie with them, 18 do not
    assert figures["auc"] == pytest.approx((18 + 9 / 2) / 27)


def test_photographs_are_no_model(tmp_path):
    models = {"a": (0, 4), "b": (1, 4), "camera": (0, 4)}
    rows = {name: {"family": "photo" if name == "camera" else "gan"} for name in models}
    result = run(make_tree(tmp_path, models, rows=rows), PixelMethod())
    assert result["models"] == 2 and result["images"] == 8
    assert set(result["methods"]["pixel"]["per_model"]) == {"a", "b"}
    assert any("4 photographs" in note for note in result["notes"])


def test_content_is_compared_with_its_own(tmp_path):
    class DogsDiffer(PixelMethod):
        def features(self, image):
            self.spread = float(image[0, 0, 0] > 0)
            return super().features(image)

    # two models of the same cat; dogs, of one model only, are no comparison within a content
    models = {"cat1": (0, 6), "cat2": (0, 6), "dog": (1, 6)}
    rows = {name: {"content": name[:3]} for name in models}
    figures = run(make_tree(tmp_path, models, rows=rows), DogsDiffer())["methods"]["pixel"]
    assert figures["auc_within_content"] == 0.5
    assert figures["auc"] > 0.6


def test_each_format_is_a_benchmark_of_its_own(tmp_path):
    png = {"a": (0, 6), "b": (1, 6), "c": (2, 6)}
    mixed = make_tree(tmp_path / "mixed", png)
    make_tree(mixed, {"d": (0, 4), "e": (3, 4)}, suffix=".bmp")
    for path in mixed.rglob("*.bmp"):
        Image.open(path).save(path)  # write_png wrote PNG: now it is a BMP
    method = PixelMethod(spread=0.4)
    result = run(mixed, method)
    alone = run(make_tree(tmp_path / "png", png), method)["methods"]["pixel"]
    by_format = result["methods"]["pixel"]["by_format"]
    assert set(by_format) == {"bmp", "png"} and set(by_format["bmp"]["per_model"]) == {"d", "e"}
    assert set(by_format["png"]) == set(result["methods"]["pixel"]) - {"by_format"}
    assert _without_times(by_format["png"]) == _approximately(
        {key: value for key, value in _without_times(alone).items() if key != "by_format"}
    )
    assert any("mix formats" in note for note in result["notes"])


def test_the_manifest_may_say_the_format_and_a_lone_model_of_one_has_no_figures(tmp_path):
    models = {"a": (0, 4), "b": (1, 4), "c": (2, 4)}
    rows = {name: {"format": "JPG" if name == "a" else "png"} for name in models}
    result = run(make_tree(tmp_path, models, rows=rows), PixelMethod())
    assert set(result["methods"]["pixel"]["by_format"]) == {"png"}
    assert any(note.startswith("format jpeg") for note in result["notes"])
    rows["b"]["format"] = "bmp"
    two = {name: models[name] for name in "ab"}
    result = run(make_tree(tmp_path / "two", two, rows=rows), PixelMethod())
    assert result["methods"]["pixel"]["by_format"] == {}


# ---- families and subsets ----------------------------------------------------------------------


def test_recall_of_each_family_against_all_models(tmp_path):
    # the GAN b looks like the diffusion model c: it loses all its probes to one of another family
    models = {"a": (0, 8), "c": (1, 8), "b": (1, 8), "x": (2, 8)}
    rows = {name: {"family": "gan" if name in "ab" else "diffusion"} for name in "abc"}
    result = run(make_tree(tmp_path, models, rows=rows), PixelMethod(), draws=3)
    figures = result["methods"]["pixel"]
    recall = {name: figures["per_model"][name]["10"] for name in "abcx"}
    assert recall == {"a": 1, "b": 1, "c": 0, "x": 1}  # of equal scores the first wins: b
    families = figures["by_family"]
    assert set(families) == {"gan", "diffusion"}  # x has none
    gan, diffusion = families["gan"], families["diffusion"]
    assert (gan["models"], gan["identification"]["10"]["mean"]) == (2, 1.0)
    assert (diffusion["models"], diffusion["identification"]["10"]["mean"]) == (1, 0.0)
    assert gan["identification"]["1"]["ci95"] == [1.0, 1.0]
    assert diffusion["identification"]["1"]["ci95"] is None  # one model: nothing to resample


def test_a_subset_is_as_if_the_rest_were_not_there(tmp_path):
    models = {"a": (0, 6), "b": (1, 6), "c": (2, 6), "camera": (3, 4), "d": (4, 6)}
    content = {"a": "cats", "b": "cats", "c": "dogs", "camera": "dogs", "d": ""}
    rows = {
        name: {"content": content[name], "family": "photo" if name == "camera" else ""}
        for name in models
    }
    tree = make_tree(tmp_path, models, rows=rows)
    method = PixelMethod(spread=0.5)

    def models_of(**options):
        result = run(tree, method, **options)
        assert result["photos"] == 4  # photographs stay, whatever they show
        return set(result["methods"]["pixel"]["per_model"])

    assert models_of(contents=["cats"]) == {"a", "b"}
    assert models_of(contents=["cats", "dogs"]) == {"a", "b", "c"}
    assert models_of(without_contents=["cats"]) == {"c", "d"}
    result = run(tree, method, contents=["cats", "dogs"], without_contents=["dogs"])
    assert result["models"] == 2
    expected = {"contents": ["cats", "dogs"], "without_contents": ["dogs"], "format": None}
    assert result["subset"] == expected
    assert "content cats, dogs, without content dogs" in format_table(result).splitlines()[0]
    with pytest.raises(ValueError, match="no image has the content 'birds'; contents: cats, dogs"):
        run(tree, method, contents=["birds"])
    with pytest.raises(ValueError, match="no image has the content 'bird'"):
        run(tree, method, without_contents=["bird"])


def test_one_format_alone_has_the_figures_of_its_part(tmp_path):
    models = {name: (i, 6) for i, name in enumerate("abcdef")} | {"camera": (6, 3)}
    rows = {
        name: {
            "format": "JPG" if name in "abc" else "png",
            "family": "photo" if name == "camera" else "gan",
        }
        for name in models
    }
    tree = make_tree(tmp_path, models, rows=rows)
    method = PixelMethod(spread=0.4)
    parts = run(tree, method)["methods"]["pixel"]["by_format"]
    assert parts["png"]["open_set"]["photos"]["images"] == 3
    assert parts["jpeg"]["open_set"]["photos"] is None  # these were stored as PNG
    for name in ("jpeg", "png"):
        alone = run(tree, method, format=name)
        assert alone["photos"] == (3 if name == "png" else 0)
        figures = alone["methods"]["pixel"]
        assert list(figures["by_format"]) == [name]
        figures = {key: value for key, value in figures.items() if key != "by_format"}
        assert _without_times(figures) == _approximately(_without_times(parts[name]))
    assert run(tree, method, format="JPG")["models"] == 3
    with pytest.raises(ValueError, match="no image has the format 'webp'; formats: jpeg, png"):
        run(tree, method, format="webp")


# ---- degraded and recompressed -----------------------------------------------------------------


class CroppedMethod(PixelMethod):
    """Mistakes cropped images with red 1 for those with red 2, refuses those with red 3."""

    def features(self, image):
        red = round(255 * float(image[0, 0, 0]))
        if image.shape[-1] == 8 or red in (0, 2):
            return super().features(image)
        if red == 3:
            raise ValueError(f"image is {image.shape[-1]}x{image.shape[-2]}: too small")
        return np.eye(16)[2].astype(np.float32)


def test_degraded_probes_meet_a_clean_gallery(tmp_path):
    tree = make_tree(tmp_path, {"a": (0, 8), "b": (1, 8), "c": (2, 8), "d": (3, 8)})
    errors = []
    result = run(tree, CroppedMethod(), degrade=["crop", "crop0.9"], on_error=errors.append)
    figures = result["methods"]["pixel"]
    assert figures["identification"]["10"]["mean"] == figures["auc"] == 1.0
    assert list(figures["degraded"]) == result["degrade"] == ["crop", "crop0.9"]
    entry = figures["degraded"]["crop"]
    # d is no probe any more; b is taken for c, which it would not be if it were enrolled cropped
    assert {name: recall["10"] for name, recall in entry["per_model"].items()} == {
        "a": 1,
        "b": 0,
        "c": 1,
    }
    assert (entry["images"], entry["models"]) == (24, 3)
    assert entry["clean"] == {"1": 1.0, "5": 1.0, "10": 1.0}
    assert entry["kept"] == pytest.approx({"1": 2 / 3, "5": 2 / 3, "10": 2 / 3})
    # probes: 4 of each. 18 genuine pairs; of 48 impostor pairs 16 (b and c) tie with them
    assert entry["auc"] == pytest.approx((32 + 16 / 2) / 48)
    assert any(
        note.startswith("crop: 8 degraded images cannot be used") for note in result["notes"]
    )
    assert result["skipped"] == errors == []
    table = format_table(result)
    assert "kept" in table and "67" in table


def test_a_clean_image_too_bad_to_ask_for_is_no_clean_probe_either(tmp_path):
    # d, refused when cropped, looks like a and is taken for it: not in the clean recall of crops
    tree = make_tree(tmp_path, {"a": (0, 8), "b": (1, 8), "c": (2, 8), "d": (3, 8)})

    class Confused(CroppedMethod):
        def features(self, image):
            vector = super().features(image)
            return np.eye(16)[0].astype(np.float32) if vector[3] else vector

    figures = run(tree, Confused(), degrade=["crop"])["methods"]["pixel"]
    assert figures["identification"]["10"]["mean"] == 0.75
    assert figures["degraded"]["crop"]["clean"]["10"] == 1.0


def test_when_no_degraded_image_can_be_used(tmp_path):
    class CleanOnly(PixelMethod):
        def features(self, image):
            if image.shape[-1] < 8:
                raise ValueError("too small")
            return super().features(image)

    tree = make_tree(tmp_path, {"a": (0, 4), "b": (1, 4)})
    result = run(tree, CleanOnly(), CleanOnly("long", long=True), degrade=["crop"])
    json.dumps(result, allow_nan=False)
    for name in ("pixel", "long"):
        entry = result["methods"][name]["degraded"]["crop"]
        assert (entry["images"], entry["models"], entry["auc"]) == (0, 0, None)
        assert entry["identification"]["10"]["mean"] is entry["kept"]["10"] is None
        assert entry["per_model"] == entry["by_family"] == {}
    assert "crop" in format_table(result)


def test_models_asked_in_some_draws_only_count_there(tmp_path):
    class OneLeft(PixelMethod):  # of model b a single cropped image can be used
        def features(self, image):
            red, green = (round(255 * float(v)) for v in image[:2, 0, 0])
            if image.shape[-1] < 8 and red == 1 and green != 4:
                raise ValueError("too small")
            return super().features(image)

    tree = make_tree(tmp_path, {"a": (0, 4), "b": (1, 4)})  # green of b's: 4, 5, 6, 7
    entry = run(tree, OneLeft(), degrade=["crop"])["methods"]["pixel"]["degraded"]["crop"]
    assert (entry["images"], entry["models"]) == (5, 2)
    assert entry["per_model"]["b"] == {"1": 1.0, "5": 1.0, "10": 1.0}


def test_long_features_are_degraded_as_the_short_ones(tmp_path):
    class Shifted(PixelMethod):  # another perturbation where the image was cropped
        def features(self, image):
            image = image.clone()
            image[1, 0, 0] += (image.shape[-1] < 8) * 100 / 255
            return super().features(image)

    tree = make_tree(tmp_path, {"a": (0, 6), "b": (1, 6), "c": (2, 6)})
    methods = Shifted("short", spread=0.5), Shifted("long", spread=0.5, long=True)
    result = run(tree, *methods, degrade=["crop"])["methods"]
    short, long = (result[name]["degraded"]["crop"] for name in ("short", "long"))
    assert result["short"]["auc"] != short["auc"] < 1
    assert json.loads(json.dumps(short)) == _approximately(long)


class Watching:
    name, prior = "watching", 0.0

    def __init__(self):
        self.images = []

    def features(self, image):
        self.images.append(image)
        return np.ones(2, np.float32)


def test_recompression_comes_first_and_for_all(tmp_path):
    generator = torch.Generator().manual_seed(0)
    for name in ("a", "b"):
        for index in range(2):
            image = torch.rand(3, 16, 24, generator=generator)
            write_png(tmp_path / name / f"{index}.png", image)
    method = Watching()
    result = run(tmp_path, method, recompress=70, degrade=["jpeg30"], draws=1)
    once = [jpeg(_read(fact.path), 70) for fact in read_facts(tmp_path)]
    twice = [jpeg(image, 30) for image in once]
    assert len(method.images) == 8
    assert all(map(torch.equal, method.images, once + twice))
    assert result["recompress"] == 70
    assert "all through JPEG 70" in format_table(result)


def test_a_crop_does_not_depend_on_the_other_images(tmp_path):
    generator = torch.Generator().manual_seed(0)
    for name in ("a", "b", "c"):
        for index in range(4):
            image = torch.rand(3, 64, 64, generator=generator)
            write_png(tmp_path / name / f"{index}.png", image)
    facts = read_facts(tmp_path)
    crop = [Degradation.parse("crop")]

    def seen(facts, **options):
        method = Watching()
        extract(facts, [method], steps=crop, **options)
        return method.images

    cropped = seen(facts)
    assert all(map(torch.equal, seen(facts[5:7]), cropped[5:7]))
    assert not all(map(torch.equal, seen(facts, seed=1), cropped))
    places = {
        (top, left)
        for fact, part in zip(facts, cropped, strict=True)
        for top in range(17)
        for left in range(17)
        if torch.equal(_read(fact.path)[:, top : top + 48, left : left + 48], part)
    }
    assert len(places) > 4  # images of one size are not all cut at one place


# ---- open set ----------------------------------------------------------------------------------


def test_photographs_are_unknowns_of_the_open_set(tmp_path):
    models = {"a": (0, 6), "b": (1, 6), "c": (2, 6), "camera": (9, 5)}
    rows = {name: {"family": "photo" if name == "camera" else "gan"} for name in models}
    result = run(make_tree(tmp_path, models, rows=rows), PixelMethod(spread=0.02))
    entry = result["methods"]["pixel"]["open_set"]
    assert (entry["known_models"], entry["unknown_models"]) == ([2, 2], [1, 1])
    assert (entry["oscr"], entry["auroc"], entry["photos"]["auroc"]) == pytest.approx((1, 1, 1))
    assert entry["photos"]["images"] == 5 and entry["photos"]["far_at_tar_0.95"] == 0
    assert "photos: AUROC" in format_table(result)


def test_two_models_are_no_open_set(tmp_path):
    result = run(make_tree(tmp_path, {"a": (0, 4), "b": (1, 4)}), PixelMethod())
    assert result["methods"]["pixel"]["open_set"] is None
    assert "Open set" not in format_table(result)


# ---- robustness --------------------------------------------------------------------------------


def test_bad_files_are_reported_and_left_out(tmp_path):
    tree = make_tree(tmp_path, {"a": (0, 4), "b": (1, 4)})
    (tree / "a" / "001.png").write_text("not an image")
    (tree / "b" / "003.png").write_bytes((tree / "b" / "002.png").read_bytes()[:50])
    errors: list[ImageReadError] = []
    result = run(tree, PixelMethod(), on_error=errors.append)
    files = [str(tree / "a" / "001.png"), str(tree / "b" / "003.png")]
    assert [entry["file"] for entry in result["skipped"]] == files
    assert [str(error) for error in errors] == [entry["reason"] for entry in result["skipped"]]
    assert all(file in str(error) for file, error in zip(files, errors, strict=True))
    assert result["images"] == 6


def test_an_image_too_small_for_the_method_is_named(tmp_path):
    tree = make_tree(tmp_path, {"a": (0, 2), "b": (1, 2)})
    with pytest.raises(ValueError, match="found 0.*8x8"):
        run(tree, "residual")
    errors: list[ImageReadError] = []
    for name in ("a", "b"):
        for index in range(2):
            write_png(tree / name / f"large{index}.png", torch.rand(3, 128, 130))
    result = run(tree, "residual", on_error=errors.append)
    assert result["images"] == 4 and "8x8" in str(errors[0]) and "000.png" in str(errors[0])


def test_models_with_few_images(tmp_path):
    tree = make_tree(tmp_path, {"a": (0, 2), "b": (1, 30), "lone": (2, 1)})
    (tree / "void").mkdir()
    result = run(tree, PixelMethod())
    assert result["enrolled"] == {"1": [1, 1], "5": [1, 5], "10": [1, 10]}
    assert result["models"] == 2
    assert any(note.startswith("lone: left out") for note in result["notes"])
    assert "void: no images" in result["notes"]


def test_without_genuine_pairs_there_is_no_verification(tmp_path):
    result = run(make_tree(tmp_path, {"a": (0, 2), "b": (1, 2)}), PixelMethod())
    figures = result["methods"]["pixel"]
    assert figures["auc"] is figures["eer"] is figures["tar_at_far_0.01"] is None
    assert figures["identification"]["10"]["mean"] == 1.0
    json.dumps(result, allow_nan=False)
    assert " - " in format_table(result)


def test_folders_that_will_not_do(tmp_path):
    with pytest.raises(FileNotFoundError, match="missing"):
        run(tmp_path / "missing", "colour")
    with pytest.raises(ValueError, match="one folder per model"):
        run(tmp_path, "colour")
    tree = make_tree(tmp_path / "one", {"only": (0, 4)})
    with pytest.raises(ValueError, match="at least 2 models .* found 1"):
        run(tree, "colour")
    (tree / "manifest.csv").write_text("name,path\n")
    with pytest.raises(ValueError, match="manifest.csv has no column file and model"):
        run(tree, "colour")


def test_options_are_checked(tmp_path):
    tree = make_tree(tmp_path, {"a": (0, 2), "b": (1, 2)})
    with pytest.raises(ValueError, match="extractor, spectrum, residual, colour, got 'clip'"):
        run(tree, "clip")
    with pytest.raises(ValueError, match="methods is empty"):
        run(tree)
    with pytest.raises(ValueError, match="draws"):
        run(tree, "colour", draws=0)
    with pytest.raises(ValueError, match="different names"):
        run(tree, "colour", "colour")
    with pytest.raises(ValueError, match="unknown degradation 'fog'"):
        run(tree, "colour", degrade=["fog"])
    with pytest.raises(ValueError, match="jpeg needs a quality"):
        run(tree, "colour", recompress=0)


def test_same_seed_same_figures(tmp_path):
    tree = make_tree(tmp_path, {"a": (0, 6), "b": (1, 6), "c": (2, 6)})
    method = PixelMethod(spread=0.5)
    first, again, other = (
        _without_times(run(tree, method, seed=seed)["methods"]["pixel"]) for seed in (0, 0, 1)
    )
    assert first == again and first != other


# ---- methods and table -------------------------------------------------------------------------


class FakeExtractor:
    hash = "abc"
    dim = 2

    def embed(self, images):
        return torch.nn.functional.normalize(images.mean(dim=(-2, -1)) - 0.5, dim=1)


def test_baselines_and_extractor_see_what_they_should(tmp_path):
    generator = torch.Generator().manual_seed(0)
    for name in ("nearest", "bilinear"):
        (tmp_path / name).mkdir()
        for index in range(6):
            small = torch.rand(1, 3, 64, 64, generator=generator)
            image = torch.nn.functional.interpolate(small, scale_factor=2, mode=name)[0]
            write_png(tmp_path / name / f"{index}.png", image)
    result = run(tmp_path, "spectrum", "residual", "colour", "extractor", extractor=FakeExtractor())
    assert list(result["methods"]) == ["spectrum", "residual", "colour", "extractor"]
    assert result["methods"]["spectrum"]["identification"]["5"]["mean"] == 1.0
    assert all(figures["seconds_per_image"] > 0 for figures in result["methods"].values())
    lines = format_table(result).splitlines()
    assert lines[0] == "2 models, 12 images, 5 draws"
    assert [line.split()[:2] for line in lines[3:7]] == [
        ["all", name] for name in result["methods"]
    ]
    assert "100 [100, 100]" in lines[3]


@pytest.mark.parametrize("method", [cls() for cls in BASELINES.values()], ids=BASELINES)
def test_features_are_unit_vectors_and_survive_flat_images(method):
    generator = torch.Generator().manual_seed(0)
    features = method.features(torch.rand(3, 140, 200, generator=generator))
    assert features.ndim == 1 and features.dtype == np.float32
    assert np.linalg.norm(features) == pytest.approx(1, abs=1e-5)
    assert np.isfinite(method.features(torch.zeros(3, 128, 128))).all()


def test_spectrum_ignores_contrast_and_colour_ignores_place():
    image = torch.rand(3, 128, 128, generator=torch.Generator().manual_seed(0))
    spectrum, colour = SpectrumMethod(), ColourMethod()
    bright, dim = spectrum.features(image), spectrum.features(0.5 * image)
    np.testing.assert_allclose(bright @ dim, 1, atol=1e-4)
    flipped = colour.features(image.flip(-1))
    np.testing.assert_allclose(colour.features(image), flipped, atol=1e-7)
    counts = np.square(colour.features(torch.ones(3, 128, 128)))
    assert counts[-1] == counts.sum() == 1  # pure white fills the last of 512 bins


def test_extractor_method_hands_over_the_embedding():
    method = ExtractorMethod(FakeExtractor(), prior=4.0)
    image = torch.rand(3, 9, 9, generator=torch.Generator().manual_seed(0))
    expected = FakeExtractor().embed(image[None])[0].numpy()
    np.testing.assert_array_equal(method.features(image), expected)


# ---- manifest ----------------------------------------------------------------------------------


def test_facts_with_and_without_a_manifest(tmp_path):
    make_tree(tmp_path, {"a": (0, 1), "b": (1, 1)})
    first, second = read_facts(tmp_path)
    assert (first.model, first.family, first.decoder, first.content) == ("a", "", "a", "")
    (tmp_path / "manifest.csv").write_text(
        "\ufeffmodel,file,decoder,content,format,more\na,000.png,shared,faces,jpeg,x\na,9.png,,,,\n",
        encoding="utf-8",
    )
    first, second = read_facts(tmp_path)
    assert (first.decoder, first.content, first.format) == ("shared", "faces", "jpeg")
    assert (second.decoder, second.content, second.format) == ("b", "", "png")


def test_without_a_manifest_the_header_decides_the_format(tmp_path):
    make_tree(tmp_path, {"a": (0, 1)})
    Image.new("RGB", (8, 8)).save(tmp_path / "a" / "000.png", format="JPEG")
    (tmp_path / "a" / "broken.JPG").write_bytes(b"")
    assert [fact.format for fact in read_facts(tmp_path)] == ["jpeg", "jpeg"]


# ---- helpers -----------------------------------------------------------------------------------


def _read(path):
    from fpkit.images import read_image

    return read_image(path)


def _without_times(figures):
    kept = {key: value for key, value in figures.items() if key != "seconds_per_image"}
    if "by_format" in kept:
        kept["by_format"] = {name: _without_times(f) for name, f in kept["by_format"].items()}
    return kept


def _approximately(value):
    if isinstance(value, dict):
        return {key: _approximately(item) for key, item in value.items()}
    return pytest.approx(value, abs=1e-9)
