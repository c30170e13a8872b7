"""The streaming metric against the numpy functions, alone, in parts and after a reset."""

import runpy
import sys

import numpy as np
import pytest
import torch

from fpkit import ffd_metric
from fpkit.ffd_metric import FrechetFrequencyDistance
from fpkit.fidelity import image_profiles, model_vector
from fpkit.metrics import sample_frechet_distance


def clouds(dim: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randn(2, 40, dim, generator=generator, dtype=torch.float64)
    return 20 + first, (10 * second + 3)[:25]


def fill(metric: FrechetFrequencyDistance, real: torch.Tensor, synthetic: torch.Tensor) -> None:
    metric.update(real, real=True)
    metric.update(synthetic, real=False)


def test_equals_the_numpy_function():
    metric, (real, synthetic) = FrechetFrequencyDistance(dim=6), clouds()
    fill(metric, real, synthetic)
    expected = sample_frechet_distance(real.numpy(), synthetic.numpy())
    assert metric.compute().dtype == torch.float64
    assert float(metric.compute()) == pytest.approx(expected, rel=1e-9)


def test_float32_vectors_are_summed_in_float64():
    real, synthetic = (1000 + cloud.float() / 100 for cloud in clouds())
    metric = FrechetFrequencyDistance(dim=6)
    fill(metric, real, synthetic)
    expected = sample_frechet_distance(real.double().numpy(), synthetic.double().numpy())
    assert float(metric.compute()) == pytest.approx(expected, rel=1e-4)


def test_order_and_batches_do_not_matter():
    whole, parts = FrechetFrequencyDistance(dim=6), FrechetFrequencyDistance(dim=6)
    real, synthetic = clouds()
    fill(whole, real, synthetic)
    for batch in synthetic.flip(0).split(7):
        parts.update(batch, real=False)
    for vector in real:
        parts.update(vector[None], real=True)
    assert float(parts.compute()) == pytest.approx(float(whole.compute()), rel=1e-9)


def test_states_of_two_processes_merge():
    real, synthetic = clouds()
    whole, one, two = (FrechetFrequencyDistance(dim=6) for _ in range(3))
    fill(whole, real, synthetic)
    fill(one, real[:15], synthetic[:20])
    fill(two, real[15:], synthetic[20:])
    one.merge_state(two)
    assert float(one.compute()) == pytest.approx(float(whole.compute()), rel=1e-9)
    assert int(one.real_count) == 40 and int(one.synthetic_count) == 25


def test_reset_forgets():
    real, synthetic = clouds()
    metric = FrechetFrequencyDistance(dim=6)
    fill(metric, real, synthetic)
    before = float(metric.compute())
    metric.reset()
    metric.update(real[:1], real=True)
    with pytest.raises(ValueError, match="at least 2 real models are needed, got 1"):
        metric.compute()
    fill(metric, real[1:], synthetic)
    assert float(metric.compute()) == pytest.approx(before, rel=1e-9)


def test_images_of_one_model_make_one_vector():
    generator = torch.Generator().manual_seed(0)
    models = torch.rand(6, 3, 3, 40, 40, generator=generator)
    models[3:] = torch.nn.functional.avg_pool2d(models[3:].flatten(0, 1), 3, 1, 1).unflatten(
        0, (3, 3)
    )
    metric = FrechetFrequencyDistance(crop=32, residual="highpass")
    for index, images in enumerate(models):
        metric.update(images, real=index < 3)
    assert int(metric.real_count) == int(metric.synthetic_count) == 3
    vectors = [
        model_vector(image_profiles(images, residual="highpass", crop=32)) for images in models
    ]
    expected = sample_frechet_distance(np.stack(vectors[:3]), np.stack(vectors[3:]))
    assert float(metric.compute()) == pytest.approx(expected, rel=1e-6)


def test_what_is_no_input_is_refused():
    metric = FrechetFrequencyDistance(dim=6)
    for wrong in (torch.zeros(4, 5), torch.zeros(6), torch.zeros(1, 3, 128, 128)):
        with pytest.raises(ValueError, match=r"or vectors \(n, 6\), got"):
            metric.update(wrong, real=True)
    with pytest.raises(ValueError, match="finite"):
        metric.update(torch.full((2, 6), torch.nan), real=True)
    with pytest.raises(ValueError, match="dim must be"):
        FrechetFrequencyDistance(dim=0)


def test_without_torchmetrics_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchmetrics", None)
    with pytest.raises(ImportError, match=r"pip install 'fpkit\[metrics\]'"):
        runpy.run_path(ffd_metric.__file__)
