"""Models as vectors: what the profile keeps, what it leaves out, and the null hypothesis."""

import numpy as np
import pytest
import torch

from fpkit.arch import ArchSpec
from fpkit.blocks import SyntheticModel
from fpkit.decoders import RandomDecoder
from fpkit.fidelity import (
    MARGIN,
    Population,
    View,
    image_power,
    image_profiles,
    model_vector,
    random_population,
    ring_profile,
    source_population,
    zoo_population,
)
from fpkit.images import jpeg, quantise
from fpkit.metrics import mean_pairwise_distance, sample_frechet_distance
from fpkit.spectrum import average_spectrum, radial_profile
from fpkit.synthesis import Synthesis
from fpkit.zoo import Zoo

CROP = 32
SIDE = CROP + 2 * MARGIN


def noise(n: int, side: int = CROP, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (0.5 + 0.1 * torch.randn(n, 3, side, side, generator=generator)).clamp(0, 1)


def add_untrained(zoo: Zoo, *specs: ArchSpec, seed: int = 0, reached: bool = True) -> None:
    for spec in specs:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = SyntheticModel(spec).eval()
        zoo.add(
            Synthesis(
                spec=spec,
                seed=seed,
                model=model,
                residual=0.1,
                reached=reached,
                steps=0,
                seconds=0.0,
                history=np.zeros(0),
            )
        )


# ---- one model ---------------------------------------------------------------------------------


def test_white_noise_has_a_flat_profile():
    profile = image_profiles(noise(60), residual="none", crop=CROP).mean(axis=0)
    assert profile.shape == (CROP // 2,)
    assert np.abs(profile[2:] - 1).max() < 0.12  # the window smears the missing mean into ring 1


def test_one_sine_fills_one_ring():
    x = torch.arange(CROP) / CROP
    image = (0.5 + 0.2 * torch.sin(2 * np.pi * 8 * x)).expand(1, 3, CROP, CROP)
    profile = image_profiles(image, residual="none", crop=CROP)[0]
    # ring i is at i / 32 cycles/pixel: frequency 8 is index 7; the window spills to both sides
    assert profile.argmax() == 7
    assert profile[6:9].sum() > 0.99 * profile.sum()


def test_profile_is_the_radial_profile_of_the_average_spectrum():
    image = noise(1)[0]
    power = average_spectrum([image], residual="median", crop=CROP).mean(axis=0)
    assert np.array_equal(image_power(image, crop=CROP), power)
    rings = radial_profile(power)[1][1:]
    assert ring_profile(power) == pytest.approx(rings / rings.mean(), rel=1e-3)
    assert ring_profile(power).mean() == pytest.approx(1)


def test_loudness_is_no_part_of_the_vector():
    images = noise(4)
    quiet = 0.5 + 0.2 * (images - 0.5)
    vectors = [model_vector(image_profiles(x, crop=CROP)) for x in (images, quiet)]
    assert vectors[1] == pytest.approx(vectors[0], abs=1e-3)
    assert vectors[0].mean() == pytest.approx(0, abs=1e-12)


def test_how_loud_one_of_the_images_is_does_not_matter():
    smooth = torch.nn.functional.avg_pool2d(noise(9, CROP + 4), 5, 1)
    loud = noise(1, seed=1)
    pictures = [torch.cat([smooth, 0.5 + share * (loud - 0.5)]) for share in (1.0, 0.2)]
    vectors = [model_vector(image_profiles(x, residual="none", crop=CROP)) for x in pictures]
    assert vectors[0] == pytest.approx(vectors[1], abs=0.05)
    raw = [average_spectrum(x, residual="none", crop=CROP).mean(axis=0) for x in pictures]
    of_power = [model_vector(ring_profile(power[None])) for power in raw]
    assert (
        np.abs(of_power[0] - of_power[1]).max() > 3
    )  # the mean of raw power is all the loud one's


def test_one_peak_decides_a_distance_of_power_but_not_of_decibels():
    generator = np.random.default_rng(0)
    first, second = generator.uniform(0.8, 1.25, (2, 12, 1, 16))
    first[0, 0, 5] = 1e3  # one model of twelve with a ring 30 dB above the others
    share = {}
    for scale in ("db", "power"):
        one, two = (model_vector(x, scale=scale) for x in (first, second))
        share[scale] = 1 - sample_frechet_distance(one[1:], two) / sample_frechet_distance(one, two)
    assert share["power"] > 0.999 > 0.99 > share["db"]


def test_a_flat_image_counts_as_white():
    assert model_vector(image_profiles(torch.full((1, 3, CROP, CROP), 0.5), crop=CROP)) == (
        pytest.approx(0)
    )


def test_arguments_are_checked():
    with pytest.raises(ValueError, match="at least one image"):
        image_profiles([])
    with pytest.raises(ValueError, match="scale"):
        model_vector(np.ones((2, 4)), scale="log")
    with pytest.raises(ValueError, match="2 names and 1"):
        Population(names=("a", "b"), profiles=(np.ones((2, 4)),))
    with pytest.raises(ValueError, match="at least 1"):
        View(images=0)
    with pytest.raises(ValueError, match=r"at least 24.*got \(3, 3, 64, 64\)"):
        source_population(2, noise(3, 64))
    with pytest.raises(ValueError, match="at least 160"):
        source_population(2, noise(24, 128))


# ---- populations -------------------------------------------------------------------------------


def test_source_population_is_its_own_resampling():
    # models that are all the same differ as the resampled images of one do
    view = View(images=16, crop=CROP)
    same = source_population(20, noise(200, SIDE), view=view)
    between = mean_pairwise_distance(same.vectors())
    within = np.mean([mean_pairwise_distance(x) for x in same.resampled(20, seed=0)])
    assert between == pytest.approx(within, rel=0.15)


def test_zoo_population_is_the_zoo_applied(tmp_path):
    zoo = Zoo.create(tmp_path / "zoo", source="none")
    specs = ArchSpec(blocks=1), ArchSpec(blocks=1, upsample="deconv")
    add_untrained(zoo, *specs)
    pool, view = noise(5, SIDE), View(images=5, crop=CROP, residual="none")
    found = zoo_population(zoo, pool, view=view)
    assert found.names == tuple(zoo.model_ids)
    for name, profiles in zip(found.names, found.profiles, strict=True):
        inner = zoo.apply(name, pool)[..., MARGIN:-MARGIN, MARGIN:-MARGIN]
        expected = image_profiles(inner, residual="none", crop=CROP)
        # all five images, in another order
        assert np.sort(profiles, axis=0) == pytest.approx(np.sort(expected, axis=0))
    one = zoo_population(zoo, pool, names=found.names[1:], view=view)
    assert one.names == found.names[1:]


def test_random_population_draws_decoders_by_the_seed():
    pool = noise(4, SIDE)
    first, again, other = (
        random_population(3, pool, view=View(images=2, crop=CROP, seed=seed)) for seed in (0, 0, 1)
    )
    assert first.names == again.names and not set(first.names) & set(other.names)
    assert np.array_equal(first.vectors(), again.vectors())
    seed = int(first.names[0].removeprefix("random/seed"))
    with torch.no_grad():
        output = RandomDecoder(seed)(pool, generator=torch.Generator().manual_seed(0))
    inner = output[..., MARGIN:-MARGIN, MARGIN:-MARGIN]
    # the same decoder; its fresh detail and its choice of images differ
    gap = model_vector(image_profiles(inner, crop=CROP)) - first.vectors()[0]
    spread = first.vectors()[1:] - first.vectors()[0]
    assert np.abs(gap).mean() < np.abs(spread).mean()


def test_jpeg_is_applied_after_the_borders_are_cut():
    pool = quantise(noise(1, SIDE))
    view = View(images=1, crop=CROP, jpeg_quality=50)
    (profiles,) = source_population(1, pool, view=view).profiles
    inner = pool[0, :, MARGIN:-MARGIN, MARGIN:-MARGIN]
    expected = image_profiles([jpeg(inner, 50)], crop=CROP)
    assert profiles == pytest.approx(expected)
    assert profiles != pytest.approx(image_profiles([inner], crop=CROP), rel=0.05)


def test_resampling_one_image_changes_nothing():
    population = Population(names=("a",), profiles=(np.arange(1.0, 5.0)[None],))
    resampled = population.resampled(3, seed=0)
    assert resampled.shape == (1, 3, 4)
    assert resampled == pytest.approx(np.broadcast_to(population.vectors()[:, None], (1, 3, 4)))


def test_select_keeps_names_and_profiles_together():
    profiles = tuple(np.full((1, 4), float(i)) for i in (1, 2, 3))
    population = Population(names=("a", "b", "c"), profiles=profiles)
    chosen = population.select(lambda name: name != "b")
    assert chosen.names == ("a", "c") and chosen.profiles[1] is profiles[2]
    assert population.select(lambda name: False) is None
