"""Shipped data and atomic writes."""

import os
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from fpkit import assets


def fake_package(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the module's surroundings: `data_dir` finds its data by its own place."""
    package = folder / "fpkit"
    package.mkdir(parents=True)
    monkeypatch.setattr(assets, "__file__", str(package / "assets.py"))
    return package


@pytest.mark.parametrize("part", ["extractor", "zoo", "denoiser", "encoder", "realworld", "swap"])
def test_checkout_data_is_found_by_any_part(tmp_path, monkeypatch, part):
    fake_package(tmp_path, monkeypatch)
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "data" / part).mkdir(parents=True)
    assert assets.data_dir() == tmp_path / "data"
    assert getattr(assets, f"{part}_path")() == tmp_path / "data" / part


def test_installed_data_is_found(tmp_path, monkeypatch):
    package = fake_package(tmp_path, monkeypatch)
    (package / "_data" / "zoo").mkdir(parents=True)
    assert assets.data_dir() == package / "_data"
    assert assets.zoo_path() == package / "_data" / "zoo"


def test_a_data_folder_beside_an_installed_package_is_not_ours(tmp_path, monkeypatch):
    package = fake_package(tmp_path, monkeypatch)
    (tmp_path / "data" / "zoo").mkdir(parents=True)  # site-packages/data of somebody else
    with pytest.raises(FileNotFoundError, match="no shipped data"):
        assets.data_dir()
    (package / "_data").mkdir()
    assert assets.data_dir() == package / "_data"


def test_missing_part_is_named(tmp_path, monkeypatch):
    package = fake_package(tmp_path, monkeypatch)
    (package / "_data" / "zoo").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match="extractor is missing"):
        assets.extractor_path()


def test_shipped_parts_are_there():
    paths = (
        assets.extractor_path,
        assets.zoo_path,
        assets.denoiser_path,
        assets.realworld_path,
        assets.encoder_path,
        assets.swap_path,
    )
    for folder in (path() for path in paths):
        assert list(folder.glob("*.safetensors"))


def test_shipped_data_holds_no_pickle():
    suffixes = {path.suffix for path in assets.data_dir().rglob("*") if path.is_file()}
    assert not suffixes & {".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".npy", ".bin", ".mpk"}


def test_text_round_trip_makes_folders_and_keeps_line_ends(tmp_path):
    path = tmp_path / "a" / "b.txt"
    assets.write_text_atomic(path, "é\r\n\n")
    assert path.read_bytes() == "é\r\n\n".encode()
    assets.write_text_atomic(path, "new")
    assert path.read_text() == "new"
    assert os.listdir(path.parent) == ["b.txt"]


def test_new_files_have_the_usual_permissions(tmp_path):
    (tmp_path / "plain").write_text("")
    assets.write_text_atomic(tmp_path / "atomic", "")
    assert (tmp_path / "plain").stat().st_mode == (tmp_path / "atomic").stat().st_mode


def test_failed_write_keeps_the_old_content_and_leaves_nothing(tmp_path, monkeypatch):
    path = tmp_path / "file"
    assets.write_text_atomic(path, "old")

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        assets.write_text_atomic(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


def test_safetensors_round_trip(tmp_path):
    path = tmp_path / "weights.safetensors"
    tensors = {
        "view": torch.arange(12.0).reshape(3, 4).T,  # not contiguous
        "half": torch.ones(2, dtype=torch.float16, requires_grad=True),
    }
    assets.save_safetensors_atomic(path, tensors, metadata={"spec": "K1"})
    loaded = load_file(path)
    assert all(torch.equal(loaded[name], tensor) for name, tensor in tensors.items())
    assert loaded["half"].dtype == torch.float16
    with safe_open(path, "pt") as file:
        assert file.metadata()["spec"] == "K1"


def test_same_tensors_same_bytes(tmp_path):
    for name in ("a", "b"):
        assets.save_safetensors_atomic(tmp_path / name, {"x": torch.ones(3)}, metadata={"k": "v"})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
