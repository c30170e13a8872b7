"""What was discovered in a folder, as a page: a map of the clusters, a table, the images alone."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray
from torch import Tensor

from fpkit.discovery import ALONE, Cluster, Discovery
from fpkit.images import to_pillow
from fpkit.names import as_html, as_label
from fpkit.plots import INK
from fpkit.scatter import marker_of

MOST_POINTS = 2000  # of a map: a minute of one core
OWN_TRACES = 42  # clusters with a marker and an entry in the key of their own
SHOWN = 5  # typical images of a cluster
LISTED = 200  # images alone
PICTURE = 96  # pixels of the longer side of a small picture

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem;
  color: #222; background: #fff }
table { border-collapse: collapse; width: 100% }
th, td { text-align: left; vertical-align: top; padding: .3rem .6rem;
  border-bottom: 1px solid #ddd; overflow-wrap: anywhere }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums }
p.note { color: #555 }
div.images { display: flex; flex-wrap: wrap; gap: .6rem }
figure { margin: 0; width: 7rem; font-size: 12px; line-height: 1.3 }
"""
_NOTE = (
    "Near points of the map (t-SNE) are alike; sizes of clusters and distances between them mean "
    "nothing. A cluster is what synthetic models were told apart by: models that share a decoder "
    "fall into one, and a model may fall into several."
)


def map_places(discovery: Discovery, *, most: int = MOST_POINTS, seed: int = 0) -> NDArray[np.intp]:
    """Which images a map shows: all, or at most `most`, as many of a cluster as of any other."""
    count = len(discovery.labels)
    if count <= most:
        return np.arange(count)
    order = np.random.default_rng(seed).permutation(count)
    groups = discovery.labels[order]
    rank = np.empty(count, np.intp)  # of each image within its cluster
    for label in np.unique(groups):
        mine = np.flatnonzero(groups == label)
        rank[mine] = np.arange(len(mine))
    chosen: NDArray[np.intp] = np.sort(order[np.argsort(rank, kind="stable")[:most]])
    return chosen


def map_coordinates(vectors: NDArray[np.floating], *, seed: int = 0) -> NDArray[np.float64]:
    """Unit vectors (n, k) in the plane, neighbours near each other: (n, 2); the same each time."""
    if len(vectors) < 10:  # too few neighbours for t-SNE
        left, widths, _ = np.linalg.svd(vectors - vectors.mean(axis=0), full_matrices=False)
        flat = np.zeros((len(vectors), 2))
        flat[:, : min(2, len(widths))] = (left * widths)[:, :2]
        return flat
    from sklearn.manifold import TSNE

    perplexity = min(30.0, (len(vectors) - 1) / 3)
    model = TSNE(perplexity=perplexity, init="pca", random_state=seed)
    return np.asarray(model.fit_transform(vectors.astype(np.float32)), np.float64)


def cluster_map(discovery: Discovery, names: Sequence[str], *, seed: int = 0) -> go.Figure:
    """A map of the images, coloured by cluster; hovering names an image, the key hides clusters.

    Parameters
    ----------
    discovery : Discovery
    names : n texts
        Of the images. They are shown as they are, whatever tags they hold.
    seed : int

    Raises
    ------
    ValueError
        If there is not one name for each image.
    """
    _check_names(discovery, names)
    places = map_places(discovery, seed=seed)
    spots = map_coordinates(discovery.vectors[places], seed=seed)
    labels = discovery.labels[places]
    key = np.where(labels < OWN_TRACES, labels, OWN_TRACES)
    figure = go.Figure()
    for value in [*np.unique(key[key != ALONE]).tolist(), ALONE]:
        mine = np.flatnonzero(key == value)
        if not len(mine):
            continue
        colour, symbol = marker_of(value)
        if value == OWN_TRACES:
            colour, symbol, title = "#b0b0b0", "circle", "smaller clusters"
        elif value == ALONE:
            colour, symbol, title = INK, "circle-open", f"alone ({len(discovery.alone)})"
        else:
            title = _title(value, discovery.clusters[value])
        figure.add_scattergl(
            x=spots[mine, 0].astype(np.float32),
            y=spots[mine, 1].astype(np.float32),
            mode="markers",
            marker={"color": colour, "symbol": symbol, "size": 7},
            name=as_label(title),
            text=[f"{as_label(names[i])}<br>{_place(discovery.labels[i])}" for i in places[mine]],
            hovertemplate="%{text}<extra></extra>",
        )
    axis = {"visible": False}
    figure.update_layout(
        height=620,
        margin={"l": 10, "r": 10, "t": 36, "b": 10},  # above: plotly's buttons
        plot_bgcolor="rgba(0,0,0,0)",
        xaxis=axis,
        yaxis=axis | {"scaleanchor": "x"},
        showlegend=True,
    )
    return figure


def page(
    discovery: Discovery,
    names: Sequence[str],
    *,
    title: str,
    pictures: Mapping[int, bytes] | None = None,
    seed: int = 0,
) -> str:
    """One HTML file that needs nothing else: map, table of clusters, images alone.

    Parameters
    ----------
    discovery : Discovery
    names : n texts
        Of the images; what all begin with, as a folder, is said once.
    title : str
    pictures : mapping of int to bytes, optional
        Of images by their places, see :func:`named_places`, as :func:`thumbnail` makes them.
    seed : int
        Of the map.
    """
    _check_names(discovery, names)
    folder = common_folder(names)
    short = [name[len(folder) :] for name in names]
    picture = cluster_map(discovery, short, seed=seed).to_html(
        include_plotlyjs=True, full_html=False, config={"displaylogo": False}
    )
    compared = any(cluster.nearest is not None for cluster in discovery.clusters)
    heads = ["", "images", "most typical", *(["answer", "nearest", "score"] if compared else [])]
    head = "".join(f"<th{_number(name)}>{name}</th>" for name in heads)
    rows = []
    for place, cluster in enumerate(discovery.clusters):
        typical = _named(cluster.images[:SHOWN], short, pictures)
        cells = [f"<td>{place + 1}</td>", f'<td class="number">{len(cluster.images)}</td>']
        cells.append(f"<td>{typical}</td>")
        if compared:
            cells.append(f"<td>{as_html(cluster.answer)}</td>")
            cells.append(f"<td>{as_html(cluster.nearest or '')}</td>")
            score = "" if cluster.score is None else f"{cluster.score:.3f}"
            cells.append(f'<td class="number">{score}</td>')
        rows.append(f"<tr>{''.join(cells)}</tr>")
    alone = discovery.alone
    listed = _named(alone[:LISTED], short, pictures) or "none"
    more = f"<p>and {len(alone) - LISTED} more</p>" if len(alone) > LISTED else ""
    shown = min(len(names), MOST_POINTS)
    sample = "" if shown == len(names) else f" The map shows {shown} of {len(names)} images."
    below = f"; names are below {as_html(folder)}" if folder else ""
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{as_html(title)}'
        f"</title><style>{_STYLE}</style></head><body><h1>{as_html(title)}</h1>"
        f"<p>{as_html(summary(discovery))}{below}</p>{picture}"
        f'<p class="note">{_NOTE}{sample}</p>'
        f"<h2>Clusters</h2><table><tr>{head}</tr>{''.join(rows)}</table>"
        f"<h2>Like no other</h2>{listed}{more}</body></html>\n"
    )


def named_places(discovery: Discovery) -> list[int]:
    """Places of the images that a page names: the typical ones of every cluster, those alone."""
    typical = [int(i) for cluster in discovery.clusters for i in cluster.images[:SHOWN]]
    return typical + discovery.alone[:LISTED].tolist()


def thumbnail(image: Tensor) -> bytes:
    """A small JPEG of an image (3, h, w) in [0, 1]."""
    small, file = to_pillow(image), io.BytesIO()
    small.thumbnail((PICTURE, PICTURE))
    small.save(file, format="JPEG", quality=85)
    return file.getvalue()


def common_folder(names: Sequence[str]) -> str:
    """The folder that all these paths begin with, with its last slash; empty if there is none.

    Examples
    --------
    >>> common_folder(["/photos/a/0.png", "/photos/ab/1.png"])
    '/photos/'
    """
    start = os.path.commonprefix(list(names))
    return start[: max(start.rfind("/"), start.rfind(os.sep)) + 1]


def summary(discovery: Discovery) -> str:
    """How many images, clusters and images alone, in a line."""
    images, clusters = len(discovery.labels), len(discovery.clusters)
    alone = len(discovery.alone)
    return (
        f"{images} image{'s' * (images != 1)}: {clusters} cluster{'s' * (clusters != 1)}, "
        f"{alone} alone"
    )


def _title(place: int, cluster: Cluster) -> str:
    answer = f", {cluster.answer}" if cluster.answer else ""
    return f"{place + 1}: {len(cluster.images)} images{answer}"


def _named(
    places: NDArray[np.intp], names: Sequence[str], pictures: Mapping[int, bytes] | None
) -> str:
    """Names of images, each below its picture if there are any."""
    if pictures is None:
        return "<br>".join(as_html(names[i]) for i in places)
    figures = []
    for i in places.tolist():
        shown = ""
        if i in pictures:
            data = base64.b64encode(pictures[i]).decode()
            shown = f'<img src="data:image/jpeg;base64,{data}" alt="">'
        figures.append(f"<figure>{shown}<figcaption>{as_html(names[i])}</figcaption></figure>")
    return f'<div class="images">{"".join(figures)}</div>' if figures else ""


def _place(label: int) -> str:
    return "alone" if label == ALONE else f"cluster {label + 1}"


def _number(name: str) -> str:
    return ' class="number"' if name in ("images", "score") else ""


def _check_names(discovery: Discovery, names: Sequence[str]) -> None:
    if len(names) != len(discovery.labels):
        raise ValueError(f"names must be {len(discovery.labels)}, one per image, got {len(names)}")
