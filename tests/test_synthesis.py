import numpy as np
import pytest
import torch

from fpkit import synthesis
from fpkit.arch import ArchSpec
from fpkit.procedural import procedural_images
from fpkit.synthesis import (
    initial_model,
    one_cycle,
    reconstruction_residuals,
    synthesize,
    synthesize_stack,
)

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
    assert reconstruction_residuals(result.model, images[-1:]).item() == pytest.approx(
        result.residual
    )
    assert torch.mean((result.model(images[-1:]) - images[-1:]) ** 2).item() == pytest.approx(
        result.residual
    )


def test_an_eta_out_of_reach_is_reported_as_such(images):
    result = synthesize(EASY, images, eta=1e-9, max_steps=3, progress=False)
    assert not result.reached and result.steps == 3 and result.residual > 1e-9


MODES = [
    EASY,
    ArchSpec(blocks=2, layers=2, upsample="deconv", activation="tanh", norm="batch", order="pre"),
    ArchSpec(blocks=1, layers=2, upsample="bilinear", activation="sigmoid", norm="instance"),
]


@pytest.mark.parametrize("spec", MODES, ids=str)
def test_a_model_comes_out_of_a_stack_as_it_does_alone(spec, images):
    options = {"max_steps": 12, "progress": False}
    stack = synthesize_stack(spec, images, seeds=[5, 1, 3], **options)
    assert [result.seed for result in stack] == [5, 1, 3]
    for result in stack:
        alone = synthesize(spec, images, seed=result.seed, **options)
        np.testing.assert_allclose(result.history, alone.history, rtol=2e-3)
        assert result.residual == pytest.approx(alone.residual, rel=1e-2)
        difference = result.model(images[-1:]) - alone.model(images[-1:])
        assert difference.abs().max() < 0.01
    # the seeds differ by far more than that
    first, second = (result.model(images[-1:]) for result in stack[:2])
    assert (first - second).abs().max() > 0.05


def test_models_leave_the_stack_at_eta_and_the_others_go_on(images):
    options = {"eta": 0.01, "max_steps": 150, "progress": False}
    results = synthesize_stack(EASY, images, seeds=range(6), **options)
    steps = [result.steps for result in results]
    assert len(set(steps)) > 1, "all left at once: choose another eta"
    last = results[int(np.argmax(steps))]
    assert all(r.reached and r.residual <= 0.02 and len(r.history) == r.steps for r in results)
    assert not any(np.isnan(result.history).any() for result in results)
    # the last one was trained in ever smaller stacks, and comes out as it does alone
    alone = synthesize(EASY, images, seed=last.seed, **options)
    assert abs(alone.steps - last.steps) <= 10
    shared = min(alone.steps, last.steps)
    np.testing.assert_allclose(last.history[:shared], alone.history[:shared], rtol=0.05)


def test_leaving_takes_the_right_state_of_the_optimiser_along(images):
    models = [initial_model(EASY, seed) for seed in range(3)]
    stack = synthesis._Stack(models, learning_rate=1e-3)
    for _ in range(2):
        stack.step(images[:2], "float32")
    weight = next(iter(stack.model.parameters()))
    size = len(weight) // 3
    expected = stack.optimiser.state[weight]["exp_avg"][2 * size :].clone()
    stack.keep([2])
    assert stack.slots == [2] and stack.model.copies == 1
    state = stack.optimiser.state[next(iter(stack.model.parameters()))]
    assert torch.equal(state["exp_avg"], expected) and expected.abs().max() > 0
    assert state["step"] == 2


def test_gradients_are_clipped_model_by_model(images):
    models = [initial_model(EASY, seed) for seed in range(2)]
    with torch.no_grad():
        for parameter in models[1].parameters():
            parameter.mul_(10)  # explodes
    stack = synthesis._Stack(models, learning_rate=1e-3)
    stack.step(images[:2], "float32")
    norms = torch.stack(
        [p.grad.reshape(2, -1).square().sum(1) for p in stack.model.parameters()]
    ).sum(0)
    assert norms[1].sqrt() == pytest.approx(1.0, rel=1e-4)
    alone = synthesis._Stack(models[:1], learning_rate=1e-3)
    alone.step(images[:2], "float32")
    unclipped = torch.stack([p.grad.square().sum() for p in alone.model.parameters()]).sum()
    assert norms[0].item() == pytest.approx(unclipped.item(), rel=1e-3)


def test_the_learning_rate_goes_up_and_down():
    rates = [one_cycle(step, 101) for step in range(101)]
    assert rates[0] == pytest.approx(1 / 25) and rates[15] == 1.0 and rates[-1] == 0.0
    assert all(a < b for a, b in zip(rates[:15], rates[1:16], strict=True))
    assert all(a > b for a, b in zip(rates[15:], rates[16:], strict=False))


def test_half_precision_trains_as_well(images):
    options = {"max_steps": 40, "eta": 1e-9, "progress": False}
    full = synthesize(EASY, images, **options)
    half = synthesize(EASY, images, precision="bfloat16", **options)
    assert half.residual < 1.3 * full.residual
    assert next(half.model.parameters()).dtype == torch.float32


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
        (torch.rand(4, 3, 64, 64) * 255, {}, "divide by 255"),
        (torch.rand(4, 3, 64, 64), {"max_steps": 1}, "max_steps"),
        (torch.rand(4, 3, 64, 64), {"precision": "half"}, "precision"),
        (torch.rand(4, 3, 64, 65), {}, "multiples of 2 for K1"),
    ],
)
def test_bad_input_is_refused(images, options, complaint):
    with pytest.raises(ValueError, match=complaint):
        synthesize(EASY, images, progress=False, **options)


@pytest.mark.parametrize("seeds", [[], [1, 1]])
def test_seeds_must_differ(images, seeds):
    with pytest.raises(ValueError, match="seeds must be distinct"):
        synthesize_stack(EASY, images, seeds=seeds, progress=False)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_stack_on_a_gpu_comes_out_as_on_the_cpu(images):
    options = {"seeds": [0, 1], "max_steps": 8, "progress": False}
    for ours, theirs in zip(
        synthesize_stack(EASY, images, **options),
        synthesize_stack(EASY, images, device="cuda", **options),
        strict=True,
    ):
        np.testing.assert_allclose(theirs.history, ours.history, rtol=0.02)
        assert next(theirs.model.parameters()).device.type == "cpu"
