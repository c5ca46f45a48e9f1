"""Maps as text and as colours. What is packed here is unpacked by the explorers' ES modules.

Maps keep their native resolution (16 x 16 for both models of the book); only the browser enlarges them.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from spf_lite.viz.arrays import as_array

Floats = NDArray[np.float64]

#: The letters of base64, in order. One letter holds six bits: a map value costs one character.
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_HIGHEST = len(LETTERS) - 1

#: Colours for 0, 1/2 and 1, the same as in maps.js. Lightness rises throughout, so hue is not needed to read them.
BLUES = ((12, 18, 28), (0, 114, 178), (224, 243, 255))
ORANGES = ((12, 18, 28), (213, 94, 0), (255, 240, 214))


def checked(values: Any, shape: Sequence[int | None], where: str, highest: float = 1.0) -> Floats:
    """Values as a float64 array of the required shape and range.

    Args:
        values: array or tensor.
        shape: the required one; None: any length.
        where: the name of the values in messages.
        highest: values must lie in [0, highest].

    Raises:
        ValueError: if shape or range is another, or a value is not a number.
    """
    array = as_array(values)
    if array.ndim != len(shape) or any(b not in (None, a) for a, b in zip(array.shape, shape, strict=True)):
        expected = str(tuple("any" if length is None else length for length in shape)).replace("'", "")
        raise ValueError(f"{where} has shape {array.shape}, expected {expected}")
    if not bool(((array >= 0) & (array <= highest)).all()):  # False for NaN, too
        raise ValueError(f"{where} has values from {array.min()} to {array.max()}, expected 0 to {highest:g}")
    return array


def pack(values: ArrayLike) -> str:
    """Values from 0 to 1 as base64 of one byte each, ``round(255 * value)``."""
    return base64.b64encode(np.rint(np.asarray(values) * 255).astype(np.uint8).tobytes()).decode("ascii")


def unpack(text: str, shape: Sequence[int]) -> Floats:
    """The inverse of :func:`pack`, with a resolution of 1 / 255."""
    return np.frombuffer(base64.b64decode(text), dtype=np.uint8).reshape(shape) / 255


def pack_scaled(maps: ArrayLike) -> tuple[str, list[float]]:
    """Maps (..., h, w), each in steps of a 63rd of its own maximum, one base64 letter for each value.

    Returns:
        the letters, and the maximum of each map to four digits, which is the value of the last letter.
    """
    array = np.asarray(maps, dtype=np.float64)
    flat = array.reshape(-1, array.shape[-2] * array.shape[-1])
    scales = np.array([float(f"{value:.4g}") for value in flat.max(axis=1)])
    steps = np.rint(flat / np.where(scales > 0, scales, 1)[:, None] * _HIGHEST).clip(0, _HIGHEST).astype(np.uint8)
    letters = np.frombuffer(LETTERS.encode("ascii"), dtype=np.uint8)[steps]
    return letters.tobytes().decode("ascii"), scales.tolist()


def unpack_scaled(text: str, scales: Sequence[float], shape: Sequence[int]) -> Floats:
    """The inverse of :func:`pack_scaled`: maps of ``shape`` (..., h, w)."""
    table = np.zeros(128)
    table[np.frombuffer(LETTERS.encode("ascii"), dtype=np.uint8)] = np.arange(len(LETTERS))
    steps = table[np.frombuffer(text.encode("ascii"), dtype=np.uint8)].reshape(shape)
    maps: Floats = steps / _HIGHEST * np.asarray(scales).reshape(*shape[:-2], 1, 1)
    return maps


def heat(values: Floats, colors: Sequence[Sequence[int]], size: tuple[int, int]) -> Image.Image:
    """A map (h, w) in [0, 1] as a picture of ``size`` (width, height), from the first colour to the last."""
    stops = np.linspace(0, 1, len(colors))
    channels = [np.interp(values, stops, [color[c] for color in colors]) for c in range(3)]
    picture = Image.fromarray(np.stack(channels, axis=-1).round().astype(np.uint8))
    return picture.resize(size, Image.Resampling.BILINEAR)
