"""A figure in the browser that loses no update while the browser still loads it."""

from copy import deepcopy
from typing import Any

import plotly.graph_objects as go


class LiveFigure(go.FigureWidget):
    """A FigureWidget whose first picture in the browser is its present state.

    The browser needs a while to load plotly. A FigureWidget sends its traces once, when it is
    made, and afterwards messages about what changed; those that come while the browser loads are
    lost, and the figure stays as it was. So until the browser says that it has drawn the figure,
    a LiveFigure sends its whole state behind every change.

    Examples
    --------
    >>> figure = LiveFigure(go.Figure(go.Scatter(y=[1, 2])))
    >>> figure.data[0].y = [3, 4]
    >>> figure.get_state("_widget_data")["_widget_data"][0]["y"]
    [3, 4]
    """

    def __init__(self, figure: go.Figure) -> None:
        self._is_drawn = False
        super().__init__(figure)
        self.observe(self._drawn, names="_js2py_layoutDelta")

    def _drawn(self, _: object) -> None:
        self._is_drawn = True

    def _send_whole_state(self) -> None:
        if not self._is_drawn:
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
