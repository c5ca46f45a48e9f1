"""What the code has to know about a model before it can be loaded: where it lies, and what suits it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch

from spf_lite.paths import DATA_SAMPLES

#: For the tiny model. It follows its prompts almost without guidance; a tuned model, which says its few words louder
#: than the base says its own, bleaches and garbles portraits at the scales that Stable Diffusion is used with.
GUIDANCE_SCALE = 1.5


@dataclass(frozen=True)
class BackboneSpec:
    """What the code needs to know about a backbone.

    Attributes:
        source: folder or hub id of the pipeline.
        clip: folder or hub id of the CLIP model that gives phrase distances and the enhancement loss.
        attention_resolution: longer side of the cross-attention maps that are recorded, for a square portrait of the
            model's own size.
        dtype: of the weights.
        preview: folder or hub id of an ``AutoencoderTiny`` that decodes one-step predictions for the enhancement loss;
            None: the full decoder does.
        guidance_scale: of classifier-free guidance, when this model draws.
    """

    source: str
    clip: str
    attention_resolution: int = 16
    dtype: torch.dtype = torch.float32
    preview: str | None = None
    guidance_scale: float = 7.5


def tiny_folder() -> Path:
    """The shipped model: ``tiny-portraits`` of :data:`spf_lite.paths.DATA_SAMPLES`, or what ``SPF_LITE_TINY`` names."""
    return Path(os.environ.get("SPF_LITE_TINY", DATA_SAMPLES / "tiny-portraits"))


def specification_of(name: str) -> BackboneSpec:
    """The facts of a backbone: ``tiny``, ``sd15``, or a folder or hub id (with CLIP in its ``clip/`` if local)."""
    if name == "sd15":
        return BackboneSpec(
            "stable-diffusion-v1-5/stable-diffusion-v1-5", "openai/clip-vit-large-patch14", preview="madebyollin/taesd"
        )
    source = str(tiny_folder()) if name == "tiny" else str(Path(name).expanduser()) if name.startswith("~") else name
    clip, preview = Path(source) / "clip", Path(source) / "preview"
    return BackboneSpec(
        source,
        str(clip) if clip.is_dir() else "openai/clip-vit-large-patch14",
        preview=str(preview) if preview.is_dir() else None,
        guidance_scale=GUIDANCE_SCALE if Path(source).resolve() == tiny_folder().resolve() else 7.5,
    )
