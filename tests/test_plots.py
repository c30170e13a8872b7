import numpy as np
import pytest

from fpkit.pictures import LINE_COLOURS
from fpkit.plots import (
    autocorrelation_heatmap,
    central_lags,
    image_row,
    radial_profiles,
    score_bars,
    spectrum_heatmap,
)

FREQUENCY = np.linspace(0, 0.5, 9)


def test_heatmap_puts_frequency_zero_where_a_centred_spectrum_has_it():
    values = np.zeros((8, 16))
    values[4, 8] = 1  # frequency zero of a centred (8, 16) spectrum
    trace = spectrum_heatmap(values).data[0]
    row, column = np.unravel_index(np.asarray(trace.z).argmax(), trace.z.shape)
    assert trace.x[column] == 0 and trace.y[row] == 0
    assert trace.x[0] == -0.5 and trace.y[0] == -0.5


def test_heatmap_is_small_enough_for_a_browser():
    figure = spectrum_heatmap(np.random.default_rng(0).normal(size=(128, 128)))
    assert figure.data[0].z.dtype == np.float32
    assert len(figure.to_json()) < 130_000
    with pytest.raises(ValueError, match=r"at most 128x128, got \(256, 256\)"):
        spectrum_heatmap(np.zeros((256, 256)))
    with pytest.raises(ValueError, match=r"\(h, w\)"):
        spectrum_heatmap(np.zeros((3, 8, 8)))


def test_heatmap_has_square_pixels_units_and_the_given_limits():
    figure = spectrum_heatmap(np.eye(8), unit="dB", limits=(-3, 7))
    assert (figure.data[0].zmin, figure.data[0].zmax) == (-3, 7)
    assert figure.data[0].colorbar.title.text == "dB"
    assert figure.layout.yaxis.scaleanchor == "x"
    assert "cycles/pixel" in figure.layout.xaxis.title.text


def test_autocorrelation_shows_lags_in_pixels_around_zero():
    correlation = np.zeros((32, 48))
    correlation[16, 24] = 1
    correlation[16 + 2, 24 - 5] = 0.5  # 2 pixels down, 5 to the left
    figure = autocorrelation_heatmap(correlation, lags=8, limits=(0, 0.5))
    trace = figure.data[0]
    assert trace.z.shape == (17, 17) and trace.z.dtype == np.float32
    at = {(trace.y[r], trace.x[c]): trace.z[r, c] for r, c in np.argwhere(trace.z > 0)}
    assert at == {(0, 0): 1, (2, -5): 0.5}
    assert (trace.zmin, trace.zmax) == (0, 0.5)
    assert figure.layout.yaxis.autorange == "reversed"  # down is down, as in the image
    for lags in (0, 16):
        with pytest.raises(ValueError, match="lags"):
            central_lags(correlation, lags)


def test_profiles_have_one_colour_blind_safe_line_each():
    curves = {name: (FREQUENCY, FREQUENCY * i) for i, name in enumerate("abc")}
    figure = radial_profiles(curves, highlight="b")
    assert [trace.name for trace in figure.data] == ["a", "b", "c"]
    assert [trace.line.color for trace in figure.data] == list(LINE_COLOURS[:3])
    widths = [trace.line.width for trace in figure.data]
    assert widths[1] > widths[0] == widths[2]
    np.testing.assert_allclose(figure.data[2].y, 2 * FREQUENCY, rtol=1e-6)


def test_profiles_refuse_to_highlight_what_is_not_there():
    with pytest.raises(ValueError, match="highlight"):
        radial_profiles({"a": (FREQUENCY, FREQUENCY)}, highlight="z")


def test_image_row_shows_colours_and_grey_maps_side_by_side():
    red = np.zeros((3, 4, 6))
    red[0] = 1
    figure = image_row({"red": red, "ramp": np.arange(24.0).reshape(4, 6)})
    assert np.asarray(figure.data[0].z).tolist() == [[[255, 0, 0]] * 6] * 4
    ramp = np.asarray(figure.data[1].z)
    assert ramp.shape == (4, 6, 3) and (ramp[..., 0] == ramp[..., 2]).all()
    assert ramp[0, 0, 0] == 0 and ramp[-1, -1, 0] == 255
    assert figure.layout.xaxis.domain[1] <= figure.layout.xaxis2.domain[0]
    with pytest.raises(ValueError, match="at least one"):
        image_row({})


def test_bars_have_the_best_score_on_top_and_show_the_threshold():
    figure = score_bars({"x": 0.1, "y": 0.9, "z": -0.4}, threshold=0.5)
    bars = figure.data[0]
    assert list(bars.y) == ["z", "x", "y"]  # plotly draws the last one on top
    assert bars.marker.color == (LINE_COLOURS[1], LINE_COLOURS[1], LINE_COLOURS[0])
    assert figure.layout.shapes[0].x0 == 0.5
    low, high = figure.layout.xaxis.range
    assert low < -0.4 and high > 0.9


def test_backgrounds_let_a_dark_page_through():
    figure = score_bars({"x": 0.1})
    assert figure.layout.paper_bgcolor == figure.layout.plot_bgcolor == "rgba(0,0,0,0)"
