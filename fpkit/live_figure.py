"""A figure in the browser that shows its present state, however late the browser opens it."""

import time
from copy import deepcopy
from typing import Any

import plotly.graph_objects as go

LOADING = 60.0  # seconds that a slow browser takes to load plotly, with room


class LiveFigure(go.FigureWidget):
    """A FigureWidget whose first picture in the browser is its present state.

    A FigureWidget sends its traces once, when it is made, and afterwards messages about what
    changed. A page that is opened later (every page of Voila is, and one that is loaded again)
    would begin with the figure as it was made; and messages that come while it loads plotly are
    lost. So a LiveFigure answers a page with its present state, and sends the whole state behind
    every change until the page answers one, or for a minute.

    Examples
    --------
    >>> figure = LiveFigure(go.Figure(go.Scatter(y=[1, 2])))
    >>> figure.data[0].y = [3, 4]
    >>> figure.get_state()["_widget_data"][0]["y"]
    [3, 4]
    """

    def __init__(self, figure: go.Figure) -> None:
        self._is_made = False
        super().__init__(figure)
        self._is_made = True
        self.observe(self._answered, names=["_js2py_layoutDelta", "_js2py_traceDeltas"])

    def _answered(self, _: object) -> None:
        self._opened = float("-inf")  # the page has loaded

    def get_state(self, key: Any = None, drop_defaults: bool = False) -> dict[str, Any]:
        """State for the browser; all of it, without a `key`, is what a page begins with."""
        if key is None:
            self._opened = time.monotonic()
            self._send_whole_state()
        return super().get_state(key, drop_defaults)

    def _send_whole_state(self) -> None:
        if self._is_made and time.monotonic() < self._opened + LOADING:
            self._widget_layout = deepcopy(self._layout)
            self._widget_data = deepcopy(self._data)

    # every change is sent by one of these methods of plotly's

    def _send_relayout_msg(self, *message: Any, **named: Any) -> None:
        super()._send_relayout_msg(*message, **named)
        self._send_whole_state()

    def _send_restyle_msg(self, *message: Any, **named: Any) -> None:
        super()._send_restyle_msg(*message, **named)
        self._send_whole_state()

    def _send_update_msg(self, *message: Any, **named: Any) -> None:
        super()._send_update_msg(*message, **named)
        self._send_whole_state()

    def _send_addTraces_msg(self, *message: Any, **named: Any) -> None:
        super()._send_addTraces_msg(*message, **named)
        self._send_whole_state()

    def _send_moveTraces_msg(self, *message: Any, **named: Any) -> None:
        super()._send_moveTraces_msg(*message, **named)
        self._send_whole_state()

    def _send_deleteTraces_msg(self, *message: Any, **named: Any) -> None:
        super()._send_deleteTraces_msg(*message, **named)
        self._send_whole_state()
