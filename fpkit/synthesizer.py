"""Synthesizers: what turns images into images of many models, for the extractor to train on.

P models times K images in, fingerprinted images out. A trained zoo and random decoders are two
ways to do it, a mixture of them a third; a class of yours that follows `Synthesizer` is a fourth.
"""

import copy
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal, Protocol, get_args

import torch
from torch import Tensor

from fpkit.decoders import RandomDecoder
from fpkit.encoder import SharedEncoder, load_encoder
from fpkit.parallel import map_on_cores
from fpkit.zoo import Zoo

EncoderKind = Literal["pool", "trained", "both"]
SpaceKind = Literal["plain", "wide", "both"]


class Synthesizer(Protocol):
    """P models x K images -> fingerprinted images.

    Attributes
    ----------
    classes : int
        How many models come back in other draws, under the labels ``0 .. classes - 1``. Models
        that are drawn once have labels from `classes` on.
    description : str
        For model cards; two synthesizers of one description draw from the same models.
    """

    @property
    def classes(self) -> int: ...

    @property
    def description(self) -> str: ...

    def check(self, models: int) -> None:
        """Raise ValueError if `models` different models cannot be drawn at once."""
        ...

    def __call__(
        self, images: Tensor, *, generator: torch.Generator, only: Sequence[int] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Draw P different models and pass images through them, without gradients.

        Parameters
        ----------
        images : Tensor, (P, K, 3, h, w) float32 in [0, 1]
            On the device that does the work; sides that are multiples of 8.
        generator : torch.Generator
            On the CPU. With the images, it decides the result.
        only : sequence of int, optional
            Places from 0 to P - 1, rising: make the images of these models alone, just as they
            are among all. Asked for where several processes share a batch.

        Returns
        -------
        images : Tensor, (P, K, 3, h, w), or as many models as `only` has
            In [0, 1], rounded to 8 bit; ``images[p]`` comes from model p.
        labels : Tensor, (P,) int64, or as many
            Different for different models; on the CPU.
        """
        ...


class ZooSynthesizer:
    """Draws trained models of a zoo, without replacement; label i is ``model_ids[i]``.

    Parameters
    ----------
    zoo : Zoo
    model_ids : list of str, optional
        Those to draw from; all by default.
    """

    def __init__(self, zoo: Zoo, model_ids: list[str] | None = None) -> None:
        self.zoo = zoo
        self.model_ids = list(zoo) if model_ids is None else model_ids

    @property
    def classes(self) -> int:
        return len(self.model_ids)

    @property
    def description(self) -> str:
        return f"{self.classes} trained models of {len(self.zoo)} (images: {self.zoo.source})"

    def check(self, models: int) -> None:
        if models > self.classes:
            raise ValueError(
                f"a batch draws {models} models of the zoo, which has only {self.classes}: "
                "take fewer models, raise random_share, or grow the zoo"
            )

    @torch.no_grad()
    def __call__(
        self, images: Tensor, *, generator: torch.Generator, only: Sequence[int] | None = None
    ) -> tuple[Tensor, Tensor]:
        self.check(len(images))
        places = _places(images, only)
        labels = torch.randperm(self.classes, generator=generator)[places]
        names = [self.model_ids[label] for label in labels.tolist()]
        return self.zoo.apply_many(names, images[places]), labels


class RandomSynthesizer:
    """Draws a random decoder for every model, new at every call; nothing is stored.

    Parameters
    ----------
    encoder : {"pool", "trained", "both"}
        What decoders decode: the average-pooled image, or the latent of the shared encoder; with
        ``"both"`` each draws one of them.
    space : {"plain", "wide", "both"}
        See `RandomDecoder`; with ``"both"`` each draws one of them.
    """

    classes = 0

    def __init__(self, *, encoder: EncoderKind = "pool", space: SpaceKind = "plain") -> None:
        for name, value, options in (
            ("encoder", encoder, get_args(EncoderKind)),
            ("space", space, get_args(SpaceKind)),
        ):
            if value not in options:
                raise ValueError(f"{name} must be one of {options}, got {value!r}")
        self.encoder = encoder
        self.space = space

    @property
    def description(self) -> str:
        return f"random decoders (encoder {self.encoder}, space {self.space})"

    def check(self, models: int) -> None:
        """There are as many as anybody wants."""

    @torch.no_grad()
    def __call__(
        self, images: Tensor, *, generator: torch.Generator, only: Sequence[int] | None = None
    ) -> tuple[Tensor, Tensor]:
        trained = None if self.encoder == "pool" else _encoder_on(images.device)
        seeds = torch.randint(2**40, (len(images),), generator=generator).tolist()
        places = _places(images, only)

        def run(job: int) -> Tensor:
            place = places[job]
            seed = seeds[place]
            wide = seed // 2 % 2 if self.space == "both" else self.space == "wide"
            pooled = seed % 2 if self.encoder == "both" else self.encoder == "pool"
            decoder = RandomDecoder(
                seed,
                space="wide" if wide else "plain",
                encoder=None if pooled else trained,
            )
            # another stream of numbers than that of the weights
            detail = torch.Generator(images.device).manual_seed(2**40 + seed)
            return decoder(images[place], generator=detail)

        outputs = map_on_cores(run, len(places), device=images.device)
        made = torch.stack(outputs) if outputs else images[:0]
        return made, torch.tensor(places, dtype=torch.int64)


class MixedSynthesizer:
    """The first models of a draw from one synthesizer, `share` of them from another.

    Parameters
    ----------
    first, second : Synthesizer
    share : float
        Of `second` among the models, 0 to 1, rounded to whole models.
    """

    def __init__(self, first: Synthesizer, second: Synthesizer, *, share: float) -> None:
        if not 0 <= share <= 1:
            raise ValueError(f"share must be in [0, 1], got {share}")
        self.first = first
        self.second = second
        self.share = share

    @property
    def classes(self) -> int:
        return self.first.classes + self.second.classes

    @property
    def description(self) -> str:
        first, second = self.first.description, self.second.description
        return f"{1 - self.share:.0%} {first}, {self.share:.0%} {second}"

    def split(self, models: int) -> tuple[int, int]:
        """How many of `models` models come from the first and from the second."""
        of_second = round(self.share * models)
        return models - of_second, of_second

    def check(self, models: int) -> None:
        for part, count in zip((self.first, self.second), self.split(models), strict=True):
            part.check(count)

    def __call__(
        self, images: Tensor, *, generator: torch.Generator, only: Sequence[int] | None = None
    ) -> tuple[Tensor, Tensor]:
        outputs, labels = [], []
        classes, fresh = 0, self.classes  # where the labels of a part begin
        begin, places = 0, _places(images, only)
        counts = self.split(len(images))
        parts = (self.first, self.second)
        for part, count, images_of in zip(parts, counts, images.split(counts), strict=True):
            if count:
                own = [place - begin for place in places if begin <= place < begin + count]
                few = {} if len(own) == count else {"only": own}
                output, label = part(images_of, generator=generator, **few)
                known = label < part.classes
                labels.append(torch.where(known, label + classes, label - part.classes + fresh))
                outputs.append(output)
            classes += part.classes
            fresh += count
            begin += count
        return torch.cat(outputs), torch.cat(labels)


def _places(images: Tensor, only: Sequence[int] | None) -> list[int]:
    return list(range(len(images)) if only is None else only)


@lru_cache(maxsize=4)
def _encoder_on(device: torch.device) -> SharedEncoder:
    shared = load_encoder()
    return shared if device.type == "cpu" else copy.deepcopy(shared).to(device)
