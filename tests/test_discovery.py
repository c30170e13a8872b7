"""Clusters of embeddings, their calibration, report and verb."""

import base64
import io
import json
import re
import tarfile
from dataclasses import asdict, replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from scipy.cluster.hierarchy import fcluster, linkage
from sklearn.metrics import adjusted_rand_score

from fpkit import agglomeration, discovery_calibration
from fpkit.agglomeration import agglomerate, cluster_means, merge
from fpkit.cli import main
from fpkit.discovery import (
    ENTRY,
    DiscoveryCalibration,
    discover,
    find_clusters,
    stored_discovery,
)
from fpkit.discovery_calibration import (
    calibrate_discovery,
    draw_folder,
    fit_projection,
    image_embeddings,
    within_models,
)
from fpkit.discovery_report import (
    cluster_map,
    common_folder,
    map_coordinates,
    map_places,
    named_places,
    page,
    summary,
    thumbnail,
)
from fpkit.extractor import Extractor, ExtractorConfig
from fpkit.gallery import Gallery, unit
from fpkit.images import read_image, write_png
from fpkit.verdict_bank import Bank
from fpkit.verdicts import Scale, VerdictCalibration

DIM = 12
PLAIN = DiscoveryCalibration(projection=np.eye(DIM).tolist(), threshold=1.2)


def clouds(models=5, images=10, *, noise=0.05, seed=0, lean=0.0, dim=DIM):
    """Unit embeddings around one axis per model, and the model of each."""
    generator = np.random.default_rng(seed)
    truth = np.repeat(np.arange(models), images)
    rows = np.eye(dim)[truth] + noise * generator.normal(size=(len(truth), dim))
    rows[:, -1] += lean
    return unit(rows).astype(np.float32), truth


# ---- agglomeration -----------------------------------------------------------------------------


def test_without_a_capacity_merging_is_wards_method(monkeypatch):
    monkeypatch.setattr(agglomeration, "CAPACITY", np.inf)
    points = np.random.default_rng(0).normal(size=(60, 4))
    for threshold in (0.5, 1.5, 4.0):
        found = merge(points, np.ones(60, int), threshold)
        expected = fcluster(linkage(points, "ward"), threshold, "distance")
        assert adjusted_rand_score(expected, found) == 1
        assert len(np.unique(found)) == len(np.unique(expected)) > 1


def test_distance_of_two_clusters_by_hand():
    # 4 and 12 points: weights 4/1.5 and 12/2.5, so 2vw/(v+w) = 24/7 at CAPACITY 8
    means, sizes = np.array([[0.0], [1.0]]), np.array([4, 12])
    gap = np.sqrt(2 * (8 / 3) * 4.8 / (8 / 3 + 4.8))
    assert merge(means, sizes, gap - 1e-3).tolist() == [0, 1]
    assert merge(means, sizes, gap + 1e-3).tolist() == [0, 0]


@pytest.mark.parametrize("size", [1, 500])  # large ones: a merged one may come nearer to others
def test_merging_is_what_a_search_through_all_pairs_does(size):
    points = np.random.default_rng(2).normal(size=(40, 2))
    for threshold in (0.5, 1.0, 2.0):
        groups = [[i] for i in range(40)]
        while len(groups) > 1:
            gaps = {}
            for i in range(len(groups)):
                for j in range(i):
                    v, w = (size * len(groups[k]) / (1 + size * len(groups[k]) / 8) for k in (i, j))
                    away = points[groups[i]].mean(axis=0) - points[groups[j]].mean(axis=0)
                    gaps[i, j] = np.sqrt(2 * v * w / (v + w)) * np.linalg.norm(away)
            i, j = min(gaps, key=gaps.get)
            if gaps[i, j] > threshold:
                break
            groups[j] += groups.pop(i)
        expected = np.empty(40, int)
        for place, group in enumerate(groups):
            expected[group] = place
        found = merge(points, np.full(40, size), threshold)
        assert adjusted_rand_score(expected, found) == 1


def test_one_model_stays_whole_however_many_images_it_has():
    generator = np.random.default_rng(1)
    for count in (20, 400):
        points = unit(np.eye(8)[0] + 0.12 * generator.normal(size=(count, 8)))
        assert agglomerate(points, 1.2).max() == 0
    # Ward's distance within the larger one grows beyond the threshold
    assert linkage(points, "ward")[-1, 2] > 1.2


def test_labels_count_from_the_first_point_and_one_point_is_a_cluster():
    points = np.array([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0], [1.0, 0.01]])
    assert agglomerate(points, 0.5).tolist() == [0, 1, 0, 1]
    assert agglomerate(points[:1], 0.5).tolist() == [0]


@pytest.mark.parametrize("steps", [agglomeration.STEPS, ()])
def test_chunks_and_small_parts_give_the_same_clusters(monkeypatch, steps):
    monkeypatch.setattr(agglomeration, "STEPS", steps)
    points, truth = clouds(6, 40, noise=0.1)
    whole = agglomerate(points, 1.2)
    monkeypatch.setattr(agglomeration, "CHUNK", 50)
    assert np.array_equal(agglomerate(points, 1.2, seed=3), whole)
    monkeypatch.setattr(agglomeration, "PART", 1e-6)  # every point a part: most of them too many
    monkeypatch.setattr(agglomeration, "MOST_PARTS", 60)
    assert adjusted_rand_score(truth, agglomerate(points, 1.2)) == 1
    stranger = np.vstack([points, -np.ones((1, DIM))])
    assert (agglomerate(stranger, 1.2) == 6).tolist() == [False] * len(points) + [True]


def test_a_rare_model_among_many_parts_stays_whole(monkeypatch):
    points, truth = clouds(5, 80, noise=0.1)
    kept = (truth < 4) | (np.arange(400) % 20 == 0)  # four images of the last one
    points, truth = points[kept], truth[kept]
    monkeypatch.setattr(agglomeration, "PART", 1e-6)
    monkeypatch.setattr(agglomeration, "MOST_PARTS", 40)
    found = agglomerate(points, 1.2)
    assert adjusted_rand_score(truth, found) == 1
    monkeypatch.setattr(agglomeration, "STEPS", ())  # nobody merges the four
    assert adjusted_rand_score(truth, agglomerate(points, 1.2)) < 1


def test_means_of_parts_are_weighted():
    labels, sizes = np.array([0, 0, 1]), np.array([3, 1, 5])
    found = cluster_means(np.array([[0.0], [4.0], [7.0]]), labels, sizes)
    assert found.tolist() == [[1.0], [7.0]]


# ---- discovery ---------------------------------------------------------------------------------


def test_models_are_found_whatever_the_order_and_all_lean_one_way():
    rows, truth = clouds(10, 10, noise=0.03, lean=2.4)
    labels, _ = find_clusters(rows, 1.2)
    assert adjusted_rand_score(truth, labels) == 1
    order = np.random.default_rng(0).permutation(len(rows))
    found = discover(rows[order], calibration=PLAIN)
    assert adjusted_rand_score(truth[order], found.labels) == 1
    assert agglomerate(rows, 1.2).max() + 1 < 10  # not without looking from their middle


def test_a_single_generator_is_a_single_cluster():
    rows, _ = clouds(1, 30, noise=0.1)
    assert len(discover(rows, calibration=PLAIN).clusters) == 1
    spread = unit(rows - rows.mean(axis=0))  # what looking from the mean would do
    assert agglomerate(spread, 1.2).max() > 0


def test_clusters_are_sorted_by_size_and_the_most_typical_image_comes_first():
    rows, _ = clouds(3, 10)
    rows = np.vstack([rows[:4], rows[10:], -np.eye(DIM)[:1]]).astype(np.float32)
    found = discover(rows, calibration=PLAIN)
    assert [len(cluster.images) for cluster in found.clusters] == [10, 10, 4]
    assert found.alone.tolist() == [24]
    for place, cluster in enumerate(found.clusters):
        assert (found.labels[cluster.images] == place).all()
        assert (np.diff(cluster.typical) <= 0).all()
        assert np.linalg.norm(cluster.template) == pytest.approx(1)
        assert (cluster.nearest, cluster.verdict, cluster.answer) == (None, None, "")


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_images(count):
    found = discover(-np.eye(DIM)[:count], calibration=replace(PLAIN, threshold=0.1))
    assert found.labels.tolist() == [-1] * count and not found.clusters
    assert map_coordinates(found.vectors).shape == (count, 2)


def verdicts():
    """Verdicts by the score alone: same from 0.8 on, different below 0.4."""
    common = dict(bound=9.0, crops=(1, 16), fars=(0.01, 0.5))
    scale = Scale(
        weights={"one": -6.0, "score": 10.0},
        models=(1, 64),
        accept=np.full((2, 2, 2, 2), 2.0).tolist(),
        refuse=np.full((2, 2, 2), -2.0).tolist(),
        **common,
    )
    return VerdictCalibration(pairs=scale, galleries=scale)


def test_clusters_are_compared_with_a_gallery():
    rows, _ = clouds(3, 6)
    gallery = Gallery("e", DIM)
    gallery.enrol("known", np.eye(DIM)[:1])
    gallery.enrol("akin", np.eye(DIM)[1:2] + 0.75 * np.eye(DIM)[5:6])
    gallery.enrol("other", -np.eye(DIM)[6:7])
    found = discover(rows, calibration=PLAIN, gallery=gallery, verdicts=verdicts())
    by_first = {int(c.images.min()) // 6: c for c in found.clusters}
    assert [by_first[i].answer for i in range(3)] == ["like known", "unsure", "new"]
    assert by_first[0].nearest == "known" and by_first[0].score > 0.8
    without = discover(rows, calibration=PLAIN, gallery=gallery)
    assert {c.answer for c in without.clusters} == {""}
    assert {c.nearest for c in without.clusters} >= {"known", "akin"}


def test_the_shipped_extractor_has_a_calibration():
    rows, truth = clouds(4, 8, dim=128, noise=0.02)
    assert adjusted_rand_score(truth, discover(rows).labels) == 1


@pytest.mark.parametrize(
    ("rows", "what"),
    [
        (np.ones((3, 5)), r"\(n, 12\).*\(3, 5\).*another extractor"),
        (np.ones(DIM), r"\(12,\)"),
        (np.zeros((0, DIM)), r"\(0, 12\)"),
        (np.full((2, DIM), np.nan), "NaN"),
    ],
)
def test_embeddings_that_do_not_fit(rows, what):
    with pytest.raises(ValueError, match=what):
        discover(rows, calibration=PLAIN)


@pytest.mark.parametrize(
    "change", [{"threshold": 0}, {"threshold": np.nan}, {"projection": [[np.inf]]},
               {"projection": [1.0]}]
)  # fmt: skip
def test_calibrations_that_cannot_be(change):
    with pytest.raises(ValueError, match="must be"):
        replace(PLAIN, **change)


def test_a_card_keeps_the_calibration_and_says_whose_it_is():
    card = json.loads(json.dumps({"discovery": ENTRY.of(PLAIN, {}, extractor_hash="abc")}))
    assert stored_discovery(card, extractor_hash="abc") == PLAIN
    with pytest.raises(ValueError, match="calibrate-discovery"):
        stored_discovery(card, extractor_hash="xyz")
    card["discovery"]["calibration"]["more"] = 1
    with pytest.raises(ValueError, match="damaged"):
        stored_discovery(card, extractor_hash="abc")


# ---- calibration -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bank():
    """Models that differ along the first 8 axes; images vary along the last, and little else."""
    g = np.random.default_rng(0)
    models, dim = 24, 16
    middle = np.zeros((models, 1, 1, 1, 1, dim))
    middle[..., :8] = g.normal(size=(models, 1, 1, 1, 1, 8))
    crops = middle + 0.15 * g.normal(size=(models, 6, 2, 2, 2, dim))
    crops[..., -1] += 1.5 * g.normal(size=(models, 6, 1, 1, 1))
    crops /= np.linalg.norm(crops, axis=-1, keepdims=True)
    return Bank(
        crops=crops.astype(np.float32),
        strangers=np.zeros((0, 2, 2, 2, dim), np.float32),
        cohort=np.zeros(dim, np.float32),
        architecture=np.arange(models) // 2,
        kind=np.repeat("random", models),
        description="made up",
    )


def test_the_projection_ignores_what_varies_within_models(bank):
    projection = fit_projection(bank)
    seen = np.linalg.norm(projection, axis=1)
    assert seen[-1] < 0.4 * seen[:8].min()
    inside = within_models(bank)
    assert inside[-1, -1] > 10 * np.diag(inside)[:8].max()


def test_the_directions_kept_are_those_in_which_models_differ(bank, monkeypatch):
    monkeypatch.setattr(discovery_calibration, "DIMENSIONS", 4)
    projection = fit_projection(bank)
    assert projection.shape == (16, 4)
    seen = np.linalg.norm(projection[:8], axis=0)
    assert (seen > 5 * np.linalg.norm(projection[8:], axis=0)).all()


def test_quarters_of_images_are_images(bank):
    assert image_embeddings(bank, 0, 0, 2).shape == (6, 16)
    quarters = image_embeddings(bank, 0, 0, 1)
    assert quarters.shape == (24, 16)
    assert np.allclose(quarters[:4], bank.crops[0, 0, 0].reshape(4, 16), atol=1e-6)


def test_folders_have_a_truth_and_differ(bank):
    g, inside = np.random.default_rng(0), within_models(bank)
    sizes = set()
    for _ in range(40):
        rows, truth = draw_folder(bank, g, inside)
        assert rows.shape == (len(truth), 16) and np.allclose(np.linalg.norm(rows, axis=1), 1)
        sizes.add(len(np.unique(truth)))
    assert 1 in sizes and max(sizes) > 10


def test_a_calibration_finds_the_models_of_others(bank, monkeypatch):
    monkeypatch.setattr(discovery_calibration, "THRESHOLDS", (0.2, 0.7, 1.2, 3.0))
    monkeypatch.setattr(discovery_calibration, "FEW_IMAGES", 200)
    calibration, report = calibrate_discovery(bank, folders=6, seed=1)
    again, _ = calibrate_discovery(bank, folders=6, seed=1)
    assert calibration == again and calibration.threshold in (0.7, 1.2)
    assert report["held_out"]["ari"] > 0.6
    assert 0.5 < report["held_out"]["found"] < 2
    blind = replace(bank, crops=np.roll(bank.crops, 1, axis=1))  # the same models
    assert fit_projection(blind) == pytest.approx(fit_projection(bank), abs=1e-6)
    with pytest.raises(ValueError, match="10 architectures"):
        calibrate_discovery(bank.of(np.arange(4)))


# ---- report ------------------------------------------------------------------------------------

EVIL = '</script><img src=x onerror="alert(1)"><a href="javascript:1">'


def test_a_page_shows_every_cluster_and_no_name_acts():
    rows, _ = clouds(3, 6)
    rows = np.vstack([rows, -np.eye(DIM)[5:6]]).astype(np.float32)
    found = discover(rows, calibration=PLAIN)
    names = [f"{i}{EVIL}" for i in range(len(rows))]
    text = page(found, names, title=EVIL)
    assert "19 images: 3 clusters, 1 alone" in text and summary(found) in text
    assert "<img" not in text and "</script><" not in text.replace("</script></div>", "")
    figure = cluster_map(found, names)
    assert [len(trace.x) for trace in figure.data] == [6, 6, 6, 1]
    assert figure.data[-1].name == "alone (1)"
    assert all("<img" not in t and "<a " not in t for trace in figure.data for t in trace.text)
    with pytest.raises(ValueError, match="19, one per image"):
        page(found, names[:3], title="")


def test_what_all_names_begin_with_is_said_once():
    rows, _ = clouds(2, 4)
    found = discover(rows, calibration=PLAIN)
    text = page(found, [f"/photos/{i % 2}/{i}.png" for i in range(8)], title="")
    assert (
        text.count("/photos/") == 1
        and "8 images: 2 clusters, 0 alone; names are below /photos/<" in text
    )
    assert common_folder(["/photos/a.png", "/photos/ab.png"]) == "/photos/"
    assert common_folder(["/photos/a.png"]) == "/photos/" and common_folder(["a", "b"]) == ""


def test_a_page_shows_the_pictures_that_it_is_given():
    rows, _ = clouds(3, 6)
    rows = np.vstack([rows, -np.eye(DIM)[5:6]]).astype(np.float32)
    found = discover(rows, calibration=PLAIN)
    image = torch.zeros(3, 40, 200)
    image[0] = 1
    small = thumbnail(image)
    with Image.open(io.BytesIO(small)) as picture:
        assert picture.size == (96, 19) and picture.format == "JPEG"
        assert np.abs(np.asarray(picture)[10, 50].astype(int) - (255, 0, 0)).max() < 6
    places = named_places(found)
    assert len(places) == 3 * 5 + 1 == len(set(places)) and places[-1] == 18
    names = [f"{i}{EVIL}" for i in range(len(rows))]
    text = page(found, names, title="", pictures=dict.fromkeys(places[1:], small))
    assert text.count("data:image/jpeg;base64,") == 15 == text.count("<img")
    assert text.count("<figure>") == 16  # one has a name only


def test_a_sample_for_the_map_keeps_small_clusters():
    rows, _ = clouds(3, 40)
    found = discover(np.vstack([rows, -np.eye(DIM)[5:6]]), calibration=PLAIN)
    places = map_places(found, most=31)
    assert np.bincount(found.labels[places] + 1).tolist() == [1, 10, 10, 10]
    assert map_places(found).tolist() == list(range(121))


def test_the_map_keeps_neighbours():
    rows, truth = clouds(4, 15)
    spots = map_coordinates(rows)
    away = np.linalg.norm(spots[:, None] - spots, axis=-1)
    np.fill_diagonal(away, np.inf)
    assert (truth[away.argmin(axis=1)] == truth).all()
    assert np.array_equal(spots, map_coordinates(rows))


# ---- verb --------------------------------------------------------------------------------------


@pytest.fixture
def extractor(tmp_path):
    """A tiny untrained extractor that tells images blurred along different axes apart."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = Extractor(ExtractorConfig(crop=32, widths=(8, 8, 8), positions=1, dim=DIM))
    network.card = {"discovery": {"extractor": network.hash, "calibration": asdict(PLAIN)}}
    network.save(tmp_path / "extractor")
    return tmp_path / "extractor"


@pytest.fixture
def folder(tmp_path):
    """Four images of each of two models; one file that is no image."""
    for name, size in {"across": (1, 5), "down": (5, 1)}.items():
        for seed in range(4):
            noise = torch.rand(3, 44, 44, generator=torch.Generator().manual_seed(seed))
            image = torch.nn.functional.avg_pool2d(noise, size, 1)[:, :40, :40]
            write_png(tmp_path / "images" / name / f"{seed}.png", image)
    (tmp_path / "images" / "down" / "bad.png").write_bytes(b"no image")
    return tmp_path / "images"


def run(capsys, *words):
    code = main([str(word) for word in words])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_the_verb_on_a_folder_and_on_its_embeddings(extractor, folder, tmp_path, capsys):
    options = ("--extractor", extractor)
    code, out, err = run(capsys, "discover", folder, "--json", *options)
    answer = json.loads(out)
    assert code == 0 and "bad.png" in err and answer["skipped"] == 1
    listed = [name for cluster in answer["clusters"] for name in cluster["images"]]
    assert answer["images"] == 8 == len(listed) + len(answer["alone"])
    assert {"images", "typical"} == set(answer["clusters"][0])

    assert run(capsys, "embed", folder, "--out", tmp_path / "embeddings", *options)[0] == 0
    code, out, _ = run(capsys, "discover", tmp_path / "embeddings", "--json", *options)
    stored = json.loads(out)
    assert code == 0 and stored["skipped"] == 1
    assert [len(c["images"]) for c in stored["clusters"]] == [
        len(c["images"]) for c in answer["clusters"]
    ]

    gallery, map_ = tmp_path / "known.gallery", tmp_path / "map.html"
    assert run(capsys, "enrol", gallery, folder, *options)[0] == 0
    words = ("--gallery", gallery, "--out", map_, "--strict", *options)
    code, out, err = run(capsys, "discover", folder, *words)
    assert code == 1 and "8 images:" in out and "nearest" in out and "not calibrated" in err
    assert map_.read_text().startswith("<!DOCTYPE html>") and "<img" not in map_.read_text()


@pytest.mark.parametrize("kind", ["folder", "tar", "parquet"])
def test_the_page_has_pictures_of_what_was_embedded(
    extractor, folder, tmp_path, capsys, monkeypatch, kind
):
    monkeypatch.setattr("fpkit.discovery_report.SHOWN", 8)
    options, map_ = ("--extractor", extractor), tmp_path / "map.html"
    files, source = sorted(folder.rglob("*.png")), folder
    if kind == "tar":
        source = tmp_path / "images.tar"
        with tarfile.open(source, "w") as tar:
            tar.add(folder, "images")
    elif kind == "parquet":
        source = tmp_path / "images.parquet"
        pq.write_table(pa.table({"image": [file.read_bytes() for file in files]}), source)
    run_folder = tmp_path / "embeddings"
    words = ("embed", source, "--out", run_folder, "--unit", 3, *options)
    assert run(capsys, *words)[0] == 0
    words = ("discover", run_folder, "--out", map_, "--pictures", *options)
    code, _, err = run(capsys, *words)
    assert code == 0 and "read any more" not in err
    pictures = re.findall(r"image/jpeg;base64,([^\"]+)", map_.read_text())
    wanted = {thumbnail(read_image(file)) for file in files if file.stem != "bad"}
    assert {base64.b64decode(picture) for picture in pictures} == wanted and len(wanted) == 8
    if kind == "folder":
        write_png(folder / "down" / "0.png", torch.zeros(3, 40, 40))
        (folder / "down" / "1.png").unlink()
        code, _, err = run(capsys, *words)
        assert code == 0 and "2 of 8 pictures cannot be read any more" in err
        assert map_.read_text().count("image/jpeg;base64,") == 6
        words = ("discover", run_folder / "part-000000.parquet", *words[2:])
        code, _, err = run(capsys, *words)
        assert code == 1 and "--pictures needs the whole folder" in err


def test_what_the_verb_refuses(extractor, folder, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["discover", str(folder), "--out", "map.png"])
    with pytest.raises(SystemExit):
        main(["discover", str(folder), "--pictures"])
    assert run(capsys, "embed", folder, "--out", tmp_path / "e", "--extractor", extractor)[0] == 0
    code, _, err = run(capsys, "discover", tmp_path / "e")
    assert code == 1 and "made with the extractor" in err
    (tmp_path / "empty").mkdir()
    code, _, err = run(capsys, "discover", tmp_path / "empty", "--extractor", extractor)
    assert code == 1 and "no images" in err
