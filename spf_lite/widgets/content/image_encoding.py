"""Pictures as text, so that a widget can hold them in its state and a page needs no further file."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

from PIL import Image

#: WebP quality at which a flat 128-pixel portrait takes about 3 kB and has no visible artefacts at edges.
QUALITY = 88


def data_uri(image: Image.Image, quality: int = QUALITY) -> str:
    """A picture as a ``data:image/webp;base64,...`` address."""
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, format="WEBP", quality=quality, method=6)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def decode(uri: str) -> Image.Image:
    """The picture of a :func:`data_uri`."""
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGB")


def side_by_side(images: Sequence[Image.Image], gap: int = 4) -> Image.Image:
    """Pictures of one height in a row on white, ``gap`` pixels apart."""
    strip = Image.new("RGB", (sum(i.width for i in images) + gap * (len(images) - 1), images[0].height), "white")
    left = 0
    for image in images:
        strip.paste(image, (left, 0))
        left += image.width + gap
    return strip


def beneath(rows: Sequence[Image.Image], gap: int = 4) -> Image.Image:
    """Pictures beneath each other on white, ``gap`` pixels apart."""
    size = (max(row.width for row in rows), sum(row.height for row in rows) + gap * (len(rows) - 1))
    sheet = Image.new("RGB", size, "white")
    top = 0
    for row in rows:
        sheet.paste(row, (0, top))
        top += row.height + gap
    return sheet


def png(image: Image.Image) -> str:
    """A picture as base64 PNG, the format of ``image/png`` in a notebook's output."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode("ascii")
