"""The base of every widget: what it is doing, said in a line; work in the background; errors shown.

State lives in traits; controls and figures only show it. So a widget can be driven from code and
tested without a browser: set a trait, read a trait.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import ipywidgets
import traitlets
from PIL import Image

from fpkit.names import as_html, without_folders

_Result = TypeVar("_Result")


class Cancelled(Exception):
    """The work of a panel was cancelled."""


class Panel(ipywidgets.VBox):
    """A widget with a status line, a progress bar and at most one piece of work in the background.

    Subclasses put :attr:`message` (and :attr:`bar`, if their work takes long) among their
    children, wrap what may fail in :meth:`reporting`, and implement :meth:`static`.

    Attributes
    ----------
    status : str (trait)
        What the widget is doing or has done; begins with ``Error`` after a failure.
    error : Exception or None (trait, read it)
        What failed last; None once something succeeds.
    busy : bool (trait, read it)
        Work is going on in the background.
    progress : float in [0, 1] (trait)
    hides_folders : bool
        The status line shows file names without their folders: for a page whose reader is not at
        this machine.
    """

    status = traitlets.Unicode("")
    error = traitlets.Instance(BaseException, allow_none=True)
    busy = traitlets.Bool(False)
    progress = traitlets.Float(0.0, min=0.0, max=1.0)
    hides_folders = False

    def __init__(self, **traits: object) -> None:
        self._cancelled = threading.Event()
        self._thread: threading.Thread | None = None
        super().__init__(**traits)
        self.message = ipywidgets.HTML()
        self.bar = ipywidgets.FloatProgress(
            min=0, max=1, layout=ipywidgets.Layout(width="180px"), tooltip="progress"
        )
        traitlets.dlink((self, "progress"), (self.bar, "value"))
        self.observe(self._show_status, names="status")

    def static(self) -> Image.Image:
        """The view as a picture that needs no kernel."""
        raise NotImplementedError

    @contextmanager
    def reporting(self) -> Iterator[None]:
        """Show an error raised inside in the status line, and raise it on.

        An interrupted kernel too must leave the widget usable, hence BaseException.
        """
        try:
            yield
        except BaseException as error:
            self.error = error
            self.status = f"Error: {type(error).__name__}: {error}"
            raise
        self.error = None

    def start(self, work: Callable[[], object]) -> None:
        """Do `work` in a thread of its own, so that controls stay alive; errors are shown.

        Raises
        ------
        RuntimeError
            If the widget is busy.
        """
        self._begin()

        def run() -> None:
            try:
                with self.reporting():
                    work()
            except Cancelled as cancelled:
                self.error, self.status = None, str(cancelled)
            except Exception:
                pass  # the status line shows it and `error` keeps it; a thread has no caller
            finally:
                self.busy = False

        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()

    def run(self, work: Callable[[], _Result]) -> _Result:
        """Do `work` here and now, and return what it returns; errors are shown and raised.

        Raises
        ------
        RuntimeError
            If the widget is busy.
        """
        self._begin()
        try:
            with self.reporting():
                return work()
        finally:
            self.busy = False

    def cancel(self) -> None:
        """Ask the work in the background to end; :meth:`wait` waits until it has."""
        self._cancelled.set()

    def checkpoint(self, message: str = "Cancelled.") -> None:
        """For `work` to call often: raises :class:`Cancelled` once :meth:`cancel` was called."""
        if self._cancelled.is_set():
            raise Cancelled(message)

    def wait(self, timeout: float | None = None) -> None:
        """Wait until the work in the background is done.

        Raises
        ------
        TimeoutError
            If it is not done after `timeout` seconds.
        """
        if self._thread is not None:
            self._thread.join(timeout)
            if self._thread.is_alive():
                raise TimeoutError(f"still busy after {timeout} s: {self.status}")

    def _begin(self) -> None:
        if self.busy:
            raise RuntimeError("still busy: cancel, or wait until it is done")
        self._cancelled.clear()
        self.busy = True

    def _show_status(self, _: traitlets.Bunch) -> None:
        role = "alert" if self.status.startswith("Error") else "status"
        colour = "color: var(--jp-error-color0, #b00020);" if role == "alert" else ""
        text = without_folders(self.status) if self.hides_folders else self.status
        self.message.value = (
            f'<div role="{role}" style="line-height: 1.4; {colour}">{as_html(text)}</div>'
        )


def row(*children: ipywidgets.Widget) -> ipywidgets.Box:
    """Children side by side, on further lines where the page is too narrow."""
    return ipywidgets.Box(
        children, layout=ipywidgets.Layout(flex_flow="row wrap", align_items="center")
    )
