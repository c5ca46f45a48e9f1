"""A diagram of one training step with two paths.

In the book: :doc:`/01-semantic-pollution` and :doc:`/06-dual-path`.
"""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch

from spf_lite.viz.plots import Sheet

GRADIENT = "#CC0000"
#: Fills of the reference path and of the response path.
REFERENCE, RESPONSE = "#DDDDDD", "#CCE3F2"


def dual_path_diagram() -> Sheet:
    """One training step: one draw for both paths, their texts, what is compared, and where the gradient goes."""
    sheet = Sheet(figsize=(8.4, 3.7), dpi=150)
    axes = sheet.add_axes((0, 0, 1, 1), xlim=(0, 100), ylim=(0, 44))
    axes.set_axis_off()
    _box(axes, (1, 14, 19, 16), "one draw for both:\n$z_t$, $t$, $\\epsilon$", "white")
    _box(axes, (32, 26, 27, 12), "reference path\nLoRA off", REFERENCE)
    _box(axes, (32, 6, 27, 12), "response path\nLoRA on", RESPONSE)
    _box(axes, (76, 14, 22, 16), "compare outside\nof the control map", "white")
    _arrow(axes, (20, 24), (32, 32))
    _arrow(axes, (20, 20), (32, 12))
    _arrow(axes, (45, 43), (45, 38))
    axes.text(46.5, 41, "base text", fontsize=9, va="center")
    _arrow(axes, (45, 1), (45, 6))
    axes.text(46.5, 2.5, "complete text", fontsize=9, va="center")
    for y, end, words in ((34, 26, 36), (14, 20, 20)):
        _arrow(axes, (59, y), (76, end))
        axes.text(61, words, "maps, features,\nprediction", fontsize=8)
    # The gradient: it reaches the response path, and is stopped before the reference path.
    _arrow(axes, (76, 24), (66, 27), GRADIENT, "--", "-")
    axes.plot([65.1, 66.9], [25.2, 28.8], color=GRADIENT, lw=4)
    axes.text(57.2, 23.8, "stopped", color=GRADIENT, fontsize=9)
    _arrow(axes, (76, 17), (59, 8.5), GRADIENT, "--")
    axes.text(70, 9.4, "gradient", color=GRADIENT, fontsize=9)
    return sheet


def _box(axes: Axes, place: tuple[float, float, float, float], text: str, color: str) -> None:
    """A box at x, y with its width and height, and a text in its middle."""
    x, y, width, height = place
    axes.add_patch(FancyBboxPatch((x, y), width, height, "round,pad=0,rounding_size=1.2", fc=color, ec="black"))
    axes.annotate(text, (x + width / 2, y + height / 2), ha="center", va="center", fontsize=9)


def _arrow(
    axes: Axes,
    start: tuple[float, float],
    end: tuple[float, float],
    color: str = "black",
    line: str = "-",
    tip: str = "-|>",
) -> None:
    axes.annotate("", end, start, arrowprops={"arrowstyle": tip, "color": color, "ls": line, "lw": 1.6})
