import io
from collections.abc import Sequence

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import same_color
from matplotlib.container import BarContainer, ErrorbarContainer
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike

from spf_lite.evaluation.statistics import Estimate
from spf_lite.viz.charts import bars_with_intervals, curves, matrices, share_tables, stacks
from spf_lite.viz.plots import COLORS


def test_bars_show_means_intervals_and_fixed_colours() -> None:
    series = {
        "naive fine-tuning": [Estimate(0.5, 0.4, 0.7, 10)],
        "dual path": [Estimate(0.2, 0.1, 0.3, 10)],
    }
    sheet = bars_with_intervals(series, ["flip rate"], "share")
    (axes,) = sheet.axes
    bars = [container for container in axes.containers if isinstance(container, BarContainer)]
    for bar, (name, (estimate,)) in zip(bars, series.items(), strict=True):
        assert bar.patches[0].get_height() == pytest.approx(estimate.mean)
        assert same_color(bar.patches[0].get_facecolor(), COLORS[name])
        assert bar.errorbar is not None
        ((_, low), (_, high)) = bar.errorbar.lines[2][0].get_segments()[0]
        assert (low, high) == (pytest.approx(estimate.low), pytest.approx(estimate.high))
    assert axes.get_ylabel() == "share"


def test_bars_refuse_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="no series"):
        bars_with_intervals({}, ["a"], "share")
    with pytest.raises(ValueError, match="1 values for 2 labels"):
        bars_with_intervals({"x": [Estimate(0, 0, 0, 1)]}, ["a", "b"], "share")


def test_curves_are_told_apart_by_colour_and_by_marker() -> None:
    sheet = curves({"dual path": [3, 2, 1], "another": [1, 2, 3]}, "rank", "size", log=True)
    first, second = sheet.axes[0].lines
    assert np.array_equal(first.get_ydata(), [3, 2, 1])
    assert np.array_equal(first.get_xdata(), [1, 2, 3])
    assert same_color(first.get_color(), COLORS["dual path"])
    assert not same_color(first.get_color(), second.get_color())
    assert first.get_marker() != second.get_marker()
    assert sheet.axes[0].get_yscale() == "log"
    legend = sheet.axes[0].get_legend()
    assert isinstance(legend, Legend)
    assert [text.get_text() for text in legend.get_texts()] == ["dual path", "another"]


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
def test_curves_that_do_not_fit_are_refused(series: dict[str, ArrayLike], x: list[int] | None, message: str) -> None:
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
def test_matrices_that_do_not_fit_are_refused(
    panels: list[ArrayLike], labels: list[str], signs: list[str], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        matrices(panels, labels, signs)


def marks_of(axes: Axes) -> Sequence[Line2D]:
    """The point of each method in a trade-off."""
    return [container.lines[0] for container in axes.containers if isinstance(container, ErrorbarContainer)]


def test_shares_are_written_where_there_are_some() -> None:
    sheet = share_tables({"naive": np.array([[0.25, np.nan], [1, 0]]), "ours": np.ones((2, 2))}, ["a", "b"], ["1", "2"])
    first, second = sheet.axes
    assert [text.get_text() for text in first.texts] == ["0.25", "1.00", "0.00"]
    assert [text.get_color() for text in first.texts] == ["black", "white", "black"]
    assert [label.get_text() for label in first.get_yticklabels()] == ["a", "b"] and second.get_title() == "ours"


@pytest.mark.parametrize(
    ("panels", "message"),
    [
        ({}, "no shares"),
        ({"x": [[0, 1]]}, r"'x' has shape \(1, 2\) for 2 rows and 2 columns"),
        ({"x": [[0, 1], [0, 1.1]]}, "'x' holds numbers outside 0 to 1"),
        ({"x": [[0, 1], [0, -0.1]]}, "'x' holds numbers outside 0 to 1"),
    ],
)
def test_shares_that_do_not_fit_are_refused(panels: dict[str, ArrayLike], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        share_tables(panels, ["a", "b"], ["1", "2"])


def test_stacks_begin_where_the_last_part_ends_and_keep_a_colour_for_a_cause() -> None:
    sheet = stacks({"plain": {"UNet": 3.0, "kept": 1.5}, "two": {"UNet": 3.0, "second": 3.0, "kept": 1.5}}, "GB")
    (axes,) = sheet.axes
    bars = {bar.get_label(): bar.patches for bar in axes.containers if isinstance(bar, BarContainer)}
    assert list(bars) == ["UNet", "kept", "second"]
    assert [(bar.get_x(), bar.get_width()) for bar in bars["kept"]] == [(3.0, 1.5), (3.0, 1.5)]
    assert [(bar.get_x(), bar.get_width()) for bar in bars["second"]] == [(4.5, 0.0), (4.5, 3.0)]
    assert len({patches[0].get_facecolor() for patches in bars.values()}) == 3
    assert [text.get_text() for text in axes.texts] == ["4.5", "7.5"]
    assert axes.get_yticks()[0] > axes.get_yticks()[1], "the first is on top"


@pytest.mark.parametrize(
    ("series", "message"),
    [
        ({}, "nothing to stack"),
        ({"a": {}}, "nothing to stack"),
        ({"a": {"UNet": -1.0}}, "'UNet' is negative"),
        ({"a": {str(n): 1.0 for n in range(9)}}, "9 causes, and only 8 colours"),
    ],
)
def test_stacks_that_cannot_be_are_refused(series: dict[str, dict[str, float]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        stacks(series, "GB")
