"""scikit-learn estimators: its own checks, and agreement with the extractor and the gallery.

What `check_estimator` leaves out, and why:

* Of `FingerprintTransformer` everything that makes up data of its own, for those are tables of
  numbers and this one reads images; the checks that need none run one by one, and what the others
  ask (order, subsets, data unchanged, fit again, unfitted) is asked here with images.
* Of `GalleryClassifier` the array API, which scikit-learn itself only checks where it is enabled,
  and verdicts, which need 128 columns: those are compared with `VerdictCalibration.identify`.
"""

import math
from pathlib import Path

import numpy as np
import pandas
import pyarrow
import pytest
import torch
from PIL import Image
from sklearn.base import clone
from sklearn.exceptions import NotFittedError, SkipTestWarning
from sklearn.metrics import accuracy_score
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.utils import estimator_checks

from fpkit.assets import write_bytes_atomic
from fpkit.columns import embedding_matrix, from_arrow, to_arrow
from fpkit.corpus_unit import embed_unit
from fpkit.estimators import FingerprintTransformer, GalleryClassifier
from fpkit.extractor import Extractor, ExtractorConfig, load_extractor
from fpkit.gallery import Gallery, centred_scores, template
from fpkit.images import ImageReadError, write_png
from fpkit.sources import list_items
from fpkit.verdicts import Conditions, stored_verdicts

DIM = 128


@pytest.fixture(scope="module")
def extractor():
    torch.manual_seed(0)
    made = Extractor(ExtractorConfig(crop=32, widths=(4, 6), positions=1, dim=5))
    return made.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def images():
    return torch.rand(7, 3, 40, 48, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def files(images, tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    for number, image in enumerate(images):
        write_png(folder / f"{number}.png", image)
    return [str(folder / f"{number}.png") for number in range(len(images))]


@pytest.fixture(scope="module")
def transformer(extractor):
    return FingerprintTransformer(extractor).fit([])


@pytest.fixture(scope="module")
def sources():
    """Embeddings of six models, ten of each, as far apart as those of an extractor may be."""
    generator = np.random.default_rng(0)
    centres = generator.normal(size=(6, DIM))
    rows = centres[:, None] + 0.3 * generator.normal(size=(6, 10, DIM))
    rows /= np.linalg.norm(rows, axis=-1, keepdims=True)
    return rows.reshape(60, DIM).astype(np.float32), np.repeat(list("abcdef"), 10)


# ---- scikit-learn's own checks -----------------------------------------------------------------


def test_classifier_passes_check_estimator():
    results = estimator_checks.check_estimator(GalleryClassifier(), on_skip=None)
    assert {r["check_name"] for r in results if r["status"] != "passed"} <= {
        "check_array_api_input",
        "check_estimators_pickle",
    }
    assert sum(r["status"] == "passed" for r in results) > 40


def test_check_estimator_has_no_images_for_the_transformer():
    with pytest.warns(SkipTestWarning, match="requires input"):
        results = estimator_checks.check_estimator(FingerprintTransformer(), on_skip=None)
    assert {r["status"] for r in results} == {"passed"}


@pytest.mark.parametrize(
    "name",
    [
        "estimator_cloneable",
        "estimator_repr",
        "estimator_tags_renamed",
        "valid_tag_types",
        "mixin_order",
        "no_attributes_set_in_init",
        "do_not_raise_errors_in_init_or_set_params",
        "parameters_default_constructible",
        "get_params_invariance",
        "set_params",
    ],
)
def test_transformer_passes_the_checks_that_need_no_data(name):
    check = getattr(estimator_checks, f"check_{name}")
    check("FingerprintTransformer", FingerprintTransformer())


# ---- images to embeddings ----------------------------------------------------------------------


def test_transformer_gives_what_the_extractor_gives(extractor, transformer, images):
    expected = extractor.embed(images, grid=1).numpy()
    found = FingerprintTransformer(extractor, grid=1).fit_transform(images)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, expected)
    assert abs(expected - transformer.transform(images)).max() > 1e-3  # another grid


def test_default_and_small_are_the_weights_of_fpkit():
    for name, path in (("default", None), ("small", "small")):
        assert FingerprintTransformer(name).fit([]).extractor_.hash == load_extractor(path).hash


def test_many_forms_of_the_same_files(extractor, transformer, files):
    expected = transformer.transform(files)
    content = [Path(file).read_bytes() for file in files]
    pixels = [_pixels(file).numpy() for file in files]
    table = {"model": list("abcdefg"), "path": files}
    same = [
        tuple(files),
        np.array(files),
        np.array(files, dtype=object)[:, None],
        pandas.Series(files),
        pandas.DataFrame({"anything": files}),
        pandas.DataFrame(table),
        pyarrow.array(files),
        pyarrow.chunked_array([files[:3], files[3:]]),
        pyarrow.table(table),
        content,
        pyarrow.array(content),
        pyarrow.array([{"bytes": data, "path": None} for data in content]),
        [{"bytes": None, "path": file} for file in files],
        pixels,
        np.stack(pixels),
        torch.from_numpy(np.stack(pixels)),
    ]
    for form in same:
        np.testing.assert_allclose(transformer.transform(form), expected, atol=1e-6)


def test_order_subsets_and_batches_do_not_matter(transformer, images):
    many = torch.cat([images] * 3)  # more than are in memory at once
    rows = transformer.transform(many)
    np.testing.assert_allclose(rows[:7], rows[14:], atol=1e-6)
    order = [4, 0, 19]
    np.testing.assert_allclose(transformer.transform(many[order]), rows[order], atol=1e-6)
    assert transformer.transform([]).shape == (0, 5)


def test_input_and_parameters_stay_as_they_were(extractor, images):
    transformer, before = FingerprintTransformer(extractor), images.numpy().copy()
    before.flags.writeable = False
    parameters = transformer.get_params()
    first = transformer.fit_transform(before)
    np.testing.assert_array_equal(first, transformer.fit(before).transform(before))
    assert transformer.get_params() == parameters
    copy = clone(transformer).set_params(grid=1)
    assert (copy.grid, transformer.grid) == (1, 4) and not hasattr(copy, "extractor_")


def test_output_as_pandas(transformer, images):
    frame = clone(transformer).set_output(transform="pandas").fit_transform(images)
    assert list(frame.columns) == [f"fingerprint{i}" for i in range(5)]
    np.testing.assert_array_equal(frame.to_numpy(), transformer.transform(images))


def test_unreadable_and_small_images_are_named(extractor, files, tmp_path):
    damaged = tmp_path / "damaged.png"
    write_bytes_atomic(damaged, b"\x89PNG, and then nothing")
    write_png(tmp_path / "small.png", torch.rand(3, 31, 50))
    mixed = [files[0], str(damaged), str(tmp_path / "small.png"), files[1]]
    with pytest.raises(ImageReadError, match="damaged.png"):
        FingerprintTransformer(extractor).fit_transform(mixed)
    with pytest.raises(ImageReadError, match="small.png: 50x31 pixels, expected at least 32x32"):
        FingerprintTransformer(extractor).fit_transform([mixed[2]])
    lenient = FingerprintTransformer(extractor, on_error="nan").fit(mixed)
    with pytest.warns(UserWarning, match=r"2 images .*damaged.png"):
        rows = lenient.transform(mixed)
    assert np.isnan(rows).all(axis=1).tolist() == [False, True, True, False]
    np.testing.assert_allclose(rows[[0, 3]], lenient.transform(files[:2]), atol=1e-6)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ("a.png", "got one str"),
        (b"data", "got one bytes"),
        (3, "sequence of images, got int"),
        ([3.5], "image 0 is float"),
        ([None], "image 0 is NoneType"),
        ([{"bytes": None}], "image 0 is NoneType"),
        (np.zeros((2, 3)), "image 0 is ndarray"),
    ],
)
def test_what_is_no_image_is_refused(transformer, wrong, says):
    with pytest.raises(TypeError, match=says):
        transformer.transform(wrong)


def test_a_table_must_say_where_its_images_are(transformer):
    with pytest.raises(ValueError, match="one named 'path', got"):
        transformer.transform(pandas.DataFrame({"a": ["x"], "b": ["y"]}))


def test_wrong_parameters_are_told_at_fit(images, tmp_path):
    with pytest.raises(ValueError, match="on_error must be one of"):
        FingerprintTransformer(on_error="skip").fit(images)
    with pytest.raises(ValueError, match="precision must be one of"):
        FingerprintTransformer(precision="float16").fit(images)
    with pytest.raises(FileNotFoundError, match="no extractor"):
        FingerprintTransformer(tmp_path).fit(images)
    with pytest.raises(TypeError, match="extractor must be"):
        FingerprintTransformer(7).fit(images)
    with pytest.raises(NotFittedError):
        FingerprintTransformer().transform(images)


# ---- embeddings to names -----------------------------------------------------------------------


def test_classifier_names_as_the_gallery_does(sources):
    rows, labels = sources
    gallery = Gallery("", DIM)
    for name in "abcdef":
        gallery.enrol(name, rows[::2][labels[::2] == name])
    classifier = GalleryClassifier().fit(rows[::2], labels[::2])
    answers = gallery.identify(rows[1::2])
    assert classifier.predict(rows[1::2]).tolist() == [answer.model for answer in answers]
    scores = classifier.decision_function(rows[1::2])
    expected = [[answer.scores[name] for name in classifier.classes_] for answer in answers]
    np.testing.assert_allclose(scores, expected, atol=1e-12)
    assert classifier.gallery_.models == gallery.models == classifier.classes_.tolist()


def test_prior_is_that_of_the_scores(sources):
    rows, labels = sources
    templates = np.stack([template(rows[labels == name]) for name in "abcdef"])
    for prior in (0.0, 4.0):
        classifier = GalleryClassifier(prior=prior).fit(rows, labels)
        expected = centred_scores(rows, templates, prior=prior)
        np.testing.assert_allclose(classifier.decision_function(rows), expected, atol=1e-6)


def test_verdicts_are_those_of_the_desk_one_by_one(sources):
    rows, labels = sources
    extractor = load_extractor()
    judge = stored_verdicts(extractor.card, extractor_hash=extractor.hash)
    crops = [1, 4, 9, 16, 2, 3] * 10
    compressed = [False, True] * 30
    table = pyarrow.table(
        {"embedding": to_arrow(rows), "crops": crops, "compressed": compressed, "error": [""] * 60}
    )
    enrolled = labels < "e"
    classifier = GalleryClassifier(far=0.1).fit(rows[enrolled], labels[enrolled])
    found = classifier.verdicts(table)
    for i, answer in enumerate(classifier.gallery_.identify(rows)):
        conditions = Conditions(crops=crops[i], jpeg=compressed[i])
        expected = judge.identify(answer, classifier.gallery_, conditions, far=0.1)
        assert found[i].answer == expected.answer
        assert math.isclose(found[i].log_ratio, expected.log_ratio, abs_tol=1e-9)
        assert (found[i].accept, found[i].refuse) == (expected.accept, expected.refuse)
    assert classifier.verdicts(table.to_pandas()) == found
    assumed = GalleryClassifier(far=0.1, crops=9, jpeg=False).fit(rows[enrolled], labels[enrolled])
    known = pandas.DataFrame({"embedding": list(rows), "crops": 9, "compressed": False})
    assert assumed.verdicts(rows) == assumed.verdicts(known) != classifier.verdicts(rows)


def test_strangers_are_unknown_and_may_be_part_of_y(sources):
    rows, labels = sources
    y = np.where(labels < "e", labels, "unknown")
    classifier = GalleryClassifier(far=0.05, crops=16, jpeg=False).fit(rows, y)
    assert classifier.classes_.tolist() == list("abcd")
    named = classifier.predict(rows)
    assert set(named[labels >= "e"]) == {"unknown"}
    assert np.mean(named[labels < "e"] == y[labels < "e"]) > 0.9
    same = [verdict.answer == "same" for verdict in classifier.verdicts(rows)]
    assert (named != "unknown").tolist() == same
    everybody = GalleryClassifier().fit(rows, y)
    assert "unknown" not in everybody.predict(rows)
    assert classifier.gallery_.extractor_hash == load_extractor().hash


@pytest.mark.parametrize(("labels", "unknown"), [([3, 7], -1), (["a", "b"], "none of these")])
def test_unknown_is_a_label_like_the_others(sources, labels, unknown):
    rows = sources[0]
    y = np.repeat(labels, 10)
    classifier = GalleryClassifier(far=0.05, unknown=unknown).fit(rows[:20], y)
    named = classifier.predict(rows)
    assert set(named.tolist()) <= {*labels, unknown} and unknown in named.tolist()
    truth = (
        np.append(y, np.repeat(unknown, 40)) if isinstance(unknown, str) else [*y, *[unknown] * 40]
    )
    assert accuracy_score(truth, named) > 0.7


def test_two_classes_and_one(sources):
    rows, labels = sources
    two = GalleryClassifier().fit(rows[:20], labels[:20])
    assert ((two.decision_function(rows) > 0) == (two.predict(rows) == "b")).all()
    one = GalleryClassifier().fit(rows[:10], labels[:10])
    assert set(one.predict(rows)) == {"a"}


def test_what_cannot_be_fitted_says_why(sources):
    rows, labels = sources
    with pytest.raises(ValueError, match="no class is left to enrol"):
        GalleryClassifier().fit(rows, ["unknown"] * 60)
    with pytest.raises(ValueError, match="unknown is 'unknown': give one of their type"):
        GalleryClassifier(far=0.05).fit(rows, np.repeat([1, 2], 30))
    with pytest.raises(ValueError, match="X has 7 columns, the extractor's embeddings have 128"):
        GalleryClassifier(far=0.05).fit(rows[:, :7], labels)
    with pytest.raises(ValueError, match="far must be from"):
        GalleryClassifier(far=1e-9).fit(rows, labels)
    with pytest.raises(ValueError, match="need a false-accept rate"):
        GalleryClassifier().fit(rows, labels).verdicts(rows)


def test_an_extractor_without_calibration_names_but_does_not_refuse(extractor, images):
    rows, y = extractor.embed(images).numpy(), [0, 0, 0, 1, 1, 1, 1]
    assert GalleryClassifier(extractor=extractor).fit(rows, y).gallery_.extractor_hash
    with pytest.raises(ValueError, match="no calibration of verdicts"):
        GalleryClassifier(extractor=extractor, far=0.05, unknown=-1).fit(rows, y)


# ---- tables ------------------------------------------------------------------------------------


def test_columns_of_embeddings_from_every_library(sources):
    rows, _ = sources
    arrow = to_arrow(rows)
    lists = pyarrow.array([row.tolist() for row in rows], pyarrow.list_(pyarrow.float32()))
    forms = [
        arrow,
        lists,
        pyarrow.chunked_array([lists[:11], lists[11:]]),
        pyarrow.table({"path": ["x"] * 60, "embedding": arrow}),
        pyarrow.table({"embedding": arrow}).to_pandas(),
        pandas.DataFrame({"embedding": rows.tolist()}),
    ]
    for form in forms:
        np.testing.assert_allclose(embedding_matrix(form), rows, atol=1e-7)
    np.testing.assert_array_equal(from_arrow(arrow[3:9]), rows[3:9])  # a slice of the same memory
    assert embedding_matrix(rows) is rows
    assert arrow.type == pyarrow.list_(pyarrow.float32(), DIM)
    assert from_arrow(pyarrow.chunked_array([], arrow.type)).shape[0] == 0


def test_rows_without_an_embedding_are_counted(sources):
    rows = sources[0][:3].tolist()
    holed = pyarrow.array([rows[0], None, rows[2]])
    table = pyarrow.table({"embedding": holed})
    for form in (holed, table, table.to_pandas()):
        with pytest.raises(ValueError, match="1 of 3 rows have no embedding"):
            embedding_matrix(form)
    ragged = pyarrow.table({"embedding": [[1.0, 2.0], [1.0], [1.0, 2.0, 3.0]]})  # 6 numbers
    for form in (ragged, ragged.to_pandas()):
        with pytest.raises(ValueError, match=r"one length, got \[1, 2, 3\]"):
            embedding_matrix(form)
    with pytest.raises(ValueError, match=r"\(n, d\)"):
        to_arrow([1.0, 2.0])


def test_tables_of_fpkit_embed_go_in(extractor, transformer, files, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"no image")
    table = embed_unit(list(list_items([*files, tmp_path / "bad.png"])), extractor)
    with pytest.raises(ValueError, match="1 of 8 rows have no embedding"):
        embedding_matrix(table)
    usable = table.filter(table["error"].is_null())
    np.testing.assert_allclose(embedding_matrix(usable), transformer.transform(files), atol=1e-5)
    named = GalleryClassifier().fit(usable, list("aabbccc")).predict(usable)
    assert (
        named.tolist()
        == GalleryClassifier()
        .fit(usable.to_pandas(), list("aabbccc"))
        .predict(transformer.transform(files))
        .tolist()
    )


# ---- in pipelines ------------------------------------------------------------------------------


def test_pipeline_from_files_with_a_cross_validation(extractor, files):
    frame = pandas.DataFrame({"path": files * 2, "model": list("aabbccc") * 2})
    pipeline = make_pipeline(FingerprintTransformer(extractor), GalleryClassifier())
    folds = StratifiedKFold(2)
    scores = cross_val_score(pipeline, frame["path"], frame["model"], cv=folds)
    rows = extractor.embed(list(map(_pixels, files * 2))).numpy()
    apart = cross_val_score(GalleryClassifier(), rows, frame["model"], cv=folds)
    np.testing.assert_allclose(scores, apart)
    pipeline.set_output(transform="pandas").fit(frame[["path"]], frame["model"])
    assert pipeline[-1].feature_names_in_.tolist() == [f"fingerprint{i}" for i in range(5)]


def test_grid_search_over_both_steps(extractor, images):
    pipeline = make_pipeline(FingerprintTransformer(extractor), GalleryClassifier())
    grid = {"fingerprinttransformer__grid": [1, 2], "galleryclassifier__prior": [0.0, 4.0]}
    search = GridSearchCV(pipeline, grid, cv=2, error_score="raise")
    search.fit(images[:6].numpy(), [0, 0, 1, 1, 0, 1])
    assert len(search.cv_results_["params"]) == 4 and search.best_score_ <= 1


def test_strangers_in_a_cross_validation(sources):
    rows, labels = sources
    y = np.where(labels < "d", labels, "unknown")
    frame = pandas.DataFrame({"embedding": list(rows), "crops": 16, "compressed": False})
    refusing = GalleryClassifier(far=0.05)
    open_set = cross_val_score(refusing, frame, y, cv=StratifiedKFold(5))
    closed = cross_val_score(GalleryClassifier(), frame, y, cv=StratifiedKFold(5))
    assert closed.tolist() == [0.5] * 5  # every known image, no stranger
    assert open_set.mean() > 0.9


def _pixels(file):
    with Image.open(file) as image:
        return torch.from_numpy(np.asarray(image).transpose(2, 0, 1) / 255)
