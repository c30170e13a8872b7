"""A map of embeddings to look into: colours, thumbnails, selections, and how far to trust it."""

import base64
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, get_args

import ipywidgets
import numpy as np
import torch
import traitlets
from numpy.typing import ArrayLike, NDArray
from PIL import Image
from torch import Tensor

from fpkit import projection
from fpkit.live_figure import LiveFigure
from fpkit.names import as_html, options_of
from fpkit.neighbours import Metric, nearest
from fpkit.panel import Panel
from fpkit.pictures import Cell, montage, picture, png_bytes, stack
from fpkit.projection import Start
from fpkit.scatter import (
    key_traces,
    label_order,
    opacity_of,
    point_trace,
    scatter_figure,
    scatter_picture,
)
from fpkit.selection import SelectionSummary, selection_summary
from fpkit.spectrum import average_spectrum, to_db

METHODS = ("umap", "pca")
MOST_NEIGHBOURS = 100
_KEPT = 15  # the neighbours by which maps are judged, whatever n_neighbors they were made with
_REMEMBERED = 64
_ALL = "(nothing)"
_WIDE = 560


class EmbeddingMap(Panel):
    """Embeddings in the plane, with what is needed not to believe too much of it.

    Hovering (or typing a point's number) shows the image, its spectrum and its true neighbours; a
    lasso (or the list "select") gives statistics of a selection, computed from the embeddings and
    not from the map.

    Parameters
    ----------
    embeddings : (n, d)
        At least 8, at most 5000.
    labels : mapping of column to n labels
        E.g. ``{"model": [...], "upsampling": [...]}``, at most 42 different ones in each; the
        first column gives the colours to begin with.
    images : Tensor or array, (n, 3, h, w) in [0, 1], optional
        The images themselves; without them points have no thumbnail and no spectrum.
    metric : {"cosine", "euclidean"}
        By which neighbours are near.
    **settings
        Values of the traits below.

    Attributes
    ----------
    method : {"umap", "pca"} (trait)
    n_neighbors, min_dist, start, seed : settings of `fpkit.projection.umap` (traits)
    colour_by : str (trait)
        A column of the labels.
    point : int (trait)
        The point looked at, -1 for none.
    selection : tuple of int (trait)
        Selected points, in rising order.
    coordinates : (n, 2) array (trait, read it)
    kept : float (trait, read it)
        Mean share of the 15 nearest neighbours that the map keeps
        (`fpkit.projection.neighbours_kept`).

    Examples
    --------
    >>> points = np.eye(6).repeat(4, axis=0) + np.arange(24)[:, None] / 100
    >>> shown = EmbeddingMap(points, {"model": list("abcdef" * 4)}, method="pca")
    >>> shown.selection = (0, 1, 2)
    >>> shown.summary.size
    3
    """

    method = traitlets.Enum(METHODS, default_value="umap")
    n_neighbors = traitlets.Int(15, min=3)
    min_dist = traitlets.Float(0.1, min=0, max=0.99)
    start = traitlets.Enum(get_args(Start), default_value="pca")
    seed = traitlets.Int(0, min=0)
    colour_by = traitlets.Unicode()
    point = traitlets.Int(-1, min=-1)
    selection = traitlets.Tuple()
    coordinates = traitlets.Instance(np.ndarray, allow_none=True)
    kept = traitlets.Float(float("nan"))

    def __init__(
        self,
        embeddings: ArrayLike,
        labels: Mapping[str, Sequence[str]],
        images: Tensor | ArrayLike | None = None,
        *,
        metric: Metric = "cosine",
        **settings: Any,
    ) -> None:
        self.embeddings = np.asarray(embeddings, np.float64)
        self.labels = {column: [str(value) for value in labels[column]] for column in labels}
        self.images = None if images is None else torch.as_tensor(images)
        self.metric: Metric = metric
        self._maps: dict[tuple[object, ...], tuple[NDArray[Any], str, float]] = {}
        self._check()
        defaults = {
            "n_neighbors": min(15, len(self.embeddings) - 1),
            "colour_by": next(iter(self.labels)),
        }
        super().__init__(**defaults | settings)
        self._k = min(_KEPT, (len(self.embeddings) - 1) // 2)
        self._indices, self._distances = nearest(self.embeddings, self._k, metric=metric)
        self._build()
        self.observe(self._remap, names=["method", "n_neighbors", "min_dist", "start", "seed"])
        self.observe(self._recolour, names="colour_by")
        self.observe(self._look, names="point")
        self.observe(self._select, names="selection")
        self._remap()
        self._recolour()

    # -- doing ---------------------------------------------------------------------------------

    @property
    def summary(self) -> SelectionSummary | None:
        """Figures of the selection, None while nothing is selected."""
        if not self.selection:
            return None
        return selection_summary(self.embeddings, self.labels, self.selection, by=self.colour_by)

    def select(self, label: str, *, column: str | None = None) -> SelectionSummary:
        """Select all points that carry `label` in `column` (that of the colours by default)."""
        column = self.colour_by if column is None else column
        if label not in self.labels.get(column, ()):
            known = sorted(set(self.labels.get(column, ())))
            raise ValueError(f"no label {label!r} in column {column!r}: it has {known}")
        self.selection = _carriers(self.labels[column], label)
        summary = self.summary
        assert summary is not None  # the label was found
        return summary

    def static(self) -> Image.Image:
        """The map as a picture; under it the image and the spectrum of the point looked at."""
        shown = scatter_picture(
            self.coordinates,
            self.labels[self.colour_by],
            title=f"{self.method.upper()}, coloured by {self.colour_by}\n{self._trust()}",
            selected=self.selection,
            size=380,
        )
        cells = self._cells()
        if not cells:
            return shown
        name = f"point {self.point}\n{self.labels[self.colour_by][self.point]}"
        return stack([shown, montage({name: cells}, columns=["image", "spectrum (dB)"])])

    def _check(self) -> None:
        count = len(self.embeddings)
        if self.embeddings.ndim != 2 or count < 8:
            raise ValueError(
                f"embeddings must be (n, d) with n at least 8, got {self.embeddings.shape}"
            )
        if not self.labels:
            raise ValueError("labels must have at least one column, e.g. {'model': [...]}")
        for column, values in self.labels.items():
            if len(values) != count:
                raise ValueError(f"column {column!r} has {len(values)} labels for {count} points")
            label_order(values)
        if self.images is not None and len(self.images) != count:
            raise ValueError(f"{len(self.images)} images for {count} embeddings")

    def _remap(self, _: traitlets.Bunch | None = None) -> None:
        is_umap = self.method == "umap"
        for control in (self._neighbors, self._min_dist, self._start, self._seed):
            control.disabled = not is_umap
        self.status, self.busy = "Computing the map ...", True
        try:
            with self.reporting():
                coordinates, share, self.kept = self._mapped()
        finally:
            self.busy = False
        self.coordinates = coordinates
        with self._figure.batch_update():
            self._figure.data[0].update(x=coordinates[:, 0], y=coordinates[:, 1])
            self._figure.layout.title.text = f"{self.method.upper()}{share}"
        self.status = f"{self._trust()}; by chance {self._k / (len(self.embeddings) - 1):.0%}."
        self._look()

    def _mapped(self) -> tuple[NDArray[Any], str, float]:
        settings = (self.n_neighbors, self.min_dist, self.start, self.seed)
        key = (self.method, *(settings if self.method == "umap" else ()))
        if key not in self._maps:
            if self.method == "pca":
                linear = projection.pca(self.embeddings)
                share = f", {linear.share.sum():.0%} of the variance"
                coordinates = linear.coordinates.astype(np.float32)
            else:
                share = ""
                coordinates = projection.umap(
                    self.embeddings,
                    n_neighbors=self.n_neighbors,
                    min_dist=self.min_dist,
                    start=self.start,
                    seed=self.seed,
                    metric=self.metric,
                )
            kept = projection.neighbours_kept(
                self.embeddings, coordinates, k=self._k, metric=self.metric
            )
            if len(self._maps) >= _REMEMBERED:
                self._maps.pop(next(iter(self._maps)))
            self._maps[key] = (coordinates, share, float(kept.mean()))
        return self._maps[key]

    def _trust(self) -> str:
        return f"{self.kept:.0%} of the {self._k} nearest neighbours kept"

    # -- controls and figures ------------------------------------------------------------------

    def _build(self) -> None:
        style = {"description_width": "82px"}
        box = ipywidgets.Layout(width="235px")
        most = min(MOST_NEIGHBOURS, len(self.embeddings) - 1)

        def slider(kind: Any, description: str, **limits: float) -> Any:
            return kind(
                description=description, style=style, layout=box, continuous_update=False, **limits
            )

        def menu(description: str, options: list[Any]) -> ipywidgets.Dropdown:
            return ipywidgets.Dropdown(
                options=options, description=description, style=style, layout=box
            )

        self._method = menu("method", [("UMAP", "umap"), ("PCA (linear)", "pca")])
        self._neighbors = slider(ipywidgets.IntSlider, "neighbours", min=3, max=most)
        self._min_dist = slider(ipywidgets.FloatSlider, "least gap", min=0.0, max=0.99, step=0.01)
        self._start = menu("start", [("PCA", "pca"), ("random", "random")])
        self._seed = slider(ipywidgets.IntSlider, "seed", min=0, max=20)
        self._colour = menu("colour by", options_of(self.labels))
        self._choice = menu("select", options_of([_ALL]))
        self._point = ipywidgets.BoundedIntText(
            min=-1, max=len(self.embeddings) - 1, description="point", style=style, layout=box,
            tooltip="number of a point, -1 for none",
        )  # fmt: skip
        for name, control in {
            "method": self._method, "n_neighbors": self._neighbors, "min_dist": self._min_dist,
            "start": self._start, "seed": self._seed, "colour_by": self._colour,
            "point": self._point,
        }.items():  # fmt: skip
            traitlets.link((self, name), (control, "value"))
        self._choice.observe(self._chosen, names="value")

        blank = np.zeros((len(self.embeddings), 2))
        self._figure = LiveFigure(
            scatter_figure(blank, self.labels[self.colour_by], title=" ", size=(_WIDE, 560))
        )
        # below the map: long names at its side would make it narrow
        self._figure.layout.legend.update(orientation="h", x=0, y=-0.01, yanchor="top")
        points = self._figure.data[0]
        points.on_hover(lambda _, found, __: self._hovered(found.point_inds))
        points.on_selection(lambda _, found, __: self._lassoed(found.point_inds))
        points.on_deselect(lambda *_: setattr(self, "selection", ()))
        self._details = ipywidgets.HTML(layout=ipywidgets.Layout(width="330px"))
        self._statistics = ipywidgets.HTML(layout=ipywidgets.Layout(width="330px"))
        wrap = ipywidgets.Layout(flex_flow="row wrap")
        self.children = [
            ipywidgets.Box(
                [self._method, self._neighbors, self._min_dist, self._start, self._seed,
                 self._colour, self._choice, self._point],
                layout=wrap,
            ),
            self.message,
            ipywidgets.Box(
                [self._figure, ipywidgets.VBox([self._details, self._statistics])], layout=wrap
            ),
        ]  # fmt: skip
        self._look()
        self._select()

    def _recolour(self, _: traitlets.Bunch | None = None) -> None:
        labels = self.labels[self.colour_by]
        names = label_order(labels)
        fresh = point_trace(self.coordinates, labels, selected=self.selection)
        # two columns of long names, three of short ones; each row takes about 19 pixels
        rows = -(-len(names) // max(1, int(_WIDE / (8 * max(map(len, names)) + 50))))
        with self._figure.batch_update():
            self._figure.data[0].update(marker=fresh.marker, text=fresh.text)
            self._figure.data = self._figure.data[:1]
            self._figure.layout.height = 530 + 19 * rows
            self._figure.layout.margin.b = 14 + 19 * rows
        self._figure.add_traces(key_traces(labels))
        with self._unheard():
            self._choice.options = options_of([_ALL, *names])
        self._look()
        self._select()

    def _hovered(self, found: Sequence[int]) -> None:
        if found:
            self.point = int(found[0])

    def _lassoed(self, found: Sequence[int]) -> None:
        """Take what a lasso caught, and the lasso away; one that caught nothing changes nothing."""
        if found:
            self.selection = tuple(sorted(int(i) for i in found))
            # it would stay on the page, and decide there what is bright; setting to what Python
            # has already, none, sends nothing: hence a lasso around nothing first
            self._figure.layout.selections = [dict.fromkeys(("x0", "x1", "y0", "y1"), 0)]
            self._figure.layout.selections = ()
        self._figure.data[0].selectedpoints = None

    def _chosen(self, change: traitlets.Bunch) -> None:
        if change["new"] == _ALL:
            self.selection = ()
        else:
            self.select(change["new"])

    @contextmanager
    def _unheard(self) -> Iterator[None]:
        """Change the list "select" without changing the selection."""
        self._choice.unobserve(self._chosen, names="value")
        try:
            yield
        finally:
            self._choice.observe(self._chosen, names="value")

    def _select(self, _: traitlets.Bunch | None = None) -> None:
        with self.reporting():
            summary = self.summary
        if self.selection != _carriers(self.labels[self.colour_by], self._choice.value):
            with self._unheard():
                self._choice.value = _ALL  # what it says is not what is selected any more
        opacity = opacity_of(self.selection, len(self.embeddings))
        self._figure.data[0].marker.opacity = opacity
        if summary is None:
            text = "Draw a lasso on the map, or choose from “select”, for statistics."
        else:
            text = "<br>".join(as_html(line) for line in str(summary).split("\n"))
        self._statistics.value = f'<div style="line-height: 1.5; margin-top: 10px">{text}</div>'

    def _cells(self) -> list[Cell]:
        """Image and spectrum of the point looked at, none without images or point."""
        if self.images is None or self.point < 0:
            return []
        image = self.images[self.point]
        with torch.no_grad():
            power = average_spectrum(image[None], crop=min(128, *image.shape[-2:])).mean(axis=0)
        return [Cell(values=image.numpy()), Cell(values=to_db(power))]

    def _look(self, _: traitlets.Bunch | None = None) -> None:
        if self.point < 0:
            self._details.value = "<div>Hover over a point, or type its number, to see it.</div>"
            return
        with self.reporting():
            names = self.labels[self.colour_by]
            pngs = [
                base64.b64encode(png_bytes(picture(cell, size=150))).decode()
                for cell in self._cells()
            ]
        alike = [
            f"#{i} {as_html(names[i])} {distance:.2f}"
            for i, distance in zip(
                self._indices[self.point, :5], self._distances[self.point, :5], strict=True
            )
        ]
        titles = (f"image of point {self.point}", f"spectrum of point {self.point}")
        shown = "".join(
            f'<img src="data:image/png;base64,{png}" alt="{title}" style="margin: 0 6px 4px 0">'
            for png, title in zip(pngs, titles, strict=False)
        )
        own = "<br>".join(
            f"{as_html(column)}: <b>{as_html(values[self.point])}</b>"
            for column, values in self.labels.items()
        )
        self._details.value = (
            f'<div style="line-height: 1.4">{shown}<br>point #{self.point}<br>{own}<br>'
            f"true neighbours ({self.metric} distance):<br>{'<br>'.join(alike)}</div>"
        )


def _carriers(labels: Sequence[str], label: str) -> tuple[int, ...]:
    """Numbers of the points that carry a label."""
    return tuple(i for i, name in enumerate(labels) if name == label)
