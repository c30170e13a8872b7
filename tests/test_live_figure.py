"""Figures that lose no update: what the browser gets when it opens them late."""

import time

import plotly.graph_objects as go
import pytest

from fpkit.live_figure import LiveFigure


@pytest.fixture
def figure() -> LiveFigure:
    return LiveFigure(go.Figure([go.Scatter(y=[1, 2]), go.Scatter(y=[3, 4])]))


def in_the_browser(figure: LiveFigure) -> tuple[list[list[int]], str | None]:
    """Values and title of a view that is opened now."""
    state = figure.get_state()
    title = state["_widget_layout"].get("title", {}).get("text")
    return [trace["y"] for trace in state["_widget_data"]], title


def change(figure: LiveFigure) -> None:
    with figure.batch_update():
        figure.data[0].y = [5, 6]
        figure.layout.title.text = "new"


def test_an_ordinary_figure_loses_changes():
    ordinary = go.FigureWidget(go.Figure([go.Scatter(y=[1, 2]), go.Scatter(y=[3, 4])]))
    change(ordinary)
    assert in_the_browser(ordinary) == ([[1, 2], [3, 4]], None)


def test_every_kind_of_change_is_there(figure: LiveFigure):
    figure.data[0].y = [0, 0]
    assert in_the_browser(figure) == ([[0, 0], [3, 4]], None)
    change(figure)
    assert in_the_browser(figure) == ([[5, 6], [3, 4]], "new")
    figure.layout.title.text = "newer"
    figure.add_traces([go.Scatter(y=[7])])
    assert in_the_browser(figure) == ([[5, 6], [3, 4], [7]], "newer")
    figure.data = figure.data[::-1]
    assert in_the_browser(figure) == ([[7], [3, 4], [5, 6]], "newer")
    figure.data = figure.data[1:2]
    assert in_the_browser(figure) == ([[3, 4]], "newer")


def test_a_page_opened_late_gets_the_present_state_and_others_only_changes(
    figure: LiveFigure, monkeypatch: pytest.MonkeyPatch
):
    now = time.monotonic()
    monkeypatch.setattr("fpkit.live_figure.time.monotonic", lambda: now + 3600)
    change(figure)
    sent = figure.get_state("_widget_data")["_widget_data"]
    assert [trace["y"] for trace in sent] == [[1, 2], [3, 4]]  # nothing was sent twice
    assert in_the_browser(figure) == ([[5, 6], [3, 4]], "new")
    figure.data[1].y = [8, 8]  # the page may still be loading
    sent = figure.get_state("_widget_data")["_widget_data"]
    assert [trace["y"] for trace in sent] == [[5, 6], [8, 8]]


def test_nothing_is_sent_twice_to_a_page_that_answers(figure: LiveFigure):
    answer = {"layout_edit_id": 0, "layout_delta": {}}
    figure.set_state({"_js2py_layoutDelta": answer})
    change(figure)
    sent = figure.get_state("_widget_data")["_widget_data"]
    assert [trace["y"] for trace in sent] == [[1, 2], [3, 4]]
