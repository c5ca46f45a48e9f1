"""The shape of portraits: cropped to a square, or kept near their own aspect ratio in one of a few *buckets*.

Pictures keep their proportions: they are cropped around the centre to the new aspect ratio, then resized. A mask is
cropped by the same box as its picture.

A bucket is a size of latents whose longer side is the model's own and whose shorter side is at least half of it. So no
bucket takes more memory than the square, and each has the cross-attention layers that are recorded, which are chosen by
the longer side of their feature maps. Both sides are multiples of the factor by which the UNet shrinks feature maps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from PIL import Image

#: Height and width.
Size = tuple[int, int]
#: Portraits are kept in memory with at most this many pixels on their shorter side.
LARGEST_SHORT_SIDE = 1024


def crop_to(image: Image.Image, shape: Size) -> Image.Image:
    """The largest part around the centre that has the aspect ratio of ``shape`` (height, width), to the pixel."""
    height, width = shape
    new_width = min(image.width, max(1, round(image.height * width / height)))
    new_height = min(image.height, max(1, round(image.width * height / width)))
    left, top = (image.width - new_width) // 2, (image.height - new_height) // 2
    if (new_width, new_height) == image.size:
        return image
    return image.crop((left, top, left + new_width, top + new_height))


def fit(image: Image.Image, size: Size) -> Image.Image:
    """Crop to the aspect ratio of ``size`` (height, width), then resize to it."""
    cropped = crop_to(image, size)
    height, width = size
    if cropped.size == (width, height):
        return cropped
    return cropped.resize((width, height), Image.Resampling.LANCZOS)


def reduce_to_memory(image: Image.Image) -> Image.Image:
    """The picture itself, or, if its shorter side has more than 1,024 pixels, the picture reduced to that."""
    short = min(image.size)
    if short <= LARGEST_SHORT_SIDE:
        return image
    width, height = (max(1, round(side * LARGEST_SHORT_SIDE / short)) for side in image.size)
    return image.resize((width, height), Image.Resampling.LANCZOS)


def buckets(side: int, multiple: int) -> list[Size]:
    """The buckets of a model, as height and width: the square first, then upright ones, then wide ones.

    Args:
        side: the model's own latent size.
        multiple: both sides are multiples of it: the factor by which the UNet shrinks its feature maps.
    """
    shorts = range(side - multiple, side // 2 - 1, -multiple)
    return [(side, side), *((side, short) for short in shorts), *((short, side) for short in shorts)]


def nearest_bucket(image: Image.Image, choices: Sequence[Size]) -> Size:
    """The bucket whose aspect ratio is nearest to a picture's, on a logarithmic scale: the least is cropped."""
    ratio = math.log(image.width / image.height)
    return min(choices, key=lambda size: abs(math.log(size[1] / size[0]) - ratio))
