"""Choose an architecture, train a model of it, see its fingerprint beside those made before."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, get_args

import ipywidgets
import numpy as np
import plotly.graph_objects as go
import traitlets
from ipywidgets import Layout
from PIL import Image
from torch import Tensor

from fpkit.arch import EXTENDED, PAPER, ArchSpec
from fpkit.live_figure import LiveFigure
from fpkit.made_model import MadeModel, interior_power
from fpkit.model_maker import ModelMaker
from fpkit.nearest import Nearness, nearest_real, published_as_png
from fpkit.panel import row
from fpkit.pictures import robust_limits
from fpkit.plots import radial_profiles, score_bars, spectrum_heatmap
from fpkit.realworld import RealFingerprint
from fpkit.spectrum import to_db
from fpkit.synthesis_views import (
    FloatArray,
    View,
    decibels,
    history_picture,
    neighbours_figure,
    profiles_figure,
    thumbnail,
)

_LABELS = {
    "upsample": "upsampling",
    "activation": "activation",
    "norm": "normalisation",
    "order": "order",
    "blocks": "blocks",
    "layers": "layers",
    "kernel": "kernel size",
    "skip": "shortcut",
}


class SynthesisExplorer(ModelMaker):
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
    extended : bool (trait)
        Offer also the options that the paper does not have.
    auto : bool (trait)
        Train in the background as soon as a setting changes.
    view : {"power", "gain"} (trait)
        Show the average spectrum of the residual of the outputs, or its ratio to that of the
        inputs, both in dB.
    nearness : {"pattern", "profile"} (trait)
        What makes a real model near, see :func:`fpkit.nearest.nearest_real`.
    real : str (trait)
        The measured model that is shown beside; after every training the nearest one.
    current : MadeModel or None (trait, read it)
    history : tuple of MadeModel (trait, read it)
        The last six models.
    neighbours : tuple of Neighbour (trait, read it)
        The real models nearest to `current`, the nearest first.
    progress, status, busy, error : see :class:`fpkit.panel.Panel`

    Examples
    --------
    >>> explorer = SynthesisExplorer(max_steps=2)
    >>> explorer.seed = 7
    >>> explorer.make().label
    '#1 K2-L1-Unearest-Arelu-Nnone-Spost seed 7'
    """

    view = traitlets.Enum(get_args(View), default_value="power")
    nearness = traitlets.Enum(get_args(Nearness), default_value="pattern")
    real = traitlets.Unicode()
    neighbours = traitlets.Tuple()

    def __init__(
        self,
        images: Tensor | None = None,
        probes: Tensor | None = None,
        *,
        spec: ArchSpec | None = None,
        max_steps: int = 60,
    ) -> None:
        super().__init__(images, probes, spec=spec, max_steps=max_steps)
        self.real = published_as_png()[0].model
        self._moving = False  # the controls of the axes are following the spec
        self._build_controls()
        self._build_views()
        self.observe(self._move_axes, names=["spec", "extended"])
        self.observe(self._show_busy, names="busy")
        self.observe(self._find_neighbours, names=["current", "nearness"])
        self.observe(self._draw, names=["current", "view"])
        self.observe(self._draw_neighbours, names="neighbours")
        self.observe(self._draw_real, names="real")

    def static(self) -> Image.Image:
        """The models of the history as one picture: fingerprints, the nearest real model of each,
        radial profiles. Makes the model of the current settings first if there is none."""
        if self.current is None:
            self.make()
        nearest = [nearest_real(made.power, by=self.nearness, count=1)[0] for made in self.history]
        return history_picture(
            self.history, self._inputs, view=self.view, nearest=nearest, by=self.nearness
        )

    @cached_property
    def _inputs(self) -> FloatArray:
        """Average spectrum of the residual of the probes, (128, 128)."""
        return interior_power(self.probes)

    @property
    def _measured(self) -> RealFingerprint:
        return next(f for f in published_as_png() if f.model == self.real)

    def _find_neighbours(self, _: traitlets.Bunch) -> None:
        if self.current is not None:
            self.neighbours = tuple(nearest_real(self.current.power, by=self.nearness))
            self.real = self.neighbours[0].model

    # -- controls ------------------------------------------------------------------------------

    def _build_controls(self) -> None:
        self._axes = {
            field: _dropdown(label, getattr(EXTENDED, field), width=230, label_width=96)
            for field, label in _LABELS.items()
        }
        self._move_axes()
        self._seed = _slider("seed", 0, 20)
        self._steps = _slider("steps", 2, 400)
        self._make = ipywidgets.Button(
            description="Make model", button_style="primary", icon="play",
            tooltip="Train a model with these settings and show its fingerprint",
        )  # fmt: skip
        self._cancel = ipywidgets.Button(
            description="Cancel", icon="stop", disabled=True, tooltip="Stop the training",
            layout=Layout(width="100px"),
        )  # fmt: skip
        self._auto = _checkbox("make on every change", width=180)
        self._extended = _checkbox("options beyond the paper", width=230)
        views = [("spectrum of the outputs", "power"), ("outputs / inputs", "gain")]
        self._view = _dropdown("show", views, width=270, label_width=48)
        ways = [("pattern (what is not radial)", "pattern"), ("radial profile", "profile")]
        self._nearness = _dropdown("nearest by", ways, width=320, label_width=80)
        models = [f.model for f in published_as_png()]
        self._real = _dropdown("real model", models, width=340, label_width=80)

        for field, control in self._axes.items():
            control.observe(lambda change, f=field: self._choose(f, change["new"]), names="value")
        for name, slider in {"seed": self._seed, "steps": self._steps}.items():
            self.observe(lambda change, s=slider: _reach(s, change["new"]), names=name)
            _reach(slider, getattr(self, name))
        for name, control in {
            "seed": self._seed, "steps": self._steps, "auto": self._auto, "view": self._view,
            "extended": self._extended, "nearness": self._nearness, "real": self._real,
        }.items():  # fmt: skip
            traitlets.link((self, name), (control, "value"))
        self._make.on_click(lambda _: self.make_in_background())
        self._cancel.on_click(lambda _: self.cancel())

    def _choose(self, field: str, option: Any) -> None:
        if not self._moving:
            self.spec = replace(self.spec, **{field: option})

    def _move_axes(self, _: traitlets.Bunch | None = None) -> None:
        """Offer the options of the space and show the spec."""
        space = EXTENDED if self.extended else PAPER
        self._moving = True  # they move one by one: no half-changed spec
        try:
            for field, control in self._axes.items():
                options, value = getattr(space, field), getattr(self.spec, field)
                if value in options:  # else the spec is about to follow `extended`, or that it
                    control.options = options
                    control.value = value
                control.layout.display = "none" if len(options) == 1 else None
        finally:
            self._moving = False

    def _show_busy(self, _: traitlets.Bunch) -> None:
        self._make.disabled = self.busy
        self._cancel.disabled = not self.busy

    # -- views ---------------------------------------------------------------------------------

    def _build_views(self) -> None:
        blank = np.zeros((128, 128), np.float32)
        real = _decibels_of(self._measured)
        self._heatmap = LiveFigure(spectrum_heatmap(blank, title="fingerprint"))
        self._profiles = LiveFigure(
            radial_profiles({"": ([0.0], [0.0])}, title="radial profile", size=(500, 380))
        )
        self._bars = LiveFigure(
            score_bars({"": 0.0}, title="nearest real models").update_layout(width=480, height=340)
        )
        self._real_map = LiveFigure(spectrum_heatmap(real, title=self.real, size=340))
        self._strip = ipywidgets.Box(layout=Layout(flex_flow="row wrap"))
        settings = row(*self._axes.values(), self._seed, self._steps, self._extended)
        actions = row(self._make, self._cancel, self.bar, self._auto, self._view)
        self._views = [
            row(self._heatmap, self._profiles),
            self._strip,
            row(self._nearness, self._real),
            row(self._bars, self._real_map),
        ]
        self.children = [settings, actions, self.message]  # the views come with the first model

    def _draw(self, _: traitlets.Bunch) -> None:
        if self.current is None:
            return
        values = decibels(self.current.power, self._inputs, view=self.view)
        _recolour(self._heatmap, values, title=f"fingerprint of #{self.current.number}")
        self._draw_profiles()
        self._strip.children = [self._slot(i, made) for i, made in enumerate(self.history)]
        self.children = [*self.children[:3], *self._views]

    def _draw_profiles(self) -> None:
        if self.current is not None:
            fresh = profiles_figure(
                self.history, self.current, self._inputs, view=self.view, real=self._measured
            )
            _replace_traces(self._profiles, fresh)

    def _draw_neighbours(self, _: traitlets.Bunch) -> None:
        _replace_traces(self._bars, neighbours_figure(self.neighbours, by=self.nearness))

    def _draw_real(self, _: traitlets.Bunch) -> None:
        _recolour(self._real_map, _decibels_of(self._measured), title=self.real)
        self._draw_profiles()

    def _slot(self, slot: int, made: MadeModel) -> ipywidgets.VBox:
        shown = ipywidgets.HTML(
            thumbnail(made, self._inputs, view=self.view, slot=slot, current=made is self.current)
        )
        again = ipywidgets.Button(
            description=f"Back to #{made.number}", disabled=made is self.current,
            tooltip=f"Show {made.label} again, with its settings", layout=Layout(width="128px"),
        )  # fmt: skip
        again.on_click(lambda _: self.recall(made.number))
        return ipywidgets.VBox([shown, again], layout=Layout(margin="0 20px 8px 0"))


def _decibels_of(fingerprint: RealFingerprint) -> FloatArray:
    return to_db(fingerprint.spectra["median"])


def _recolour(figure: LiveFigure, values: FloatArray, *, title: str) -> None:
    """Show other values in a heat map."""
    low, high = robust_limits(values)
    with figure.batch_update():
        figure.data[0].update(z=values.astype(np.float32), zmin=low, zmax=high)
        figure.layout.title.text = title


def _replace_traces(figure: LiveFigure, fresh: go.Figure) -> None:
    """Show the traces and axes of `fresh`."""
    with figure.batch_update():
        figure.data = ()
        figure.add_traces(fresh.data)
        figure.update_xaxes(fresh.layout.xaxis.to_plotly_json())
        figure.update_yaxes(fresh.layout.yaxis.to_plotly_json())


def _dropdown(
    label: str, options: Sequence[Any], *, width: int, label_width: int
) -> ipywidgets.Dropdown:
    return ipywidgets.Dropdown(
        options=options,
        description=label,
        style={"description_width": f"{label_width}px"},
        layout=Layout(width=f"{width}px"),
    )


def _slider(label: str, low: int, high: int) -> ipywidgets.IntSlider:
    return ipywidgets.IntSlider(
        min=low,
        max=high,
        description=label,
        style={"description_width": "48px"},
        layout=Layout(width="230px"),
        continuous_update=False,
    )


def _reach(slider: ipywidgets.IntSlider, value: int) -> None:
    """Let a slider go as far as a value that was set from code."""
    slider.max = max(slider.max, value)


def _checkbox(label: str, *, width: int) -> ipywidgets.Checkbox:
    return ipywidgets.Checkbox(description=label, indent=False, layout=Layout(width=f"{width}px"))
