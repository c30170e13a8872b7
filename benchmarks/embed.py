"""How fast images embed, against the paper's pipeline in the same run.

    python benchmarks/embed.py [--quick] [--device cuda] [--threads N]

Every shipped extractor and the paper's pipeline (``paper_pipeline.py``: random weights, no less
work than the paper's released code does) embed the same images by turns, in float32; medians of
the repetitions after a warm-up, loading of files left out. The paper's takes nine crops of an
image of any size; on 256 x 256 pixels fpkit does so too: this is the ratio. Then how long one
image takes, by its size; and on a GPU how many crops a second pass from uint8 tensors on the device
to embeddings there, in bfloat16. The last line is one JSON object.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence

import torch
from device import hardware, synchronise
from paper_pipeline import PaperPipeline
from torch import Tensor, nn
from torch.nn import functional

import fpkit as fp
from fpkit.assets import extractor_path
from fpkit.embedder import CROPS_PER_SIDE

SIDES = (256, 512)  # of the images that are compared on: fpkit takes 9 crops, and 16
SIZES = (128, 256, 512, 1024)


def timed(run: Callable[[], object], device: torch.device) -> float:
    """Seconds until `run` is done on the device too."""
    synchronise(device)
    start = time.perf_counter()
    run()
    synchronise(device)
    return time.perf_counter() - start


def images_per_second(
    contenders: dict[str, nn.Module], images: Sequence[Tensor], repeats: int, device: torch.device
) -> dict[str, float]:
    """Median rates of embedding these images, one contender after the other in every round."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(repeats + 1):
        for name, contender in contenders.items():
            seconds[name].append(timed(lambda c=contender: c.embed(images), device))
    return {name: len(images) / statistics.median(times[1:]) for name, times in seconds.items()}


def milliseconds(extractor: nn.Module, size: int, runs: int, device: torch.device) -> list[float]:
    """Times of embedding one image of this size, each a different image."""
    images = torch.rand(runs + 2, 3, size, size, generator=torch.Generator().manual_seed(0))
    times = [1000 * timed(lambda i=image: extractor.embed([i]), device) for image in images]
    return times[2:]


@torch.inference_mode()
def crops_per_second(extractor: nn.Module, batch: int, repeats: int, device: torch.device) -> float:
    """Median rate from uint8 crops on the device to unit embeddings there, in bfloat16."""
    size = extractor.config.crop
    generator = torch.Generator(device).manual_seed(0)
    crops = torch.randint(
        256, (batch, 3, size, size), dtype=torch.uint8, device=device, generator=generator
    )

    def run() -> None:
        with torch.autocast(device.type, torch.bfloat16):
            functional.normalize(extractor(crops.float() / 255).float())

    return batch / statistics.median([timed(run, device) for _ in range(repeats + 2)][2:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer images and repetitions")
    parser.add_argument("--device", help="cpu, cuda, ... (a GPU if there is one)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    print(hardware(device))

    folders = sorted(path for path in extractor_path().parent.glob("extractor*") if path.is_dir())
    contenders: dict[str, nn.Module] = {
        folder.name: fp.load_extractor(folder, device=device) for folder in folders
    }
    default = contenders[extractor_path().name]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        contenders["paper"] = PaperPipeline().eval().to(device)
    on_gpu = device.type == "cuda"
    count = (16 if on_gpu else 1) if arguments.quick else (64 if on_gpu else 4)
    by_side = {}
    for side in SIDES:
        images = list(torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(1)))
        rates = images_per_second(contenders, images, 3 if arguments.quick else 9, device)
        print(f"\n{f'{count} images of {side}x{side}':>24} {'images/s':>10} {'x paper':>8}")
        for name, rate in rates.items():
            print(f"{name:>24} {rate:>10.2f} {rate / rates['paper']:>8.1f}")
        by_side[side] = rates

    medians = {}
    print(f"\n{'one image':>24} {'crops':>6} {'median ms':>10} {'min':>7} {'max':>7}")
    for size in SIZES:
        times = milliseconds(default, size, 7 if arguments.quick else 31, device)
        crops = len(fp.grid_crops(torch.zeros(3, size, size), grid=CROPS_PER_SIDE))
        medians[size] = statistics.median(times)
        print(
            f"{f'{size}x{size}':>24} {crops:>6} {medians[size]:>10.1f} "
            f"{min(times):>7.1f} {max(times):>7.1f}"
        )
    rates = by_side[SIDES[0]]
    ratios = {
        f"{name}, {side}x{side}": round(rate / rates_of["paper"], 1)
        for side, rates_of in by_side.items()
        for name, rate in rates_of.items()
        if name != "paper"
    }
    result: dict[str, object] = {
        "ratio": round(rates[extractor_path().name] / rates["paper"], 1),
        "device": device.type,
        "images_per_second": round(rates[extractor_path().name], 2),
        "paper_images_per_second": round(rates["paper"], 3),
        "ratios": ratios,
        "milliseconds": {str(size): round(value, 2) for size, value in medians.items()},
        "hardware": hardware(device),
        "threads": arguments.threads,
    }
    if on_gpu:
        rate = crops_per_second(default, 1024 if arguments.quick else 8192, 9, device)
        print(f"\n{rate:.0f} crops/s from uint8 tensors on the device")
        result["crops_per_second"] = round(rate)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
