"""Where the target may act on a portrait: by the adapter's own control map, or by masks of the user's.

The map is the library's averaged control map with the adapter as response path
(:func:`spf_lite.method.control_map.averaged_maps`), made on the portrait without the adapter. Otsu's threshold (1979)
makes a region of it. An adapter that changes the background everywhere has a map there, too, so leakage by its own map
may be too low. A mask knows better.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image

from spf_lite.audit.prompts import Prompt
from spf_lite.config import TrainConfig
from spf_lite.data.batch import Item
from spf_lite.data.texts import encode_texts, phrase_distances, text_pair
from spf_lite.method.control_map import averaged_maps
from spf_lite.models.backbone import Backbone
from spf_lite.models.codec import encode_images, to_tensor
from spf_lite.pure_pairs.surprise import otsu

#: Name of the mask of every prompt that has none of its own, and endings of masks.
COMMON = "mask"
ENDINGS = (".png", ".jpg", ".jpeg", ".webp")


@torch.no_grad()
def adapter_regions(
    backbone: Backbone, prompts: Sequence[Prompt], base_portraits: Sequence[Image.Image], target_text: str
) -> NDArray[np.bool_]:
    """Regions by the control map of the loaded adapter, (N, H, W).

    Args:
        backbone: with the adapter.
        prompts: N, with complete texts.
        base_portraits: N of one size, without the adapter, for the base texts.
        target_text: the target.
    """
    latents = encode_images(backbone.pipe, to_tensor(base_portraits)).cpu()
    texts = [(prompt.base_text, prompt.complete_text or "") for prompt in prompts]
    encoded = encode_texts(backbone, [text for pair in texts for text in pair])
    features = torch.zeros(1)
    items = []
    for number, prompt in enumerate(prompts):
        # A complete text may be worded freely: the map needs the phrases of the base text, and no alignment.
        pair = text_pair(backbone, prompt.base_text, target_text, prompt.replaces)
        base, complete = encoded[2 * number], encoded[2 * number + 1]
        items.append(Item(latents[number], pair, base, complete, phrase_distances(backbone, pair), features, features))
    dtype = backbone.spec.dtype
    with torch.autocast(backbone.network.device.type, dtype=dtype, enabled=dtype != torch.float32):  # as in training
        maps = averaged_maps(backbone, items, replace(TrainConfig(), batch_size=len(items))).cpu()
    cut = torch.stack([otsu(one) for one in maps])[:, None, None, None]
    height, width = base_portraits[0].height, base_portraits[0].width
    large = F.interpolate(maps, (height, width), mode="bilinear", align_corners=False)
    regions: NDArray[np.bool_] = (large > cut)[:, 0].numpy()
    return regions


def read_masks(folder: Path, count: int) -> list[Image.Image]:
    """The masks of N prompts: ``1.png`` (or ``001.png``) of the first, ``mask.png`` of those that have none.

    Args:
        folder: with pictures, white where the target may act.
        count: N.

    Raises:
        ValueError: if a prompt has no mask, two files are the mask of one, or a picture cannot be read.
    """
    found: dict[int, Path] = {}
    common: Path | None = None
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if path.suffix.lower() not in ENDINGS:
            continue
        if path.stem == COMMON:
            common = path
        elif path.stem.isdecimal():
            if int(path.stem) in found:
                raise ValueError(f"{folder}: {found[int(path.stem)].name} and {path.name} are masks of one prompt")
            found[int(path.stem)] = path
    chosen = [mask for number in range(1, count + 1) if (mask := found.get(number, common)) is not None]
    if missing := [str(number) for number in range(1, count + 1) if common is None and number not in found]:
        shown = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
        raise ValueError(f"{folder}: no mask for prompt {shown}: expected {missing[0]}.png, or {COMMON}.png for all")
    return [_read_mask(mask) for mask in chosen]


def _read_mask(path: Path) -> Image.Image:
    try:
        with Image.open(path) as picture:
            return picture.convert("L")
    except OSError as error:
        raise ValueError(f"the mask {path} cannot be read ({error})") from error


def mask_regions(masks: Sequence[Image.Image], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Masks as regions of portraits, (N, H, W).

    Args:
        masks: N, mode L.
        size: width and height of the portraits.
    """
    return np.stack([np.asarray(mask.resize(size, Image.Resampling.BILINEAR)) > 127 for mask in masks])
