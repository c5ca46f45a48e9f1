"""Static figures in one style, safe for colour-blind readers.

Every function returns a :class:`Sheet`, an ordinary matplotlib figure that shows itself in a notebook. Nothing here
touches ``pyplot``, so no figure lingers in a global list and no setting leaks into the reader's own plots.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import Any, Protocol

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from numpy.typing import ArrayLike
from PIL import Image

from spf_lite.arrays import as_array

#: The palette of Okabe and Ito (2008): distinct under every common kind of colour blindness.
COLORS = {
    "base model": "#999999",
    "naive fine-tuning": "#D55E00",
    "dual path": "#0072B2",
}
FURTHER_COLORS = ("#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442")
MARK = "#D55E00"

STYLE: Any = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11,
    "axes.grid": False,
    "legend.frameon": False,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}


class Interval(Protocol):
    """Anything with a mean and the ends of an interval, such as :class:`spf_lite.metrics.Estimate`."""

    @property
    def mean(self) -> float: ...
    @property
    def low(self) -> float: ...
    @property
    def high(self) -> float: ...


class Sheet(Figure):
    """A figure that shows itself as a picture when it is the last thing in a notebook cell."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        with rc_context(STYLE):
            self.savefig(buffer, format="png", dpi=self.dpi, bbox_inches="tight")
        return buffer.getvalue()

    def __repr__(self) -> str:
        return f"Sheet({len(self.axes)} panels)"


def portrait_grid(
    rows: Sequence[Sequence[Image.Image]],
    row_labels: Sequence[str] = (),
    column_labels: Sequence[str] = (),
    marks: Sequence[Sequence[str]] | None = None,
    side: float = 1.35,
) -> Sheet:
    """Portraits in rows and columns.

    Args:
        rows: R rows of C pictures.
        row_labels: R labels, left of the rows, or none.
        column_labels: C labels, above the columns, or none.
        marks: R x C notes. A picture with a note is outlined and the note stands beneath it; "" marks nothing.
            Long notes are wrapped, so that they stay beneath their own picture.
        side: of one picture, in inches.

    Raises:
        ValueError: if rows differ in length, or labels or marks do not fit them.
    """
    if not rows or not rows[0]:
        raise ValueError("no portraits to show")
    shape = (len(rows), len(rows[0]))
    if any(len(row) != shape[1] for row in rows):
        raise ValueError(f"rows of different lengths: {[len(row) for row in rows]}")
    for name, labels, count in (("row_labels", row_labels, shape[0]), ("column_labels", column_labels, shape[1])):
        if labels and len(labels) != count:
            raise ValueError(f"{name}: {len(labels)} labels for {count}")
    if marks is not None and [len(row) for row in marks] != [shape[1]] * shape[0]:
        raise ValueError(f"marks must be {shape[0]} x {shape[1]}, as the portraits are")

    text = float(np.clip(6.5 * side, 8, 14))
    letters = int(72 * side / (0.52 * (text - 1.5)))  # a letter is about 0.52 of its font's size wide
    marks = [[_wrapped(note, letters) for note in row] for row in marks] if marks else None
    lines = max((note.count("\n") + bool(note) for row in marks or [] for note in row), default=0)
    with rc_context(STYLE):
        sheet = Sheet(figsize=(side * shape[1], (side + text / 72 * lines) * shape[0]), dpi=150, layout="constrained")
        axes = sheet.subplots(*shape, squeeze=False)
        for r, row in enumerate(rows):
            for c, image in enumerate(row):
                _portrait(axes[r, c], image, marks[r][c] if marks else "", text)
                if r == 0 and column_labels:
                    axes[r, c].set_title(column_labels[c], fontsize=text)
            if row_labels:
                axes[r, 0].set_ylabel(row_labels[r], fontsize=text)
    return sheet


def _wrapped(note: str, letters: int) -> str:
    return "\n".join(fill(line, letters, break_long_words=False) for line in note.split("\n"))


def _portrait(axes: Axes, image: Image.Image, note: str, text: float) -> None:
    axes.imshow(np.asarray(image.convert("RGB")))
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set(visible=bool(note), color=MARK, linewidth=2.5)
    if note:
        axes.set_xlabel(note, fontsize=text - 1.5, color=MARK)


def tinted(image: Image.Image, strength: ArrayLike, color: str = COLORS["dual path"]) -> Image.Image:
    """A pale gray copy of a portrait, in colour where a map is high.

    Args:
        image: the portrait.
        strength: (h, w) values from 0 (gray) to 1 (coloured), such as one map of a
            :class:`~spf_lite.control_map.ControlMap`; stretched over the portrait.
        color: of the tint.

    Raises:
        ValueError: if the map has another shape, or values outside that range.
    """
    values = as_array(strength).astype(np.float32)
    if values.ndim != 2 or not values.size:
        raise ValueError(f"a map of shape {values.shape}: expected (height, width)")
    if not bool(((values >= 0) & (values <= 1)).all()):
        raise ValueError(f"a map with values from {values.min()} to {values.max()}: expected 0 to 1")
    stretched = np.asarray(Image.fromarray(values).resize(image.size, Image.Resampling.BILINEAR))
    share = 0.75 * stretched.clip(0, 1)[:, :, None]  # the portrait shines through
    pale = 0.55 * np.asarray(image.convert("L"), dtype=np.float32)[:, :, None] + 0.45 * 255
    mixed = (1 - share) * pale + share * 255 * np.array(to_rgb(color), dtype=np.float32)
    return Image.fromarray(mixed.round().astype(np.uint8))


def bars_with_intervals(
    series: Mapping[str, Sequence[Interval]],
    labels: Sequence[str],
    ylabel: str,
    colors: Mapping[str, str] | None = None,
    size: tuple[float, float] = (6.4, 3.2),
) -> Sheet:
    """Grouped bars, each with its interval and its number.

    Args:
        series: name of each series, with one estimate per label.
        labels: under the groups of bars.
        ylabel: what is measured, with its unit.
        colors: of the series by name; without one, that of :data:`COLORS`, and failing that a further one.
        size: in inches.

    Raises:
        ValueError: if a series has another length than ``labels``.
    """
    if not series:
        raise ValueError("no series to show")
    for name, estimates in series.items():
        if len(estimates) != len(labels):
            raise ValueError(f"series {name!r} has {len(estimates)} values for {len(labels)} labels")
    spare = iter(FURTHER_COLORS * len(series))
    with rc_context(STYLE):
        sheet = Sheet(figsize=size, dpi=150, layout="constrained")
        axes = sheet.subplots()
        width = 0.8 / len(series)
        known = {**COLORS, **(colors or {})}
        for number, (name, estimates) in enumerate(series.items()):
            means = np.array([estimate.mean for estimate in estimates])
            ends = np.array([[e.mean - e.low, e.high - e.mean] for e in estimates]).T
            places = np.arange(len(labels)) + (number - (len(series) - 1) / 2) * width
            bars = axes.bar(
                places, means, width * 0.92, yerr=np.clip(ends, 0, None), label=name, capsize=3,
                color=known.get(name) or next(spare), error_kw={"linewidth": 1.2},
            )  # fmt: skip
            axes.bar_label(bars, fmt="%.2f", fontsize=7, padding=2)
        axes.set_xticks(np.arange(len(labels)), labels)
        axes.set_ylabel(ylabel)
        axes.set_ylim(bottom=0)
        if len(series) > 1:
            axes.legend()
    return sheet


def curves(
    series: Mapping[str, ArrayLike],
    xlabel: str,
    ylabel: str,
    x: ArrayLike | None = None,
    log: bool = False,
    colors: Mapping[str, str] | None = None,
    size: tuple[float, float] = (6.4, 3.2),
) -> Sheet:
    """One line for each series, told apart by colour and by marker.

    Args:
        series: name of each series, with its N values.
        xlabel: what the values are listed by.
        ylabel: what is measured, with its unit.
        x: N places; default: 1 to N.
        log: whether the vertical axis is logarithmic.
        colors: of the series by name; without one, that of :data:`COLORS`, and failing that a further one.
        size: in inches.

    Raises:
        ValueError: if there are no series, or one has another length than ``x``, or than the first.
    """
    if not series:
        raise ValueError("no series to show")
    lines = {name: as_array(values) for name, values in series.items()}
    places = np.arange(1, len(next(iter(lines.values()))) + 1) if x is None else np.asarray(x)
    for name, values in lines.items():
        if values.shape != places.shape:
            raise ValueError(f"series {name!r} has values of shape {values.shape} for places of shape {places.shape}")
    spare = iter(FURTHER_COLORS * len(series))
    known = {**COLORS, **(colors or {})}
    with rc_context(STYLE):
        sheet = Sheet(figsize=size, dpi=150, layout="constrained")
        axes = sheet.subplots()
        for number, (name, values) in enumerate(lines.items()):
            marker = "osD^vP"[number % 6]
            color = known.get(name) or next(spare)
            axes.plot(places, values, marker=marker, markersize=4, linewidth=1.5, label=name, color=color)
        axes.set(xlabel=xlabel, ylabel=ylabel, yscale="log" if log else "linear")
        if len(series) > 1:
            axes.legend()
    return sheet


def matrices(panels: Sequence[ArrayLike], labels: Sequence[str], signs: Sequence[str], width: float = 6.4) -> Sheet:
    """Matrices in a row, cells of one size, so that a thin matrix looks thin; orange is positive, purple negative.

    Args:
        panels: N matrices. Each has its own shades: its largest entry, positive or negative, is the darkest.
        labels: N texts, above the matrices.
        signs: N - 1 texts, between them, such as "=".
        width: of the figure, in inches.

    Raises:
        ValueError: if there are no matrices, or labels or signs do not fit them.
    """
    arrays = [as_array(panel) for panel in panels]
    if not arrays:
        raise ValueError("no matrices to show")
    if wrong := [array.shape for array in arrays if array.ndim != 2 or not array.size]:
        raise ValueError(f"not a matrix: shape {wrong[0]}")
    if len(labels) != len(arrays) or len(signs) != len(arrays) - 1:
        raise ValueError(f"{len(labels)} labels and {len(signs)} signs for {len(arrays)} matrices")
    rows, gap = max(len(array) for array in arrays), 0.12 * max(array.shape[1] for array in arrays)
    ratios = [gap] * (2 * len(arrays) - 1)
    ratios[::2] = [array.shape[1] for array in arrays]
    with rc_context(STYLE):
        sheet = Sheet(figsize=(width, width * rows / sum(ratios) + 0.35), dpi=150)
        panes = sheet.subplots(1, len(ratios), squeeze=False, width_ratios=ratios, gridspec_kw={"wspace": 0})[0]
        sheet.subplots_adjust(left=0, right=1, bottom=0, top=1 - 0.35 / sheet.get_figheight())
        for axes, array, label in zip(panes[::2], arrays, labels, strict=True):
            most = np.abs(array).max() or 1.0
            axes.imshow(array, cmap="PuOr_r", vmin=-most, vmax=most, interpolation="nearest")
            axes.set(xticks=[], yticks=[])
            axes.set_title(label, fontsize=9)
            for spine in axes.spines.values():
                spine.set(visible=True, color="#999999", linewidth=0.6)
        for axes, sign in zip(panes[1::2], signs, strict=True):
            axes.set_axis_off()
            axes.text(0.5, 0.5, sign, ha="center", va="center", fontsize=14, transform=axes.transAxes)
    return sheet


def trade_off(
    points: Mapping[str, tuple[Interval, Interval]], xlabel: str, ylabel: str, size: tuple[float, float] = (6.4, 4.2)
) -> Sheet:
    """Two measures against each other, one named point with intervals in both directions for each method.

    Args:
        points: name to the estimates across and upwards.
        xlabel: what is measured across.
        ylabel: what is measured upwards.
        size: in inches.

    Raises:
        ValueError: if there are no points.
    """
    if not points:
        raise ValueError("no points to show")
    taken = {COLORS[name] for name in points if name in COLORS}  # the book's three names keep their colours
    free = [color for color in ("#0072B2", "#D55E00", *FURTHER_COLORS) if color not in taken]
    spare = iter(free * len(points))
    markers = iter("os^Dv<>Ph*Xp" * len(points))
    with rc_context(STYLE):
        sheet = Sheet(figsize=size, dpi=150, layout="constrained")
        axes = sheet.subplots()
        for name, (across, upwards) in points.items():
            ends = [[[e.mean - e.low], [e.high - e.mean]] for e in (across, upwards)]
            axes.errorbar(
                across.mean, upwards.mean, xerr=np.clip(ends[0], 0, None), yerr=np.clip(ends[1], 0, None),
                marker=next(markers), markersize=7, linestyle="none", capsize=3, color=COLORS.get(name) or next(spare),
                label=name,
            )  # fmt: skip
        axes.set_xlabel(xlabel)
        axes.set_ylabel(ylabel)
        axes.set_xlim(-0.03, 1.03)
        axes.set_ylim(bottom=0)
        sheet.legend(loc="outside right upper", fontsize=8)
    return sheet
