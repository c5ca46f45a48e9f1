"""What commands write: pictures and texts, each named in the log."""

from __future__ import annotations

import logging
from pathlib import Path

from PIL import Image

logger = logging.getLogger("spf_lite")


def contact_sheet(images: list[Image.Image], columns: int) -> Image.Image:
    """Pictures of one size, side by side in rows of ``columns``.

    Raises:
        ValueError: if there are no pictures.
    """
    if not images:
        raise ValueError("there are no portraits to put on a sheet")
    width, height = images[0].size
    rows = -(-len(images) // columns)
    sheet = Image.new("RGB", (columns * width, rows * height), "white")
    for number, image in enumerate(images):
        sheet.paste(image, (number % columns * width, number // columns * height))
    return sheet


def save_picture(image: Image.Image, path: Path) -> None:
    """Write a picture; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
    logger.info("wrote %s", path)


def save_text(path: Path, text: str) -> None:
    """Write a text; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    logger.info("wrote %s", path)
