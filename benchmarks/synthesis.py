"""How much faster are synthetic models trained in stacks than one by one?

    python benchmarks/synthesis.py            20 seeds of 6 architectures; what each measure gave
    python benchmarks/synthesis.py --quick    under 10 minutes on 2 cores
    python benchmarks/synthesis.py --estimate the cost of the paper's zoo, from counted operations

One by one, as a plain reader of the paper would: float32, PyTorch's own initial weights, Adam at a
constant 1e-3, batches of 16 whole images, until eta or for `--plain-seconds`. The stack then trains
all seeds on the same images to the residual that this has reached. Both are measured on the same
held-out images of 128 x 128 in float32. The last line is one JSON object; `ratio` is the median
over architectures of seconds per model.
"""

import argparse
import json
import time
from dataclasses import dataclass
from statistics import median

import torch
from device import hardware, synchronise
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from fpkit.arch import PAPER, ArchSpec
from fpkit.blocks import SyntheticModel
from fpkit.synthesis import (
    BATCH,
    CROP,
    ETA,
    LEARNING_RATE,
    MAX_STEPS,
    initial_model,
    one_cycle,
    reconstruction_residuals,
    synthesize_stack,
)
from fpkit.zoo import Zoo
from fpkit.zoo_build import training_images

ARCHS = (
    "K1-L1-Unearest-Arelu-Nnone-Spost",
    "K1-L2-Ubilinear-Asigmoid-Nbatch-Spost",
    "K1-L1-Udeconv-Atanh-Ninstance-Spre",
    "K2-L1-Unearest-Anone-Nnone-Spre",
    "K2-L1-Udeconv-Atanh-Nbatch-Spre",
    "K2-L2-Ubilinear-Arelu-Nnone-Spost",
)
CHECK_SECONDS = 3.0  # between two looks at the residual; their time is not counted


@dataclass(frozen=True)
class Recipe:
    """How one model at a time is trained; the default is the plain reader's."""

    name: str = "one by one, float32"
    own_start: bool = False  # fpkit's initial weights instead of PyTorch's
    cycle: bool = False  # one cycle up to 3e-3 instead of a constant 1e-3
    crops: bool = False  # 32-pixel crops instead of whole images
    half: bool = False  # bfloat16 and channels last


LADDER = (
    Recipe(),
    Recipe("+ start near image statistics", True),
    Recipe("+ one cycle of the learning rate", True, True),
    Recipe("+ 32-pixel crops", True, True, True),
    Recipe("+ bfloat16, channels last", True, True, True, True),
)


def train_alone(
    recipe: Recipe,
    spec: ArchSpec,
    images: torch.Tensor,
    device: torch.device,
    *,
    target: float,
    seconds: float,
) -> tuple[float, float, int]:
    """Train one model to `target` or for `seconds`: best residual, seconds until then, steps."""
    torch.manual_seed(0)
    model = initial_model(spec, 0) if recipe.own_start else SyntheticModel(spec)
    if not recipe.own_start:
        for module in model.modules():
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()
    layout = torch.channels_last if recipe.half else torch.contiguous_format
    model = model.to(device, memory_format=layout).train()
    held_out, training = images[-16:].to(device), images[:-16].to(device)
    rate = LEARNING_RATE if recipe.cycle else 1e-3
    optimiser = torch.optim.Adam(model.parameters(), lr=rate)
    generator = torch.Generator().manual_seed(0)
    clock = looked = best_at = 0.0
    best, step = float("inf"), 0
    while clock < seconds and not (recipe.cycle and step == MAX_STEPS):
        synchronise(device)
        started = time.perf_counter()
        batch = draw(training, generator, CROP if recipe.crops else 128).contiguous(
            memory_format=layout
        )
        if recipe.cycle:
            optimiser.param_groups[0]["lr"] = rate * one_cycle(step, MAX_STEPS)
        with torch.autocast(device.type, torch.bfloat16, enabled=recipe.half):
            output = model(batch)
        loss = functional.mse_loss(output.float(), batch)
        optimiser.zero_grad()
        loss.backward()
        if recipe.cycle:
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        synchronise(device)
        clock += time.perf_counter() - started
        step += 1
        if clock - looked >= min(CHECK_SECONDS, clock / 20) or clock >= seconds:
            looked = clock
            residual = reconstruction_residuals(model, held_out).item()
            if residual < best:
                best, best_at = residual, clock
            if best <= target:
                break
    return best, best_at, step


def draw(images: torch.Tensor, generator: torch.Generator, size: int) -> torch.Tensor:
    """A batch of random crops."""
    index = torch.randint(len(images), (BATCH,), generator=generator).tolist()
    corner = torch.randint(128 - size + 1, (2,), generator=generator).tolist()
    top, left = corner
    return images[index, :, top : top + size, left : left + size]


def compare(arguments: argparse.Namespace, device: torch.device) -> None:
    images, source = training_images(arguments.tiles)
    print(f"{hardware(device)}, torch {torch.__version__}; {source}")
    print(f"{'architecture':40}{'residual':>9}{'alone s':>9}{'steps':>7}{'stack s':>9}{'ratio':>7}")
    cases = []
    for arch in arguments.arch or ARCHS:
        spec = ArchSpec.parse(arch)
        best, alone, steps = train_alone(
            Recipe(), spec, images, device, target=arguments.eta, seconds=arguments.plain_seconds
        )
        target = max(best, arguments.eta)
        synchronise(device)
        started = time.perf_counter()
        made = synthesize_stack(
            spec,
            images,
            seeds=range(arguments.seeds),
            eta=target,
            device=device,
            precision="bfloat16",
            progress=False,
        )
        stack = (time.perf_counter() - started) / len(made)
        reached = sum(result.reached for result in made)
        ratio = alone / stack
        note = "" if reached == len(made) else f"  only {reached} of {len(made)} got there"
        print(
            f"{arch:40}{target:9.4f}{alone:9.1f}{steps:7}{stack:9.2f}{ratio:7.1f}{note}",
            flush=True,
        )
        cases.append(
            {
                "arch": arch,
                "residual": round(target, 5),
                "alone_seconds": round(alone, 2),
                "stack_seconds_per_model": round(stack, 3),
                "stack_steps": median(result.steps for result in made),
                "reached": reached,
                "models": len(made),
                "ratio": round(ratio, 2),
            }
        )
    if not arguments.quick:
        ladder(arguments, images, device, cases)
    result = {
        "ratio": round(median(case["ratio"] for case in cases), 2),
        "device": hardware(device),
        "seeds": arguments.seeds,
        "cases": cases,
    }
    print(json.dumps(result))


def ladder(
    arguments: argparse.Namespace,
    images: torch.Tensor,
    device: torch.device,
    cases: list[dict[str, object]],
) -> None:
    """Which measure gave what, for the first and the fifth architecture."""
    for case in (cases[0], cases[4]) if len(cases) > 4 else cases[:1]:
        print(f"\nseconds to {case['residual']} of one {case['arch']}")
        for recipe in LADDER:
            best, seconds, steps = train_alone(
                recipe,
                ArchSpec.parse(str(case["arch"])),
                images,
                device,
                target=float(str(case["residual"])) + 5e-6,
                seconds=2 * arguments.plain_seconds,
            )
            note = "" if best <= float(str(case["residual"])) + 5e-6 else f"  (only {best:.4f})"
            print(f"  {recipe.name:36}{seconds:8.1f} s {steps:5} steps{note}", flush=True)
        print(f"  {'+ stack, whole recipe':36}{case['stack_seconds_per_model']:8} s")


def estimate() -> None:
    """Operations of the paper's zoo, if its architectures need the steps of those that ship."""
    zoo = Zoo.load()
    steps: dict[str, list[int]] = {}
    for entry in zoo.entries:
        steps.setdefault(entry["arch_id"], []).append(entry["steps"])
    per_step = {arch: step_operations(ArchSpec.parse(arch)) for arch in steps}
    measured = sum(per_step[arch] * sum(counts) for arch, counts in steps.items())
    mean = measured / len(zoo)
    total = mean * len(PAPER) * 20
    print(f"{len(zoo)} models of the shipped zoo: {mean / 1e12:.2f} TFLOP each (counted)")
    print(f"5760 models: {total / 1e15:.1f} PFLOP (ESTIMATE)")
    for share in (0.02, 0.05, 0.1):
        minutes = total / (790e12 * share) / 60
        print(f"at {share:.0%} of an H200's 790 TFLOP/s: {minutes:.0f} minutes (ESTIMATE)")
    print(json.dumps({"tflop_per_model": mean / 1e12, "pflop_paper": total / 1e15}))


def step_operations(spec: ArchSpec) -> int:
    """Floating-point operations of one training step, forward and backward."""
    model = initial_model(spec, 0).train()
    with FlopCounterMode(display=False) as counter:
        model(torch.rand(BATCH, 3, CROP, CROP)).square().mean().backward()
    return int(counter.get_total_flops())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="8 seeds, 25 s one by one, no ladder")
    parser.add_argument("--estimate", action="store_true", help="count operations, train nothing")
    parser.add_argument(
        "--arch", action="append", help="repeatable; default: six that span the axes"
    )
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--plain-seconds", type=float, help="at most, for a model trained alone")
    parser.add_argument("--eta", type=float, default=ETA)
    parser.add_argument("--tiles", help="photos.npy; without it, procedural images")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    arguments.seeds = arguments.seeds or (8 if arguments.quick else 20)
    arguments.plain_seconds = arguments.plain_seconds or (25 if arguments.quick else 180)
    estimate() if arguments.estimate else compare(arguments, torch.device(arguments.device))


if __name__ == "__main__":
    main()
