"""A desk for attribution: enrol models, ask who made an image, compare two, see why."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import ipywidgets
import numpy as np
import traitlets
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fpkit.arch import ArchSpec
from fpkit.desk_controls import CloserLook, DeskControls
from fpkit.desk_data import (
    Answer,
    Known,
    Measured,
    Source,
    from_folder,
    from_images,
    from_models,
    from_uploads,
    measured,
)
from fpkit.desk_figures import answer_picture, answer_table, comparison_picture
from fpkit.embedder import Embedder
from fpkit.evidence import BOTH, TWO, conditions, of_pair, ratio_in_words
from fpkit.extractor import load_extractor
from fpkit.fidelity import MARGIN
from fpkit.gallery import Gallery, verify
from fpkit.images import ImageReadError, quantise
from fpkit.jail import Jail
from fpkit.names import as_html, options_of, visible
from fpkit.panel import Panel
from fpkit.pictures import stack
from fpkit.procedural import procedural_images
from fpkit.spectral_correlation import correlation_map, log_spectrum
from fpkit.verdicts import ENTRY, FAR, Conditions, Verdict, stored_verdicts
from fpkit.zoo import Zoo

NEAREST = "the nearest model"
EXAMPLE = "ABCDE"  # the last one is not enrolled
MADE_BY = {
    "same": "made by {}",
    "unsure": "unsure, if it was made by {}",
    "different": "made by none of these models, so not by {}",
}


class AttributionDesk(Panel):
    """Enrol models by a few images each, then ask who made an image, and why.

    Parameters
    ----------
    gallery : Gallery, optional
        Models to begin with; an empty gallery if not given. It is changed in place.
    extractor : Embedder, optional
        The weights that come with fpkit if not given.
    jail : Jail, optional
        The only folder that may be read, for a page whose reader has no kernel. Without one, as
        in a notebook, every path may be given.

    Attributes
    ----------
    far : float (trait)
        False-accept rate: share of the images of models that are not enrolled, or of the pairs of
        two models, that may be called a match. See :mod:`fpkit.verdicts`: it is measured on
        synthetic models, real generators differ.
    shown : str (trait)
        The image to look at closely.
    against : str (trait)
        What it is compared with: an enrolled model, another image, or the nearest model.
    models : tuple of str (trait, read it)
        The enrolled models.
    images : tuple of Measured (trait, read it)
        The images asked about.
    answers : tuple of Answer (trait, read it)
        One per image; empty while nothing is enrolled.
    skipped : tuple of str (trait, read it)
        Files that the last action could not use, and why.

    Examples
    --------
    >>> desk = AttributionDesk(extractor=load_extractor("small"))
    >>> desk.enrol("A", procedural_images(2, 128, seed=0))
    >>> desk.ask(procedural_images(1, 128, seed=1))[0].model
    'A'
    """

    far = traitlets.Float(FAR)
    shown = traitlets.Unicode("")
    against = traitlets.Unicode(NEAREST)
    models = traitlets.Tuple()
    images = traitlets.Tuple()
    answers = traitlets.Tuple()
    skipped = traitlets.Tuple()

    def __init__(
        self,
        gallery: Gallery | None = None,
        extractor: Embedder | None = None,
        *,
        jail: Jail | None = None,
    ) -> None:
        self.extractor = load_extractor() if extractor is None else extractor
        if gallery is None:
            gallery = Gallery(self.extractor.hash, self.extractor.dim)
        if gallery.extractor_hash != self.extractor.hash:
            raise ValueError(
                "the gallery was made with another extractor "
                f"({gallery.extractor_hash[:12]}, not {self.extractor.hash[:12]}): "
                "enrol its images again"
            )
        self.known = Known(gallery)
        card = self.extractor.card
        self.calibration = (
            stored_verdicts(card, extractor_hash=self.extractor.hash) if ENTRY.key in card else None
        )
        super().__init__(models=tuple(gallery.models))
        self.controls, self.look = DeskControls(), CloserLook()
        self.jail = jail
        if jail is not None:
            self.hides_folders = True
            self.controls.offer_folder(visible(jail.root.name) if jail.root else None)
        self._wire()
        self.observe(self._judge, names=["images", "far"])
        self.observe(self._draw, names=["shown", "against"])
        self.observe(self._show_busy, names="busy")
        self.observe(self._show_models, names="models")
        self._show_models()
        self._judge()
        self.status = "Enrol models first, or press “Load an example”."

    # -- doing ---------------------------------------------------------------------------------

    def enrol(self, model: str, images: Tensor | Sequence[Tensor]) -> None:
        """Add images (3, h, w) in [0, 1] of a model; a known model gets more of them."""
        self.run(lambda: self._enrol({model: from_images(images)}))

    def enrol_folder(self, folder: str | Path) -> None:
        """Enrol every model of a folder that holds one folder of images per model."""
        self.run(lambda: self._enrol_folder(folder))

    def forget(self, model: str) -> None:
        """Take a model out of the gallery; KeyError if it is not there."""
        with self.reporting():
            self.known.forget(model)
        self.models = tuple(self.known.gallery.models)
        self._judge()
        self.status = f"{model} is forgotten."

    def ask(self, images: Tensor | Sequence[Tensor]) -> list[Answer]:
        """Put images (3, h, w) in [0, 1] on the desk; their answers, in this order."""
        return self.run(lambda: self._ask(from_images(images)))

    def ask_folder(self, folder: str | Path) -> list[Answer]:
        """Put the images of a folder on the desk, or those of the folders in it."""
        return self.run(lambda: self._ask_folder(folder))

    def clear(self) -> None:
        """Take all images off the desk; the enrolled models stay."""
        self.shown, self.images = "", ()
        self.status = "No images on the desk."

    def example(self) -> None:
        """Enrol four synthetic models, and ask about images of these and of a fifth one."""
        self.run(self._make_example)

    def verify(self, first: str, second: str) -> tuple[float, Verdict | None]:
        """Score and verdict for two images of the desk, by their names."""
        a, b = self._image(first), self._image(second)
        score = verify(a.embedding, b.embedding)
        found = conditions(a.evidence, b.evidence)
        return score, self.calibration and self.calibration.verify(score, found, far=self.far)

    def why(self) -> tuple[NDArray[np.float64], float] | None:
        """Where the spectra of the image shown and of what it is compared with agree.

        Returns
        -------
        (ndarray (128, 128), float) or None
            See :func:`fpkit.spectral_correlation.correlation_map`; None if there is nothing to
            compare with, or a model's images were enrolled elsewhere.
        """
        if not self.shown:
            return None
        name = self._compared()
        if name in self.models:
            other = self.known.spectrum(name)
        else:
            other = log_spectrum(self._image(name).power) if name else None
        if other is None:
            return None
        one = log_spectrum(self._image(self.shown).power)
        return correlation_map(one, other, reference=self.known.reference())

    def static(self) -> Image.Image:
        """The image shown, its scores, and where the spectra agree, as one picture.

        Raises
        ------
        ValueError
            If there is no image on the desk.
        """
        if not self.shown:
            raise ValueError("the desk is empty: ask about an image first")
        closer = comparison_picture(
            self._image(self.shown), self._sentence(), self._compared(), self.why()
        )
        return stack([answer_picture(self.images, self.answers), closer])

    # -- what the actions do, in whatever thread ------------------------------------------------

    def _enrol(self, models: Mapping[str, Sequence[Source]]) -> None:
        total, done = sum(map(len, models.values())), 0
        skipped: list[str] = []
        enrolled: dict[str, int] = {}
        try:
            for model, sources in models.items():
                images = list(self._measured(sources, done, total, skipped))
                done += len(sources)
                if images:
                    self.known.enrol(model, images)
                    enrolled[model] = len(images)
        finally:  # what was enrolled before a cancel stays
            self.models = tuple(self.known.gallery.models)
            self._judge()
            self._show_models()
        self._finish(
            f"Enrolled {_plural(sum(enrolled.values()), 'image')} of "
            f"{_plural(len(enrolled), 'model')}.",
            skipped,
        )
        if not enrolled:
            raise ValueError(self.status)

    def _enrol_folder(self, folder: str | Path) -> None:
        self._enrol(from_models(folder, jail=self.jail))

    def _ask(self, sources: Sequence[Source]) -> list[Answer]:
        skipped: list[str] = []
        found = list(self._measured(sources, 0, len(sources), skipped))
        taken = {image.name for image in self.images}
        fresh = []
        for image in found:
            name, number = image.name, 2
            while name in taken:
                name, number = f"{image.name} ({number})", number + 1
            taken.add(name)
            fresh.append(replace(image, name=name))
        self.images = (*self.images, *fresh)
        if fresh:
            self.shown = fresh[0].name
        self._finish(f"{_plural(len(fresh), 'image')} on the desk.", skipped)
        names = {image.name for image in fresh}
        return [answer for answer in self.answers if answer.name in names]

    def _ask_folder(self, folder: str | Path) -> list[Answer]:
        return self._ask(from_folder(folder, jail=self.jail))

    def _make_example(self) -> None:
        zoo = Zoo.load()
        held_out = set(self.extractor.card.get("held_out_architectures", ()))
        unseen = [name for name in zoo.model_ids if name.split("/")[0] in held_out]
        made: dict[str, Tensor] = {}
        for letter, model in zip(EXAMPLE, unseen or zoo.model_ids, strict=False):
            self.checkpoint()
            scenes = procedural_images(6, 160 + 2 * MARGIN, seed=ord(letter))
            name = f"{letter} ({ArchSpec.parse(model.split('/')[0]).upsample})"
            made[name] = quantise(zoo.apply(model, scenes)[..., MARGIN:-MARGIN, MARGIN:-MARGIN])
        *enrolled, stranger = made
        self._enrol({name: from_images(made[name][:4], name=name) for name in enrolled})
        self._ask([s for name, images in made.items() for s in from_images(images[4:], name=name)])
        self.status = (
            f"Enrolled {len(enrolled)} synthetic models by 4 images each. On the desk: 2 new "
            f"images of each of them, and 2 of {stranger}, which is not enrolled."
        )

    def _measured(
        self, sources: Sequence[Source], done: int, total: int, skipped: list[str]
    ) -> Iterator[Measured]:
        def skip(error: ImageReadError) -> None:
            skipped.append(str(error))

        for i, source in enumerate(sources, start=done):
            self.checkpoint()
            self.progress = i / max(1, total)
            self.status = f"Reading {source.name} ({i + 1} of {total}) ..."
            yield from measured([source], self.extractor, on_error=skip)

    def _finish(self, text: str, skipped: list[str]) -> None:
        self.progress, self.skipped = 1.0, tuple(skipped)
        if skipped:
            more = f" and {len(skipped) - 3} more" if len(skipped) > 3 else ""
            text += f" Skipped {len(skipped)}: {'; '.join(skipped[:3])}{more}."
        self.status = text

    # -- numbers to show -----------------------------------------------------------------------

    def _image(self, name: str) -> Measured:
        for image in self.images:
            if image.name == name:
                return image
        raise KeyError(f"no image {name!r} on the desk: {[image.name for image in self.images]}")

    def _compared(self) -> str:
        """Name of the model or image that the shown image is compared with, "" for nothing."""
        if self.against != NEAREST:
            return self.against
        return next((a.model for a in self.answers if a.name == self.shown), "")

    def _sentence(self) -> str:
        """The verdict on the image shown, in words."""
        other = self._compared()
        if not other:
            return "Enrol a model, or compare with another image."
        if other not in self.models:
            score, verdict = self.verify(self.shown, other)
            if verdict is None:
                return f"not calibrated (score {score:.2f} with {other})"
            ratio = ratio_in_words(verdict.log_ratio, yes=BOTH, no=TWO)
            return f"{of_pair(verdict)}: this and {other}. {ratio} (score {score:.2f})"
        answer = next(answer for answer in self.answers if answer.name == self.shown)
        score, verdict = answer.scores[other], answer.verdict
        if verdict is None:
            return f"not calibrated (score {score:.2f} with {other})"
        made = MADE_BY[verdict.answer].format(answer.model)
        if other != answer.model:
            return f"{made}; its score with {other} is {score:.2f}"
        ratio = ratio_in_words(verdict.log_ratio, yes=f"{other} made it", no="none of these did")
        return f"{made}. {ratio} (score {score:.2f})"

    @traitlets.validate("far")
    def _far_is_measured(self, proposal: traitlets.Bunch) -> float:
        far = float(proposal["value"])
        if self.calibration is not None:
            for scale in (self.calibration.pairs, self.calibration.galleries):
                scale.bounds(Conditions(crops=1, jpeg=False), models=1, far=far)
        return far

    def _judge(self, _: object = None) -> None:
        self.controls.offer_far(self.far)
        self.answers = tuple(self.known.identify(list(self.images), self.calibration, far=self.far))
        self._offer_choices()
        self._draw()

    # -- controls and figures ------------------------------------------------------------------

    def _wire(self) -> None:
        controls = self.controls
        controls.enrol_button.on_click(
            lambda _: self._do(lambda: self._enrol_folder(self._path(controls.enrol_path)))
        )
        controls.ask_button.on_click(
            lambda _: self._do(lambda: self._ask_folder(self._path(controls.ask_path)))
        )
        controls.example.on_click(lambda _: self._do(self._make_example))
        controls.forget.on_click(lambda _: self.forget(controls.choice.value))
        controls.clear.on_click(lambda _: self.clear())
        controls.cancel.on_click(lambda _: self.cancel())
        controls.ask_upload.observe(self._asked_by_upload, names="value")
        controls.enrol_upload.observe(self._enrolled_by_upload, names="value")
        for name in ("shown", "against", "far"):
            control = getattr(controls, name)
            control.observe(lambda change, n=name: self._chosen(n, change["new"]), names="value")
        self.children = controls.page(self.bar, self.message, self.look.box)

    def _path(self, text: ipywidgets.Text) -> str | Path:
        path = text.value.strip()
        if self.jail is not None:
            return path
        if not path:
            raise ValueError(f"give a folder in the field “{text.description}”")
        return Path(path).expanduser()

    def _do(self, work: Callable[[], object]) -> None:
        """Start `work` for a control; a second click while it lasts does nothing."""
        if not self.busy:
            self.start(work)

    def _asked_by_upload(self, change: traitlets.Bunch) -> None:
        if change["new"]:
            sources = from_uploads(change["new"])
            self.controls.ask_upload.value = ()  # the same file may be chosen again
            self._do(lambda: self._ask(sources))

    def _enrolled_by_upload(self, change: traitlets.Bunch) -> None:
        if change["new"]:
            sources, model = from_uploads(change["new"]), self.controls.name.value.strip()
            self.controls.enrol_upload.value = ()
            if model:
                self._do(lambda: self._enrol({model: sources}))
            else:
                self.status = "Give the model's name first, then upload its images again."

    def _chosen(self, name: str, value: str | float | None) -> None:
        if value is not None:
            setattr(self, name, value)

    def _offer_choices(self) -> None:
        names = [image.name for image in self.images]
        self._offer(self.controls.shown, names, "shown")
        self._offer(self.controls.against, [NEAREST, *self.models, *names], "against")

    def _offer(self, control: ipywidgets.Dropdown, options: list[str], trait: str) -> None:
        wanted = getattr(self, trait)
        if wanted not in options:
            wanted = options[0] if options else ""
        if control.options != options_of(options):
            control.options = options_of(options)
        control.value = wanted or None
        setattr(self, trait, wanted)

    def _show_models(self, _: object = None) -> None:
        counts = self.known.gallery.counts
        self.controls.choice.options = options_of(counts)
        self.controls.choice.index = 0 if counts else None
        self.controls.forget.disabled = not counts
        listed = ", ".join(f"{as_html(name)} ({n})" for name, n in counts.items())
        note = " One model alone is named for every image." if len(counts) == 1 else ""
        self.controls.enrolled.value = (
            f"{_plural(len(counts), 'model')} enrolled: {listed}.{note}" if counts else
            "No model is enrolled yet; 5 to 10 images of each are a good start."
        )  # fmt: skip

    def _show_busy(self, _: traitlets.Bunch) -> None:
        self.controls.set_busy(self.busy)
        self.controls.forget.disabled = self.busy or not self.models

    def _draw(self, _: traitlets.Bunch | None = None) -> None:
        for name in ("shown", "against"):
            control, value = getattr(self.controls, name), getattr(self, name)
            if any(value == name for _, name in control.options):
                control.value = value
        self.controls.table.value = (
            answer_table(self.images, self.answers, self.shown) if self.images else ""
        )
        self.look.box.layout.display = None if self.shown else "none"
        if self.shown:
            answer = next((a for a in self.answers if a.name == self.shown), None)
            self.look.say(f"{self.shown}: {self._sentence()}", self._image(self.shown).evidence)
            self.look.show_scores(answer)
            self.look.show_reason(self._compared(), self.why())


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
