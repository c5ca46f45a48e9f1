import io

import matplotlib
import numpy as np
import pytest
from PIL import Image

from spf_lite.metrics import Estimate
from spf_lite.plots import COLORS, MARK, Sheet, bars_with_intervals, curves, matrices, portrait_grid, tinted, trade_off


def _portraits(rows: int, columns: int) -> list[list[Image.Image]]:
    return [[Image.new("RGB", (16, 16), (20 * r, 30 * c, 99)) for c in range(columns)] for r in range(rows)]


def test_grid_has_one_panel_for_each_portrait_and_shows_it() -> None:
    rows = _portraits(2, 3)
    sheet = portrait_grid(rows, row_labels=["base", "naive"], column_labels=["a", "b", "c"])
    assert len(sheet.axes) == 6
    shown = [np.asarray(axes.images[0].get_array()) for axes in sheet.axes]
    for picture, drawn in zip((image for row in rows for image in row), shown, strict=True):
        assert np.array_equal(np.asarray(picture), drawn)
    assert [axes.get_title() for axes in sheet.axes[:3]] == ["a", "b", "c"]
    assert [sheet.axes[0].get_ylabel(), sheet.axes[3].get_ylabel()] == ["base", "naive"]


def test_only_marked_portraits_are_outlined() -> None:
    sheet = portrait_grid(_portraits(1, 2), marks=[["background: gray → yellow", ""]])
    marked, plain = sheet.axes
    assert marked.get_xlabel() == "background: gray → yellow"
    assert all(spine.get_visible() for spine in marked.spines.values())
    assert matplotlib.colors.same_color(marked.spines["left"].get_edgecolor(), MARK)
    assert not any(spine.get_visible() for spine in plain.spines.values())


def test_long_notes_stay_beneath_their_own_picture() -> None:
    note = "skin, expression, clothes, clothes color, background"
    sheet = portrait_grid(_portraits(1, 2), marks=[[note, note]])
    sheet.draw_without_rendering()
    left, right = (axes.xaxis.label.get_window_extent() for axes in sheet.axes)
    assert left.x1 < right.x0
    assert sheet.axes[0].get_xlabel().replace("\n", " ") == note


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rows": []}, "no portraits"),
        ({"rows": [[]]}, "no portraits"),
        ({"rows": [_portraits(1, 2)[0], _portraits(1, 1)[0]]}, "different lengths"),
        ({"rows": _portraits(1, 2), "column_labels": ["one"]}, "column_labels: 1 labels for 2"),
        ({"rows": _portraits(2, 1), "row_labels": ["one"]}, "row_labels: 1 labels for 2"),
        ({"rows": _portraits(1, 2), "marks": [["only one"]]}, "1 x 2"),
    ],
)
def test_grid_refuses_what_does_not_fit(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        portrait_grid(**arguments)


def test_bars_show_means_intervals_and_fixed_colours() -> None:
    series = {
        "naive fine-tuning": [Estimate(0.5, 0.4, 0.7, 10)],
        "dual path": [Estimate(0.2, 0.1, 0.3, 10)],
    }
    sheet = bars_with_intervals(series, ["flip rate"], "share")
    (axes,) = sheet.axes
    bars = [container for container in axes.containers if container.__class__.__name__ == "BarContainer"]
    for bar, (name, (estimate,)) in zip(bars, series.items(), strict=True):
        assert bar.patches[0].get_height() == pytest.approx(estimate.mean)
        assert matplotlib.colors.same_color(bar.patches[0].get_facecolor(), COLORS[name])
        ((_, low), (_, high)) = bar.errorbar.lines[2][0].get_segments()[0]
        assert (low, high) == (pytest.approx(estimate.low), pytest.approx(estimate.high))
    assert axes.get_ylabel() == "share"


def test_bars_refuse_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="no series"):
        bars_with_intervals({}, ["a"], "share")
    with pytest.raises(ValueError, match="1 values for 2 labels"):
        bars_with_intervals({"x": [Estimate(0, 0, 0, 1)]}, ["a", "b"], "share")


def test_tint_is_gray_where_the_map_is_low_and_coloured_where_it_is_high() -> None:
    portrait = Image.new("RGB", (16, 16), (200, 100, 40))
    half = np.zeros((4, 4))
    half[:, 2:] = 1
    shown = np.asarray(tinted(portrait, half, color="#0000FF")).astype(int)
    assert shown.shape == (16, 16, 3)
    assert (np.ptp(shown[:, 0], axis=-1) == 0).all()
    assert (shown[:, -1, 2] > shown[:, -1, 0] + 150).all()


def test_the_portrait_shines_through_the_tint() -> None:
    portrait = Image.new("RGB", (16, 16), "black")
    portrait.paste("white", (0, 0, 8, 16))
    for strength in (np.zeros((2, 2)), np.ones((2, 2))):
        shown = np.asarray(tinted(portrait, strength)).astype(int)
        assert (shown[:, 0].sum(axis=-1) > shown[:, -1].sum(axis=-1) + 60).all()


@pytest.mark.parametrize(
    ("strength", "message"),
    [
        (np.ones((1, 4, 4)), "expected \\(height, width\\)"),
        (np.ones((0, 4)), "expected \\(height, width\\)"),
        (np.full((4, 4), 1.5), "expected 0 to 1"),
        (np.full((4, 4), np.nan), "expected 0 to 1"),
    ],
)
def test_tint_refuses_what_is_no_map(strength: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tinted(Image.new("RGB", (16, 16)), strength)


def test_sheets_show_themselves_and_leave_no_trace() -> None:
    before = dict(matplotlib.rcParams)
    sheet = portrait_grid(_portraits(1, 1))
    assert sheet._repr_png_().startswith(b"\x89PNG")
    assert repr(sheet) == "Sheet(1 panels)"
    assert isinstance(sheet, Sheet)
    assert dict(matplotlib.rcParams) == before


def test_curves_are_told_apart_by_colour_and_by_marker() -> None:
    sheet = curves({"dual path": [3, 2, 1], "another": [1, 2, 3]}, "rank", "size", log=True)
    first, second = sheet.axes[0].lines
    assert np.array_equal(first.get_ydata(), [3, 2, 1])
    assert np.array_equal(first.get_xdata(), [1, 2, 3])
    assert matplotlib.colors.same_color(first.get_color(), COLORS["dual path"])
    assert not matplotlib.colors.same_color(first.get_color(), second.get_color())
    assert first.get_marker() != second.get_marker()
    assert sheet.axes[0].get_yscale() == "log"
    assert [text.get_text() for text in sheet.axes[0].get_legend().get_texts()] == ["dual path", "another"]


def test_curves_take_places_and_have_no_legend_for_one_series() -> None:
    sheet = curves({"only": [1.0, 2.0]}, "t", "error", x=[0, 999])
    assert np.array_equal(sheet.axes[0].lines[0].get_xdata(), [0, 999])
    assert sheet.axes[0].get_legend() is None


@pytest.mark.parametrize(
    ("series", "x", "message"),
    [
        ({}, None, "no series"),
        ({"a": [1, 2], "b": [1]}, None, "'b' has values of shape"),
        ({"a": [1, 2]}, [1, 2, 3], "'a' has values of shape"),
        ({"a": [[1, 2], [3, 4]]}, None, "'a' has values of shape"),
    ],
)
def test_curves_that_do_not_fit_are_refused(series: dict, x: list | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        curves(series, "x", "y", x=x)


def test_matrices_have_cells_of_one_size() -> None:
    tall, flat = np.ones((12, 2)), -np.ones((2, 8))
    sheet = matrices([tall @ flat, tall, flat], ["product", "B", "A"], ["=", ""])
    shown = [axes for axes in sheet.axes if axes.images]
    assert [axes.get_title() for axes in shown] == ["product", "B", "A"]
    assert [text.get_text() for axes in sheet.axes for text in axes.texts] == ["=", ""]
    sheet.savefig(io.BytesIO())  # draws, and so lays out
    for axes, matrix in zip(shown, (tall @ flat, tall, flat), strict=True):
        box = axes.get_window_extent()
        assert box.width / matrix.shape[1] == pytest.approx(box.height / matrix.shape[0], rel=0.02)
        assert box.width / matrix.shape[1] == pytest.approx(shown[0].get_window_extent().width / 8, rel=0.02)
        low, high = axes.images[0].get_clim()
        assert low == -high != 0


def test_a_matrix_of_zeros_is_shown() -> None:
    assert len(matrices([np.zeros((2, 2))], ["nothing"], []).axes) == 1


@pytest.mark.parametrize(
    ("panels", "labels", "signs", "message"),
    [
        ([], [], [], "no matrices"),
        ([np.ones(3)], ["a"], [], "not a matrix"),
        ([np.ones((2, 2))], [], [], "0 labels"),
        ([np.ones((2, 2))], ["a"], ["="], "1 signs"),
    ],
)
def test_matrices_that_do_not_fit_are_refused(panels: list, labels: list, signs: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        matrices(panels, labels, signs)


def test_a_trade_off_has_a_named_point_for_each_method() -> None:
    low, high = Estimate(0.3, 0.2, 0.4, 8), Estimate(0.9, 0.8, 1.0, 8)
    points = {"naive": (high, low), "spf": (low, high)}
    sheet = trade_off(points, "found", "flips")
    (axes,) = sheet.axes
    assert [container.get_label() for container in axes.containers] == list(points)
    drawn = [tuple(float(v[0]) for v in container.lines[0].get_data()) for container in axes.containers]
    assert drawn == [(0.9, 0.3), (0.3, 0.9)]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("found", "flips")
    with pytest.raises(ValueError, match="no points to show"):
        trade_off({}, "found", "flips")
