"""How long one image takes to embed.

    python benchmarks/embed.py [--quick] [--threads N]

Prints a table of medians over repeated runs after a warm-up, loading left out, and as its last
line one JSON object.
"""

import argparse
import json
import statistics
import time

import torch

import fpkit as fp

SIZES = (128, 256, 512, 1024)


def milliseconds(extractor: fp.Extractor, size: int, runs: int) -> list[float]:
    """Times of embedding one image of this size, each a different image."""
    images = torch.rand(runs + 2, 3, size, size, generator=torch.Generator().manual_seed(0))
    times = []
    for image in images:
        start = time.perf_counter()
        extractor.embed([image])
        times.append(1000 * (time.perf_counter() - start))
    return times[2:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="7 runs per size instead of 31")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    extractor = fp.load_extractor()
    medians = {}
    print(f"{'image':>12} {'crops':>6} {'median ms':>10} {'min':>7} {'max':>7}")
    for size in SIZES:
        times = milliseconds(extractor, size, 7 if arguments.quick else 31)
        crops = len(fp.grid_crops(torch.zeros(3, size, size)))
        medians[size] = statistics.median(times)
        print(
            f"{f'{size}x{size}':>12} {crops:>6} {medians[size]:>10.1f} "
            f"{min(times):>7.1f} {max(times):>7.1f}"
        )
    result = {
        "device": "cpu",
        "threads": arguments.threads,
        "residual": extractor.config.residual,
        "milliseconds": {str(size): round(value, 2) for size, value in medians.items()},
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
