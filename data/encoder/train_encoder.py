"""Train the encoder that random decoders share.

    python data/photos/make_photos.py --out photos.npy
    python data/encoder/train_encoder.py --tiles photos.npy --out data/encoder

Every step draws a fresh random decoder and fresh images, and lets the encoder (and the kernels
around which decoders are drawn) lower the mean squared error of what the decoder rebuilds. Without
--tiles, procedural images are used. Prints what the shipped card says; no image of a real generator
is used.
"""

import argparse
import json
import time
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from fpkit.assets import save_safetensors_atomic, write_text_atomic
from fpkit.decoders import RandomDecoder
from fpkit.encoder import CHANNELS, WEIGHTS, SharedEncoder
from fpkit.procedural import procedural_images
from fpkit.stream import SIZE, Sources

CROP = 64
UNSEEN = 10**6  # seeds of procedural images and decoders that training never draws


def residuals(encoder: SharedEncoder | None, *, decoders: int = 120) -> dict[str, float]:
    """Mean squared error on unseen procedural images through unseen plain decoders, per factor.

    Decoders with a skip connection are left out: they see the image itself.
    """
    images = procedural_images(6, SIZE, seed=UNSEEN)
    sums: dict[int, list[float]] = {factor: [] for factor in CHANNELS}
    for seed in range(UNSEEN, UNSEEN + decoders):
        if RandomDecoder(seed).skip:
            continue
        decoder = RandomDecoder(seed, encoder=encoder)
        output = decoder(images, generator=torch.Generator().manual_seed(seed))
        inner = (output - images)[..., 16:-16, 16:-16]  # without the mark of the padding
        sums[decoder.factor].append(inner.square().mean().item())
    return {f"1/{factor}": sum(values) / len(values) for factor, values in sums.items()}


def train(
    sources: Sources, *, steps: int, batch: int, seed: int, learning_rate: float = 2e-3
) -> SharedEncoder:
    """`steps` steps of Adam, the learning rate falling to zero as a cosine."""
    encoder = SharedEncoder(seed)
    optimiser = torch.optim.Adam(encoder.parameters(), lr=learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    generator = torch.Generator().manual_seed(seed)
    with tqdm(range(steps), unit="step") as bar:
        for step in bar:
            images = crops(sources, batch, generator)
            decoder_seed = int(torch.randint(UNSEEN, (), generator=generator))
            space = ("plain", "wide")[step % 2]
            decoder = RandomDecoder(decoder_seed, space=space, encoder=encoder)
            error = decoder.reconstruct(images, generator=generator) - images
            # the logarithm: a decoder of little noise counts as much as one of much
            loss = (error.square().mean() + 1e-4).log()
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(encoder.parameters(), 1.0)
            optimiser.step()
            schedule.step()
            if step % 50 == 0:
                bar.set_postfix(loss=f"{loss.item():.2f}")
    return encoder.eval().requires_grad_(False)


def crops(sources: Sources, n: int, generator: torch.Generator) -> Tensor:
    """`n` crops (n, 3, 64, 64) of n / 4 source images."""
    images = sources.draw(n // 4, generator=generator)
    places = torch.randint(SIZE - CROP + 1, (n, 2), generator=generator).tolist()
    return torch.stack(
        [
            images[i % len(images), :, top : top + CROP, left : left + CROP]
            for i, (top, left) in enumerate(places)
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tiles", type=Path, help="photograph tiles of data/photos/make_photos.py")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    parser.add_argument("--steps", type=int, default=4_000)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    sources = Sources(arguments.tiles, procedural=96)
    began = time.perf_counter()
    encoder = train(sources, steps=arguments.steps, batch=arguments.batch, seed=arguments.seed)
    seconds = time.perf_counter() - began
    # half precision: errors far below one 8-bit step
    weights = {name: value.half() for name, value in encoder.state_dict().items()}
    save_safetensors_atomic(arguments.out / WEIGHTS, weights)
    card = {
        "steps": arguments.steps,
        "batch": arguments.batch,
        "seed": arguments.seed,
        "seconds": round(seconds),
        "images": sources.description,
        "parameters": sum(value.numel() for value in weights.values()),
        "mean squared error, unseen procedural images, no skip": {
            "pool": residuals(None),
            "trained": residuals(encoder),
        },
    }
    write_text_atomic(arguments.out / "encoder.json", json.dumps(card, indent=1) + "\n")
    print(json.dumps(card, indent=1))


if __name__ == "__main__":
    main()
