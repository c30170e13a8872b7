"""How fast do P synthetic models turn P x K images into fingerprinted ones?

    python benchmarks/application.py            P = 32, K = 8, images of 160 pixels
    python benchmarks/application.py --quick    fewer repetitions, under 10 minutes on 2 cores

Compared, over the same draws of models of the zoo and the same images: one forward per image, as a
loop over a data set does it; one forward per model; `Zoo.apply_many` in float32 and in bfloat16;
the last grouped by architecture. All give 8-bit images. The last line is one JSON object; `ratio`
is the median over draws of one forward per image against the fastest of ours whose mean deviation
from float32 stays below one 8-bit step.
"""

import argparse
import json
import random
import time
from collections.abc import Callable
from statistics import median

import torch
from device import hardware, synchronise
from torch import Tensor
from tqdm import tqdm

from fpkit.images import quantise
from fpkit.procedural import procedural_images
from fpkit.zoo import Zoo

MODELS, IMAGES, SIZE = 32, 8, 160


def per_image(zoo: Zoo, names: list[str], images: Tensor) -> Tensor:
    """Image by image, gradients on, as in the loop of a plain reader."""
    output = torch.empty_like(images)
    for p, name in enumerate(names):
        model = MODELS_IN_MEMORY[name]
        for k in range(images.shape[1]):
            output[p, k] = quantise(model(images[p, k][None])).detach()[0]
    return output


def per_model(zoo: Zoo, names: list[str], images: Tensor) -> Tensor:
    """Model by model, without gradients."""
    with torch.inference_mode():
        return torch.stack(
            [
                quantise(MODELS_IN_MEMORY[name](image))
                for name, image in zip(names, images, strict=True)
            ]
        )


def apply_many(**options: object) -> Callable[[Zoo, list[str], Tensor], Tensor]:
    return lambda zoo, names, images: zoo.apply_many(names, images, **options)


METHODS: dict[str, Callable[[Zoo, list[str], Tensor], Tensor]] = {
    "one forward per image": per_image,
    "one forward per model": per_model,
    "apply_many, float32": apply_many(grouped=False),
    "apply_many, bfloat16": apply_many(grouped=False, precision="bfloat16"),
    "apply_many, bfloat16, grouped": apply_many(grouped=True, precision="bfloat16"),
}
MODELS_IN_MEMORY: dict[str, torch.nn.Module] = {}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="3 draws instead of 9")
    parser.add_argument("--zoo", help="default: the zoo of fpkit")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    zoo = Zoo.load(arguments.zoo)
    draws = 3 if arguments.quick else 9
    for name in zoo:  # weights in memory, gradients on, as a loop over freshly made models has
        MODELS_IN_MEMORY[name] = zoo.model(name, device=device).requires_grad_(True)
    pool = procedural_images(MODELS, SIZE, seed=0).to(device)

    seconds: dict[str, list[float]] = {name: [] for name in METHODS}
    deviation: dict[str, list[float]] = {name: [] for name in METHODS}
    for draw in tqdm(range(draws + 1), desc="draws"):
        chooser = random.Random(draw)
        names = chooser.sample(zoo.model_ids, min(MODELS, len(zoo)))
        picks = [[chooser.randrange(MODELS) for _ in range(IMAGES)] for _ in names]
        images = pool[torch.tensor(picks)]
        reference = None
        for method, run in METHODS.items():
            run(zoo, names, images)  # reads weights and warms up
            synchronise(device)
            started = time.perf_counter()
            output = run(zoo, names, images)
            synchronise(device)
            elapsed = time.perf_counter() - started
            reference = output if reference is None else reference
            if draw:  # the first draw warms up
                seconds[method].append(elapsed)
                error = (output - reference).square().mean().sqrt().item()
                deviation[method].append(255 * error)

    place = hardware(device)
    print(f"{place}, torch {torch.__version__}")
    print(f"P={len(names)}, K={IMAGES}, {SIZE} px, {draws} draws")
    print(f"{'':32}{'seconds':>9}{'images/s':>10}{'ratio':>7}{'deviation':>11}")
    plain = seconds["one forward per image"]
    cases = []
    for method, times in seconds.items():
        ratio = median(a / b for a, b in zip(plain, times, strict=True))
        case = {
            "method": method,
            "seconds": round(median(times), 3),
            "images_per_second": round(len(names) * IMAGES / median(times), 1),
            "ratio": round(ratio, 2),
            "deviation_8bit_steps": round(median(deviation[method]), 3),
        }
        cases.append(case)
        print(
            f"{method:32}{case['seconds']:9.3f}{case['images_per_second']:10.1f}{ratio:7.2f}"
            f"{case['deviation_8bit_steps']:11.3f}"
        )
    print("(deviation from one forward per image: root mean square, in 8-bit steps)")
    ours = [c for c in cases if str(c["method"]).startswith("apply_many")]
    best = max(c["ratio"] for c in ours if c["deviation_8bit_steps"] < 1)
    print(json.dumps({"ratio": best, "device": place, "cases": cases}))


if __name__ == "__main__":
    main()
