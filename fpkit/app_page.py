"""The page of ``fpkit app``: Voila runs this file as the only cell of a notebook.

Whoever has the page has no kernel: no path leads out of the folder that ``--folder`` names, and
no message names another.
"""

import os
import warnings
from pathlib import Path

import ipywidgets
from IPython import get_ipython
from IPython.display import display

from fpkit.jail import FOLDER, Jail
from fpkit.names import as_html, without_folders
from fpkit.widgets import AttributionDesk, SynthesisExplorer

DEBUG = "FPKIT_DEBUG" in os.environ


def page() -> ipywidgets.Widget:
    """The two widgets for lectures, a tab each, or why there are none."""
    folder = os.environ.get(FOLDER)
    try:
        desk = AttributionDesk(jail=Jail(Path(folder) if folder else None))
        explorer = SynthesisExplorer()
    except Exception as error:
        if DEBUG:
            raise
        text = as_html(without_folders(f"{type(error).__name__}: {error}"))
        return ipywidgets.HTML(f'<div role="alert">{text}</div>')
    explorer.hides_folders = True
    return ipywidgets.Tab([desk, explorer], titles=["Attribution", "Synthesis"])


def say_less() -> None:
    """No tracebacks and warnings to the browser: they name files; a panel shows its errors."""
    warnings.simplefilter("ignore")
    shell = get_ipython()
    if shell is not None:
        shell.showtraceback = lambda *_, **__: None


if __name__ == "__main__":
    if not DEBUG:
        say_less()
    display(page())
