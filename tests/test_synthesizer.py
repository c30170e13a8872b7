import pickle

import pytest
import torch
from torch.utils.data import DataLoader

from fpkit.arch import PAPER
from fpkit.procedural import procedural_images
from fpkit.stream import FingerprintStream, Sources, StreamConfig
from fpkit.synthesis import synthesize
from fpkit.synthesizer import MixedSynthesizer, RandomSynthesizer, ZooSynthesizer
from fpkit.zoo import Zoo


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    images = procedural_images(3, 64, seed=0)
    zoo = Zoo.create(tmp_path_factory.mktemp("zoo"), source="three images")
    for spec in list(PAPER)[::72]:
        zoo.add(synthesize(spec, images, max_steps=2, progress=False))
    return zoo


@pytest.fixture(scope="module")
def images():
    return procedural_images(8, 48, seed=1).unflatten(0, (4, 2))


def draw(synthesizer, images, seed=0):
    return synthesizer(images, generator=torch.Generator().manual_seed(seed))


KINDS = [
    lambda zoo: ZooSynthesizer(zoo),
    lambda zoo: RandomSynthesizer(),
    lambda zoo: RandomSynthesizer(encoder="trained", space="wide"),
    lambda zoo: MixedSynthesizer(ZooSynthesizer(zoo), RandomSynthesizer(), share=0.5),
]


@pytest.mark.parametrize("kind", KINDS, ids=["zoo", "pool", "trained", "mixture"])
def test_what_every_synthesizer_promises(zoo, images, kind):
    synthesizer = kind(zoo)
    synthesizer.check(4)
    outputs, labels = draw(synthesizer, images)
    assert outputs.shape == images.shape and outputs.dtype == torch.float32
    assert not outputs.requires_grad and 0 <= outputs.min() and outputs.max() <= 1
    assert torch.equal(torch.round(outputs * 255) / 255, outputs)
    assert labels.dtype == torch.int64 and len(labels.unique()) == 4
    # a function of images and generator, also for a worker's copy that has been used before
    again = draw(pickle.loads(pickle.dumps(synthesizer)), images)
    assert torch.equal(again[0], outputs) and torch.equal(again[1], labels)
    assert not torch.equal(draw(synthesizer, images, seed=1)[0], outputs)


@pytest.mark.parametrize("only", [[0, 2], [1, 3], [3], [0, 1, 2, 3]], ids=str)
@pytest.mark.parametrize("kind", KINDS, ids=["zoo", "pool", "trained", "mixture"])
def test_some_models_alone_are_what_they_are_among_all(zoo, images, kind, only):
    generators = [torch.Generator().manual_seed(5) for _ in range(2)]
    outputs, labels = kind(zoo)(images, generator=generators[0])
    some, theirs = kind(zoo)(images, generator=generators[1], only=only)
    assert torch.equal(some, outputs[only]) and torch.equal(theirs, labels[only])
    # and the next draw is the same, whoever made what
    assert torch.equal(*(torch.rand(3, generator=generator) for generator in generators))


def test_a_zoo_gives_what_its_models_give(zoo, images):
    chosen = zoo.model_ids[1:]
    outputs, labels = draw(ZooSynthesizer(zoo, chosen), images[:3])
    assert sorted(labels.tolist()) == [0, 1, 2]
    for label, before, after in zip(labels, images, outputs, strict=False):
        expected = zoo.apply(chosen[label], before)
        torch.testing.assert_close(after, expected, atol=1.01 / 255, rtol=0)


def test_a_zoo_has_only_so_many_models(zoo, images):
    few = ZooSynthesizer(zoo, zoo.model_ids[:2])
    few.check(2)
    for attempt in (lambda: few.check(3), lambda: draw(few, images)):
        with pytest.raises(ValueError, match="which has only 2"):
            attempt()


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_mixture_of_one_is_pure(zoo, images, share):
    parts = (ZooSynthesizer(zoo), RandomSynthesizer())
    mixed = draw(MixedSynthesizer(*parts, share=share), images)
    pure = draw(parts[round(share)], images)
    assert torch.equal(mixed[0], pure[0])
    assert torch.equal(mixed[1], pure[1] + (len(zoo) if share else 0))


def test_labels_of_mixtures_within_mixtures(zoo, images):
    first, second = (ZooSynthesizer(zoo, zoo.model_ids[i : i + 2]) for i in (0, 2))
    random = MixedSynthesizer(RandomSynthesizer(), RandomSynthesizer(space="wide"), share=0.5)
    known = MixedSynthesizer(first, second, share=0.5)
    both = MixedSynthesizer(random, known, share=0.5)
    both.check(8)
    assert both.classes == 4
    outputs, labels = draw(both, torch.cat([images, images]))
    assert len(labels.unique()) == 8 and (labels[:4] >= 4).all()
    assert sorted(labels[4:].tolist()) == [0, 1, 2, 3]
    for label, before, after in zip(labels[4:], images, outputs[4:], strict=True):
        expected = zoo.apply(zoo.model_ids[label], before)
        torch.testing.assert_close(after, expected, atol=1.01 / 255, rtol=0)
    with pytest.raises(ValueError, match="draws 3 models"):
        both.check(12)


def test_every_decoder_draws_its_own_detail(images, monkeypatch):
    seen = []

    class Decoder:
        def __init__(self, seed, **_):
            self.seed = seed

        def __call__(self, images, *, generator):
            seen.append((self.seed, generator.initial_seed()))
            return images

    monkeypatch.setattr("fpkit.synthesizer.RandomDecoder", Decoder)
    draw(RandomSynthesizer(), images)
    draw(RandomSynthesizer(), images, seed=1)
    assert len({seed for pair in seen for seed in pair}) == 16


@pytest.mark.parametrize("models", [1, 4])
def test_threads_change_nothing(images, models):
    images = images[:models].repeat(1, 1, 1, 4, 4)  # large enough for threads within operations
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one, _ = draw(RandomSynthesizer(), images)
        torch.set_num_threads(3)
        three, _ = draw(RandomSynthesizer(), images)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert torch.equal(one, three)


def test_workers_change_nothing(zoo):
    config = StreamConfig(models=4, images=2, sources=2, random_share=0.5, encoder="trained")
    stream = FingerprintStream(config, Sources(procedural=2), config.synthesizer(zoo), steps=3)
    expected = [stream[step] for step in range(3)]
    loader = DataLoader(
        stream, batch_size=None, num_workers=2, multiprocessing_context="spawn", shuffle=False
    )
    for (crops, labels), (same, these) in zip(loader, expected, strict=True):
        assert torch.equal(crops, same) and torch.equal(labels, these)


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: RandomSynthesizer(encoder="average"), "'pool', 'trained'"),
        (lambda: RandomSynthesizer(space="huge"), "'plain', 'wide'"),
        (lambda: MixedSynthesizer(RandomSynthesizer(), RandomSynthesizer(), share=2), "share"),
    ],
)
def test_wrong_options_are_refused(make, complaint):
    with pytest.raises(ValueError, match=complaint):
        make()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("kind", KINDS, ids=["zoo", "pool", "trained", "mixture"])
def test_synthesis_on_a_gpu(zoo, images, kind):
    outputs, labels = draw(kind(zoo), images.cuda())
    assert outputs.is_cuda and not labels.is_cuda
    again = draw(kind(zoo), images.cuda())
    torch.testing.assert_close(again[0], outputs, atol=1.01 / 255, rtol=0)
    assert torch.equal(again[1], labels)
    on_cpu = draw(kind(zoo), images)
    assert torch.equal(on_cpu[1], labels)
    # the same models but for the fine detail that is drawn on the device
    assert (on_cpu[0] - outputs.cpu()).abs().mean() < 0.02
