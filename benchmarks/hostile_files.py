"""Write image files that a stranger might send: damaged, lying about their size, exploding.

    python benchmarks/hostile_files.py FOLDER [--seeds N]

puts one file of every kind and seed into FOLDER, 0.5 GB per seed; ``benchmarks/hostile.py`` feeds
them to the readers. The same seed gives the same bytes.
"""

import argparse
import re
from pathlib import Path
from zlib import crc32

import hostile_formats  # noqa: F401  (registers kinds, as the next two do)
import hostile_png  # noqa: F401
import hostile_tiff  # noqa: F401
import numpy as np
from hostile_blocks import KINDS, Kind, Made
from tqdm import tqdm


def made(kind: Kind, seed: int) -> Made:
    """Bytes, and the pixels they hold if that is known."""
    return kind.make(np.random.default_rng([crc32(kind.name.encode()), seed]))


def file_name(kind: Kind, seed: int) -> str:
    """A harmless name for a harmful file."""
    return re.sub(r"[^a-z0-9]+", "-", kind.name.lower()) + f"-{seed}{kind.suffix}"


def main() -> None:
    """Write the files."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=1)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    written = 0
    for kind in tqdm(KINDS.values(), unit="kind"):
        for seed in range(arguments.seeds):
            data = made(kind, seed)[0]
            (arguments.folder / file_name(kind, seed)).write_bytes(data)
            written += len(data)
    print(f"{len(KINDS)} kinds x {arguments.seeds} seeds, {written / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
