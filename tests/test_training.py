import json
import signal
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from safetensors import safe_open

from fpkit.arch import PAPER
from fpkit.extractor import ExtractorConfig, load_extractor
from fpkit.learner import Learner
from fpkit.procedural import procedural_images
from fpkit.spectrum import power_spectrum
from fpkit.stream import SIZE, FingerprintStream, Sources, StreamConfig
from fpkit.synthesis import synthesize
from fpkit.synthesizer import RandomSynthesizer, ZooSynthesizer
from fpkit.training import CHECKPOINT, TrainConfig, split_zoo, train
from fpkit.validation import validate, validation_batch
from fpkit.zoo import Zoo

STREAM = StreamConfig(models=4, images=2, random_share=0.5, sources=4, jpeg_share=0.5)
CONFIG = TrainConfig(
    steps=6,
    warmup=2,
    validate_every=3,
    checkpoint_every=2,
    held_out_share=0.34,
    max_residual=1.0,
    stream=STREAM,
    extractor=ExtractorConfig(crop=64, widths=(8, 8), dim=8),
)


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    images = procedural_images(3, 64, seed=0)
    zoo = Zoo.create(tmp_path_factory.mktemp("zoo"), source="three images")
    for spec in list(PAPER)[::48]:
        zoo.add(synthesize(spec, images, max_steps=2, progress=False))
    return zoo


@pytest.fixture(scope="module")
def sources():
    return Sources(procedural=4)


@pytest.fixture(scope="module")
def whole(zoo, sources, tmp_path_factory):
    """What a training that nothing disturbs comes to."""
    out = tmp_path_factory.mktemp("whole")
    return train(CONFIG, zoo=zoo, sources=sources, out=out, progress=False)


def flat(extractor):
    return torch.cat([value.flatten() for value in extractor.state_dict().values()])


def test_stream_is_a_function_of_seed_and_step(zoo, sources):
    stream = FingerprintStream(STREAM, sources, STREAM.synthesizer(zoo), steps=3)
    crops, labels = stream[1]
    assert crops.shape == (8, 3, 128, 128) and 0 <= crops.min() and crops.max() <= 1
    again = STREAM.synthesizer(Zoo.load(zoo.path))
    again = FingerprintStream(STREAM, Sources(procedural=4), again, steps=3)
    assert torch.equal(again[1][0], crops) and torch.equal(again[1][1], labels)
    assert not torch.equal(stream[2][0], crops)
    config = replace(STREAM, seed=1)
    other = FingerprintStream(config, sources, config.synthesizer(zoo))
    assert not torch.equal(other[1][0], crops)


def test_labels_are_p_times_k_and_tell_zoo_from_random(zoo, sources):
    _, labels = FingerprintStream(STREAM, sources, STREAM.synthesizer(zoo))[0]
    values, counts = labels.unique(return_counts=True)
    assert len(values) == 4 and counts.tolist() == [2, 2, 2, 2]
    assert (values < len(zoo)).sum() == 2 and (values >= len(zoo)).sum() == 2


def test_stream_quantises_and_cuts_the_padded_border(zoo, sources):
    config = replace(STREAM, jpeg_share=0.0)
    plain = FingerprintStream(config, sources, config.synthesizer(zoo))
    crops, _ = plain[0]
    torch.testing.assert_close(torch.round(crops * 255) / 255, crops)
    with pytest.raises(ValueError, match="crop must be at most 136"):
        FingerprintStream(STREAM, sources, STREAM.synthesizer(zoo), crop=160)


def test_parts_of_a_stream_make_up_the_whole(zoo, sources):
    whole = FingerprintStream(STREAM, sources, STREAM.synthesizer(zoo))
    crops, labels = (item.unflatten(0, (4, 2)) for item in whole[7])
    for rank in range(2):
        stream = FingerprintStream(STREAM, sources, STREAM.synthesizer(zoo), part=(rank, 2))
        part = stream[7]
        assert torch.equal(part[0], crops[rank::2].flatten(0, 1))
        assert torch.equal(part[1], labels[rank::2].flatten())
    with pytest.raises(ValueError, match="part must be"):
        FingerprintStream(STREAM, sources, STREAM.synthesizer(zoo), part=(2, 2))


def test_stream_needs_enough_models(zoo, sources):
    with pytest.raises(ValueError, match="which has only 1"):
        FingerprintStream(STREAM, sources, STREAM.synthesizer(zoo, zoo.model_ids[:1]))


def test_a_stream_without_a_zoo_is_all_random(zoo, sources):
    with pytest.raises(ValueError, match="random_share is 0.5"):
        STREAM.synthesizer()
    config = replace(STREAM, random_share=1.0, jpeg_share=0.0)
    with_zoo = FingerprintStream(config, sources, config.synthesizer(zoo))[0]
    without = FingerprintStream(config, sources, config.synthesizer())[0]
    assert torch.equal(with_zoo[0], without[0])
    assert torch.equal(with_zoo[1], without[1] + len(zoo))


def test_images_of_a_model_share_their_sources(sources):
    class Same:
        """Every model passes its images on."""

        classes, description = 0, "unchanged"

        def check(self, models):
            pass

        def __call__(self, images, *, generator):
            assert images.shape == (4, 2, 3, SIZE, SIZE)
            flat = images.flatten(0, 1)
            assert len(flat.unique(dim=0)) <= STREAM.sources
            assert not any(torch.equal(*pair) for pair in images)  # drawn without replacement
            assert not all(torch.equal(images[0], other) for other in images[1:])
            return images, torch.arange(len(images))

    crops, labels = FingerprintStream(STREAM, sources, Same())[0]
    assert len(crops) == 8 and labels.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


def test_the_shipped_extractor_s_configuration_still_loads():
    stored = load_extractor().card["config"]
    stream = StreamConfig(**stored["stream"])
    extractor = ExtractorConfig(**stored["extractor"])
    config = TrainConfig(**stored | {"stream": stream, "extractor": extractor})
    assert json.loads(json.dumps(asdict(config))) == stored


def test_sources_mix_photographs_and_procedural_images(tmp_path):
    tiles = np.full((2, SIZE, SIZE, 3), 77, np.uint8)
    np.save(tmp_path / "tiles.npy", tiles)
    sources = Sources(tmp_path / "tiles.npy", procedural=3, share=0.5)
    images = sources.draw(40, generator=torch.Generator().manual_seed(0))
    photographs = (images == 77 / 255).all(-1).all(-1).all(-1).sum()
    assert images.shape == (40, 3, SIZE, SIZE) and 8 < photographs < 32
    assert "2 photograph tiles" in sources.description
    with pytest.raises(FileNotFoundError, match="make_photos"):
        Sources(tmp_path / "none.npy")
    np.save(tmp_path / "small.npy", tiles[:, :100])
    with pytest.raises(ValueError, match=r"got \(2, 100, 168, 3\) uint8"):
        Sources(tmp_path / "small.npy")


def test_held_out_architectures_never_train(zoo):
    used, held_out = split_zoo(zoo, CONFIG)
    assert set(used) | set(held_out) == set(zoo.model_ids) and len(held_out) == 2
    assert not {m.split("/")[0] for m in used} & {m.split("/")[0] for m in held_out}
    best = sorted(entry["residual"] for entry in zoo.entries)[2]
    few = split_zoo(zoo, replace(CONFIG, max_residual=best))
    assert len(few[0]) + len(few[1]) == 3
    assert split_zoo(zoo, replace(CONFIG, held_out_share=0)) == (zoo.model_ids, [])


@pytest.mark.parametrize("loss", ["contrastive", "ce+triplet"])
def test_resumed_training_is_bit_identical(zoo, sources, tmp_path, loss):
    config = replace(CONFIG, loss=loss)
    options = {"zoo": zoo, "sources": sources, "progress": False}
    whole = train(config, out=tmp_path / "whole", **options)
    train(config, out=tmp_path / "parts", stop_after=3, **options)
    # more steps may be asked for before the learning rate falls, and workers change nothing
    parts = train(replace(config, workers=1), out=tmp_path / "parts", **options)
    assert torch.equal(flat(whole), flat(parts)) and whole.hash == parts.hash
    losses = [[row["loss"] for row in e.card["curve"] if row["step"] == 6] for e in (whole, parts)]
    assert losses[0] == losses[1] and len(losses[0]) == 1
    assert load_extractor(tmp_path / "whole").hash == whole.hash


def test_ctrl_c_finishes_the_step_and_loses_nothing(zoo, sources, whole, tmp_path, monkeypatch):
    options = {"zoo": zoo, "sources": sources, "progress": False}
    step = Learner.step

    def interrupted(run, crops, labels, number):
        if number == 2:
            signal.raise_signal(signal.SIGINT)
        return step(run, crops, labels, number)

    before = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Learner, "step", interrupted)
        train(replace(CONFIG, checkpoint_every=100), out=tmp_path / "parts", **options)
    assert signal.getsignal(signal.SIGINT) == before
    with safe_open(tmp_path / "parts" / CHECKPOINT, framework="pt") as file:
        assert file.metadata()["step"] == "3"
    assert train(CONFIG, out=tmp_path / "parts", **options).hash == whole.hash


def test_a_callback_sees_every_step_and_changes_nothing(zoo, sources, whole, tmp_path):
    options = {"zoo": zoo, "sources": sources, "progress": False}
    seen = []
    batch = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))

    def look(row, extractor):
        extractor.eval()
        with torch.no_grad():
            seen.append((row, extractor(batch)))
        extractor.train()

    watched = train(CONFIG, out=tmp_path, callback=look, **options)
    assert watched.hash == whole.hash
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    assert [row for row, _ in seen] == [json.loads(line) for line in lines]
    assert [row["step"] for row, _ in seen if "one_shot" in row] == [3, 6]
    with torch.no_grad():
        torch.testing.assert_close(watched(batch), seen[-1][1])


@pytest.mark.parametrize("last", [4, 6])  # in the middle, and when there is nothing left to do
def test_what_a_callback_raises_stops_a_thread_and_loses_nothing(
    zoo, sources, whole, tmp_path, last
):
    options = {"zoo": zoo, "sources": sources, "progress": False, "out": tmp_path}

    def stop(row, extractor):
        if row["step"] == last:
            raise LookupError("enough")

    with ThreadPoolExecutor(1) as pool:
        work = pool.submit(train, replace(CONFIG, checkpoint_every=100), callback=stop, **options)
        with pytest.raises(LookupError, match="enough"):
            work.result()
    with safe_open(tmp_path / CHECKPOINT, framework="pt") as file:
        assert file.metadata()["step"] == str(last)
    assert not (tmp_path / "extractor.safetensors").exists()
    assert train(CONFIG, **options).hash == whole.hash


def test_steps_may_change_until_the_fall(zoo, sources, tmp_path):
    options = {"zoo": zoo, "sources": sources, "progress": False, "out": tmp_path}
    train(CONFIG, stop_after=2, **options)
    extended = replace(CONFIG, steps=8)
    assert train(extended, **options).card["steps"] == 8
    with pytest.raises(ValueError, match="steps differ"):
        train(replace(CONFIG, steps=9), **options)


def test_training_helps_and_the_card_tells_all(zoo, sources, tmp_path):
    config = replace(CONFIG, steps=20, warmup=3, learning_rate=2e-3, checkpoint_every=50)
    card = train(config, zoo=zoo, sources=sources, out=tmp_path, progress=False).card
    tensors = card["curve"]
    assert tensors[-1]["step"] == 20 and 0 <= tensors[-1]["auc"] <= 1
    assert card["config"]["stream"]["models"] == 4 and card["zoo"]["trained_on"] == 4
    assert len(card["held_out_architectures"]) == 2
    assert {"auc", "eer", "tar", "threshold", "one_shot"} <= set(card["verification"])
    validated = [row for row in card["curve"] if "auc" in row]
    assert validated[-1]["auc"] > validated[0]["auc"] + 0.02


def test_training_takes_any_synthesizer_or_no_zoo(zoo, sources, tmp_path):
    config = replace(CONFIG, steps=2, stream=replace(STREAM, random_share=1.0))
    options = {"sources": sources, "progress": False}
    card = train(config, out=tmp_path / "none", **options).card
    assert card["zoo"] is None and card["held_out_architectures"] == []
    assert card["synthesis"] == "random decoders (encoder pool, space plain)"
    own = RandomSynthesizer(space="wide")
    wide = train(config, zoo=zoo, synthesizer=own, out=tmp_path / "own", **options)
    assert wide.card["synthesis"] == own.description and wide.card["zoo"]["models"] == len(zoo)
    # what made a checkpoint's images goes on making them
    with pytest.raises(ValueError, match="synthesizer or zoo differ"):
        train(config, zoo=zoo, out=tmp_path / "own", **options)


def test_a_checkpoint_of_another_configuration_is_refused(zoo, sources, tmp_path):
    options = {"zoo": zoo, "sources": sources, "progress": False, "out": tmp_path}
    train(CONFIG, stop_after=2, **options)
    with pytest.raises(ValueError, match="temperature differ"):
        train(replace(CONFIG, temperature=0.1), **options)
    with pytest.raises(ValueError, match="holds a checkpoint already"):
        train(CONFIG, resume=False, **options)
    (tmp_path / CHECKPOINT).write_bytes(b"nonsense")
    with pytest.raises(ValueError, match="no checkpoint of fpkit"):
        train(CONFIG, **options)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_training_on_a_gpu_resumes_and_embeds_as_on_the_cpu(zoo, sources, tmp_path):
    options = {"zoo": zoo, "sources": sources, "progress": False, "out": tmp_path}
    train(CONFIG, device="cuda", stop_after=3, **options)
    extractor = train(CONFIG, device="cuda", **options)
    images = procedural_images(3, 128, seed=9)
    on_cpu = load_extractor(tmp_path).embed(images)
    torch.testing.assert_close(extractor.embed(images), on_cpu, atol=1e-3, rtol=0)


def test_validation_sees_held_out_models_and_fresh_decoders(zoo, sources):
    stream = FingerprintStream(STREAM, sources, STREAM.synthesizer(zoo))
    held_out = zoo.model_ids[:2]
    crops, labels = validation_batch(stream, ZooSynthesizer(zoo, held_out))
    values, counts = labels.unique(return_counts=True)
    assert len(crops) == len(labels) and (counts == 8).all()
    assert (values < 2).sum() == 2 and (values >= 2).sum() == 16


def test_validation_of_perfect_embeddings():
    class Perfect(torch.nn.Module):
        positions = torch.zeros(1)
        cohort = torch.zeros(4)

        def forward(self, crops):
            return torch.eye(4)[crops[:, 0, 0, 0].long()] + 0.01

    labels = torch.arange(4).repeat_interleave(3)
    crops = labels.float()[:, None, None, None].expand(-1, 3, 8, 8)
    figures = validate(Perfect().eval(), crops, labels)
    assert figures["one_shot"] == figures["auc"] == figures["tar"] == 1 and figures["eer"] == 0


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"loss": "arcface"}, "loss"),
        ({"steps": 0}, "steps"),
        ({"held_out_share": 1.0}, "held_out_share"),
        ({"precision": "half"}, "precision"),
    ],
)
def test_wrong_configurations_are_refused(options, complaint):
    with pytest.raises(ValueError, match=complaint):
        TrainConfig(**options)


@pytest.mark.parametrize(
    "options",
    [
        {"models": 1},
        {"jpeg_share": 2.0},
        {"jpeg_quality": (9, 3)},
        {"encoder": "none"},
        {"space": "huge"},
    ],
)
def test_wrong_streams_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        StreamConfig(**options)


def test_a_training_can_begin_with_another_extractor(zoo, sources, tmp_path):
    options = {"zoo": zoo, "sources": sources, "progress": False}
    config = replace(CONFIG, steps=2)
    first = train(config, out=tmp_path / "first", **options)
    later = replace(config, steps=1, learning_rate=0.0)
    second = train(later, out=tmp_path / "second", initial=tmp_path / "first", **options)
    assert torch.equal(second.head.weight, first.head.weight)
    assert torch.equal(second.standardise[0].mean, first.standardise[0].mean)
    assert second.card["initial"] == first.hash and first.card["initial"] is None
    (tmp_path / "first" / "extractor.safetensors").unlink()  # as one that was stopped
    third = train(later, out=tmp_path / "third", initial=tmp_path / "first", **options)
    assert third.hash == second.hash
    wider = replace(config, extractor=replace(CONFIG.extractor, dim=9))
    with pytest.raises(ValueError, match="take one of the same shape"):
        train(wider, out=tmp_path / "fourth", initial=tmp_path / "second", **options)
    with pytest.raises(ValueError, match="is no checkpoint of a"):
        train(wider, out=tmp_path / "fourth", initial=tmp_path / "first", **options)


def test_matched_models_come_near_their_sources(sources):
    spread = []
    for share in (0.0, 1.0):
        config = replace(STREAM, models=16, random_share=1.0, jpeg_share=0.0, matched_share=share)
        stream = FingerprintStream(config, sources, config.synthesizer())
        crops, _ = stream[0]
        power = power_spectrum(crops.mean(1), centred=False)[:, 40:60, 40:60].mean((1, 2))
        spread.append(power.unflatten(0, (16, 2)).mean(1).log().std())
        levels = crops * 255
        torch.testing.assert_close(levels, levels.round(), atol=1e-3, rtol=0)
    assert spread[1] < 0.8 * spread[0]


def test_a_small_extractor_learns_from_a_teacher(zoo, sources, tmp_path):
    options = {"zoo": zoo, "sources": sources, "progress": False}
    teacher = train(replace(CONFIG, steps=2), out=tmp_path / "teacher", **options)
    config = replace(
        CONFIG,
        steps=40,
        loss="teacher",
        learning_rate=5e-3,
        extractor=replace(CONFIG.extractor, widths=(4, 4)),
    )
    pupil = train(config, out=tmp_path / "pupil", teacher=tmp_path / "teacher", **options)
    lines = (tmp_path / "pupil" / "log.jsonl").read_text().splitlines()
    losses = [json.loads(line)["loss"] for line in lines]
    assert sum(losses[-5:]) < 0.6 * sum(losses[:5])
    assert pupil.card["teacher"] == teacher.hash
    assert torch.equal(pupil.standardise[1].std, teacher.standardise[1].std)
    with pytest.raises(ValueError, match="got loss 'contrastive' with a teacher"):
        train(CONFIG, out=tmp_path / "other", teacher=tmp_path / "teacher", **options)
    with pytest.raises(ValueError, match="got loss 'teacher' with no teacher"):
        train(config, out=tmp_path / "none", **options)
