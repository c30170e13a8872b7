"""Two models side by side, real or synthetic: spectrum, radial profile, autocorrelation."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import ipywidgets
import numpy as np
import plotly.graph_objects as go
import traitlets
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fpkit.fingerprint_sources import (
    caveats,
    own_source,
    real_source,
    synthetic_source,
)
from fpkit.lattice import ring_peaks
from fpkit.live_figure import LiveFigure
from fpkit.names import as_html, options_of, visible
from fpkit.nearest import spectral_pattern
from fpkit.panel import Panel
from fpkit.pictures import Cell, line_chart, montage, robust_limits, stack
from fpkit.plots import autocorrelation_heatmap, central_lags, radial_profiles, spectrum_heatmap
from fpkit.realworld import RESIDUALS, RealFingerprint, real_fingerprints
from fpkit.residual import ResidualName
from fpkit.spectrum import autocorrelation, radial_profile, to_db
from fpkit.zoo import Zoo

FloatArray = NDArray[np.float64]
Scale = Literal["db", "pattern", "linear"]
Side = Literal["left", "right"]

SIDES: tuple[Side, ...] = get_args(Side)
UNITS: dict[Scale, str] = {"db": "dB", "pattern": "dB", "linear": "x mean"}
PROFILES: dict[Scale, str] = {
    "db": "power (dB)",
    "pattern": "highest of the ring (dB)",
    "linear": "power (x mean)",
}
LAGS = 32


class FingerprintBrowser(Panel):
    """Look at the fingerprints of two models side by side.

    Parameters
    ----------
    left, right : str, optional
        Names of models to begin with.
    images : mapping of name to Tensor (n, c, h, w) in [0, 1], optional
        Images of further models, at least 128 x 128 pixels: they join the lists.
    zoo : Zoo, optional
        Synthetic models; the starter zoo by default. A spectrum is measured, on 24 procedural
        scenes, when its model is first chosen, in about a second.
    fingerprints : sequence of RealFingerprint, optional
        Real models; those that come with fpkit by default.

    Attributes
    ----------
    left, right : names of the models (traits)
    residual : {"median", "none"} (trait)
        What was taken from the images before the spectrum.
    scale : {"db", "pattern", "linear"} (trait)
        Power in dB; its :func:`fpkit.nearest.spectral_pattern`, which shows lattices and
        directions only (the profile is then the highest value of each ring); or power over its
        mean, which shows only what is strongest.
    shared : bool (trait)
        Both sides have the same colours for the same values.
    alike : float (trait, read it)
        Correlation of the two spectra in dB.
    status, error : (traits, read them)

    Examples
    --------
    >>> browser = FingerprintBrowser("sd1x-compvis", "stabilityai-sd1-dcsan")
    >>> browser.status
    'Correlation of the two spectra in dB: 0.92. Careful: subjects differ (prompts-d, prompts-a).'
    """

    left = traitlets.Unicode()
    right = traitlets.Unicode()
    residual = traitlets.Enum(RESIDUALS, default_value="median")
    scale = traitlets.Enum(get_args(Scale), default_value="db")
    shared = traitlets.Bool(True)
    alike = traitlets.Float(float("nan"))

    def __init__(
        self,
        left: str | None = None,
        right: str | None = None,
        *,
        images: Mapping[str, Tensor] | None = None,
        zoo: Zoo | None = None,
        fingerprints: Sequence[RealFingerprint] | None = None,
    ) -> None:
        self.zoo = Zoo.load() if zoo is None else zoo
        measured = real_fingerprints() if fingerprints is None else fingerprints
        own = [own_source(name, tensor) for name, tensor in (images or {}).items()]
        real = sorted((real_source(f) for f in measured), key=lambda source: source.group)
        synthetic = [synthetic_source(self.zoo, name) for name in sorted(self.zoo.model_ids)]
        self.sources = {source.name: source for source in [*own, *real, *synthetic]}
        self._measured: dict[tuple[str, ResidualName], FloatArray] = {}
        self._following = False
        names = list(self.sources)
        super().__init__(
            left=names[0] if left is None else left, right=names[-1] if right is None else right
        )
        self._build()
        self.observe(self._models_changed, names=list(SIDES))
        self.observe(self._draw, names=[*SIDES, "residual", "scale", "shared"])
        self._models_changed()
        self._draw()

    # -- numbers to show -----------------------------------------------------------------------

    def power(self, name: str, residual: ResidualName | None = None) -> FloatArray:
        """Average spectrum of model `name`, (128, 128) centred power; measured once."""
        key = name, residual or self.residual
        if key not in self._measured:
            self._measured[key] = self.sources[name].measure(key[1])
        return self._measured[key]

    def static(self) -> Image.Image:
        """The view as a picture: spectra and autocorrelations above, radial profiles below."""
        spectra, lags = self._spectra(), self._lags()
        limits, near = self._limits(spectra), self._limits(lags)
        cells, titles = [], []
        for side in SIDES:
            cells.append(Cell(values=spectra[side], limits=limits[side], caption="spectrum"))
            cells.append(
                Cell(
                    values=lags[side], limits=near[side], palette="cividis",
                    caption="autocorrelation",
                )
            )  # fmt: skip
            titles += ["\n".join(textwrap.wrap(getattr(self, side), 18)), ""]
        bar = (*limits["left"], UNITS[self.scale].replace(" ", "\n")) if self.shared else None
        chart = line_chart(
            {_short(name, 34): curve for name, curve in self._profiles().items()},
            x_label="frequency (cycles/pixel)",
            y_label=PROFILES[self.scale],
            size=(760, 220),
        )
        return stack([montage({"": cells}, columns=titles, cell_size=128, bar=bar), chart])

    def _spectra(self) -> dict[Side, FloatArray]:
        return {side: _scaled(self.power(getattr(self, side)), self.scale) for side in SIDES}

    def _lags(self) -> dict[Side, FloatArray]:
        return {
            side: central_lags(autocorrelation(self.power(getattr(self, side))), LAGS)
            for side in SIDES
        }

    def _profiles(self) -> dict[str, tuple[FloatArray, FloatArray]]:
        return {
            f"{side}: {getattr(self, side)}": _profile(self.power(getattr(self, side)), self.scale)
            for side in SIDES
        }

    def _limits(self, values: Mapping[Side, FloatArray]) -> dict[Side, tuple[float, float]]:
        if self.shared:
            return dict.fromkeys(SIDES, robust_limits(np.stack(list(values.values()))))
        return {side: robust_limits(values[side]) for side in SIDES}

    # -- controls and figures ------------------------------------------------------------------

    @traitlets.validate("left", "right")
    def _known(self, proposal: traitlets.Bunch) -> str:
        name = proposal["value"]
        if name not in self.sources:
            raise ValueError(f"no model {name!r}: `sources` has all {len(self.sources)} names")
        return name

    def _build(self) -> None:
        groups = list(dict.fromkeys(source.group for source in self.sources.values()))
        style, wide = {"description_width": "52px"}, ipywidgets.Layout(width="430px")
        self._group, self._model, self._facts, columns = {}, {}, {}, []
        self._heatmaps, self._autos = {}, {}
        for side in SIDES:
            name = getattr(self, side)
            self._group[side] = ipywidgets.Dropdown(
                options=options_of(groups), value=self.sources[name].group,
                description=f"{side}: list", style={"description_width": "72px"}, layout=wide,
            )  # fmt: skip
            self._model[side] = ipywidgets.Dropdown(
                options=options_of(self._names(self.sources[name].group)), value=name,
                description="model", style={"description_width": "72px"}, layout=wide,
            )  # fmt: skip
            self._facts[side] = ipywidgets.HTML(layout=ipywidgets.Layout(width="430px"))
            power = np.zeros((128, 128))
            self._heatmaps[side] = LiveFigure(spectrum_heatmap(power, title=" ", size=370))
            self._autos[side] = LiveFigure(
                autocorrelation_heatmap(power, lags=LAGS, title=" ", size=250)
            )
            self._group[side].observe(
                lambda change, s=side: self._choose_group(s, change["new"]), names="value"
            )
            self._model[side].observe(
                lambda change, s=side: self._choose(s, change["new"]), names="value"
            )
            columns.append(
                ipywidgets.VBox(
                    [
                        self._group[side],
                        self._model[side],
                        self._facts[side],
                        self._heatmaps[side],
                    ]
                )
            )
        blank = {name: ([0.0], [0.0]) for name in SIDES}
        self._chart = LiveFigure(radial_profiles(blank, title="radial profile", size=(310, 250)))
        self._chart.update_layout(legend={"y": 1, "yanchor": "top", "x": 1, "xanchor": "right"})
        self._residual = ipywidgets.Dropdown(
            options=[("image - median", "median"), ("image - mean", "none")],
            value=self.residual, description="residual", style=style,
            layout=ipywidgets.Layout(width="220px"),
        )  # fmt: skip
        self._scale = ipywidgets.Dropdown(
            options=[("power in dB", "db"), ("dB above its ring", "pattern"), ("power", "linear")],
            value=self.scale, description="scale", style=style,
            layout=ipywidgets.Layout(width="220px"),
        )  # fmt: skip
        self._shared = ipywidgets.Checkbox(
            value=self.shared, description="same colours on both sides", indent=False,
            layout=ipywidgets.Layout(width="240px"),
        )  # fmt: skip
        for trait, control in {
            "residual": self._residual, "scale": self._scale, "shared": self._shared,
        }.items():  # fmt: skip
            traitlets.link((self, trait), (control, "value"))
        wrap = ipywidgets.Layout(flex_flow="row wrap")
        settings = ipywidgets.Box([self._residual, self._scale, self._shared], layout=wrap)
        autos = ipywidgets.Box([*self._autos.values(), self._chart], layout=wrap)
        self.children = [ipywidgets.Box(columns, layout=wrap), settings, self.message, autos]

    def _names(self, group: str) -> list[str]:
        return [name for name, source in self.sources.items() if source.group == group]

    def _choose_group(self, side: Side, group: str) -> None:
        if not self._following:
            setattr(self, side, self._names(group)[0])

    def _choose(self, side: Side, name: str) -> None:
        if not self._following:
            setattr(self, side, name)

    def _models_changed(self, _: traitlets.Bunch | None = None) -> None:
        self._following = True  # the dropdowns move one by one
        try:
            for side in SIDES:
                source = self.sources[getattr(self, side)]
                self._group[side].value = source.group
                names = options_of(self._names(source.group))
                if self._model[side].options != names:
                    self._model[side].options = names
                self._model[side].value = source.name
                self._facts[
                    side
                ].value = f'<div style="line-height: 1.4">{as_html(source.facts)}</div>'
        finally:
            self._following = False

    def _draw(self, _: traitlets.Bunch | None = None) -> None:
        with self.reporting():
            if any((getattr(self, s), self.residual) not in self._measured for s in SIDES):
                self.status = "Measuring ..."
            spectra, lags = self._spectra(), self._lags()
            limits, near = self._limits(spectra), self._limits(lags)
            for side in SIDES:
                title = _short(getattr(self, side), 44)
                self._update(
                    self._heatmaps[side],
                    spectrum_heatmap(
                        spectra[side], title=title, unit=UNITS[self.scale], limits=limits[side]
                    ),
                )
                self._update(
                    self._autos[side],
                    autocorrelation_heatmap(
                        autocorrelation(self.power(getattr(self, side))),
                        lags=LAGS, title=f"autocorrelation, {side}", limits=near[side],
                    ),
                )  # fmt: skip
            curves = {side: c for side, c in zip(SIDES, self._profiles().values(), strict=True)}
            self._update(self._chart, radial_profiles(curves, title="radial profile"))
            self._chart.layout.yaxis.title.text = PROFILES[self.scale]
            a, b = (to_db(self.power(getattr(self, side))).ravel() for side in SIDES)
            self.alike = float(np.corrcoef(a, b)[0, 1])
            doubts = caveats(*(self.sources[getattr(self, side)] for side in SIDES))
            careful = f" Careful: {'; '.join(doubts)}." if doubts else ""
            self.status = f"Correlation of the two spectra in dB: {self.alike:.2f}.{careful}"

    @staticmethod
    def _update(figure: LiveFigure, fresh: go.Figure) -> None:
        """Give a figure in the page the data and the title of another one."""
        with figure.batch_update():
            for old, new in zip(figure.data, fresh.data, strict=True):
                values = new.to_plotly_json()
                old.update({key: value for key, value in values.items() if key != "type"})
            figure.layout.title.text = fresh.layout.title.text


def _scaled(power: FloatArray, scale: Scale) -> FloatArray:
    if scale == "db":
        return to_db(power)
    return spectral_pattern(power) if scale == "pattern" else power / power.mean()


def _profile(power: FloatArray, scale: Scale) -> tuple[FloatArray, FloatArray]:
    if scale == "pattern":
        return ring_peaks(spectral_pattern(power))
    frequency, rings = radial_profile(power)
    return frequency, to_db(rings) if scale == "db" else rings / power.mean()


def _short(name: str, most: int) -> str:
    name = visible(name)
    return name if len(name) <= most else f"{name[: most - 1]}…"
