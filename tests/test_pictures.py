import io

import numpy as np
import pytest
from PIL import Image

from fpkit.pictures import (
    LINE_COLOURS,
    Cell,
    colourise,
    line_chart,
    montage,
    picture,
    png_bytes,
    robust_limits,
    stack,
    ticks,
)


def test_the_ends_of_viridis_are_those_of_its_authors():
    ends = colourise([[0.0, 1.0, -5.0, 5.0]], limits=(0, 1))[0]
    assert ends.tolist() == [[68, 1, 84], [253, 231, 37], [68, 1, 84], [253, 231, 37]]


@pytest.mark.parametrize("palette", ["viridis", "cividis", "grey"])
def test_palettes_get_brighter_all_the_way(palette):
    ramp = colourise(np.linspace(0, 1, 64)[None], limits=(0, 1), palette=palette)[0]
    luminance = ramp @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(luminance) > 0).all()


def test_colourise_names_bad_input():
    with pytest.raises(ValueError, match=r"\(h, w\), got shape \(3,\)"):
        colourise([1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="limits must rise"):
        colourise([[1.0]], limits=(2, 2))
    with pytest.raises(ValueError, match="palette must be one of"):
        colourise([[1.0]], palette="jet")


def test_robust_limits_leave_out_spikes_and_survive_constants():
    values = np.r_[np.linspace(0, 1, 1000), 1e6, -1e6, np.nan, np.inf]
    low, high = robust_limits(values)
    assert 0 <= low < 0.05 and 0.9 < high <= 1
    assert robust_limits([3.0, 3.0]) == (2.5, 3.5)
    with pytest.raises(ValueError, match="finite"):
        robust_limits([np.nan])


def test_picture_keeps_pixels_and_accepts_both_channel_orders():
    image = np.random.default_rng(0).random((3, 5, 7))
    wanted = np.rint(image.transpose(1, 2, 0) * 255).astype(np.uint8)
    assert (np.asarray(picture(image)) == wanted).all()
    assert (np.asarray(picture(image.transpose(1, 2, 0))) == wanted).all()
    doubled = np.asarray(picture(image, size=10))
    assert (doubled == wanted.repeat(2, axis=0).repeat(2, axis=1)).all()


def test_montage_puts_cells_where_rows_and_columns_say():
    red, green = np.zeros((3, 16, 16)), np.zeros((3, 16, 16))
    red[0], green[1] = 1, 1
    sheet = np.asarray(montage({"first": [red, green], "second": [green]}, cell_size=16))
    is_red = (sheet == [255, 0, 0]).all(-1)
    is_green = (sheet == [0, 255, 0]).all(-1)
    assert is_red.sum() == 256 and is_green.sum() == 512
    rows_red, columns_red = np.nonzero(is_red)
    rows_green, columns_green = np.nonzero(is_green)
    assert rows_red.max() < rows_green.max() and columns_red.max() < columns_green.max()


def test_montage_makes_room_for_titles_captions_and_a_bar():
    cells = {"": [np.eye(8)]}
    plain = montage(cells, cell_size=40)
    assert montage(cells, cell_size=40, columns=["title"]).height > plain.height
    assert montage({"a name": [np.eye(8)]}, cell_size=40).width > plain.width
    assert montage({"": [Cell(values=np.eye(8), caption="c")]}, cell_size=40).height > plain.height
    assert montage(cells, cell_size=40, bar=(0, 1, "dB")).width > plain.width
    with pytest.raises(ValueError, match="at least one"):
        montage({"a": []})


def test_line_chart_draws_every_curve_in_its_colour():
    x = np.linspace(0, 1, 20)
    chart = line_chart({"a": (x, x), "b": (x, 1 - x)}, x_label="x (s)", y_label="y (m)")
    pixels = np.asarray(chart).reshape(-1, 3).astype(int)
    for colour in LINE_COLOURS[:2]:
        wanted = np.array(list(bytes.fromhex(colour[1:])))
        assert (np.abs(pixels - wanted).max(axis=1) < 3).sum() > 100
    absent = np.array(list(bytes.fromhex(LINE_COLOURS[2][1:])))
    assert not (np.abs(pixels - absent).max(axis=1) < 3).any()


def test_line_chart_refuses_more_curves_than_colours():
    x = np.arange(2.0)
    with pytest.raises(ValueError, match="1 to 6, got 7"):
        line_chart({str(i): (x, x) for i in range(7)}, x_label="x", y_label="y")
    with pytest.raises(ValueError, match="finite"):
        line_chart({"a": (x, [0, np.inf])}, x_label="x", y_label="y")


@pytest.mark.parametrize(("low", "high"), [(0, 0.5), (-58.3, -21.1), (3, 3), (1e-9, 2e-9)])
def test_ticks_enclose_the_data_in_few_even_steps(low, high):
    marks = ticks(low, high)
    assert marks[0] <= low and marks[-1] >= high
    assert 2 <= len(marks) <= 9
    np.testing.assert_allclose(np.diff(marks), marks[1] - marks[0])


def test_stack_and_png_round_trip():
    sheet = stack([Image.new("RGB", (4, 3), "red"), Image.new("RGB", (6, 2), "blue")], gap=1)
    assert sheet.size == (6, 6)
    again = Image.open(io.BytesIO(png_bytes(sheet)))
    assert (np.asarray(again) == np.asarray(sheet)).all()
    few = Image.open(io.BytesIO(png_bytes(sheet, colours=2)))
    assert few.mode == "P" and len(few.getcolors()) <= 2
    with pytest.raises(ValueError, match="at least one"):
        stack([])
