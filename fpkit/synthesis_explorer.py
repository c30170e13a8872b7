"""Choose an architecture, train a model of it, see its fingerprint beside those made before."""

import base64
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, get_args

import ipywidgets
import numpy as np
import plotly.graph_objects as go
import torch
import traitlets
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fpkit.arch import AXES, ArchSpec
from fpkit.panel import Panel
from fpkit.pictures import (
    LINE_COLOURS,
    Cell,
    line_chart,
    montage,
    picture,
    png_bytes,
    robust_limits,
    stack,
)
from fpkit.plots import radial_profiles, spectrum_heatmap
from fpkit.procedural import procedural_images
from fpkit.spectrum import average_spectrum, radial_profile, to_db
from fpkit.synthesis import synthesize

View = Literal["power", "gain"]

_NAMES = {
    "upsample": "upsampling",
    "activation": "activation",
    "norm": "normalisation",
    "order": "order",
    "blocks": "blocks",
    "layers": "layers",
}
_MARGIN = 16  # zero padding marks the border of a model's output; real crops have no such mark


@dataclass(frozen=True, kw_only=True, eq=False)
class MadeModel:
    """One model that `SynthesisExplorer` trained, and its fingerprint.

    ``power`` is the average spectrum of the outputs' residual, (128, 128) float64, centred, mean
    over colours; ``residual`` the mean squared error of the reconstruction.
    """

    number: int
    spec: ArchSpec
    seed: int
    steps: int
    residual: float
    seconds: float
    power: NDArray[np.float64]

    @property
    def label(self) -> str:
        """``#3 K2-L1-Unearest-Arelu-Nnone-Spost seed 0``."""
        return f"#{self.number} {self.spec.id} seed {self.seed}"


class SynthesisExplorer(Panel):
    """Choose an architecture and a seed, train the model, see its fingerprint.

    Parameters
    ----------
    images : Tensor, (n, 3, h, w) in [0, 1], optional
        What the model learns to reconstruct; 32 procedural images of 160 px if not given.
    probes : Tensor, (m, 3, h, w) in [0, 1], optional
        What the fingerprint is measured on, at least 160 px; 16 other procedural images.
    spec : ArchSpec, optional
        The architecture to begin with.
    max_steps : int
        Training steps per model.

    Attributes
    ----------
    spec, seed, steps : the settings (traits)
    view : {"power", "gain"} (trait)
        Show the average spectrum of the residual of the outputs, or its ratio to that of the
        inputs, both in dB.
    auto : bool (trait)
        Train as soon as a setting changes.
    current : MadeModel or None (trait, read it)
    history : tuple of MadeModel (trait, read it)
        The last six models.
    residual, progress, status, busy : (traits, read them)

    Examples
    --------
    >>> explorer = SynthesisExplorer(max_steps=2)
    >>> explorer.seed = 7
    >>> explorer.make().label
    '#1 K2-L1-Unearest-Arelu-Nnone-Spost seed 7'
    """

    spec = traitlets.Instance(ArchSpec)
    seed = traitlets.Int(0, min=0)
    steps = traitlets.Int(60, min=2)
    view = traitlets.Enum(get_args(View), default_value="power")
    auto = traitlets.Bool(False)
    current = traitlets.Instance(MadeModel, allow_none=True)
    history = traitlets.Tuple()
    residual = traitlets.Float(float("nan"))

    def __init__(
        self,
        images: Tensor | None = None,
        probes: Tensor | None = None,
        *,
        spec: ArchSpec | None = None,
        max_steps: int = 60,
    ) -> None:
        self.images = procedural_images(32, seed=0) if images is None else images
        self.probes = procedural_images(16, seed=1) if probes is None else probes
        self._following = False
        self._made = 0
        super().__init__(spec=spec or ArchSpec(norm="none"), steps=max_steps)
        self._build()
        self.observe(self._settings_changed, names=["spec", "seed", "steps"])
        self.observe(self._show_busy, names="busy")
        self.observe(self._draw, names=["current", "view"])
        self.status = "Choose the settings, then press “Make model”."

    # -- doing ---------------------------------------------------------------------------------

    def make(self) -> MadeModel:
        """Train the model of the current settings and show its fingerprint.

        A model that is still in the history is shown again without training. An error is shown
        in the widget and raised.
        """
        for known in self.history:
            if (known.spec, known.seed, known.steps) == (self.spec, self.seed, self.steps):
                self._finish(known, f"{known.label}: shown again from the history")
                return known
        self.busy, self.progress, self.status = True, 0.0, f"Training {self.spec.id} ..."
        try:
            with self.reporting():
                made = self._train()
        finally:
            self.busy = False
        slot = (made.number - 1) % len(LINE_COLOURS)
        kept = [*self.history[:slot], made, *self.history[slot + 1 :]]
        self.history = tuple(kept)
        self._finish(
            made,
            f"{made.label}: residual {made.residual:.4f} after {made.steps} steps "
            f"in {made.seconds:.1f} s",
        )
        return made

    def static(self) -> Image.Image:
        """The models of the history as one picture: fingerprints above, radial profiles below.

        Makes the model of the current settings first if there is none.
        """
        if self.current is None:
            self.make()
        shown = {made: self._decibels(made.power, self._reference) for made in self.history}
        limits = robust_limits(np.stack(list(shown.values())))
        cells = [
            Cell(values=values, limits=limits, caption=f"#{made.number} seed {made.seed}")
            for made, values in shown.items()
        ]
        fingerprints = montage({"": cells}, cell_size=150, bar=(*limits, "dB"))
        curves = {made.label: self._profile(made) for made in self.history}
        chart = line_chart(
            curves,
            x_label="frequency (cycles/pixel)",
            y_label=self._quantity,
            size=(1010, 300),
        )
        return stack([fingerprints, chart])

    def _train(self) -> MadeModel:
        def report(step: int, _: float) -> None:
            self.progress = (step + 1) / self.steps

        synthesis = synthesize(
            self.spec,
            self.images,
            seed=self.seed,
            max_steps=self.steps,
            progress=False,
            callback=report,
        )
        with torch.no_grad():
            outputs = synthesis.model(self.probes)
        self._made += 1
        return MadeModel(
            number=self._made,
            spec=self.spec,
            seed=self.seed,
            steps=self.steps,
            residual=synthesis.residual,
            seconds=synthesis.seconds,
            power=_fingerprint(outputs),
        )

    def _finish(self, made: MadeModel, status: str) -> None:
        self.progress, self.residual, self.status = 1.0, made.residual, status
        self.current = made

    # -- numbers to show -----------------------------------------------------------------------

    @cached_property
    def _reference(self) -> NDArray[np.float64]:
        """Average spectrum of the residual of the inputs, (128, 128)."""
        return _fingerprint(self.probes)

    @property
    def _quantity(self) -> str:
        return "power (dB)" if self.view == "power" else "output / input (dB)"

    def _decibels(self, power: NDArray, reference: NDArray) -> NDArray[np.float64]:
        return to_db(power) if self.view == "power" else to_db(power) - to_db(reference)

    def _profile(self, made: MadeModel) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        frequency, power = radial_profile(made.power)
        return frequency, self._decibels(power, radial_profile(self._reference)[1])

    # -- controls and figures ------------------------------------------------------------------

    def _build(self) -> None:
        wide = {"description_width": "96px"}
        narrow = {"description_width": "48px"}
        box = ipywidgets.Layout(width="230px")
        self._axes = {
            field: ipywidgets.Dropdown(
                options=options,
                value=getattr(self.spec, field),
                description=_NAMES[field],
                style=wide,
                layout=box,
            )
            for field, options in AXES.values()
        }
        self._seed = ipywidgets.IntSlider(
            value=self.seed, min=0, max=20, description="seed", style=narrow, layout=box,
            continuous_update=False,
        )  # fmt: skip
        self._steps = ipywidgets.IntSlider(
            value=self.steps, min=2, max=400, description="steps", style=narrow, layout=box,
            continuous_update=False,
        )  # fmt: skip
        self._make = ipywidgets.Button(
            description="Make model", button_style="primary", icon="play",
            tooltip="Train a model with these settings and show its fingerprint",
        )  # fmt: skip
        self._auto = ipywidgets.Checkbox(
            value=self.auto, description="make on every change", indent=False,
            layout=ipywidgets.Layout(width="180px"),
        )  # fmt: skip
        self._view = ipywidgets.Dropdown(
            options=[("spectrum of the outputs", "power"), ("outputs / inputs", "gain")],
            value=self.view, description="show", style=narrow,
            layout=ipywidgets.Layout(width="270px"),
        )  # fmt: skip
        blank = np.zeros((128, 128), np.float32)
        self._heatmap = go.FigureWidget(spectrum_heatmap(blank, title="fingerprint"))
        self._profiles = go.FigureWidget(
            radial_profiles({"": ([0.0], [0.0])}, title="radial profile", size=(500, 380))
        )
        self._profiles.update_layout(showlegend=False)  # the strip below has the colours
        self._strip = ipywidgets.HBox(layout=ipywidgets.Layout(flex_flow="row wrap"))

        for field, control in self._axes.items():
            control.observe(lambda change, f=field: self._choose(f, change["new"]), names="value")
        for name, control in {
            "seed": self._seed, "steps": self._steps, "auto": self._auto, "view": self._view,
        }.items():  # fmt: skip
            traitlets.link((self, name), (control, "value"))
        self._make.on_click(lambda _: self.make())

        order = ["upsample", "activation", "norm", "order", "blocks", "layers"]
        settings = ipywidgets.Box(
            [*(self._axes[field] for field in order), self._seed, self._steps],
            layout=ipywidgets.Layout(flex_flow="row wrap"),
        )
        actions = ipywidgets.Box(
            [self._make, self.bar, self._auto, self._view],
            layout=ipywidgets.Layout(flex_flow="row wrap", align_items="center"),
        )
        self._figures = ipywidgets.Box(
            [self._heatmap, self._profiles], layout=ipywidgets.Layout(flex_flow="row wrap")
        )
        self.children = [settings, actions, self.message]  # figures come with the first model

    def _choose(self, field: str, option: Any) -> None:
        if not self._following:
            self.spec = replace(self.spec, **{field: option})

    def _settings_changed(self, change: traitlets.Bunch) -> None:
        if change["name"] == "spec":
            self._following = True  # the dropdowns move one by one: no half-changed spec
            try:
                for field, control in self._axes.items():
                    control.value = getattr(self.spec, field)
            finally:
                self._following = False
        if self.auto:
            self.make()
        else:
            self.status = "Settings changed: press “Make model” to see their fingerprint."

    def _show_busy(self, _: traitlets.Bunch) -> None:
        self._make.disabled = self.busy

    def _draw(self, _: traitlets.Bunch | None = None) -> None:
        if self.current is None:
            return
        values = self._decibels(self.current.power, self._reference).astype(np.float32)
        low, high = robust_limits(values)
        with self._heatmap.batch_update():
            self._heatmap.data[0].update(z=values, zmin=low, zmax=high)
            self._heatmap.layout.title.text = f"fingerprint of #{self.current.number}"
        fresh = radial_profiles(
            {made.label: self._profile(made) for made in self.history},
            highlight=self.current.label,
        )
        with self._profiles.batch_update():
            self._profiles.data = ()
            self._profiles.add_traces(fresh.data)
            self._profiles.layout.yaxis.title.text = self._quantity
        self.children = [*self.children[:3], self._figures, self._strip]
        self._strip.children = [self._thumbnail(i, made) for i, made in enumerate(self.history)]

    def _thumbnail(self, slot: int, made: MadeModel) -> ipywidgets.HTML:
        cell = Cell(values=self._decibels(made.power, self._reference))
        png = base64.b64encode(png_bytes(picture(cell, size=128))).decode()
        parts = made.spec.id.split("-")
        weight = "bold" if made is self.current else "normal"
        return ipywidgets.HTML(
            f'<figure style="margin: 0 24px 8px 0; font-weight: {weight}">'
            f'<img src="data:image/png;base64,{png}" alt="fingerprint of {made.label}">'
            f'<figcaption style="line-height: 1.3; font-size: 12px">'
            f'<span style="color: {LINE_COLOURS[slot]}">&#9632;</span> #{made.number} '
            f"seed {made.seed}<br>{' '.join(parts[:3])}<br>{' '.join(parts[3:])}<br>"
            f"residual {made.residual:.4f}</figcaption></figure>"
        )


def _fingerprint(images: Tensor) -> NDArray[np.float64]:
    """Average residual spectrum of the interior of `images`, mean over colours: (128, 128)."""
    interior = images[..., _MARGIN:-_MARGIN, _MARGIN:-_MARGIN]
    return average_spectrum(interior, residual="median").mean(axis=0)
