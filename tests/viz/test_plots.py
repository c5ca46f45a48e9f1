import io
from typing import Any

import matplotlib
import numpy as np
import pytest
from PIL import Image

from spf_lite.viz.plots import MARK, Sheet, portrait_grid, tinted


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


def test_a_second_block_has_labels_of_its_own() -> None:
    sheet = portrait_grid(_portraits(3, 2), column_labels={0: ["a", "b"], 2: ["c", "d"]})
    assert [axes.get_title() for axes in sheet.axes] == ["a", "b", "", "", "c", "d"]


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


@pytest.mark.parametrize(("columns", "side"), [(2, 0.9), (6, 1.1), (6, 1.35), (12, 0.7)])
def test_labels_are_legible_on_a_page(columns: int, side: float) -> None:
    """However far a wide figure is scaled down to a page of 592 pixels."""
    rows = _portraits(2, columns)
    sheet = portrait_grid(rows, ["base", "naive"], ["a"] * columns, marks=[["smile"] * columns] * 2, side=side)
    shown = Image.open(io.BytesIO(sheet._repr_png_())).width
    pixels_per_point = min(shown, 592) / shown * 150 / 72
    texts = [text for axes in sheet.axes for text in (axes.title, axes.xaxis.label, axes.yaxis.label)]
    sizes = {round(float(text.get_fontsize()) * pixels_per_point) for text in texts if text.get_text()}
    assert sizes <= {10, 11}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rows": []}, "no portraits"),
        ({"rows": [[]]}, "no portraits"),
        ({"rows": [_portraits(1, 2)[0], _portraits(1, 1)[0]]}, "different lengths"),
        ({"rows": _portraits(1, 2), "column_labels": ["one"]}, "column_labels: 1 labels for 2"),
        ({"rows": _portraits(1, 2), "column_labels": {0: ["one"]}}, "column_labels: 1 labels for 2"),
        ({"rows": _portraits(2, 1), "column_labels": {2: ["one"]}}, r"above rows \[2\] of 2"),
        ({"rows": _portraits(2, 1), "row_labels": ["one"]}, "row_labels: 1 labels for 2"),
        ({"rows": _portraits(1, 2), "marks": [["only one"]]}, "1 x 2"),
    ],
)
def test_grid_refuses_what_does_not_fit(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        portrait_grid(**arguments)


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
