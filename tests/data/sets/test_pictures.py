import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageCms

from spf_lite.data.sets.errors import CustomSetError
from spf_lite.data.sets.pictures import Picture, read_mask, read_picture

from ..strategies import ORIENTATION, PictureFile, damage, pictures, shown

PATH = Path("a.png")
#: EXIF orientation to what turns the stored pixels into the upright ones.
UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def read(content: bytes, background: str = "white") -> Picture:
    return read_picture(content, PATH, "line 1", background)


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[ORIENTATION] = orientation
    return tags


def quadrants(width: int = 60, height: int = 40) -> NDArray[np.uint8]:
    """Four colours, so that every turn shows."""
    array = np.zeros((height, width, 3), dtype=np.uint8)
    array[: height // 2, width // 2 :] = (255, 0, 0)
    array[height // 2 :, : width // 2] = (0, 255, 0)
    array[height // 2 :, width // 2 :] = (0, 0, 255)
    return array


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_exif_orientation_is_applied(orientation: int, kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {"quality": 100, "subsampling": 0} if kind == "JPEG" else {}
    picture = read(encoded(Image.fromarray(quadrants()), kind, exif=exif(orientation), **options))
    expected = UPRIGHT[orientation](quadrants())
    assert picture.image.size == (expected.shape[1], expected.shape[0])
    assert np.abs(np.asarray(picture.image, dtype=int) - expected).max() <= (9 if kind == "JPEG" else 0)
    assert picture.treatments == (() if orientation == 1 else ("rotated by EXIF",))


def test_hidden_colours_of_transparent_pixels_do_not_show() -> None:
    image = Image.new("RGBA", (16, 16), (255, 0, 255, 0))
    image.paste((0, 0, 255, 255), (0, 0, 8, 16))
    for background, color in (("white", (255, 255, 255)), ("#102030", (16, 32, 48))):
        picture = read(encoded(image), background)
        assert picture.image.mode == "RGB"
        assert picture.image.getpixel((4, 4)) == (0, 0, 255) and picture.image.getpixel((12, 4)) == color
        assert picture.opacity is not None and picture.opacity.getextrema() == (0, 255)
        assert picture.treatments == (f"composed on {background}",)
    assert read(encoded(Image.new("RGBA", (16, 16), (1, 2, 3, 255)))).opacity is None, "nothing to compose"


def test_a_wholly_transparent_picture_is_refused() -> None:
    with pytest.raises(CustomSetError, match=r"line 1: the image a\.png is wholly transparent"):
        read(encoded(Image.new("RGBA", (16, 16), (255, 0, 255, 0))))


def test_gray_of_16_bits_is_scaled_and_not_clipped() -> None:
    ramp = np.linspace(0, 65_535, 256).round().astype(np.uint16).reshape(16, 16)
    for kind in ("PNG", "TIFF", "PPM"):
        picture = read(encoded(Image.fromarray(ramp), kind))
        assert np.array_equal(np.asarray(picture.image.getchannel("R")).flatten(), np.arange(256)), kind
        assert picture.treatments == ("scaled to 8 bits",)
    dark = read(encoded(Image.fromarray(np.full((16, 16), 200, dtype=np.uint16))))
    assert dark.image.getextrema() == ((1, 1),) * 3, "200 of 65,535 is nearly black"


@pytest.mark.parametrize("values", [[-1.0], [float("nan")], [float("inf")], [70_000.0]])
def test_values_without_a_known_white_are_refused(values: list[float]) -> None:
    array = np.full((16, 16), values[0], dtype=np.float32)
    with pytest.raises(CustomSetError, match="nobody can say how bright"):
        read(encoded(Image.fromarray(array), "TIFF"))


def test_an_animation_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (16, 16), color) for color in ("red", "blue")]
    for kind in ("GIF", "WEBP", "PNG"):
        picture = read(encoded(frames[0], kind, save_all=True, append_images=frames[1:], lossless=True))
        assert picture.image.getpixel((8, 8)) == (255, 0, 0)
        assert "taken from the first of several frames" in picture.treatments


def swapped_profile() -> bytes:
    """The profile of a screen that shows red where sRGB shows blue, and blue where it shows red."""
    content = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    content = bytearray(content.replace("sRGB".encode("utf-16-be"), "swap".encode("utf-16-be")))
    red, blue = content.index(b"rXYZ"), content.index(b"bXYZ")
    content[red : red + 4], content[blue : blue + 4] = b"bXYZ", b"rXYZ"
    return bytes(content)


def test_an_embedded_colour_profile_is_converted_to_srgb() -> None:
    image = Image.fromarray(quadrants())
    picture = read(encoded(image, icc_profile=swapped_profile()))
    assert np.abs(np.asarray(picture.image, dtype=int) - quadrants()[..., ::-1]).max() <= 3
    assert picture.treatments == ("converted to sRGB by their profile",)
    hidden = image.convert("RGBA")
    hidden.putalpha(Image.fromarray(np.tile(np.array([255] * 30 + [0] * 30, dtype=np.uint8), (40, 1))))
    picture = read(encoded(hidden, icc_profile=swapped_profile()), "#ff0000")
    assert picture.image.getpixel((59, 0)) == (255, 0, 0), "the background is sRGB already"
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for harmless in (srgb, b"no profile at all"):
        picture = read(encoded(image, icc_profile=harmless))
        assert np.array_equal(np.asarray(picture.image), quadrants()) and picture.treatments == ()


def test_heic_files_are_named() -> None:
    with pytest.raises(CustomSetError, match=r"IMG_1\.HEIC is HEIC, which Pillow cannot read: convert it to JPEG"):
        read_picture(b"\0\0\0\x18ftypheic", Path("IMG_1.HEIC"), "line 1")


def test_a_decompression_bomb_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(CustomSetError, match=r"the image a\.png has too many pixels"):
        read(encoded(Image.new("RGB", (16, 16))))


def test_a_mask_is_turned_with_its_picture() -> None:
    picture = read(encoded(Image.fromarray(quadrants()), "JPEG", exif=exif(6)))
    seen = np.zeros((60, 40), dtype=np.uint8)
    seen[:30, :10] = 255
    stored = np.rot90(seen).copy()  # made from the stored pixels
    for mask in (encoded(Image.fromarray(seen)), encoded(Image.fromarray(stored))):
        assert np.array_equal(np.asarray(read_mask(mask, PATH, "line 1", picture)), seen)
    tagged = encoded(Image.fromarray(stored), exif=exif(6))
    assert np.array_equal(np.asarray(read_mask(tagged, PATH, "line 1", picture)), seen)
    with pytest.raises(CustomSetError, match=r"the mask is \(40, 41\) pixels, its image \(40, 60\)"):
        read_mask(encoded(Image.new("L", (40, 41))), PATH, "line 1", picture)


def test_transparency_of_a_mask_is_black() -> None:
    mask = Image.new("LA", (16, 16), (255, 0))
    mask.putpixel((3, 4), (255, 255))
    read_back = read_mask(encoded(mask), PATH, "line 1", read(encoded(Image.new("RGB", (16, 16)))))
    assert np.argwhere(np.asarray(read_back)).tolist() == [[4, 3]]


@settings(max_examples=120, deadline=None)
@given(file=pictures())
def test_any_picture_is_what_a_viewer_shows(file: PictureFile) -> None:
    expected = shown(file.content)
    try:
        picture = read(file.content)
    except CustomSetError as error:
        small, invisible = min(expected.size) < 8, "transparent" in str(error)
        assert small or invisible, error
        assert small or shown(file.content, (1, 2, 3)).getcolors(1) == [(expected.width * expected.height, (1, 2, 3))]
    else:
        assert picture.image.mode == "RGB" and min(picture.image.size) >= 8
        assert picture.image.tobytes() == expected.tobytes()
        assert ("rotated by EXIF" in picture.treatments) == (file.orientation in range(2, 9))
        other = read(file.content, "#010203").image
        assert other.tobytes() == shown(file.content, (1, 2, 3)).tobytes()


@settings(max_examples=120, deadline=None)
@given(data=st.data())
def test_any_damage_is_named_or_harmless(data: st.DataObject) -> None:
    content = data.draw(damage(data.draw(pictures(smallest=8)).content))
    try:
        assert read(content).image.mode == "RGB"
    except CustomSetError as error:
        assert str(error).startswith("line 1: the image a.png ")
