import json

import pytest
import torch

from fpkit.arch import AXES, ArchSpec
from fpkit.procedural import procedural_images
from fpkit.synthesis import synthesize
from fpkit.zoo import Zoo

SPECS = [
    ArchSpec(blocks=1, norm="none", upsample="deconv"),
    ArchSpec(blocks=2, norm="batch", activation="tanh"),
]


@pytest.fixture(scope="module")
def images():
    return procedural_images(4, 64, seed=0)


@pytest.fixture(scope="module")
def results(images):
    return [synthesize(spec, images, seed=3, max_steps=3, progress=False) for spec in SPECS]


@pytest.fixture
def zoo(tmp_path, results):
    zoo = Zoo.create(tmp_path / "zoo", source="four images")
    for result in results:
        zoo.add(result)
    return zoo


def test_round_trip_gives_the_same_outputs(zoo, results, images):
    again = Zoo.load(zoo.path)
    assert again.model_ids == [result.model_id for result in results] and len(again) == 2
    assert again.source == "four images" and again.entries == zoo.entries
    for result in results:
        with torch.no_grad():
            expected = result.model(images)
        # another memory layout adds in another order
        torch.testing.assert_close(again.model(result.model_id)(images), expected)
        output = again.apply(result.model_id, images)
        assert (output - expected).abs().max() < 0.51 / 255  # rounded to 8 bit
        assert torch.equal(torch.round(output * 255) / 255, output)
        assert not output.requires_grad


def test_half_precision_changes_outputs_by_less_than_a_step(zoo, tmp_path, images):
    small = Zoo.create(tmp_path / "small", source="copy", precision="float16")
    for name in zoo:
        small.copy_from(zoo, name)
        difference = (small.model(name)(images) - zoo.model(name)(images)).abs().max()
        assert difference < 1 / 255
    bytes_ = [sum(f.stat().st_size for f in z.path.glob("*.safetensors")) for z in (small, zoo)]
    assert bytes_[0] < 0.6 * bytes_[1]


def test_manifest_records_the_training(zoo, results):
    entry = zoo.entry(results[1].model_id)
    assert entry["arch_id"] == SPECS[1].id and entry["seed"] == 3 and entry["steps"] == 3
    assert entry["residual"] == pytest.approx(results[1].residual, abs=1e-6)
    assert set(entry) == {
        *("model_id", "arch_id", "seed", "residual"),
        *("reached", "steps", "seconds", "file"),
    }


def test_adding_again_replaces(zoo, results):
    zoo.add(results[0])
    assert len(zoo) == len(Zoo.load(zoo.path)) == 2


def test_create_refuses_an_existing_zoo(zoo):
    with pytest.raises(FileExistsError, match="already holds a zoo"):
        Zoo.create(zoo.path, source="x")


def test_unknown_model_names_some_that_exist(zoo):
    with pytest.raises(KeyError, match="K1-L1-Udeconv"):
        zoo.model("K9")


def test_missing_and_damaged_files(zoo, tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no zoo"):
        Zoo.load(tmp_path / "nowhere")
    first, second = (zoo.path / entry["file"] for entry in zoo.entries)
    first.write_bytes(first.read_bytes()[:100])
    second.unlink()
    with pytest.raises(ValueError, match="does not hold the weights"):
        zoo.model(zoo.model_ids[0])
    with pytest.raises(FileNotFoundError, match="is missing from the zoo"):
        zoo.model(zoo.model_ids[1])


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda m: m.update(version=99), "version 99"),
        (lambda m: m["models"][0].update(file="../../etc/passwd"), "does not fit"),
        (lambda m: m["models"][0].update(arch_id="K7"), "must have the parts"),
        (lambda m: m.pop("models"), "models"),
    ],
)
def test_a_manifest_that_lies_is_refused(zoo, change, complaint):
    file = zoo.path / "manifest.json"
    manifest = json.loads(file.read_text())
    change(manifest)
    file.write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match=complaint):
        Zoo.load(zoo.path)


def test_shipped_zoo_covers_every_option_of_every_axis():
    zoo = Zoo.load()
    specs = {ArchSpec.parse(entry["arch_id"]) for entry in zoo.entries}
    assert len(specs) >= 48
    for field, options in AXES.values():
        assert {getattr(spec, field) for spec in specs} == set(options)
    files = list(zoo.path.glob("*.safetensors"))
    assert len(files) == len(zoo) and sum(f.stat().st_size for f in files) <= 12e6
    output = zoo.apply(zoo.model_ids[0], procedural_images(1, 64, seed=1))
    assert torch.equal(torch.round(output * 255), output * 255)
