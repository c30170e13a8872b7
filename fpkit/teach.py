"""What a lesson needs besides its subject: a badge, a budget, checks, figures without a kernel."""

import html
import json
import os
import platform
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import plotly.graph_objects as go
import torch
from PIL import Image

from fpkit.checks import check
from fpkit.pictures import png_bytes

__all__ = ["Badge", "Budget", "Shown", "budget", "check", "runtime_badge", "show"]

WIDGET = "application/vnd.jupyter.widget-view+json"

BudgetName = Literal["quick", "full"]
_Option = TypeVar("_Option")


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How much computing a notebook may do: ``quick`` for a laptop, ``full`` for a GPU.

    Attributes
    ----------
    name : {"quick", "full"}
    device : torch.device
        A GPU in the full budget where there is one, else the CPU.

    Examples
    --------
    >>> Budget(name="quick").choose(quick=100, full=5000)
    100
    """

    name: BudgetName
    device: torch.device = torch.device("cpu")

    def choose(self, *, quick: _Option, full: _Option) -> _Option:
        """The option of this budget."""
        return full if self.name == "full" else quick


def budget() -> Budget:
    """The budget that the environment variable ``FPKIT_BUDGET`` names, ``quick`` by default.

    Raises
    ------
    ValueError
        If it names neither ``quick`` nor ``full``.
    """
    name = os.environ.get("FPKIT_BUDGET", "quick")
    if name not in get_args(BudgetName):
        raise ValueError(f"FPKIT_BUDGET must be quick or full, got {name!r}")
    gpu = name == "full" and torch.cuda.is_available()
    return Budget(name=name, device=torch.device("cuda" if gpu else "cpu"))


@dataclass(frozen=True, kw_only=True)
class Badge:
    """Measured runtimes of a notebook, the budget in force and the hardware at hand."""

    measured: str
    budget: BudgetName
    hardware: str
    versions: str

    def __str__(self) -> str:
        return " | ".join(f"{key} {text}" for key, text in self._cells().items())

    __repr__ = __str__

    def _repr_html_(self) -> str:
        cells = self._cells().items()
        return "&emsp;".join(f"{key} <b>{html.escape(text)}</b>" for key, text in cells)

    def _cells(self) -> dict[str, str]:
        return {
            "runs in": self.measured,
            "budget": self.budget,
            "found here": self.hardware,
            "with": self.versions,
        }


def runtime_badge(notebook: str, *, folder: str | Path | None = None) -> Badge:
    """Measured runtimes of `notebook`, the budget in force, and the hardware found.

    Parameters
    ----------
    notebook : str
        Name without ending, e.g. ``"00_start_here"``.
    folder : str or Path, optional
        Has ``runtimes.json``; default: the current folder, or the one above it.
    """
    folders = (Path.cwd(), Path.cwd().parent) if folder is None else (Path(folder),)
    file = next((f for place in folders if (f := place / "runtimes.json").is_file()), None)
    measured = json.loads(file.read_text(encoding="utf-8")).get(notebook, {}) if file else {}
    full = measured.get("full", {})
    entries = [("quick", measured.get("quick"))]
    entries += [("full", full.get(device)) for device in ("cpu", "cuda")]
    times = [f"{_runtime(entry)} ({name})" for name, entry in entries if entry]
    hardware = f"{os.cpu_count()} CPU cores, "
    if torch.cuda.is_available():
        hardware += torch.cuda.get_device_name()
    else:
        hardware += "no GPU (none is needed)"
    return Badge(
        measured=", ".join(times) or "a time not measured yet",
        budget=budget().name,
        hardware=hardware,
        versions=f"Python {platform.python_version()}, torch {torch.__version__.split('+')[0]}",
    )


def _runtime(entry: Mapping[str, Any]) -> str:
    return f"{entry['seconds']} s on {entry.get('hardware') or str(entry['cores']) + ' CPU cores'}"


class Shown:
    """A picture for every reader, with an interactive figure where a kernel runs.

    JupyterLab shows the figure, a code host the picture.
    """

    def __init__(self, picture: Image.Image, figure: go.Figure | None) -> None:
        self.picture = picture
        self.figure = figure

    def _repr_mimebundle_(self, **_: object) -> Mapping[str, Any]:
        bundle: dict[str, Any] = {
            "image/png": b64encode(png_bytes(self.picture, colours=128)).decode(),
            "text/plain": "a picture of {} x {} pixels".format(*self.picture.size),
        }
        if self.figure is not None:
            # a plain plotly figure would lose against the PNG: JupyterLab ranks it lower
            widget = go.FigureWidget(self.figure)._repr_mimebundle_()
            bundle[WIDGET] = widget[WIDGET]
        return bundle


def show(picture: Image.Image, *, figure: go.Figure | None = None) -> Shown:
    """Show `picture` as a PNG of 128 colours, a third of its size, or `figure` if that is possible.

    Parameters
    ----------
    picture : PIL.Image.Image
        From :mod:`fpkit.pictures`.
    figure : plotly.graph_objects.Figure, optional
        The same, to zoom into and hover over.
    """
    return Shown(picture, figure)
