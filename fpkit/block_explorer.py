"""One generation block on one image: move a setting, see its spectrum, measured and computed."""

import base64
from dataclasses import fields
from functools import cached_property
from typing import get_args

import ipywidgets
import numpy as np
import torch
import traitlets
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional

from fpkit.generation_block import (
    MAX_DEGREE,
    BlockNorm,
    BlockSettings,
    BlockViews,
    block_views,
    periodic_part,
)
from fpkit.harmonics import ActivationName
from fpkit.live_figure import LiveFigure
from fpkit.observations import Upsampling
from fpkit.panel import Panel
from fpkit.pictures import Cell, line_chart, montage, png_bytes, robust_limits, stack
from fpkit.plots import radial_profiles, spectrum_heatmap
from fpkit.procedural import procedural_images

SIDE = 128  # pixels of the output
_DIFFERENCE = 20.0  # dB, both ends of the colour scale
_KINDS = {"discs": "leaves", "clouds": "noise", "stripes": "texture"}
_NOISE, _WAVE = "white noise", "one plane wave"
_SETTINGS = tuple(field.name for field in fields(BlockSettings))
_TITLES = ("measured", "computed (closed form)", "measured - computed")


class BlockExplorer(Panel):
    """Set one generation block, see what it does to an image and to its spectrum.

    The input is a small image of mean 0 and standard deviation 1. The block doubles its size up to
    three times. Its spectrum is measured on the output's pixels, and computed from the input's
    spectrum by the closed forms of :mod:`fpkit.generation_block`.

    Parameters
    ----------
    images : Tensor, (n, 3, h, w) in [0, 1], optional
        At least 128 px high and wide; their middle is used. Procedural ones if not given.
    settings
        Traits to begin with, e.g. ``upsampling="deconv"``.

    Attributes
    ----------
    source : str (trait)
        Which input: one of :attr:`sources`.
    upsampling, overlap, sharpness, roughness, seed, activation, strength, offset, norm, repeats
        The settings of :class:`fpkit.generation_block.BlockSettings` (traits).
    degree : int (trait)
        Degree of the polynomial that stands for the activation on the computed side.
    views : BlockViews (trait, read it)

    Examples
    --------
    >>> explorer = BlockExplorer(upsampling="nearest")
    >>> explorer.views.difference < 1e-6  # dB
    True
    >>> explorer.activation, explorer.degree = "relu", 1
    >>> explorer.views.difference > 1  # a straight line makes no new frequencies
    True
    """

    source = traitlets.Unicode()
    upsampling = traitlets.Enum(get_args(Upsampling), default_value="nearest")
    overlap = traitlets.Float(1.0, min=0.0, max=1.0)
    sharpness = traitlets.Float(0.0, min=-1.0, max=1.0)
    roughness = traitlets.Float(0.0, min=0.0, max=1.0)
    seed = traitlets.Int(0, min=0, max=20)
    activation = traitlets.Enum(get_args(ActivationName), default_value="none")
    strength = traitlets.Float(1.0, min=0.1, max=5.0)
    offset = traitlets.Float(0.0, min=-3.0, max=3.0)
    norm = traitlets.Enum(get_args(BlockNorm), default_value="none")
    repeats = traitlets.Int(1, min=1, max=3)
    degree = traitlets.Int(MAX_DEGREE, min=1, max=MAX_DEGREE)
    views = traitlets.Instance(BlockViews)

    def __init__(self, images: Tensor | None = None, **settings: object) -> None:
        unknown = set(settings) - {*_SETTINGS, "source", "degree"}
        if unknown:
            raise TypeError(f"there is no setting {sorted(unknown)}: there are {_SETTINGS}")
        self._images = _scenes() if images is None else _numbered(images)
        self._drawn: Tensor | None = None
        self._codes: dict[tuple[str, int], Tensor] = {}
        super().__init__(**({"source": self.sources[0]} | settings))
        self._build()
        self.observe(self._update, names=[*_SETTINGS, "source", "degree"])
        self._update()

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of the inputs: the images, white noise and a plane wave."""
        return (*self._images, _NOISE, _WAVE)

    @traitlets.validate("source")
    def _known_source(self, proposal: traitlets.Bunch) -> str:
        if proposal["value"] not in self.sources:
            raise traitlets.TraitError(
                f"source must be one of {self.sources}, got {proposal['value']!r}"
            )
        return str(proposal["value"])

    @property
    def settings(self) -> BlockSettings:
        """The block as it is set."""
        return BlockSettings(**{name: getattr(self, name) for name in _SETTINGS})

    def code(self) -> Tensor:
        """The block's input, (c, h, h) float64 with h = 128 / 2^repeats, mean 0, deviation 1."""
        key = self.source, self.repeats
        if key not in self._codes:
            self._codes[key] = self._make_code(SIDE >> self.repeats)
        return self._codes[key]

    def static(self) -> Image.Image:
        """The same view as a picture: input, output, the three spectra and the profile."""
        views = self.views
        measured, computed = (views.decibels(p) for p in (views.measured, views.computed))
        low, high = robust_limits(measured)
        apart = Cell(
            values=measured - computed,
            limits=(-_DIFFERENCE, _DIFFERENCE),
            palette="cividis",
            caption=f"blue -{_DIFFERENCE:.0f}, yellow {_DIFFERENCE:.0f} dB",
        )
        cells = [
            Cell(values=_stretched(self.code().numpy())),
            Cell(values=_stretched(views.output)),
            Cell(values=measured, limits=(low, high)),
            Cell(values=computed, limits=(low, high)),
            apart,
        ]
        titles = ["input", "output", "measured", "computed", "measured\n- computed"]
        row = montage({"": cells}, columns=titles, cell_size=SIDE, bar=(low, high, "dB"))
        chart = line_chart(
            self._profiles(), x_label="horizontal frequency (cycles/pixel)",
            y_label="power (dB)", size=(row.width, 280),
        )  # fmt: skip
        return stack([row, chart])

    # -- numbers to show -----------------------------------------------------------------------

    def _make_code(self, side: int) -> Tensor:
        if self.source == _NOISE:
            generator = torch.Generator().manual_seed(0)
            code = torch.randn(3, side, side, generator=generator, dtype=torch.float64)
        elif self.source == _WAVE:
            axis = torch.arange(side, dtype=torch.float64) * (2 * torch.pi / side)
            code = torch.cos(axis[:, None] + 2 * axis[None]).expand(3, side, side)
        else:
            # what a network squeezes an image to, roughly; no seam, or it would draw a cross
            code = functional.avg_pool2d(periodic_part(self._images[self.source]), SIDE // side)
        return (code - code.mean()) / code.std()

    def _profiles(self) -> dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]:
        """Power of every horizontal frequency, mean over the vertical ones."""
        powers = {
            "input repeated": self.views.repeated,
            "measured": self.views.measured,
            "computed": self.views.computed,
        }
        frequency = np.arange(SIDE // 2 + 1) / SIDE
        rows = {
            name: np.fft.ifftshift(power.mean(axis=0))[: len(frequency)]
            for name, power in powers.items()
        }
        return {name: (frequency, self.views.decibels(row)) for name, row in rows.items()}

    def _summary(self) -> str:
        difference = self.views.difference
        if difference < 1e-6:
            return "Measured and computed agree to rounding: the closed form is exact."
        how = "a straight line" if self.degree == 1 else f"a polynomial of degree {self.degree}"
        return (
            f"With {how} for {self.activation}, computed is {difference:.2g} dB off "
            "(root mean square)."
        )

    # -- controls and figures ------------------------------------------------------------------

    def _update(self, _: traitlets.Bunch | None = None) -> None:
        with self.reporting():
            self.views = block_views(self.settings, self.code(), degree=self.degree)
            self._draw()
            self.status = self._summary()

    def _draw(self) -> None:
        views = self.views
        measured, computed = (views.decibels(p) for p in (views.measured, views.computed))
        low, high = robust_limits(measured)
        with self._spectra.batch_update():
            shown = (measured, computed, measured - computed)
            for trace, values in zip(self._spectra.data, shown, strict=True):
                trace.z = _short(values)
            # round ends: the scale stays while little changes, and is not drawn anew
            ends = {"cmin": 5 * np.floor(low / 5), "cmax": 5 * np.ceil(high / 5)}
            self._spectra.layout.coloraxis.update(ends)
        with self._chart.batch_update():
            for trace, (_, row) in zip(self._chart.data, self._profiles().values(), strict=True):
                trace.y = row.astype(np.float32)
        if self._drawn is not self.code():
            self._drawn = self.code()
            self._input.value = _figure("input", self._drawn.numpy())
        self._output.value = _figure("output", views.output)
        curved = self.activation != "none"
        learnt = self.roughness > 0
        for name, useful in {
            "overlap": self.upsampling == "deconv", "seed": learnt, "strength": curved,
            "offset": curved, "degree": curved,
        }.items():  # fmt: skip
            self._controls[name].disabled = not useful

    @cached_property
    def _controls(self) -> dict[str, ipywidgets.Widget]:
        def choice(name: str, options: tuple[str, ...]) -> ipywidgets.Dropdown:
            return ipywidgets.Dropdown(options=options, value=getattr(self, name), **_look(name))

        def slider(name: str, step: float) -> ipywidgets.FloatSlider | ipywidgets.IntSlider:
            trait = self.traits()[name]
            kind = ipywidgets.IntSlider if isinstance(trait, traitlets.Int) else (
                ipywidgets.FloatSlider
            )  # fmt: skip
            return kind(
                value=getattr(self, name), min=trait.min, max=trait.max, step=step, **_look(name)
            )

        return {
            "source": choice("source", self.sources),
            "repeats": slider("repeats", 1),
            "upsampling": choice("upsampling", get_args(Upsampling)),
            "overlap": slider("overlap", 0.05),
            "sharpness": slider("sharpness", 0.05),
            "roughness": slider("roughness", 0.05),
            "seed": slider("seed", 1),
            "activation": choice("activation", get_args(ActivationName)),
            "strength": slider("strength", 0.1),
            "offset": slider("offset", 0.1),
            "norm": choice("norm", get_args(BlockNorm)),
            "degree": slider("degree", 1),
        }

    def _build(self) -> None:
        self._spectra = _spectra()
        self._chart = LiveFigure(radial_profiles(self._blank_profiles(), size=(500, 300)))
        self._chart.update_layout(
            legend={"y": 1, "yanchor": "bottom"}, margin={"t": 36, "autoexpand": False}
        )
        self._chart.update_xaxes(title="horizontal frequency (cycles/pixel)")
        for trace, line in zip(self._chart.data, _LINES, strict=True):
            trace.line.update(line)
        self._input, self._output = ipywidgets.HTML(), ipywidgets.HTML()
        for name, control in self._controls.items():
            traitlets.link((self, name), (control, "value"))
        wrap = ipywidgets.Layout(flex_flow="row wrap")
        self.children = [
            ipywidgets.Box(list(self._controls.values()), layout=wrap),
            self.message,
            self._spectra,
            ipywidgets.Box([self._input, self._output, self._chart], layout=wrap),
        ]

    def _blank_profiles(self) -> dict[str, tuple[NDArray, NDArray]]:
        frequency = np.arange(SIDE // 2 + 1) / SIDE
        return dict.fromkeys(("input repeated", "measured", "computed"), (frequency, 0 * frequency))


_LINES = ({"width": 1.8, "dash": "dot"}, {"width": 4}, {"width": 1.8, "dash": "dash"})
_LABELS = {
    "source": "input",
    "repeats": "blocks",
    "overlap": "overlap",
    "norm": "normalisation",
    "degree": "closed form",
}
_TOOLTIPS = {
    "overlap": "outer taps w of the transposed convolution (w, 1, w); 0.5 leaves no marks",
    "sharpness": "3x3 convolution: -1 blurs, 0 nothing, 1 sharpens",
    "roughness": "random weights added to every learnt kernel",
    "degree": "degree of the polynomial that stands for the activation",
}


def _look(name: str) -> dict[str, object]:
    return {
        "description": _LABELS.get(name, name),
        "tooltip": _TOOLTIPS.get(name, _LABELS.get(name, name)),
        "style": {"description_width": "92px"},
        "layout": ipywidgets.Layout(width="310px"),
    }


def _spectra() -> LiveFigure:
    """Three heat maps in one figure, which the browser redraws at once; two share their colours."""
    blank = np.zeros((SIDE, SIDE), np.float32)
    figure = spectrum_heatmap(blank, limits=(-_DIFFERENCE, _DIFFERENCE), size=300)
    heat, across, down = figure.data[0], figure.layout.xaxis, figure.layout.yaxis
    bar = heat.colorbar.to_plotly_json()
    figure.data = []
    for i, (title, left) in enumerate(zip(_TITLES, (0.0, 0.3, 0.69), strict=True), 1):
        figure.add_trace(heat)
        figure.data[-1].update(xaxis=f"x{i}", yaxis=f"y{i}", zmin=None, zmax=None, name=title)
        figure.data[-1].update(coloraxis="coloraxis2" if i == 3 else "coloraxis")
        axis = {"title": None, "domain": [left, left + 0.265], "anchor": f"y{i}"}
        figure.update_layout({f"xaxis{i}": across.to_plotly_json() | axis})
        axis = {"title": None, "scaleanchor": f"x{i}", "anchor": f"x{i}", "showticklabels": i != 2}
        figure.update_layout({f"yaxis{i}": down.to_plotly_json() | axis})
        figure.add_annotation(
            text=title, x=left + 0.1325, y=1, xref="paper", yref="paper", xanchor="center",
            yanchor="bottom", showarrow=False,
        )  # fmt: skip
    figure.update_layout(
        coloraxis={"colorscale": "Viridis", "colorbar": bar | {"x": 0.57}},
        # purple below zero, orange above: apart for every eye
        coloraxis2={
            "colorscale": "PuOr_r", "cmin": -_DIFFERENCE, "cmax": _DIFFERENCE,
            "colorbar": bar | {"x": 0.96},
        },
        width=960, margin={"l": 40, "r": 50, "t": 30, "b": 30, "autoexpand": False},
    )  # fmt: skip
    return LiveFigure(figure)


def _short(values: NDArray[np.float64]) -> NDArray[np.float32]:
    """Decibels in steps of 1/4: a heat map travels as text, and this is a third of it."""
    return (np.rint(4 * values) / 4).astype(np.float32)


def _scenes() -> dict[str, Tensor]:
    made = procedural_images(3, SIDE, seed=3, kinds=tuple(_KINDS.values()))  # type: ignore[arg-type]
    return dict(zip(_KINDS, made.double(), strict=True))


def _numbered(images: Tensor) -> dict[str, Tensor]:
    if images.ndim != 4 or images.shape[1] != 3 or min(images.shape[2:]) < SIDE:
        raise ValueError(
            f"images must be (n, 3, h, w) of {SIDE} pixels or more, got {tuple(images.shape)}"
        )
    top, left = ((side - SIDE) // 2 for side in images.shape[2:])
    middles = images[..., top : top + SIDE, left : left + SIDE].double()
    return {f"image {i}": middle for i, middle in enumerate(middles, 1)}


def _stretched(image: NDArray[np.float64]) -> NDArray[np.float64]:
    """Any range of values as colours in [0, 1]."""
    low, high = robust_limits(image)
    return np.clip((image - low) / (high - low), 0, 1)


def _figure(name: str, image: NDArray[np.float64]) -> str:
    pixels = np.rint(_stretched(image) * 255).astype(np.uint8).transpose(1, 2, 0)
    png = base64.b64encode(png_bytes(Image.fromarray(pixels), quick=True)).decode()
    return (
        '<figure style="margin: 8px 12px 0 0"><img width="216" height="216" '
        f'style="image-rendering: pixelated" alt="{name} of the block" '
        f'src="data:image/png;base64,{png}"><figcaption style="line-height: 1.4">{name}, '
        f"{image.shape[2]} x {image.shape[1]} pixels</figcaption></figure>"
    )
