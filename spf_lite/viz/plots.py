"""Portraits in rows and columns, and the one style of all static figures, safe for colour-blind readers.

Every function returns a :class:`Sheet`, an ordinary matplotlib figure that shows itself in a notebook. Nothing here
touches ``pyplot``, so no figure lingers in a global list and no setting leaks into the reader's own plots.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from numpy.typing import ArrayLike
from PIL import Image

from spf_lite.viz.arrays import as_array

#: The palette of Okabe and Ito (2008): distinct under every common kind of colour blindness.
COLORS = {
    "base model": "#999999",
    "naive fine-tuning": "#D55E00",
    "dual path": "#0072B2",
}
FURTHER_COLORS = ("#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442")
MARK = "#D55E00"
#: Of labels beside portraits: legible on white and on black.
LABEL = "#757E87"
#: Font size beside portraits and width of a page's text, both in pixels of the page; dots per inch of a figure.
LABEL_PIXELS, PAGE, DOTS = 11, 592, 150

STYLE: Any = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11,
    "axes.grid": False,
    "legend.frameon": False,
    "figure.facecolor": "white",
    "savefig.facecolor": "auto",
}


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
    column_labels: Sequence[str] | Mapping[int, Sequence[str]] = (),
    marks: Sequence[Sequence[str]] | None = None,
    side: float = 1.35,
) -> Sheet:
    """Portraits in rows and columns, on a transparent ground, so that they stand on a page of any theme.

    Args:
        rows: R rows of C pictures.
        row_labels: R labels, left of the rows, or none.
        column_labels: C labels, above the columns, or none. A mapping says above which rows they stand, counted
            from 0: for rows that begin a second block.
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
    above = column_labels if isinstance(column_labels, Mapping) else {0: column_labels}
    if not set(above) <= set(range(shape[0])):
        raise ValueError(f"column_labels: above rows {sorted(above)} of {shape[0]}, counted from 0")
    every = [("row_labels", row_labels, shape[0]), *(("column_labels", labels, shape[1]) for labels in above.values())]
    for name, labels, count in every:
        if labels and len(labels) != count:
            raise ValueError(f"{name}: {len(labels)} labels for {count}")
    if marks is not None and [len(row) for row in marks] != [shape[1]] * shape[0]:
        raise ValueError(f"marks must be {shape[0]} x {shape[1]}, as the portraits are")

    text = _points(LABEL_PIXELS, side * shape[1])
    letters = max(int(72 * side / (0.6 * text)), 1)  # a letter is about 0.57 of its font's size wide; 5 % are a gap
    row_labels = [_wrapped(label, letters) for label in row_labels]
    marks = [[_wrapped(note, letters) for note in row] for row in marks] if marks else None
    lines = sum(max(note.count("\n") + bool(note) for note in row) for row in marks or [])
    with rc_context(STYLE):
        height = side * shape[0] + 1.2 * text / 72 * lines
        sheet = Sheet(figsize=(side * shape[1], height), dpi=DOTS, layout="constrained")
        sheet.set_facecolor("none")
        axes = sheet.subplots(*shape, squeeze=False)
        for r, row in enumerate(rows):
            for c, image in enumerate(row):
                _portrait(axes[r, c], image, marks[r][c] if marks else "", text)
                if titles := above.get(r):
                    axes[r, c].set_title(titles[c], fontsize=text, color=LABEL)
            if row_labels:
                axes[r, 0].set_ylabel(row_labels[r], fontsize=text, color=LABEL)
    return sheet


def _points(pixels: float, width: float) -> float:
    """The font size that has so many pixels on a page, in a figure of a width in inches that may be scaled down."""
    shown = min(DOTS * width, PAGE)
    return pixels * 72 * width / shown


def _wrapped(note: str, letters: int) -> str:
    return "\n".join(fill(line, letters, break_long_words=False, break_on_hyphens=False) for line in note.split("\n"))


def _portrait(axes: Axes, image: Image.Image, note: str, text: float) -> None:
    axes.imshow(np.asarray(image.convert("RGB")))
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set(visible=bool(note), color=MARK, linewidth=2.5)
    if note:
        axes.set_xlabel(note, fontsize=text, color=MARK)


def tinted(image: Image.Image, strength: ArrayLike, color: str = COLORS["dual path"]) -> Image.Image:
    """A pale gray copy of a portrait, in colour where a map is high.

    Args:
        image: the portrait.
        strength: (h, w) values from 0 (gray) to 1 (coloured), such as one map of a
            :class:`~spf_lite.method.control_map.ControlMap`; stretched over the portrait.
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
