"""Measured fingerprints: exact on constructed images, whole on disk, complete as shipped."""

import json

import numpy as np
import pytest
import torch

from fpkit.assets import realworld_path
from fpkit.fidelity import image_profiles
from fpkit.images import ImageReadError, read_image, write_png
from fpkit.realworld import (
    measure_fingerprints,
    real_fingerprints,
    real_population,
    save_fingerprints,
)
from fpkit.spectrum import average_spectrum


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """Two models, one of photographs, of two images each; one image more is too small."""
    folder = tmp_path_factory.mktemp("tree")
    generator = torch.Generator().manual_seed(0)
    for model in ("alpha", "beta", "camera"):
        for i, side in enumerate((128, 150)):
            image = torch.rand(3, side, side, generator=generator) * 0.5
            write_png(folder / model / f"{i}.png", image)
    write_png(folder / "beta" / "small.png", torch.zeros(3, 64, 64))
    (folder / "manifest.csv").write_text(
        "model,file,family,decoder,content,format,size,repo,source,licence\n"
        "alpha,0.png,gan,dec,dogs,png,128x128,who/what,blob0,MIT\n"
        "alpha,1.png,gan,dec,cats,png,150x150,who/what,blob1,MIT\n"
        "camera,0.png,photo,camera,,png,128x128,me,,CC0\n"
        "beta,0.png,diffusion,beta,,jpeg,128x128,who/else,x,none stated\n"
    )
    return folder


@pytest.fixture(scope="module")
def measured(tree):
    errors: list[ImageReadError] = []
    found = measure_fingerprints(tree, on_error=errors.append)
    assert len(errors) == 1 and "small.png" in str(errors[0])
    return found


def test_measures_what_the_spectrum_module_does(tree, measured):
    alpha = measured[0]
    images = [read_image(tree / "alpha" / name) for name in ("0.png", "1.png")]
    for residual in ("median", "none"):
        expected = average_spectrum(images, residual=residual).mean(axis=0)
        assert alpha.spectra[residual] == pytest.approx(expected)
        profiles = image_profiles(images, residual=residual)
        assert alpha.profiles[residual] == pytest.approx(profiles)


def test_keeps_what_the_manifest_tells(measured):
    alpha, beta, camera = measured
    assert (alpha.model, alpha.family, alpha.decoder, alpha.images) == ("alpha", "gan", "dec", 2)
    assert (alpha.content, alpha.sizes) == ("cats, dogs", ("128x128", "150x150"))
    assert (alpha.repo, alpha.sources, alpha.licence) == ("who/what", ("blob0", "blob1"), "MIT")
    assert (beta.format, beta.images, beta.sources) == ("jpeg", 2, ("x", ""))
    assert camera.family == "photo"


def test_population_leaves_out_photographs_and_other_formats(measured):
    assert real_population(measured).names == ("alpha", "beta")
    png = real_population(measured, format="png", residual="none")
    assert png.names == ("alpha",)
    assert np.array_equal(png.profiles[0], measured[0].profiles["none"])
    with pytest.raises(ValueError, match="no model of format 'webp': there is jpeg, png"):
        real_population(measured, format="webp")
    with pytest.raises(ValueError, match="'dncnn' was not measured, only median, none"):
        real_population(measured, residual="dncnn")


def test_round_trip_through_the_files(tmp_path, measured):
    save_fingerprints(tmp_path, measured, source="test")
    loaded = real_fingerprints(tmp_path)
    for before, after in zip(measured, loaded, strict=True):
        assert (before.model, before.sources, before.sizes) == (
            after.model, after.sources, after.sizes)  # fmt: skip
        for residual in ("median", "none"):
            ratio = after.spectra[residual] / before.spectra[residual]
            assert np.abs(10 * np.log10(ratio)).max() < 0.04  # half of the plane, float16
            assert after.profiles[residual] == pytest.approx(before.profiles[residual], rel=1e-6)


def test_broken_files_are_named(tmp_path, measured):
    with pytest.raises(FileNotFoundError, match="fingerprints.json"):
        real_fingerprints(tmp_path)
    save_fingerprints(tmp_path, measured, source="test")
    card = tmp_path / "fingerprints.json"
    content = json.loads(card.read_text())
    for key, value in (("version", 99), ("residuals", ["other"]), ("models", [{}])):
        card.write_text(json.dumps(content | {key: value}))
        with pytest.raises(ValueError, match="no valid fingerprints"):
            real_fingerprints(tmp_path)
    rows = [dict(row, images=row["images"] + 1) for row in content["models"]]
    card.write_text(json.dumps(content | {"models": rows}))
    with pytest.raises(ValueError, match="profiles.median has 6 rows for 9: mixed files"):
        real_fingerprints(tmp_path)
    (tmp_path / "fingerprints.safetensors").write_bytes(b"no tensors")
    with pytest.raises(ValueError, match="no valid fingerprints"):
        real_fingerprints(tmp_path)


def test_unreadable_images_raise_unless_they_are_asked_for(tree, tmp_path):
    with pytest.raises(ImageReadError, match="small.png"):
        measure_fingerprints(tree)
    write_png(tmp_path / "only" / "tiny.png", torch.zeros(3, 16, 16))
    with pytest.raises(ValueError, match="none of its images"):
        measure_fingerprints(tmp_path, on_error=lambda error: None)
    with pytest.raises(ValueError, match="at least one fingerprint"):
        save_fingerprints(tmp_path, [], source="test")


# ---- what ships --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shipped():
    return real_fingerprints()


def test_shipped_figures_are_complete(shipped):
    formats = [f.format for f in shipped if f.family != "photo"]
    assert (formats.count("png"), formats.count("jpeg")) == (38, 20)
    for f in shipped:
        assert f.repo and f.licence and f.family and f.decoder
        assert len(f.sources) == f.images >= 20 and all(f.sources)
        for residual in ("median", "none"):
            assert f.spectra[residual].shape == (128, 128) and (f.spectra[residual] > 0).all()
            assert f.profiles[residual].shape == (f.images, 64)
            assert f.profiles[residual].mean(axis=1) == pytest.approx(1, abs=1e-5)


def test_shipped_spectra_are_symmetric_and_their_low_frequencies_lie_in_the_middle(shipped):
    for f in shipped:
        plane = f.spectra["none"]
        mirrored = np.roll(plane[::-1, ::-1], (1, 1), axis=(0, 1))
        assert np.allclose(plane, mirrored, rtol=0.02)
        assert plane[60:69, 60:69].mean() > 10 * plane[:9, :9].mean()


def test_shipped_figures_stay_small():
    files = [path for path in realworld_path().iterdir() if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 3e6
    assert {path.suffix for path in files} == {".json", ".safetensors", ".py"}
