import json

import numpy as np
import pytest
import torch

from fpkit import onnx_export
from fpkit.cli import main
from fpkit.embedder import CROPS_PER_SIDE
from fpkit.extractor import Extractor, ExtractorConfig, load_extractor
from fpkit.images import grid_crops
from fpkit.onnx_export import PlainMaps, circular_means, dft_matrices, export_onnx
from fpkit.paper import PaperConfig, PaperExtractor
from fpkit.procedural import procedural_images

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


@pytest.fixture(scope="module")
def extractor():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        extractor = Extractor(ExtractorConfig(crop=32, widths=(8, 8, 8), dim=6, positions=2))
        extractor.cohort.uniform_(-0.2, 0.2)
    return extractor.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def exported(extractor, tmp_path_factory):
    return export_onnx(extractor, tmp_path_factory.mktemp("onnx") / "extractor.onnx")


@pytest.fixture(scope="module")
def session(exported):
    return onnxruntime.InferenceSession(exported.path, providers=["CPUExecutionProvider"])


# ---- the maps in plain operations --------------------------------------------------------------


@pytest.mark.parametrize("size", [8, 128])
def test_dft_matrices_are_the_fourier_transform(size):
    plane = torch.rand(size, size, generator=torch.Generator().manual_seed(0))
    cosines, sines = dft_matrices(size)
    real = cosines @ plane @ cosines - sines @ plane @ sines
    imaginary = -(cosines @ plane @ sines + sines @ plane @ cosines)
    expected = torch.fft.fft2(plane.double())
    scale = expected.abs().max()
    assert (real - expected.real).abs().max() < 1e-6 * scale
    assert (imaginary - expected.imag).abs().max() < 1e-6 * scale


def test_dft_matrices_are_exact_where_angles_are_quarters():
    cosines, sines = dft_matrices(4)
    expected = [[1, 1, 1, 1], [1, 0, -1, 0], [1, -1, 1, -1], [1, 0, -1, 0]]
    torch.testing.assert_close(cosines, torch.tensor(expected).float(), atol=1e-7, rtol=0)
    assert sines[1, 1] == 1 and sines[1, 3] == -1


def test_circular_means_by_a_loop():
    values = torch.rand(32, generator=torch.Generator().manual_seed(1))
    expected = [
        sum(values[(4 * cell + step) % 32] for step in range(-3, 4)) / 7 for cell in range(8)
    ]
    torch.testing.assert_close(circular_means(32) @ values, torch.stack(expected))


@pytest.mark.parametrize("crop", [32, 64])
def test_plain_maps_are_the_maps_of_the_extractor(crop):
    extractor = Extractor(ExtractorConfig(crop=crop, widths=(4, 4, 4), dim=2, positions=1)).eval()
    crops = procedural_images(2, crop, seed=1)
    for expected, plain in zip(extractor.maps(crops), PlainMaps(extractor)(crops), strict=True):
        torch.testing.assert_close(plain, expected, atol=2e-3, rtol=1e-4)


# ---- the file ----------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 7])
def test_any_number_of_crops_gives_what_torch_gives(extractor, session, count):
    crops = procedural_images(count, 32, seed=5)
    units, _ = session.run(None, {"crops": crops.numpy()})
    expected = torch.nn.functional.normalize(extractor(crops))
    np.testing.assert_allclose(units, expected.numpy(), atol=1e-5)


def test_crops_of_one_image_give_its_embedding(extractor, session):
    image = procedural_images(1, 80, seed=6)[0]
    units, embedding = session.run(
        None, {"crops": grid_crops(image, size=32, grid=CROPS_PER_SIDE).numpy()}
    )
    np.testing.assert_allclose(embedding, extractor.embed([image])[0].numpy(), atol=1e-5)
    # by hand, as a user would for many images at once
    cohort = np.array(json.loads(session.get_modelmeta().custom_metadata_map["cohort"]))
    by_hand = units.mean(axis=0) - cohort
    np.testing.assert_allclose(by_hand / np.linalg.norm(by_hand), embedding, atol=1e-5)


def test_file_says_what_it_is(extractor, exported, session):
    metadata = session.get_modelmeta().custom_metadata_map
    assert metadata["extractor_hash"] == extractor.hash
    assert (metadata["crop"], metadata["dim"]) == ("32", "6")
    (crops,) = session.get_inputs()
    assert (crops.name, crops.shape[1:], crops.type) == ("crops", [3, 32, 32], "tensor(float)")
    assert isinstance(crops.shape[0], str)  # free
    assert [output.name for output in session.get_outputs()] == ["crop_embeddings", "embedding"]
    assert exported.difference < 1e-5 and exported.images == 4
    assert exported.size == exported.path.stat().st_size
    model = onnx.load(exported.path)
    assert {entry.domain: entry.version for entry in model.opset_import}[""] == exported.opset
    assert not [t for t in model.graph.initializer if t.external_data]  # all in one file


def give_graph_of(exported, monkeypatch):
    """Let the next export find this graph: making one takes seconds."""
    monkeypatch.setattr(onnx_export, "_graph", lambda _: exported.path.read_bytes())


@pytest.mark.parametrize("tensor", ["cohort", "head.bias"])
def test_a_wrong_graph_is_not_written(extractor, exported, tmp_path, monkeypatch, tensor):
    give_graph_of(exported, monkeypatch)
    other = load_copy(extractor)
    other.state_dict()[tensor].add_(0.5)
    with pytest.raises(RuntimeError, match="differs from torch by"):
        export_onnx(other, tmp_path / "x.onnx")
    assert not list(tmp_path.iterdir())


def load_copy(extractor):
    copy = Extractor(extractor.config).eval().requires_grad_(False)
    copy.load_state_dict(extractor.state_dict())
    return copy


# ---- refusals and the command ------------------------------------------------------------------


def test_training_mode_is_refused(extractor, tmp_path):
    with pytest.raises(ValueError, match="eval mode"):
        export_onnx(load_copy(extractor).train(), tmp_path / "x.onnx")


def test_command(extractor, exported, tmp_path, capsys, monkeypatch):
    give_graph_of(exported, monkeypatch)
    extractor.save(tmp_path / "extractor")
    words = ["export-onnx", str(tmp_path / "x.onnx"), "--extractor", str(tmp_path / "extractor")]
    assert main([*words, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["difference"] < 1e-5 and result["hash"] == extractor.hash
    session = onnxruntime.InferenceSession(tmp_path / "x.onnx", providers=["CPUExecutionProvider"])
    assert session.get_modelmeta().custom_metadata_map["extractor_hash"] == extractor.hash


def test_command_without_the_extra_says_what_to_install(extractor, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(onnx_export, "NEEDED", ("onnx", "no_such_package"))
    extractor.save(tmp_path)
    assert main(["export-onnx", str(tmp_path / "x.onnx"), "--extractor", str(tmp_path)]) == 1
    assert "needs no_such_package: pip install 'fpkit[onnx]'" in capsys.readouterr().err


def test_command_wants_an_onnx_file_name():
    with pytest.raises(SystemExit, match="2"):
        main(["export-onnx", "x.pt"])


@pytest.mark.slow
def test_the_shipped_extractor_can_be_exported(tmp_path):
    assert export_onnx(load_extractor(), tmp_path / "x.onnx").difference < 1e-4


def test_the_paper_s_extractor_is_refused(tmp_path):
    with pytest.raises(ValueError, match="got PaperExtractor"):
        export_onnx(PaperExtractor(PaperConfig(width=1)).eval(), tmp_path / "paper.onnx")
