"""What a training looks like: curves of its log, snapshots of its embeddings; figures, pictures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike, NDArray
from PIL import Image
from plotly.subplots import make_subplots

from fpkit.pictures import LINE_COLOURS, line_chart, stack
from fpkit.plots import INK, styled
from fpkit.projection import pca
from fpkit.scatter import scatter_figure, scatter_picture

Rows = Sequence[Mapping[str, float]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Snapshot:
    """Where an extractor puts images, at one step of its training.

    Attributes
    ----------
    step : int
    points : (n, 2) float64
        The embeddings, seen on the plane in which they are widest.
    share : float in [0, 1]
        How much of their variance that plane holds.
    models : tuple of n str
        Which model made each image.
    """

    step: int
    points: NDArray[np.float64]
    share: float
    models: tuple[str, ...]


def take_snapshot(
    embeddings: ArrayLike, models: Sequence[str], *, step: int, before: Snapshot | None = None
) -> Snapshot:
    """Snapshot of embeddings, turned so that it resembles the one `before` as far as it can.

    The plane is new each time, and its axes have no direction of their own: unturned, points
    would jump between two snapshots though no distance has changed.

    Parameters
    ----------
    embeddings : (n, d)
        At least 3 images.
    models : sequence of n str
        Which model made each image.
    step : int
    before : Snapshot, optional
        Of the same images.

    References
    ----------
    Schoenemann, "A generalized solution of the orthogonal Procrustes problem", Psychometrika 31,
    1966.
    """
    plane = pca(embeddings)
    points = plane.coordinates
    if len(models) != len(points):
        raise ValueError(f"models must name one per embedding, got {len(models)} of {len(points)}")
    if before is not None:
        left, _, right = np.linalg.svd(points.T @ before.points)
        points = points @ left @ right
    return Snapshot(step=step, points=points, share=float(plane.share.sum()), models=tuple(models))


def smoothed(losses: ArrayLike, *, over: float = 10.0) -> NDArray[np.float64]:
    """Running mean (n,) that forgets: a loss `over` steps ago counts 1/e of the newest.

    Examples
    --------
    >>> smoothed([3.0, 3.0, 3.0]).round(6).tolist()
    [3.0, 3.0, 3.0]
    """
    keep = np.exp(-1 / over)
    total, weight, means = 0.0, 0.0, []
    for loss in np.asarray(losses, dtype=np.float64):
        total, weight = keep * total + loss, keep * weight + 1
        means.append(total / weight)
    return np.array(means)


def loss_curve(rows: Rows) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Steps (n,) and losses (n,) of a log."""
    table = np.array([(row["step"], row["loss"]) for row in rows], dtype=np.float64).reshape(-1, 2)
    return table[:, 0], table[:, 1]


def identification_curve(rows: Rows) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Steps (m,) with a validation, and how many per cent of held-out images were named right."""
    found = [(row["step"], 100 * row["one_shot"]) for row in rows if "one_shot" in row]
    table = np.array(found, dtype=np.float64).reshape(-1, 2)
    return table[:, 0], table[:, 1]


def learning_curves(
    rows: Rows, *, chance: float, steps: int, size: tuple[int, int] = (456, 400)
) -> go.Figure:
    """Loss above, identification of held-out models below, over the steps of a training.

    Parameters
    ----------
    rows : sequence of rows of the log
        With ``step`` and ``loss``, some with ``one_shot``, a share.
    chance : float in [0, 1]
        The share that guessing would name right.
    steps : int
        Where the axis ends.
    size : (width, height) in pixels

    Returns
    -------
    plotly.graph_objects.Figure
        Traces: loss, its running mean, identification in per cent.
    """
    step, loss = loss_curve(rows)
    at, right = identification_curve(rows)
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.08)
    light = {"color": LINE_COLOURS[4], "width": 1}
    thick = {"color": LINE_COLOURS[0], "width": 2.5}
    line = "step %{x}: %{y:.2f}<extra></extra>"
    figure.add_scatter(x=step, y=loss, line=light, mode="lines", hovertemplate=line, row=1, col=1)
    figure.add_scatter(
        x=step, y=smoothed(loss), line=thick, mode="lines", hovertemplate=line, row=1, col=1
    )
    figure.add_scatter(
        x=at, y=right, mode="lines+markers", row=2, col=1,
        line={"color": LINE_COLOURS[5], "width": 2.5}, marker={"size": 7, "symbol": "diamond"},
        hovertemplate="step %{x}: %{y:.0f}%<extra></extra>",
    )  # fmt: skip
    figure.add_hline(
        y=100 * chance, row=2, col=1, line={"dash": "dash", "color": INK},
        annotation={"text": f"chance {chance:.0%}", "font": {"color": INK}, "yshift": 2},
        annotation_position="top right",
    )  # fmt: skip
    styled(figure, "", width=size[0], height=size[1])
    figure.update_layout(showlegend=False)
    figure.update_xaxes(range=[0, steps])
    figure.update_xaxes(title="step", row=2, col=1)
    figure.update_yaxes(title="loss", rangemode="tozero", row=1, col=1)
    figure.update_yaxes(title="held-out, right (%)", range=[0, 102], row=2, col=1)
    return figure


def snapshot_scatter(
    snapshot: Snapshot | None, models: Sequence[str], *, size: tuple[int, int] = (500, 400)
) -> go.Figure:
    """A snapshot as points, with a colour and a symbol per model.

    Parameters
    ----------
    snapshot : Snapshot, optional
        Without one there are no points yet, only the legend.
    models : sequence of n str
        Which model makes each image.
    size : (width, height) in pixels

    Returns
    -------
    plotly.graph_objects.Figure
        Trace 0 has the points.
    """
    points = np.full((len(models), 2), np.nan) if snapshot is None else snapshot.points
    figure = scatter_figure(points, models, title=snapshot_title(snapshot), size=size)
    figure.update_layout(
        dragmode="zoom",
        legend={"orientation": "h", "y": -0.02, "yanchor": "top", "x": 0, "font": {"size": 11}},
        legend_entrywidth=0.49,  # two columns
        legend_entrywidthmode="fraction",
    )
    return figure


def snapshot_title(snapshot: Snapshot | None) -> str:
    """What a snapshot shows, in a line."""
    if snapshot is None:
        return "held-out images: no snapshot yet"
    return f"held-out images at step {snapshot.step} ({snapshot.share:.0%} of the variance)"


def training_picture(rows: Rows, snapshots: Sequence[Snapshot], *, chance: float) -> Image.Image:
    """Loss, identification and up to three snapshots (first, middle, last) as a picture.

    Parameters
    ----------
    rows : sequence of rows of the log
        At least one.
    snapshots : sequence of Snapshot
    chance : float in [0, 1]
    """
    if not rows:
        raise ValueError("rows must hold at least one step: train first")
    step, loss = loss_curve(rows)
    curves = {"loss": (step, loss), "running mean": (step, smoothed(loss))}
    parts = [line_chart(curves, x_label="step", y_label="loss", size=(760, 220))]
    at, right = identification_curve(rows)
    if len(at):
        named = {"held-out": (at, right), "chance": (step[[0, -1]], [100 * chance] * 2)}
        parts.append(line_chart(named, x_label="step", y_label="named right (%)", size=(760, 220)))
    if snapshots:
        chosen = sorted({0, (len(snapshots) - 1) // 2, len(snapshots) - 1})
        parts.append(_in_a_row([snapshots[i] for i in chosen]))
    return stack(parts)


def _in_a_row(snapshots: Sequence[Snapshot], *, side: int = 230) -> Image.Image:
    images = [
        scatter_picture(
            snapshot.points,
            snapshot.models,
            title=f"step {snapshot.step}",
            size=side,
            legend=snapshot is snapshots[-1],
        )
        for snapshot in snapshots
    ]
    sheet = Image.new("RGB", (sum(i.width for i in images), images[-1].height), "white")
    x = 0
    for image in images:
        sheet.paste(image, (x, 0))
        x += image.width
    return sheet
