"""Charts: bars, stacks, points, curves and matrices, in the style of :mod:`spf_lite.viz.plots`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from matplotlib import rc_context
from numpy.typing import ArrayLike

from spf_lite.viz.arrays import as_array
from spf_lite.viz.plots import COLORS, FURTHER_COLORS, STYLE, Sheet

#: For series without a colour of their own.
_PALETTE = (COLORS["dual path"], COLORS["naive fine-tuning"], *FURTHER_COLORS)


class Interval(Protocol):
    """Anything with a mean and the ends of an interval, such as :class:`spf_lite.evaluation.statistics.Estimate`."""

    @property
    def mean(self) -> float: ...
    @property
    def low(self) -> float: ...
    @property
    def high(self) -> float: ...


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
        colors: of the series by name; default: the book's own colour for that name, and failing that a further one.
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
            axes.bar_label(bars, fmt="%.2f", fontsize=8.5, padding=2)
        axes.set_xticks(np.arange(len(labels)), labels)
        axes.set_ylabel(ylabel)
        axes.set_ylim(bottom=0)
        if len(series) > 1:
            axes.legend()
    return sheet


def stacks(series: Mapping[str, Mapping[str, float]], xlabel: str, size: tuple[float, float] = (6.4, 3.2)) -> Sheet:
    """One horizontal bar for each series, stacked by cause, with its sum behind it.

    Args:
        series: name of each bar, with its parts by cause; a cause has one colour in all bars.
        xlabel: what is summed, with its unit.
        size: in inches.

    Raises:
        ValueError: if there is nothing to stack, a part is negative, or there are more causes than colours.
    """
    causes = list(dict.fromkeys(cause for parts in series.values() for cause in parts))
    palette = (*_PALETTE, COLORS["base model"])
    if not causes:
        raise ValueError("nothing to stack")
    if len(causes) > len(palette):
        raise ValueError(f"{len(causes)} causes, and only {len(palette)} colours")
    if negative := [cause for parts in series.values() for cause, value in parts.items() if value < 0]:
        raise ValueError(f"{negative[0]!r} is negative: it cannot be stacked")
    places = np.arange(len(series))[::-1]  # the first on top
    left = np.zeros(len(series))
    with rc_context(STYLE):
        sheet = Sheet(figsize=size, dpi=150, layout="constrained")
        axes = sheet.subplots()
        for cause, color in zip(causes, palette, strict=False):
            values = np.array([parts.get(cause, 0.0) for parts in series.values()])
            axes.barh(places, values, left=left, height=0.62, color=color, label=cause)
            left += values
        for place, total in zip(places, left, strict=True):
            axes.annotate(f"{total:.1f}", (total, place), (4, 0), textcoords="offset points", va="center", fontsize=9)
        axes.set_yticks(places, list(series))
        axes.set_xlabel(xlabel)
        axes.margins(x=0.1)
        sheet.legend(loc="outside lower center", ncols=3, fontsize=8)
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
        colors: of the series by name; default: the book's own colour for that name, and failing that a further one.
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
    """Matrices in a row, with cells of one size, so that shapes can be compared; orange is positive, purple negative.

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


def share_tables(
    panels: Mapping[str, ArrayLike], rows: Sequence[str], columns: Sequence[str], width: float = 6.8
) -> Sheet:
    """Tables of shares side by side, each cell with its number and a shade from light (0) to dark (1).

    Args:
        panels: title to an array (R, C) of shares from 0 to 1; a cell that is not a number stays empty.
        rows: R names, at the left.
        columns: C names, beneath.
        width: of the figure, in inches.

    Raises:
        ValueError: if there is nothing to show, an array has another shape, or a number is no share.
    """
    arrays = {title: as_array(panel) for title, panel in panels.items()}
    if not arrays or not rows or not columns:
        raise ValueError("no shares to show")
    for title, array in arrays.items():
        if array.shape != (len(rows), len(columns)):
            raise ValueError(f"{title!r} has shape {array.shape} for {len(rows)} rows and {len(columns)} columns")
        if ((array < 0) | (array > 1)).any():
            raise ValueError(f"{title!r} holds numbers outside 0 to 1")
    with rc_context(STYLE):
        height = 0.4 * len(rows) + 1.3
        sheet = Sheet(figsize=(width, height), dpi=150, layout="constrained")
        panes = sheet.subplots(1, len(arrays), squeeze=False, sharey=True)[0]
        for axes, (title, array) in zip(panes, arrays.items(), strict=True):
            axes.imshow(array, cmap="Blues", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
            for (row, column), share in np.ndenumerate(array):
                if np.isfinite(share):
                    shade = "white" if share > 0.55 else "black"
                    axes.text(column, row, f"{share:.2f}", ha="center", va="center", fontsize=8, color=shade)
            axes.set_title(title, fontsize=10)
            axes.set_xticks(range(len(columns)), columns, rotation=40, ha="right", fontsize=8)
            axes.set_yticks(range(len(rows)), rows, fontsize=9)
    return sheet
