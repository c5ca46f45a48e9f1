"""What decides the numbers of an audit besides its prompts, as text: model, adapter, its parts, sampling, versions."""

from __future__ import annotations

import hashlib
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

import spf_lite
from spf_lite.audit.sampling import Sampler
from spf_lite.models.adapters.combined_file import parts_of
from spf_lite.models.adapters.lora_file import find_adapter, read_lora

#: Packages whose versions are named.
PACKAGES = ("torch", "diffusers", "transformers", "peft")


def settings_of(sampler: Sampler, adapter: str | Path, strength: float, region: str) -> dict[str, str]:
    """The rows of the table of settings.

    Args:
        sampler: of the portraits.
        adapter: file or folder of the LoRA.
        strength: factor of its change.
        region: how the region of the target was found.
    """
    backbone, file = sampler.backbone, find_adapter(adapter)
    parts = parts_of(adapter, read_lora(adapter, backbone.network))
    scale = backbone.spec.guidance_scale if sampler.guidance_scale is None else sampler.guidance_scale
    return {
        "model": backbone.spec.source,
        "class of models": backbone.architecture.title,
        "adapter": str(adapter),
        "parts of the adapter": "; ".join(map(str, parts)),
        "SHA-256 of the adapter": hashlib.sha256(file.read_bytes()).hexdigest(),
        "strength": f"{strength:g}",
        "region of the target": region,
        "CLIP": backbone.spec.clip,
        "denoising steps": str(sampler.steps),
        "guidance scale": f"{scale:g}",
        "scheduler": type(backbone.pipe.scheduler).__name__,
        "device and weights": f"{backbone.pipe.device}, {str(backbone.spec.dtype).removeprefix('torch.')}",
        "versions": ", ".join([f"spf-lite {spf_lite.__version__}", *map(_named, PACKAGES), _python()]),
    }


def _named(package: str) -> str:
    try:
        return f"{package} {torch.__version__ if package == 'torch' else version(package)}"
    except PackageNotFoundError:
        return f"{package} of unknown version"


def _python() -> str:
    return f"Python {platform.python_version()}"
