"""Controls of the attribution desk and their place on the page; what they do is not here."""

import ipywidgets
import numpy as np
from numpy.typing import NDArray

from fpkit.desk_data import Answer
from fpkit.desk_figures import correlation_figure, score_table
from fpkit.evidence import ImageEvidence, describe
from fpkit.live_figure import LiveFigure
from fpkit.names import as_html
from fpkit.panel import row
from fpkit.upload import Upload

FORMATS = ".png,.jpg,.jpeg,.webp"
FARS = (0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2)
ORIGIN = (
    "A likelihood ratio (LR) says how many times likelier the score is if the answer is yes than "
    "if it is no. The desk says yes where as few wrong matches as you choose here get so far, and "
    "no where only 5% of the right ones fall so low; in between it is <b>unsure</b>. Both were "
    "measured on <b>synthetic</b> models: real generators differ from them, and so may the "
    "errors. Where there is a warning, the verdict was not calibrated for such images."
)


class DeskControls:
    """Every control of the desk, with its label; all are native and work from the keyboard."""

    def __init__(self) -> None:
        self.enrol_path = _text("models in", "a folder that holds one folder of images per model")
        self.enrol_button = _button("Enrol folder", "Enrol one model per folder in it")
        self.example = _button(
            "Load an example", "Enrol four synthetic models and ask about images of five"
        )
        self.name = _text("model", "its name, then upload images of it", width="300px")
        self.enrol_upload = Upload("Upload its images", accept=FORMATS)
        self.choice = _dropdown("enrolled", width="320px")
        self.forget = _button("Forget", "Take this model out of the gallery", width="90px")
        self.ask_upload = Upload("Upload images", accept=FORMATS)
        self.ask_path = _text("images in", "a folder of images")
        self.ask_button = _button("Ask about folder", "Put its images on the desk")
        self.clear = _button("Clear", "Take all images off the desk", width="90px")
        self.cancel = _button("Cancel", "End the work in the background", width="90px")
        self.far = _dropdown("false accepts", width="200px")
        self.far.style.description_width = "initial"  # longer than the others
        self.offer_far(FARS[2])
        self.shown, self.against = _dropdown("look at"), _dropdown("against")
        self.enrolled, self.table = ipywidgets.HTML(), ipywidgets.HTML()
        self.set_busy(False)

    def page(self, *rest: ipywidgets.Widget) -> list[ipywidgets.Widget]:
        """The controls in order, with progress bar, status line and closer look among them."""
        bar, message, look = rest
        return [
            _heading("Models you know"),
            row(self.enrol_path, self.enrol_button, self.example),
            row(self.name, self.enrol_upload, self.choice, self.forget),
            self.enrolled,
            _heading("Images to ask about (PNG, JPEG, WebP; 128 pixels or more)"),
            row(self.ask_upload, self.ask_path, self.ask_button, self.clear),
            row(bar, self.cancel),
            message,
            self.table,
            row(self.shown, self.against),
            look,
            _heading("When is it a match?"),
            self.far,
            ipywidgets.HTML(_paragraph(ORIGIN)),
        ]

    def offer_folder(self, name: str | None) -> None:
        """Folders may be asked for only inside the one of this name; None: not at all."""
        for field in (self.enrol_path, self.ask_path):
            field.placeholder = f"a folder inside {name}; empty: {name} itself"
        if name is None:
            for control in (self.enrol_path, self.enrol_button, self.ask_path, self.ask_button):
                control.layout.display = "none"

    def offer_far(self, far: float) -> None:
        """Choose a false-accept rate, which need not be one of those that are offered."""
        if far not in (rate for _, rate in self.far.options):
            self.far.options = [(f"{100 * rate:.3g}%", rate) for rate in sorted({*FARS, far})]
        self.far.value = far

    def set_busy(self, busy: bool) -> None:
        """Work is going on: only Cancel, the choices and the rate stay alive."""
        for control in (
            self.enrol_button, self.enrol_upload, self.example, self.ask_upload, self.ask_button,
            self.clear,
        ):  # fmt: skip
            control.disabled = busy
        self.cancel.disabled = not busy


class CloserLook:
    """The verdict on one image, its scores, and where its spectrum agrees with another.

    The figure is made when there is something to show, and then updated.
    """

    def __init__(self) -> None:
        self.verdict, self.scores, self.reason = (ipywidgets.HTML() for _ in range(3))
        self.figure: LiveFigure | None = None
        self._right = ipywidgets.Box()
        self.box = ipywidgets.VBox([self.verdict, row(self.scores, self._right), self.reason])

    def say(self, text: str, evidence: ImageEvidence) -> None:
        """Show the verdict, and what it should be read with."""
        warnings = "".join(f"<p>⚠ {as_html(warning)}</p>" for warning in evidence.warnings)
        self.verdict.value = (
            '<div role="status" aria-label="verdict" style="font-size: 15px; line-height: 1.5; '
            f'font-weight: bold">{as_html(text)}</div>'
            f'<div style="line-height: 1.4">{as_html(describe(evidence))}{warnings}</div>'
        )

    def show_scores(self, answer: Answer | None) -> None:
        """Show the scores of the enrolled models, or nothing without an answer."""
        self.scores.value = "" if answer is None else score_table(answer)

    def show_reason(self, other: str, found: tuple[NDArray[np.float64], float] | None) -> None:
        """Show a correlation map with `other`, or say why there is none."""
        self._right.layout.display = "none" if found is None else None
        if found is None:
            what = (
                f"no images of {other} were enrolled here" if other else "nothing to compare with"
            )
            self.reason.value = _paragraph(f"Where spectra agree cannot be shown: {as_html(what)}.")
            return
        contributions, correlation = found
        fresh = correlation_figure(contributions)
        if self.figure is None:
            self.figure = LiveFigure(fresh)
            self._right.children = (self.figure,)
        else:
            with self.figure.batch_update():
                self.figure.data[0].z = fresh.data[0].z
                self.figure.data[1].update(x=fresh.data[1].x, y=fresh.data[1].y)
        self.reason.value = _paragraph(
            "<b>Why?</b> The log spectra of both, minus what all models have in common, correlate "
            f"by <b>{correlation:.2f}</b>. The map shows which frequencies make that sum: yellow "
            "where both have more power than usual, or both less; blue where one has more and the "
            "other less. The extractor sees more than this, and its score is another number."
        )


def _heading(text: str) -> ipywidgets.HTML:
    return ipywidgets.HTML(f"<b>{text}</b>")


def _paragraph(text: str) -> str:
    return f'<div style="line-height: 1.4; max-width: 960px">{text}</div>'


def _text(description: str, placeholder: str, *, width: str = "480px") -> ipywidgets.Text:
    return ipywidgets.Text(
        description=description, placeholder=placeholder, layout=ipywidgets.Layout(width=width)
    )


def _dropdown(description: str, *, width: str = "400px") -> ipywidgets.Dropdown:
    return ipywidgets.Dropdown(description=description, layout=ipywidgets.Layout(width=width))


def _button(description: str, tooltip: str, *, width: str = "150px") -> ipywidgets.Button:
    layout = ipywidgets.Layout(width=width)
    return ipywidgets.Button(description=description, tooltip=tooltip, layout=layout)
