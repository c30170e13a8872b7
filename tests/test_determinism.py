"""Same seed, same bits; and an embedding does not depend on the company that an image keeps."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from fpkit.assets import extractor_path, save_safetensors_atomic
from fpkit.cli import main
from fpkit.extractor import load_extractor
from fpkit.gallery import Gallery
from fpkit.images import grid_crops, quantise, write_png
from fpkit.procedural import procedural_images

ROOT = Path(__file__).resolve().parent.parent
LOCAL = (
    "device",
    "float64_references",
    "precision",
    "precision_libraries",
    "precision_spectra",
    "same_again",
)


@pytest.fixture(scope="module")
def benchmarks():
    """Loads a command of benchmarks/ as a module; they import each other by their short names."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        yield importlib.import_module
    for name in LOCAL:
        sys.modules.pop(name, None)


@pytest.fixture
def threads():
    """Sets the number of threads, for one test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def images():
    """Files of several sizes: 9, 1, 3 and 1 crops."""
    several = quantise(procedural_images(4, 256, seed=1))
    sizes = ((256, 256), (128, 130), (256, 128), (135, 128))
    return [image[:, :h, :w] for image, (h, w) in zip(several, sizes, strict=True)]


# ---- the same bits -----------------------------------------------------------------------------


def test_equal_content_makes_equal_files(tmp_path):
    """The library shuffles the metadata of a header, anew in every call."""
    tensors = {name: torch.arange(n, dtype=torch.float32) for n, name in enumerate("abc", 1)}
    metadata = {f"key {k}": str(k) for k in range(6)}
    metadata["\u00e9\n\"'\\\t\x7f\x01"] = "\u2028\U0001f600"
    files = []
    for k in range(4):
        turned = dict(list(metadata.items())[k:] + list(metadata.items())[:k])
        save_safetensors_atomic(tmp_path / str(k), tensors, metadata=turned)
        files.append((tmp_path / str(k)).read_bytes())
    assert len(set(files)) == 1
    assert int.from_bytes(files[0][:8], "little") % 8 == 0
    with safe_open(tmp_path / "0", framework="pt") as file:
        assert metadata.items() <= file.metadata().items()
        assert all(torch.equal(file.get_tensor(name), tensor) for name, tensor in tensors.items())


def test_a_seed_decides_every_bit(benchmarks):
    """Zoo, weights, spectra and embeddings: in another process, with another OMP_NUM_THREADS and
    another PYTHONHASHSEED, and whatever was computed before."""
    same_again = benchmarks("same_again")

    def there(*options):
        command = [sys.executable, same_again.__file__, *options]
        environment = {**os.environ, "OMP_NUM_THREADS": "2", "PYTHONHASHSEED": "7"}
        printed = subprocess.run(command, env=environment, check=True, capture_output=True)
        return json.loads(printed.stdout)["made"]

    torch.rand(3)  # the global state of the random numbers must not matter
    here = same_again.digests(seed=0, threads=1)
    assert set(here) == set(same_again.MADE) and there("--threads", "1") == here
    on_any = {name: here[name] for name in same_again.ANY_THREADS}
    assert same_again.digests(seed=0, threads=2, only=on_any) == on_any
    cheap = set(here) - {"training of an extractor"}
    other = same_again.digests(seed=1, threads=1, only=cheap)
    assert set(other) == cheap and not [name for name in cheap if other[name] == here[name]]


# ---- embeddings --------------------------------------------------------------------------------


@pytest.mark.parametrize("which", [None, "small"])
def test_company_does_not_change_an_embedding(which, images, threads):
    extractor = load_extractor(which)
    threads(1)
    alone = torch.cat([extractor.embed([image]) for image in images])
    assert torch.equal(torch.cat([extractor.embed([image]) for image in images]), alone)
    assert (alone @ alone.T).fill_diagonal_(0).max() < 0.999  # four different images
    others = [torch.rand(3, 200, 130), torch.zeros(3, 128, 128)]
    found = {f"batch {batch}": extractor.embed(images, batch=batch) for batch in (1, 2, 3, 5, 13)}
    found["order"] = extractor.embed(images[::-1]).flip(0)
    found["company"] = extractor.embed([others[0], *images, others[1]])[1:-1]
    found["memory"] = extractor.embed([image.transpose(1, 2).clone().mT for image in images])
    for number in (2, 3):
        threads(number)
        found[f"{number} threads"] = extractor.embed(images)
    for how, embeddings in found.items():
        assert (embeddings - alone).abs().max() < 1e-5, how


@pytest.mark.parametrize(
    "change, options, error, complaint",
    [
        (lambda x: x * 255, {}, ValueError, "got 0 to 255: divide by 255"),
        (lambda x: x - 1, {}, ValueError, "got -1 to 0$"),
        (lambda x: x.where(x != 1, torch.nan), {}, ValueError, "got nan to nan"),
        (lambda x: x.where(x != 1, torch.inf), {}, ValueError, "to inf"),
        (lambda x: (x * 255).byte(), {}, TypeError, "got torch.uint8"),
        (lambda x: x, {"batch": 0}, ValueError, "batch must be at least 1, got 0"),
        (lambda x: x, {"precision": "half"}, ValueError, "precision must be one of"),
    ],
)
def test_what_is_no_image_gets_no_embedding(change, options, error, complaint):
    image = torch.linspace(0, 1, 3 * 128 * 128).reshape(3, 128, 128)
    with pytest.raises(error, match=complaint):
        load_extractor("small").embed([image, change(image)], **options)


def test_float64_images_are_rounded(images):
    extractor = load_extractor("small")
    assert torch.equal(extractor.embed([images[0].double()]), extractor.embed(images[:1]))


def test_names_and_order_of_files_change_no_template(tmp_path):
    """Twice the same command: the same bytes. Other names, so another order: the same template."""
    pictures = quantise(procedural_images(3, 128, seed=2))
    for tree, names in (("one", "abc"), ("two", "bca")):
        for name, picture in zip(names, pictures, strict=True):
            write_png(tmp_path / tree / "model" / f"{name}.png", picture)
    options = ["--extractor", "small"]
    for gallery, tree in (("first", "one"), ("again", "one"), ("turned", "two")):
        assert main(["enrol", str(tmp_path / gallery), str(tmp_path / tree), *options]) == 0
    assert (tmp_path / "first").read_bytes() == (tmp_path / "again").read_bytes()
    hash_ = load_extractor("small").hash
    first, turned = (
        Gallery.load(tmp_path / name, extractor_hash=hash_) for name in ("first", "turned")
    )
    assert first.counts == turned.counts == {"model": 3}
    np.testing.assert_allclose(first.templates, turned.templates, atol=1e-7, rtol=0)


# ---- the precision page ------------------------------------------------------------------------


def test_spectra_and_embeddings_come_from_their_definitions(benchmarks):
    image = quantise(procedural_images(2, 128, seed=3))[1]
    found = list(benchmarks("precision_spectra").spectral_errors([image]))
    assert len(found) == 15
    for errors in found:
        assert errors.median < 1e-5 and errors.of_rms < 2e-3, errors
    reference = benchmarks("float64_references").Reference(extractor_path(small=True))
    exact = reference.embed(grid_crops(image).double().numpy())
    embedding = load_extractor("small").embed([image])[0].numpy()
    np.testing.assert_allclose(embedding, exact, atol=1e-5, rtol=0)
    # the reference sees what the extractor sees: one grey level at one pixel
    image[:, 60, 60] += torch.where(image[:, 60, 60] > 0.5, -1, 1) / 255
    assert np.abs(reference.embed(grid_crops(image).double().numpy()) - exact).max() > 2e-5


def test_errors_are_relative_to_each_value_and_to_all(benchmarks):
    between = benchmarks("precision_spectra").Errors.between
    errors = between("", [[1.1], [2.0, 0.5]], [np.array([1.0]), np.array([2.0, 0.0])])
    assert errors.median == pytest.approx(0.05) and errors.largest == pytest.approx(0.1)
    assert errors.of_rms == pytest.approx(0.5 / np.sqrt(5 / 3))
    assert between("", [[1.0]], [np.array([-1.0])]).largest is None


def test_figures_of_merit_equal_those_of_other_libraries(benchmarks):
    libraries = benchmarks("precision_libraries")
    rows = [*libraries.scores_rows(3), *libraries.clouds_rows(3)]
    assert len(rows) == 17
    assert not [row for row in rows if not row[2] < 1e-9]
    ours = [value for name, _, value in libraries.singular_rows(3) if "frechet" in name]
    assert len(ours) == 2 and max(ours) < 1e-9


def test_a_broken_promise_is_remembered(benchmarks, capsys):
    ledger = benchmarks("precision").Ledger()
    ledger.row("good", "0.1", value=0.1, bound=0.1)
    ledger.row("bad", "0.2", value=0.2, bound=0.1)
    ledger.row("worse", "nan", value=float("nan"), bound=0.1)
    assert ledger.figures == 3
    assert [complaint.split(":")[0] for complaint in ledger.broken] == ["bad", "worse"]
    assert capsys.readouterr().out.count("ABOVE") == 2


def test_the_page_shows_what_the_command_prints(benchmarks):
    """Every quantity has its line in docs/precision.md."""
    page = (ROOT / "docs" / "precision.md").read_text("utf-8")
    libraries = benchmarks("precision_libraries")
    names = [f"{name} / {other}" for name, other, _ in libraries.scores_rows(0)]
    names += [f"{name} / {other}" for name, other, _ in libraries.clouds_rows(0)]
    names += list(benchmarks("same_again").MADE)
    assert not [name for name in names if f"\n{name} " not in page]
    assert "0 promises broken" in page
