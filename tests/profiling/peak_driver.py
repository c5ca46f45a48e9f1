"""In a process of its own: a network of medium size takes a step, paints or decodes, and its peak is measured.

``python peak_driver.py KIND ...`` prints for each kind two numbers of bytes, counted and measured. Elsewhere the other
work of a process would be measured, too. Without ``MALLOC_MMAP_THRESHOLD_`` the C library keeps freed memory in pieces
that no tensor fits: a fifth more was measured then.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from unittest import mock

import torch
from diffusers import UNet2DConditionModel
from torch import nn

from spf_lite.method.dual_path import dual_path_step, naive_step
from spf_lite.models.adapters.trainable import Lora
from spf_lite.models.backbone import Backbone, load
from spf_lite.models.running.sampling import sample
from spf_lite.profiling.cost import DUAL
from spf_lite.profiling.memory import losses_memory
from spf_lite.profiling.moments import decoding_bytes, encoding_bytes, painting_bytes
from spf_lite.profiling.random_models import random_batch
from spf_lite.profiling.shape_cost import fill
from spf_lite.profiling.shapes import meta_shape

PIXELS, PORTRAITS, RANK = 256, 4, 16
PASSES = {"paint": painting_bytes, "encode": encoding_bytes, "decode": decoding_bytes}


def medium() -> Backbone:
    """Half of the width of Stable Diffusion 1.5, on the meta device, with an adapter."""
    narrow = partial(UNet2DConditionModel, block_out_channels=(160, 320, 640, 640))
    with mock.patch("spf_lite.profiling.random_models.UNet2DConditionModel", narrow):
        backbone = meta_shape("sd15", load("tiny"))
    backbone.trainable = Lora(backbone.network, RANK, seed=0)
    return backbone


def counted(kind: str, backbone: Backbone, used: nn.Module) -> int:
    """Bytes of the module that is used, and of what it computes."""
    if kind in PASSES:
        weights = sum(parameter.nbytes for parameter in used.parameters())
        return weights + PASSES[kind](backbone, PORTRAITS, PIXELS // backbone.pipe.vae_scale_factor)
    parts = losses_memory(backbone, None if kind == "plain" else DUAL, PIXELS).parts(PORTRAITS)
    return sum(parts.values()) - parts["text encoder, autoencoder"] - parts.get("CLIP", 0)  # they stay on "meta"


def step(kind: str, backbone: Backbone) -> None:
    """A training step with numbers."""
    assert backbone.trainable is not None
    optimizer = torch.optim.AdamW(list(backbone.trainable.parameters))
    batch = random_batch(backbone, PORTRAITS, side=PIXELS // backbone.pipe.vae_scale_factor, features=1)
    noise, times = torch.zeros_like(batch.latents), torch.full((PORTRAITS,), 500)
    if kind == "plain":
        naive_step(backbone, batch, noise, times).terms["denoise"].mean().backward()
    else:
        with dual_path_step(backbone, batch, noise, times, DUAL) as found:
            torch.stack([term.mean() for term in found.terms.values()]).sum().backward()
    optimizer.step()


def warm_up() -> None:
    """Have the code of PyTorch's operations in memory: it is not counted."""
    tiny = load("tiny")
    tiny.trainable = Lora(tiny.network, RANK, seed=0)
    batch = random_batch(tiny, 1)
    with dual_path_step(tiny, batch, torch.zeros_like(batch.latents), torch.tensor([500]), DUAL) as found:
        torch.stack([term.mean() for term in found.terms.values()]).sum().backward()
    sample(tiny, ["a person"], seeds=[0], steps=1)


def status(line: str) -> int:
    """A line of this process's status in bytes: ``VmRSS``, what it has now, or ``VmHWM``, the most it had."""
    (found,) = (one for one in Path("/proc/self/status").read_text().splitlines() if one.startswith(line))
    return 1024 * int(found.split()[1])


def main(kinds: list[str]) -> None:
    """Count, then measure, one kind after the other.

    Args:
        kinds: ``plain`` or ``dual`` for a training step, else keys of :data:`PASSES`.
    """
    torch.set_num_threads(1)
    backbone = medium()
    modules = {kind: backbone.pipe.vae if kind in ("encode", "decode") else backbone.network for kind in kinds}
    expected = {kind: counted(kind, backbone, modules[kind]) for kind in kinds}
    warm_up()
    before = status("VmRSS")
    for kind, used in modules.items():
        fill(used)
        used.train()
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins here
        if kind in PASSES:
            PASSES[kind](backbone, PORTRAITS, PIXELS // backbone.pipe.vae_scale_factor)
        else:
            step(kind, backbone)
        sys.stdout.write(f"{kind} {expected[kind]} {status('VmHWM') - before}\n")
        used.zero_grad(set_to_none=True)
        used.to("meta")


if __name__ == "__main__":
    main(sys.argv[1:])
