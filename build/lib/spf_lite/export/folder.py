"""The folder that ``spf-lite export-onnx`` writes: graphs, weights, adapters, and what sampling needs to know.

::

    text_encoder.onnx  unet.onnx  decoder.onnx  preview.onnx
    unet_weights.safetensors     the weights that adapters may change: inputs of unet.onnx
    adapters/<name>.safetensors  low-rank factors, <layer>.down (r, in) and <layer>.up (out, r), float16
    tokenizer.json               in the format of Hugging Face's tokenizers
    model.json                   shapes, guidance scale, and DDIM's timesteps and factors (:func:`description`)

In the book: :doc:`/playground`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DDIMScheduler
from safetensors.numpy import save as save_arrays
from safetensors.torch import save

from spf_lite.export.graphs import check_exportable, export_graphs
from spf_lite.files import write_files
from spf_lite.models.adapters.lora_file import read_lora
from spf_lite.models.backbone import Backbone
from spf_lite.models.errors import BackboneError

#: Numbers of sampling steps that the exported schedule knows.
STEPS = range(1, 51)
_NAME = re.compile(r"[\w-][\w.-]*")


def export_onnx(backbone: Backbone, folder: str | Path, adapters: Mapping[str, str | Path] | None = None) -> list[Path]:
    """Export a backbone, and adapters for it, as a folder of ONNX graphs.

    Args:
        backbone: without an adapter, in float32, on the CPU.
        folder: is made if it is not there.
        adapters: LoRA files or their folders, by the name that each gets. Factors are rounded to 16 bits.

    Returns:
        the files that were written. Either all of them are there afterwards, or an error was raised before the first.

    Raises:
        BackboneError: if the backbone cannot be exported (:func:`spf_lite.export.graphs.export_graphs`), samples with
            something else than deterministic DDIM, or an adapter does not fit it.
        ValueError: if a name is no file name.
        OSError: if the folder cannot be written.
    """
    folder = Path(folder)
    contents: dict[Path, bytes | str] = {}
    check_exportable(backbone)
    described = description(backbone)  # before the graphs: it is quick, and may refuse
    for name, path in (adapters or {}).items():
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no name for a file: expected letters, digits, '.', '-' and '_'")
        contents[folder / "adapters" / f"{name}.safetensors"] = _factors(backbone, path)
    graphs, weights = export_graphs(backbone)
    for name, graph in graphs.items():
        contents[folder / f"{name}.onnx"] = graph.SerializeToString()
    contents[folder / "unet_weights.safetensors"] = save_arrays(_halved(weights))
    contents[folder / "tokenizer.json"] = backbone.pipe.tokenizer.backend_tokenizer.to_str()
    contents[folder / "model.json"] = json.dumps(described | {"weights": list(weights), "graphs": list(graphs)})
    for parent in {path.parent for path in contents}:
        parent.mkdir(parents=True, exist_ok=True)
    write_files(contents)
    return list(contents)


def description(backbone: Backbone) -> dict[str, Any]:
    r"""What a sampler has to know.

    Returns:
        by name: ``latents`` (channels, height and width), ``length`` (L of a text), ``start``, ``end`` and ``pad``
        (token ids), ``guidance_scale`` (the backbone's own), ``prediction`` (``epsilon`` or ``v_prediction``), and
        ``schedules``: for each number of steps, one triple a step, of the timestep and :math:`\bar\alpha` at it and at
        the next one (Song et al. 2021, equation 12, without noise).

    Raises:
        BackboneError: if the backbone's scheduler is not DDIM, or clips or rescales predictions.
    """
    pipe = backbone.pipe
    scheduler = pipe.scheduler
    config = scheduler.config
    if not isinstance(scheduler, DDIMScheduler) or config.clip_sample or config.thresholding:
        raise BackboneError("only a backbone that samples by DDIM, without clipping or thresholding, is exported")
    if config.prediction_type not in ("epsilon", "v_prediction"):
        raise BackboneError(f"the scheduler predicts {config.prediction_type!r}: expected epsilon or v_prediction")
    side = int(pipe.unet.config.sample_size)
    tokenizer = pipe.tokenizer
    return {
        "latents": [int(pipe.unet.config.in_channels), side, side],
        "length": int(tokenizer.model_max_length),
        "start": int(tokenizer.bos_token_id),
        "end": int(tokenizer.eos_token_id),
        "pad": int(tokenizer.pad_token_id),
        "guidance_scale": float(backbone.spec.guidance_scale),
        "prediction": config.prediction_type,
        "schedules": {str(steps): _schedule(scheduler, steps) for steps in STEPS},
    }


def _schedule(scheduler: DDIMScheduler, steps: int) -> list[list[float]]:
    """The timestep of each step, and the share of signal before and after it."""
    ours = DDIMScheduler.from_config(scheduler.config)
    ours.set_timesteps(steps)
    stride = ours.config.num_train_timesteps // steps
    shares = ours.alphas_cumprod

    def share(timestep: int) -> float:
        return float(shares[timestep] if timestep >= 0 else ours.final_alpha_cumprod)

    return [[int(t), share(int(t)), share(int(t) - stride)] for t in ours.timesteps]


def _factors(backbone: Backbone, path: str | Path) -> bytes:
    factors = read_lora(path, backbone.pipe.unet)
    content: bytes = save(
        {
            f"{name}.{end}": value.to(torch.float16).contiguous()
            for name, pair in factors.items()
            for end, value in (("down", pair.down), ("up", pair.up))
        }
    )
    return content


def _halved(weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Weights in 16 bits where that loses nothing."""
    halves = {name: value.astype(np.float16) for name, value in weights.items()}
    return {
        name: half if np.array_equal(half.astype(np.float32), weights[name]) else weights[name]
        for name, half in halves.items()
    }
