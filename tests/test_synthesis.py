import numpy as np
import pytest
import torch

from fpkit.arch import ArchSpec
from fpkit.procedural import procedural_images
from fpkit.synthesis import reconstruction_residual, synthesize

EASY = ArchSpec(blocks=1, layers=1, activation="none", norm="none")


@pytest.fixture(scope="module")
def images():
    return procedural_images(8, 64, seed=0, kinds=("leaves",))


def test_it_learns_to_reconstruct_and_stops_at_eta(images):
    result = synthesize(EASY, images, eta=0.02, max_steps=200, progress=False)
    assert result.reached and result.residual <= 0.02 and result.steps < 200
    assert len(result.history) == result.steps
    assert np.mean(result.history[:3]) > 2 * np.mean(result.history[-3:])
    assert not result.model.training
    assert result.model_id == f"{EASY.id}/seed0"
    # the residual is that of the returned model on the held-out image
    assert reconstruction_residual(result.model, images[-1:]) == pytest.approx(result.residual)


def test_an_eta_out_of_reach_is_reported_as_such(images):
    result = synthesize(EASY, images, eta=1e-9, max_steps=3, progress=False)
    assert not result.reached and result.steps == 3 and result.residual > 1e-9


def test_seeds_decide_the_weights(images):
    def weights(seed):
        model = synthesize(EASY, images, seed=seed, max_steps=2, progress=False).model
        return torch.cat([p.detach().flatten() for p in model.parameters()])

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


def test_it_leaves_the_global_random_state_alone(images):
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    synthesize(EASY, images, max_steps=2, progress=False)
    assert torch.equal(torch.rand(1), expected)


def test_callback_sees_every_step_and_can_stop(images):
    seen = []

    def stop(step, loss):
        seen.append((step, loss))
        if step == 2:
            raise InterruptedError("enough")

    with pytest.raises(InterruptedError, match="enough"):
        synthesize(EASY, images, max_steps=10, progress=False, callback=stop)
    assert [step for step, _ in seen] == [0, 1, 2]


@pytest.mark.parametrize(
    ("images", "options", "complaint"),
    [
        (torch.rand(3, 64, 64), {}, r"\(n >= 2, 3, h, w\)"),
        (torch.rand(1, 3, 64, 64), {}, r"\(n >= 2, 3, h, w\)"),
        (torch.rand(4, 3, 32, 32), {}, "at least 64x64"),
        (torch.rand(4, 3, 66, 64), {}, "multiples of 4"),
        (torch.rand(4, 3, 64, 64) * 255, {}, "divide by 255"),
        (torch.rand(4, 3, 64, 64), {"max_steps": 1}, "max_steps"),
        (torch.rand(4, 3, 64, 64), {"precision": "half"}, "precision"),
    ],
)
def test_bad_input_is_refused(images, options, complaint):
    with pytest.raises(ValueError, match=complaint):
        synthesize(EASY, images, progress=False, **options)
