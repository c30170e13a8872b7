"""What a lesson needs besides its subject: a badge, figures that survive without a kernel, checks.

A check prints ``not attempted yet``, ``not yet: ...`` or ``ok`` and never raises, so that
"Run All" runs through with every exercise unsolved.
"""

import html
import json
import os
import platform
from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import plotly.graph_objects as go
import torch
from numpy.typing import NDArray
from PIL import Image

from fpkit.pictures import png_bytes

Status = Literal["not attempted yet", "not yet", "ok"]

WIDGET = "application/vnd.jupyter.widget-view+json"

_COLOURS: dict[Status, str] = {
    "not attempted yet": "#767676",
    "not yet": "#b35c00",
    "ok": "#00795a",
}


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a check has to say; Jupyter shows it in colour, a shell as one line."""

    status: Status
    message: str = ""

    def __str__(self) -> str:
        return f"{self.status}: {self.message}" if self.message else self.status

    __repr__ = __str__

    def _repr_html_(self) -> str:
        sign = {"not attempted yet": "&#9711;", "not yet": "&#10007;", "ok": "&#10003;"}
        return (
            f'<span style="color: {_COLOURS[self.status]}; font-weight: bold">'
            f"{sign[self.status]} {html.escape(self.status)}</span>"
            f"{html.escape(': ' + self.message if self.message else '')}"
        )


Test = Callable[[Any], str | None]
_TESTS: dict[str, Test] = {}


def exercise(name: str) -> Callable[[Test], Test]:
    """Register a test under `name`: it returns None if the answer is right, else what is wrong."""

    def register(test: Test) -> Test:
        if name in _TESTS:
            raise ValueError(f"there is already an exercise {name!r}")
        _TESTS[name] = test
        return test

    return register


def exercises() -> tuple[str, ...]:
    """Names of all exercises that have a check."""
    return tuple(_TESTS)


def check(name: str, answer: object) -> Verdict:
    """Check an answer; never raises because of the answer.

    Parameters
    ----------
    name : str
        Name of the exercise.
    answer : object
        ``...`` (or a function that returns it) counts as not attempted.

    Raises
    ------
    KeyError
        If there is no such exercise: a mistake in the notebook, not in the answer.

    Examples
    --------
    >>> check("peak-frequency", ...)
    not attempted yet
    >>> check("peak-frequency", 0.1).status
    'not yet'
    """
    if name not in _TESTS:
        raise KeyError(f"no exercise {name!r}: there are {', '.join(_TESTS)}")
    if answer is ... or answer is None:
        return Verdict(status="not attempted yet")
    try:
        wrong = _TESTS[name](answer)
    except _NotAttempted:
        return Verdict(status="not attempted yet")
    except Exception as error:  # the answer is foreign code: whatever it raises is its verdict
        return Verdict(status="not yet", message=f"it raised {type(error).__name__}: {error}")
    return Verdict(status="ok") if wrong is None else Verdict(status="not yet", message=wrong)


class _NotAttempted(Exception):
    """An answer function returned ``...``."""


@dataclass(frozen=True, kw_only=True)
class Badge:
    """Measured runtime of a notebook and the hardware at hand."""

    measured: str
    hardware: str
    versions: str

    def __str__(self) -> str:
        return f"runs in {self.measured} | found here: {self.hardware} | {self.versions}"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        cells = {"runs in": self.measured, "found here": self.hardware, "with": self.versions}
        return "&emsp;".join(f"{key} <b>{html.escape(text)}</b>" for key, text in cells.items())


def runtime_badge(notebook: str) -> Badge:
    """Measured runtime of `notebook` (from ``runtimes.json`` beside it) and the hardware found.

    Parameters
    ----------
    notebook : str
        Name without ending, e.g. ``"00_start_here"``.
    """
    measured = "a time not measured yet"
    for folder in (Path.cwd(), Path.cwd().parent):
        file = folder / "runtimes.json"
        if file.is_file():
            entry = json.loads(file.read_text(encoding="utf-8")).get(notebook)
            if entry:
                measured = f"{entry['seconds']} s on {entry['cores']} CPU cores"
            break
    hardware = f"{os.cpu_count()} CPU cores, "
    if torch.cuda.is_available():
        hardware += torch.cuda.get_device_name()
    else:
        hardware += "no GPU (none is needed)"
    versions = f"Python {platform.python_version()}, torch {torch.__version__.split('+')[0]}"
    return Badge(measured=measured, hardware=hardware, versions=versions)


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


@exercise("peak-frequency")
def _peak_frequency(answer: object) -> str | None:
    """Two stride-2 upsamplings repeat the spectrum every 1/4 cycle per pixel: 0.25 and 0.5."""
    value = float(answer)  # type: ignore[arg-type]  # check() reports whatever this raises
    if not np.isfinite(value):
        return f"{value} is no frequency"
    value = abs(value)
    if value > 0.5:
        return (
            f"{value:g} is beyond 0.5 cycles/pixel, the highest frequency pixels can carry: "
            "an index of a 128-bin spectrum becomes a frequency as (index - 64) / 128"
        )
    if value < 0.15:
        return f"at {value:g} the scene itself is strong: look beyond 0.15 cycles/pixel"
    if min(abs(value - 0.25), abs(value - 0.5)) > 0.012:
        return f"{value:g} is not where the peak is: is the maximum taken along the middle row?"
    return None


@exercise("closest-fingerprint")
def _closest_fingerprint(answer: object) -> str | None:
    """`answer(spectrum_db, fingerprints_db)` names the fingerprint of the same pattern."""
    generator = np.random.default_rng(0)
    fingerprints = {name: generator.normal(-40, 6, (16, 16)) for name in ("a", "b", "c")}
    for name, pattern in fingerprints.items():
        noisy = pattern + generator.normal(0, 2, pattern.shape)
        if _named(answer, noisy, fingerprints) != name:
            return f"a noisy copy of fingerprint {name!r} was given to another model"
    for name, pattern in fingerprints.items():
        if _named(answer, pattern + 15, fingerprints) != name:
            return "15 dB more power everywhere (a brighter scene) changed the answer"
        if _named(answer, 0.3 * pattern, fingerprints) != name:
            return "less contrast (a weaker trace of the same shape) changed the answer"
    return None


def _named(
    answer: object, spectrum: NDArray[np.float64], fingerprints: dict[str, NDArray[np.float64]]
) -> object:
    result = answer(spectrum, dict(fingerprints))  # type: ignore[operator]
    if result is ... or result is None:
        raise _NotAttempted
    return result
