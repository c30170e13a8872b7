"""The page of ``fpkit app``: Voila runs this file as the only cell of a notebook."""

import ipywidgets
from IPython.display import display

from fpkit.widgets import AttributionDesk, SynthesisExplorer


def page() -> ipywidgets.Tab:
    """The two widgets for lectures, a tab each."""
    return ipywidgets.Tab(
        [AttributionDesk(), SynthesisExplorer()],
        titles=["Attribution", "Synthesis"],
    )


if __name__ == "__main__":
    display(page())
