"""From the bytes of an image file to the RGB picture that a viewer shows.

* EXIF orientation is applied, also to a mask that was made from the stored pixels.
* Transparency is composed on a background colour.
* Pixels with an embedded colour profile (Display P3 of a phone, CMYK of a print) are converted to sRGB.
* Gray of 16 bits and more is scaled to 8 bits, not clipped: see :func:`_eight_bits`.
* Of several frames (GIF, WebP, APNG, TIFF) the first is taken.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, ImageColor, ImageOps, UnidentifiedImageError
from PIL.ExifTags import Base as Tag

from spf_lite.data.sets.errors import CustomSetError

#: Portraits with fewer pixels a side show nothing.
SMALLEST_SIDE = 8
#: Phone formats that Pillow does not read.
HEIC_SUFFIXES = (".heic", ".heif")


@dataclass(frozen=True)
class Picture:
    """A picture as it is seen.

    Attributes:
        image: upright, RGB, without transparency.
        opacity: mode L, 255 where it is opaque; None where it is opaque everywhere.
        stored_size: width and height before its orientation was applied.
        orientation: value of the EXIF tag, 1 to 8; 1 where there is none.
        treatments: what was done to it, in words that follow a number ("3 rotated by EXIF").
    """

    image: Image.Image
    opacity: Image.Image | None
    stored_size: tuple[int, int]
    orientation: int
    treatments: tuple[str, ...]


def background_color(name: str) -> tuple[int, int, int]:
    """Red, green and blue of a colour's name or ``#rrggbb``.

    Raises:
        CustomSetError: if Pillow knows no such colour.
    """
    try:
        red, green, blue = ImageColor.getrgb(name)[:3]
    except (ValueError, AttributeError) as error:
        raise CustomSetError(f"background={name!r}: expected a colour such as 'white' or '#ffcc00'") from error
    return red, green, blue


def read_picture(content: bytes, path: Path, where: str, background: str = "white", what: str = "image") -> Picture:
    """Decode a picture.

    Args:
        content: of the file.
        path: of the file, for messages.
        where: the line that names it, for messages.
        background: colour that transparency is composed on.
        what: ``image`` or ``mask``, for messages.

    Raises:
        CustomSetError: if the file is no picture that Pillow reads, is damaged, shows nothing, or has values of which
            nobody can say how bright they are.
    """
    color = background_color(background)
    try:
        return _decode(content, color, background)
    except CustomSetError as error:
        raise CustomSetError(f"{where}: the {what} {path} {error}") from None
    except Image.DecompressionBombError as error:
        raise CustomSetError(f"{where}: the {what} {path} has too many pixels ({error})") from error
    except Exception as error:  # on a damaged file, Pillow's decoders raise whatever they stumble over
        if isinstance(error, UnidentifiedImageError) and path.suffix.lower() in HEIC_SUFFIXES:
            raise CustomSetError(
                f"{where}: the {what} {path} is HEIC, which Pillow cannot read: convert it to JPEG"
            ) from None
        reason = "it is no picture that Pillow knows" if isinstance(error, UnidentifiedImageError) else error
        raise CustomSetError(f"{where}: the {what} {path} is corrupt ({reason})") from error


def read_mask(content: bytes, path: Path, where: str, picture: Picture) -> Image.Image:
    """Decode the mask of a picture: mode L, white where the target may act, of the picture's size.

    Transparency counts as black. A mask that fits the stored pixels, but not the upright picture, is turned with it.

    Raises:
        CustomSetError: as :func:`read_picture`, or if the mask is of another size.
    """
    read = read_picture(content, path, where, background="black", what="mask")
    mask = read.image.convert("L")
    if mask.size != picture.image.size and read.orientation == 1 and mask.size == picture.stored_size:
        mask.getexif()[Tag.Orientation] = picture.orientation
        mask = ImageOps.exif_transpose(mask)
    if mask.size != picture.image.size:
        raise CustomSetError(f"{where}: the mask is {mask.size} pixels, its image {picture.image.size}")
    return mask


def _decode(content: bytes, color: tuple[int, int, int], background: str) -> Picture:
    treatments = []
    with Image.open(io.BytesIO(content)) as opened:
        kind, stored_size = opened.format, opened.size
        orientation = opened.getexif().get(Tag.Orientation, 1)  # TIFF applies and drops it on loading
        opened.load()
        # A phone's MPO holds a depth map or a second view besides the picture: that is no animation.
        if getattr(opened, "is_animated", False) and kind != "MPO":
            treatments.append("taken from the first of several frames")
            opened.seek(0)
            opened.load()
        upright = ImageOps.exif_transpose(opened)
    if orientation in range(2, 9):
        treatments.append("rotated by EXIF")
    else:
        orientation = 1
    if min(upright.size) < SMALLEST_SIDE:
        raise CustomSetError(f"has {upright.size} pixels: at least {SMALLEST_SIDE} a side are needed")
    opacity, deep = _opacity(upright), upright.mode in ("I", "F") or upright.mode.startswith("I;16")
    if deep:
        treatments.append("scaled to 8 bits")
    colors, converted = _srgb(_eight_bits(upright, kind) if deep else upright, upright.info.get("icc_profile"))
    if converted:
        treatments.append("converted to sRGB by their profile")
    if opacity is not None:
        if opacity.getextrema()[1] == 0:
            raise CustomSetError("is wholly transparent")
        seen = colors.convert("RGBA")
        seen.putalpha(opacity)
        colors = Image.alpha_composite(Image.new("RGBA", seen.size, (*color, 255)), seen).convert("RGB")
        treatments.append(f"composed on {background}")
    return Picture(colors, opacity, stored_size, orientation, tuple(treatments))


def _opacity(image: Image.Image) -> Image.Image | None:
    """The alpha channel, a palette's transparency or a transparent colour as mode L; None if everything is opaque."""
    key = image.info.get("transparency")
    if image.mode.startswith("I;16"):
        if not isinstance(key, int):
            return None
        opacity = Image.fromarray(np.where(np.asarray(image) == key, 0, 255).astype(np.uint8))
    elif image.mode in ("I", "F") or not image.has_transparency_data:
        return None
    else:
        if image.mode == "RGB" and isinstance(key, tuple) and max(key) > 255:
            # The transparent colour of a PNG of 16 bits a channel, whose pixels Pillow has read as 8 bits.
            image = image.copy()
            image.info["transparency"] = tuple(value >> 8 for value in key)
        straight = image.convert("LA") if image.mode == "La" else image
        opacity = straight.convert("RGBA").getchannel("A")
    return opacity if opacity.getextrema()[0] != 255 else None


def _srgb(image: Image.Image, profile: bytes | None) -> tuple[Image.Image, bool]:
    """The colours as sRGB, mode RGB, without transparency; and whether an embedded colour profile was applied."""
    if image.mode in ("1", "L", "LA", "La"):
        flat = (image.convert("LA") if image.mode == "La" else image).convert("L")
    elif image.mode in ("PA", "P", "RGBa"):
        flat = image.convert("RGBA").convert("RGB")
    else:
        flat = image if image.mode == "CMYK" else image.convert("RGB")
    if profile:
        try:
            known = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            if "sRGB" not in ImageCms.getProfileDescription(known):
                srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
                converted = ImageCms.profileToProfile(flat, known, srgb, outputMode="RGB")
                if converted is not None:
                    return converted, True
        except (ImageCms.PyCMSError, OSError):
            pass  # a broken profile, or one for other channels: a viewer ignores it, too
    return flat.convert("RGB"), False


def _eight_bits(image: Image.Image, kind: str | None) -> Image.Image:
    """Gray of 16 or 32 bits, or of floats, as 8 bits (mode L).

    Modes ``I;16`` and, from PNG and PGM, ``I`` are 16 bits: 65,535 is white. Other files do not say what white is; the
    smallest of 255 and 65,535 (for floats also 1) that no pixel exceeds is taken.

    Raises:
        CustomSetError: if there are negative, larger or undefined values.
    """
    values = np.asarray(image).astype(np.float64)
    if image.mode.startswith("I;16") or (image.mode == "I" and kind in ("PNG", "PPM")):
        whites = [65_535]
    else:
        whites = [1, 255, 65_535] if image.mode == "F" else [255, 65_535]
    white = next((white for white in whites if values.max() <= white), None)
    if not np.isfinite(values).all() or values.min() < 0 or white is None:
        raise CustomSetError(
            f"has values from {values.min():g} to {values.max():g}, of which nobody can say how bright they are: "
            "save it with 8 or 16 bits a channel"
        )
    return Image.fromarray(np.rint(values * (255 / white)).astype(np.uint8))
