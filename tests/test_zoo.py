import json

import pytest
import torch

from fpkit.arch import AXES, ArchSpec
from fpkit.procedural import procedural_images
from fpkit.synthesis import initial_model, synthesize
from fpkit.zoo import Zoo, in_bfloat16

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


def test_half_precision_changes_outputs_by_less_than_a_step(zoo, results, tmp_path, images):
    small = Zoo.create(tmp_path / "small", source="copy", storage="float16")
    for name, result in zip(zoo, results, strict=True):
        small.add(result)
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
        *("reached", "steps", "file"),
    }


def test_many_models_at_once_give_what_each_gives(zoo):
    """P models x K images: grouped by architecture or not, on several threads or on one."""
    zoo.add(
        synthesize(SPECS[0], procedural_images(4, 64, seed=0), seed=8, max_steps=3, progress=False)
    )
    first, second, third = zoo.model_ids
    names = [second, first, third, second]
    images = procedural_images(8, 64, seed=5).reshape(4, 2, 3, 64, 64)
    expected = torch.stack([zoo.apply(n, x) for n, x in zip(names, images, strict=True)])
    for grouped in (False, True):
        output = zoo.apply_many(names, images, grouped=grouped)
        # another order of sums can tip the rounding of a pixel
        assert (output - expected).abs().max() < 1.01 / 255
        assert ((output - expected).abs() > 1e-6).float().mean() < 1e-3
        half = zoo.apply_many(names, images, grouped=grouped, precision="bfloat16")
        assert torch.equal(torch.round(half * 255) / 255, half)
        assert (half - expected).square().mean().sqrt() < 1 / 255
        assert not torch.equal(half, expected)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    again = zoo.apply_many(names, images)
    assert torch.get_num_threads() == 2
    torch.set_num_threads(threads)
    assert torch.equal(again, zoo.apply_many(names, images))


def test_many_models_need_images_for_each(zoo):
    with pytest.raises(ValueError, match=r"\(2, k, 3, h, w\) for 2 models"):
        zoo.apply_many(zoo.model_ids, torch.rand(3, 1, 3, 32, 32))
    with pytest.raises(KeyError, match="no model"):
        zoo.apply_many(["K9"], torch.rand(1, 1, 3, 32, 32))


@pytest.mark.parametrize(
    "spec",
    [
        ArchSpec(blocks=1, kernel="mix", skip="shortcut", activation="gelu", norm="group"),
        ArchSpec(blocks=3, kernel="mix", upsample="unpatch", norm="layer"),
        ArchSpec(blocks=2, upsample="shuffle", kernel=5, norm="instance", order="pre"),
        ArchSpec(blocks=2, upsample="fir", layers=2, activation="sigmoid"),
    ],
    ids=str,
)
def test_half_precision_keeps_the_last_convolution_in_full(spec):
    model = initial_model(spec, 0).eval().requires_grad_(False)
    images = procedural_images(2, 64, seed=5)
    half = in_bfloat16(model)(images.to(torch.bfloat16))
    assert half.dtype == torch.float32
    error = (half - model(images)).square().mean().sqrt()
    assert 0 < error < 2 / 255
    # an image in bfloat16 itself has few levels
    levels = [len(torch.unique(x)) for x in (half, half.to(torch.bfloat16))]
    assert levels[0] > 5 * levels[1]


def test_finished_files_are_found_without_the_manifest(zoo, results):
    """A build that is killed between files and manifest loses nothing."""
    complete = zoo.entries
    zoo.entries = []
    assert zoo.written(entry["model_id"] for entry in complete) == complete
    file = zoo.path / complete[0]["file"]
    file.write_bytes(file.read_bytes()[:50])
    assert zoo.written(entry["model_id"] for entry in complete) == complete[1:]
    zoo.register(complete[1:])
    order = [entry["model_id"] for entry in complete]
    zoo.register(complete[:1], order=order[::-1])
    assert Zoo.load(zoo.path).model_ids == order[::-1]


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
        (lambda m: m["models"][0].update(model_id="K7/seed0"), "must have the parts"),
        (lambda m: m["models"][0].update(model_id="K7"), "ARCH_ID/seedN"),
        (lambda m: m["models"][0].update(arch_id=SPECS[1].id), "does not fit"),
        (lambda m: m.update(storage="int8"), "storage"),
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
