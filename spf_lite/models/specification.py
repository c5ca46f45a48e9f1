"""What the code has to know about a model: where it is stored, and which settings suit it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from spf_lite.paths import DATA_SAMPLES

#: Guidance scale of the tiny models. They follow their prompts almost without guidance, and fine-tuning makes the
#: response to the target stronger: at Stable Diffusion's usual 7.5 portraits are overexposed and garbled.
GUIDANCE_SCALE = 1.5
#: Guidance scale of Stable Diffusion 1 and 2. A model of another class gets its class's own when it is loaded.
USUAL_GUIDANCE = 7.5


@dataclass(frozen=True)
class BackboneSpec:
    """What the code needs to know about a backbone.

    Attributes:
        source: folder, hub id or single file of the pipeline.
        clip: folder or hub id of the CLIP model that gives phrase distances and the enhancement loss.
        attention_resolution: longer side of the cross-attention maps that are recorded, in positions, for portraits of
            the model's own size. :func:`spf_lite.models.backbone.load` replaces the wish by the side that the UNet has
            (:func:`attention_resolution`).
        dtype: of the weights.
        preview: folder or hub id of an ``AutoencoderTiny`` that decodes one-step predictions for the enhancement loss;
            None: the full decoder does.
        guidance_scale: of classifier-free guidance (Ho & Salimans 2022), when this model samples.
    """

    source: str
    clip: str
    attention_resolution: int = 16
    dtype: torch.dtype = torch.float32
    preview: str | None = None
    guidance_scale: float = USUAL_GUIDANCE


def tiny_folder() -> Path:
    """The shipped model: ``tiny-portraits`` of :data:`spf_lite.paths.DATA_SAMPLES`, or what ``SPF_LITE_TINY`` names."""
    return Path(os.environ.get("SPF_LITE_TINY", DATA_SAMPLES / "tiny-portraits"))


def shipped_folders() -> dict[str, Path]:
    """Names of the models that come with the repository, and their folders: the tiny UNet, and a tiny transformer.

    An installed package has the first one only.
    """
    return {"tiny": tiny_folder(), "tiny-transformer": DATA_SAMPLES / "tiny-transformer"}


def specification_of(name: str, config: str | None = None) -> BackboneSpec:
    """The specification of a backbone. Nothing is loaded.

    Args:
        name: ``tiny``, ``tiny-transformer``, ``sd15``, or any folder, hub id or single file; ``~`` is the home folder.
            A folder may hold a CLIP model in ``clip/`` and an ``AutoencoderTiny`` in ``preview/``; otherwise OpenAI's
            CLIP measures, and the pipeline's own decoder serves.
        config: folder or hub id of a single file's configuration; the other two models are looked for there.
    """
    if name == "sd15":
        return BackboneSpec(
            "stable-diffusion-v1-5/stable-diffusion-v1-5", "openai/clip-vit-large-patch14", preview="madebyollin/taesd"
        )
    shipped = shipped_folders()
    source = str(shipped.get(name) or (Path(name).expanduser() if name.startswith("~") else name))
    resolved = {folder.resolve() for folder in shipped.values()}
    beside = Path(source if config is None else config)
    clip, preview = beside / "clip", beside / "preview"
    return BackboneSpec(
        source,
        str(clip) if clip.is_dir() else "openai/clip-vit-large-patch14",
        preview=str(preview) if preview.is_dir() else None,
        guidance_scale=GUIDANCE_SCALE if Path(source).resolve() in resolved else USUAL_GUIDANCE,
    )


def attention_resolution(config: Mapping[str, Any], wanted: int = 16) -> int:
    """Which cross-attention maps are recorded: the longer side of those nearest to ``wanted``.

    Each downsampling halves a side, rounded up. Of two that are equally near the larger is taken. The middle block,
    which holds a single layer, counts if no other block has cross-attention.

    Args:
        config: of the UNet. Its ``sample_size`` is the side of its latents, or height and width.
        wanted: SPF-Portrait leaves the layers open.
    """
    size = config["sample_size"]
    side = size if isinstance(size, int) else max(size)
    down, up = config["down_block_types"], config["up_block_types"]
    levels = {level for level, block in enumerate(down) if "CrossAttn" in block}
    levels |= {len(up) - 1 - level for level, block in enumerate(up) if "CrossAttn" in block}
    levels = levels or {len(down) - 1}
    sides: set[int] = {-(-side // 2**level) for level in levels}
    return min(sides, key=lambda found: (abs(found - wanted), -found))
