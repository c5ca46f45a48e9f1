"""From attributes to pixels: rendering, part masks, counterfactual pairs and the true region of a target.

The drawings are "Avataaars" by Pablo Stanley (free for personal and commercial use), as packaged in
``python-avatars``; ``resvg`` turns them into pixels. Rendering is deterministic: the same
:class:`~spf_lite.tiny_world.portraits.Portrait` and size give the same bytes.
"""

from __future__ import annotations

import io
import re
from dataclasses import replace
from functools import lru_cache

import numpy as np
import python_avatars as avatars
import resvg_py
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from spf_lite.tiny_world.portraits import Portrait

#: The parts that every pixel belongs to exactly one of; a pixel of a mask from :func:`part_mask` is an index into this.
PARTS: tuple[str, ...] = ("background", "skin", "clothes", "face", "hair", "accessory")

#: The part of the 264 x 280 drawing that a portrait shows: x, y, width, height.
VIEW_BOX = (12, 7, 240, 240)

_HAIR = {
    "short": "SHORT_FLAT",
    "bob": "MIA_WALLACE",
    "bun": "BUN",
    "long": "STRAIGHT_STRAND",
    "curly": "CURLY",
    "afro": "FRO",
    "dreadlocks": "DREADS",
    "spiky": "EVIL_SPIKE",
    "mohawk": "MOHAWK",
    "wavy": "BIG_HAIR",
}
_CLOTHES = {
    "hoodie": "HOODIE",
    "v-neck": "SHIRT_V_NECK",
    "sweater": "COLLAR_SWEATER",
    "overalls": "OVERALL",
    "t-shirt": "SHIRT_CREW_NECK",
}
_MOUTH = {"smiling": "SMILE", "serious": "SERIOUS", "sad": "SAD", "shouting": "SCREAM_OPEN"}
_BROWS = {
    "smiling": "DEFAULT_NATURAL",
    "serious": "FLAT_NATURAL",
    "sad": "SAD_CONCERNED_NATURAL",
    "shouting": "ANGRY_NATURAL",
}
_HATS = {"winter-hat": "WINTER_HAT_2", "chef-hat": "CHEF_CAP"}
_SUITS = {"blazer": "BLAZER_SHIRT", "spacesuit": "ASTRONAUT_SUIT"}
_FACIAL_HAIR = {"": "NONE", "beard": "BEARD_MEDIUM", "whiskers": "MOUSTACHE_MAGNUM"}
_EYES = {"round": "DEFAULT", "narrow": "SQUINT", "sideways": "SIDE", "merry": "HAPPY"}
_NOSE = {"medium": "DEFAULT", "small": "SMALL", "wide": "WIDE"}

HAIR_COLORS = {"black": "#2C1B18", "brown": "#724133", "blonde": "#D6B370", "red": "#C93305", "gray": "#B9B4B4"}
SKIN_COLORS = {"pale": "#FFDBB4", "tan": "#D08B5B", "brown": "#AE5D29", "dark": "#614335"}
CLOTHES_COLORS = {
    "red": "#E53935",
    "yellow": "#FBC02D",
    "green": "#43A047",
    "blue": "#1E88E5",
    "purple": "#8E24AA",
    "black": "#263238",
    "white": "#F5F5F5",
}
BACKGROUND_COLORS = {
    "gray": "#A9B7BD",
    "yellow": "#FFD95A",
    "green": "#81C784",
    "blue": "#64B5F6",
    "pink": "#F48FB1",
    "purple": "#9575CD",
    "white": "#FAFAFA",
}
PINK_HAIR = "#F25CA2"
HAT_COLOR = "#3F51B5"

# Placeholder colours that no drawing uses: a drawing is composed once per structure, then these are replaced.
_SKIN, _HAIR_PAINT, _CLOTH, _BEARD, _HAT = "#A0B1C1", "#A0B1C2", "#A0B1C3", "#A0B1C4", "#A0B1C5"

_SVG_HEAD = re.compile(r'width="264px" height="280px" viewBox="0 0 264 280"')


@lru_cache(maxsize=8192)
def _drawing(hair: str, clothes: str, expression: str, eyes: str, nose: str, accessory: str, beard: str) -> str:
    """The SVG text of one structure, in placeholder colours. An empty name leaves a part out."""
    top = avatars.HatType[_HATS[hair]] if hair in _HATS else avatars.HairType[_HAIR[hair] if hair else "NONE"]
    svg = avatars.Avatar(
        style=avatars.AvatarStyle.TRANSPARENT,
        top=top,
        hat_color=_HAT,
        eyebrows=avatars.EyebrowType[_BROWS[expression] if expression else "NONE"],
        mouth=avatars.MouthType[_MOUTH[expression]] if expression else "",
        eyes=avatars.EyeType[_EYES[eyes]] if eyes else "",
        nose=avatars.NoseType[_NOSE[nose]] if nose else "",
        facial_hair=avatars.FacialHairType[_FACIAL_HAIR[beard]],
        facial_hair_color=_BEARD,
        skin_color=_SKIN,
        hair_color=_HAIR_PAINT,
        accessory=avatars.AccessoryType[accessory or "NONE"],
        clothing=avatars.ClothingType[clothes or "NONE"],
        clothing_color=_CLOTH,
    ).render()
    x, y, width, height = VIEW_BOX
    svg, hits = _SVG_HEAD.subn(f'viewBox="{x} {y} {width} {height}"', svg, count=1)
    if hits != 1:
        raise RuntimeError("python-avatars changed its canvas: expected a 264 x 280 drawing")
    return svg


def _structure(portrait: Portrait) -> tuple[str, str, str, str, str, str, str]:
    targets = portrait.targets

    def shown(among: dict[str, str], otherwise: str) -> str:
        return next((name for name in targets if name in among), otherwise)

    accessory = "PRESCRIPTION_2" if portrait.glasses == "yes" else ""
    if "sunglasses" in targets:
        accessory = "WAYFARERS"
    if "eyepatch" in targets:
        accessory = "EYEPATCH"
    return (
        shown(_HATS, portrait.hair_style),
        {**_CLOTHES, **_SUITS}[shown(_SUITS, portrait.clothes)],
        portrait.expression,
        portrait.eyes,
        portrait.nose,
        accessory,
        shown(_FACIAL_HAIR, ""),
    )


def _rasterise(
    svg: str, skin: str, hair: str, clothes: str, beard: str, hat: str, background: str, size: int
) -> Image.Image:
    for placeholder, color in ((_SKIN, skin), (_HAIR_PAINT, hair), (_CLOTH, clothes), (_BEARD, beard), (_HAT, hat)):
        svg = svg.replace(placeholder, color)
    png = resvg_py.svg_to_bytes(svg_string=svg, width=size, height=size, background=background)
    return Image.open(io.BytesIO(bytes(png))).convert("RGB")


def render(portrait: Portrait, size: int = 128) -> Image.Image:
    """Render a portrait.

    Args:
        portrait: what to render, its targets included.
        size: pixels a side.

    Returns:
        an RGB image of ``size`` x ``size`` pixels.

    Raises:
        ValueError: if the size is less than 8 pixels.
    """
    if size < 8:
        raise ValueError(f"size={size}: a portrait needs at least 8 pixels a side")
    natural = HAIR_COLORS[portrait.hair_color]
    image = _rasterise(
        _drawing(*_structure(portrait)),
        skin=SKIN_COLORS[portrait.skin],
        hair=PINK_HAIR if "pink-hair" in portrait.targets else natural,
        clothes=CLOTHES_COLORS[portrait.clothes_color],
        beard=natural,
        hat=HAT_COLOR,
        background=BACKGROUND_COLORS[portrait.background],
        size=size,
    )
    return _pencil_sketch(image) if "pencil-sketch" in portrait.targets else image


def _pencil_sketch(image: Image.Image) -> Image.Image:
    """Graphite on paper: dark lines where brightness jumps ("colour dodge" of a blur), faint tone elsewhere."""
    gray = image.convert("L")
    blurred = gray.filter(ImageFilter.GaussianBlur(image.width / 64))
    tone = np.asarray(gray, dtype=np.float32) / 255
    lines = np.clip(tone / np.clip(np.asarray(blurred, dtype=np.float32) / 255, 0.05, 1), 0, 1) ** 2
    paper = (0.62 + 0.38 * tone) * lines
    return Image.fromarray((paper * 255).round().astype(np.uint8)).convert("RGB")


@lru_cache(maxsize=4096)
def _part_mask(structure: tuple[str, str, str, str, str, str, str], size: int) -> NDArray[np.uint8]:
    hair, clothes, expression, eyes, nose, accessory, beard = structure
    stages = (
        (("", "", "", "", "", "", ""), "skin"),
        (("", clothes, "", "", "", "", ""), "clothes"),
        (("", clothes, expression, eyes, nose, "", ""), "face"),
        ((hair, clothes, expression, eyes, nose, "", ""), "accessory" if hair in _HATS else "hair"),
        ((hair, clothes, expression, eyes, nose, "", beard), "hair"),
        ((hair, clothes, expression, eyes, nose, accessory, beard), "accessory"),
    )
    # Colours far from each other and from every fixed colour of the artwork, so that each new part differs.
    distinct = dict(
        skin="#00FFFF", hair="#FF00FF", clothes="#0000FF", beard="#80FF00", hat="#FF8000", background="#00FF00"
    )
    mask = np.zeros((size, size), dtype=np.uint8)
    before = np.broadcast_to(np.array([0, 255, 0], dtype=np.int16), (size, size, 3))
    for drawing, part in stages:
        now = np.asarray(_rasterise(_drawing(*drawing), size=size, **distinct), dtype=np.int16)
        mask[np.abs(now - before).max(axis=-1) > 48] = PARTS.index(part)
        before = now
    mask.setflags(write=False)
    return mask


def part_mask(portrait: Portrait, size: int = 128) -> NDArray[np.uint8]:
    """Which part each pixel belongs to: indices into :data:`PARTS`, shape (size, size).

    The portrait is rendered part by part, in the artwork's order. A pixel belongs to the last part that changed it.
    """
    return _part_mask(_structure(portrait), size).copy()


def counterfactual(portrait: Portrait, target: str, size: int = 128) -> tuple[Image.Image, Image.Image]:
    """The same person without and with one target: two RGB images that differ in nothing else."""
    others = tuple(name for name in portrait.targets if name != target)
    return render(replace(portrait, targets=others), size), render(replace(portrait, targets=(*others, target)), size)


def true_region(portrait: Portrait, target: str, size: int = 128, threshold: int = 8) -> NDArray[np.bool_]:
    """Where a target changes the picture: True where the counterfactual pair differs.

    Args:
        portrait: the person, with or without the target.
        target: name of the target.
        size: side of the mask, in pixels.
        threshold: smallest difference of a colour channel (0 to 255) that counts as a change.

    Returns:
        a boolean mask of shape (size, size).
    """
    without, with_target = (np.asarray(image, dtype=np.int16) for image in counterfactual(portrait, target, size))
    changed: NDArray[np.bool_] = np.abs(with_target - without).max(axis=-1) > threshold
    return changed
