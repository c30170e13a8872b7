"""The index against the exact scan, its file against damage, and a big gallery against itself."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import fpkit as fp
from fpkit import gallery as galleries
from fpkit.assets import save_safetensors_atomic
from fpkit.gallery import Gallery, centred_scores
from fpkit.gallery_file import FORMATS, LISTS
from fpkit.gallery_search import index_path, scan, stamps_of
from fpkit.vector_index import Lists, VectorIndex, arrange
from fpkit.verdicts import Conditions, stored_verdicts

pytest.importorskip("faiss")
DIM = 12


def directions(count: int, seed: int = 0) -> np.ndarray:
    """Unit vectors in clusters, as models are."""
    g = np.random.default_rng(seed)
    middles = g.normal(size=(20, DIM))
    rows = middles[g.integers(20, size=count)] + 0.4 * g.normal(size=(count, DIM))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def indexed(rows: np.ndarray, before: Lists | None = None) -> Lists:
    return arrange(lambda places: rows[places], stamps_of(rows.astype(float)), before=before)


@pytest.fixture
def big(monkeypatch):
    """A gallery of 3000 models counts as a big one; an index of it looks through 10 lists."""
    monkeypatch.setattr(galleries, "EXACT", 2000)
    monkeypatch.setattr("fpkit.vector_index.PROBES", 10)
    return gallery_of(directions(3000))


def gallery_of(rows: np.ndarray) -> Gallery:
    gallery = Gallery("abc", DIM)
    for place, row in enumerate(rows):
        gallery.enrol(f"m{place}", row[None], images=[f"i{place}"])
    return gallery


def agree(gallery: Gallery, probes: np.ndarray) -> float:
    """Share of probes whose best is the best of a full sort; scores must be exact for all."""
    expected = centred_scores(probes, gallery.templates)
    hits = []
    for row, answer in zip(expected, gallery.identify(probes), strict=True):
        hits.append(answer.model == gallery.models[row.argmax()])
        own = row[[gallery.models.index(model) for model in answer.scores]]
        np.testing.assert_allclose(list(answer.scores.values()), own, atol=1e-9)
        assert (np.diff(own) <= 1e-9).all() and answer.score == max(answer.scores.values())
    return float(np.mean(hits))


# ---- the index ---------------------------------------------------------------------------------


def test_a_direction_finds_itself():
    rows = directions(2000)
    index = VectorIndex(indexed(rows), lambda places: rows[places])
    assert [found[0] for found in index.search(rows[::100], 5)] == list(range(0, 2000, 100))


def test_looking_through_every_list_is_exact(monkeypatch):
    monkeypatch.setattr("fpkit.vector_index.PROBES", 10_000)
    rows, queries = directions(500), directions(40, seed=1)
    index = VectorIndex(indexed(rows), lambda places: rows[places])
    scores = queries @ rows.T
    for found, score in zip(index.search(queries, 500), scores, strict=True):
        assert sorted(found) == list(range(500))  # float16 may swap neighbours only
        assert (np.diff(score[found]) < 2e-3).all()


def test_fewer_directions_than_are_asked_for():
    rows = directions(3)
    found = VectorIndex(indexed(rows), lambda places: rows[places]).search(rows[:1], 100)
    assert sorted(found[0]) == [0, 1, 2]


def test_put_replaces_and_appends():
    rows, new = directions(300), directions(2, seed=5)
    index = VectorIndex(indexed(rows), lambda places: rows[places])
    index.put(np.array([7, 300]), new)
    assert len(index) == 301
    assert [found[0] for found in index.search(new, 1)] == [7, 300]
    assert 7 not in index.search(rows[7:8], 300)[0][:1]


def test_only_what_is_new_is_arranged():
    rows = directions(1000)
    before = indexed(rows)
    assert indexed(rows, before) is before
    more = np.concatenate([rows[:10], rows[11:], directions(5, seed=2)])  # one gone, five new
    asked = []

    def counted(places):
        asked.extend(np.atleast_1d(places))
        return more[places]

    after = arrange(counted, stamps_of(more.astype(float)), before=before)
    assert sorted(asked) == list(range(999, 1004))
    np.testing.assert_array_equal(after.lists[:999], np.delete(before.lists, 10))
    assert after.trained == 1000


def test_twice_as_many_are_learnt_anew():
    before = indexed(directions(100))
    after = indexed(directions(300), before)
    assert after.trained == 300 and len(after.centroids) > len(before.centroids)


def test_equal_directions_are_arranged_equally():
    first, second = indexed(directions(800)), indexed(directions(800))
    np.testing.assert_array_equal(first.centroids, second.centroids)
    np.testing.assert_array_equal(first.lists, second.lists)


def test_nothing_to_arrange():
    with pytest.raises(ValueError, match="at least one"):
        arrange(lambda places: np.zeros((0, 2), np.float32), np.zeros(0, np.int64))


def test_a_stamp_sees_the_last_bit():
    sums = np.random.default_rng(0).normal(size=(50, DIM))
    other = sums.copy()
    other[13, 4] = np.nextafter(other[13, 4], 9)
    assert np.flatnonzero(stamps_of(sums) != stamps_of(other)).tolist() == [13]
    assert len(set(stamps_of(sums))) == 50


# ---- its file ----------------------------------------------------------------------------------


def test_file_round_trip(tmp_path):
    lists = indexed(directions(200))
    lists.save(tmp_path / "a.index")
    again = Lists.load(tmp_path / "a.index", dim=DIM)
    for name in ("centroids", "lists", "stamps", "trained"):
        np.testing.assert_array_equal(getattr(again, name), getattr(lists, name))
    with pytest.raises(ValueError, match=f"length {DIM + 1}"):
        Lists.load(tmp_path / "a.index", dim=DIM + 1)


@pytest.mark.parametrize("worst", [-1, 10_000])
def test_lists_out_of_range_are_refused(tmp_path, worst):
    lists = indexed(directions(200))
    lists.lists[3] = worst
    lists.save(tmp_path / "a.index")
    with pytest.raises(ValueError, match="from 0 to"):
        Lists.load(tmp_path / "a.index", dim=DIM)


# ---- a big gallery -----------------------------------------------------------------------------


def test_scan_finds_the_best():
    rows, probes = directions(20_000), directions(3, seed=3)
    found = scan(lambda places: rows[places], len(rows), probes, np.zeros(DIM))
    for places, scores in zip(found, probes @ rows.T, strict=True):
        assert set(np.argsort(-scores)[:150]) <= set(places)


def test_a_big_gallery_answers_as_a_full_sort_does(big):
    probes = directions(100, seed=4)
    assert agree(big, probes) >= 0.97
    first = big.identify(probes[:1])[0]
    assert len(first.scores) == galleries.BEST
    expected = centred_scores(probes[:1], big.templates)[0]
    exact = big.identify(probes[:1], exact=True)[0]
    assert list(exact.scores) == [f"m{i}" for i in np.argsort(-expected)[: galleries.BEST]]


def test_another_prior_is_scored_exactly(big):
    probes = directions(20, seed=4)
    expected = centred_scores(probes, big.templates, prior=3000)
    for row, answer in zip(expected, big.identify(probes, prior=3000), strict=True):
        assert answer.model == f"m{row.argmax()}" and answer.score == pytest.approx(row.max())


def test_enrolments_are_found_at_once(big):
    probes = directions(30, seed=6)
    agree(big, probes)
    new = -directions(2, seed=7)  # where no model is
    big.enrol("new", new[:1])
    big.enrol("m5", 50 * new[1:])  # moves an old one
    assert [answer.model for answer in big.identify(new)] == ["new", "m5"]
    assert agree(big, probes) >= 0.9
    big.remove("new")
    assert big.identify(new[:1])[0].model != "new"
    assert agree(big, probes) >= 0.9


def test_the_index_is_kept_beside_the_gallery_and_updated(big, tmp_path, monkeypatch):
    path, probes = tmp_path / "g", directions(10, seed=8)
    big.save(path)
    assert not index_path(path).exists()  # until it is needed
    answers = big.identify(probes)
    first = index_path(path).read_bytes()
    again = Gallery.load(path, extractor_hash="abc")
    monkeypatch.setattr("fpkit.vector_index._learn", None)  # calling it would fail
    assert again.identify(probes) == answers
    assert index_path(path).read_bytes() == first
    with Gallery.edit(path, extractor_hash="abc", dim=DIM) as edited:
        edited.enrol("new", -probes[:1])
        edited.remove("m17")
    again = Gallery.load(path, extractor_hash="abc")
    assert again.identify(-probes[:1])[0].model == "new"
    assert index_path(path).read_bytes() != first
    assert agree(again, probes) >= 0.9


@pytest.mark.parametrize("damage", [b"", b"nonsense", None])
def test_a_damaged_or_foreign_index_changes_no_answer(big, tmp_path, damage):
    path, probes = tmp_path / "g", directions(10, seed=8)
    big.save(path)
    answers = big.identify(probes)
    if damage is None:  # that of other models
        indexed(directions(500, seed=9)).save(index_path(path))
    else:
        index_path(path).write_bytes(damage)
    assert Gallery.load(path, extractor_hash="abc").identify(probes) == answers
    assert len(Lists.load(index_path(path), dim=DIM).lists) == 3000


def test_an_index_that_cannot_be_kept_is_no_error(big, tmp_path):
    path = tmp_path / "g"
    big.save(path)
    index_path(path).mkdir()
    assert big.identify(directions(3000)[:1])[0].model == "m0"


def test_faiss_is_asked_for_by_its_extra(big, monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ValueError, match=r"fpkit\[corpus\]"):
        big.identify(directions(1))
    assert big.identify(directions(3000)[:1], exact=True)[0].model == "m0"


def test_verdicts_in_a_big_gallery_are_those_of_all_scores(big, monkeypatch):
    extractor = fp.load_extractor("small")
    calibration = stored_verdicts(extractor.card, extractor_hash=extractor.hash)
    conditions = Conditions(crops=4, jpeg=False)
    probes = directions(3000)[:40:8]
    found = big.identify(probes)
    judged = [calibration.identify(answer, big, conditions) for answer in found]
    with pytest.raises(ValueError, match="ask again"):
        calibration.identify(found[0], gallery_of(directions(2500)[2000:]), conditions)
    monkeypatch.setattr(galleries, "EXACT", 3000)
    for answer, verdict in zip(big.identify(probes), judged, strict=True):
        whole = calibration.identify(answer, big, conditions)
        assert whole.answer == verdict.answer
        assert whole.log_ratio == pytest.approx(verdict.log_ratio, abs=1e-6)


# ---- the file of a big gallery -----------------------------------------------------------------


def test_names_that_fill_no_header_are_tensors(tmp_path, monkeypatch):
    small, large = tmp_path / "small", tmp_path / "large"
    gallery = gallery_of(directions(40))
    gallery.enrol("Ünïcode", directions(2))
    gallery.save(small)
    monkeypatch.setattr("fpkit.gallery_file.WORDS", 100)
    gallery.save(large)
    assert b"fpkit-gallery-2" in small.read_bytes() and b"fpkit-gallery-3" in large.read_bytes()
    for path in (small, large):
        again = Gallery.load(path, extractor_hash="abc")
        assert again.counts == gallery.counts and list(again.counts) == gallery.models
        assert again.images("m3") == {"i3"} and not again.images("Ünïcode")
        np.testing.assert_array_equal(again.templates, gallery.templates)
        again.enrol("m3", directions(1), images=["i3"])  # known
        again.enrol("m4", directions(1), images=["other"])
        assert again.counts == gallery.counts | {"m4": 2}


def test_a_big_file_is_checked(tmp_path, monkeypatch):
    monkeypatch.setattr("fpkit.gallery_file.WORDS", 10)
    gallery_of(directions(4)).save(tmp_path / "g")
    damaged = bytearray(Path(tmp_path / "g").read_bytes())
    damaged[-3] ^= 1
    Path(tmp_path / "g").write_bytes(damaged)
    with pytest.raises(ValueError, match="damaged"):
        Gallery.load(tmp_path / "g", extractor_hash="abc")
    words = torch.tensor(list(b'["a"]'), dtype=torch.uint8)
    tensors = {name: words.clone() for name in LISTS}
    tensors["sums"] = torch.ones(1, 2, dtype=torch.float64)
    header = {"format": FORMATS[-1], "extractor_hash": "abc"}
    for change, message in (
        ({}, "its counts must be a list of int"),
        ({"models": words.float()}, "expected bytes"),
        ({"more": words.clone()}, "its tensors are"),
        ({"models": torch.tensor([255, 254], dtype=torch.uint8)}, "utf-8"),
    ):
        save_safetensors_atomic(tmp_path / "g", tensors | change, metadata=header)
        with pytest.raises(ValueError, match=message):
            Gallery.load(tmp_path / "g", extractor_hash="abc")
