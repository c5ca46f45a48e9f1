"""Cost of the second path for networks of the full shape of large models, with random weights.

Text encoders and autoencoder stay on the meta device: what they compute is computed once, before the first step, and
costs the same with and without the second path. So a machine with the memory for one network is enough.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import nn

from spf_lite.method.attention import record
from spf_lite.method.dual_path import dual_path_step, naive_step
from spf_lite.models.backbone import Backbone, load
from spf_lite.profiling.cost import DUAL, Cost, alternate
from spf_lite.profiling.random_models import random_batch
from spf_lite.profiling.shapes import shape_on_meta


def shape_costs(name: str, pixels: int = 256, rounds: int = 3, dtype: torch.dtype = torch.float32) -> list[Cost]:
    """Costs of a training step, plain and with the second path, and of a forward pass, plain and recorded.

    Args:
        name: of the shape, one of :data:`spf_lite.profiling.shapes.SHAPES`.
        pixels: side of the portraits; a batch is one portrait, and two for the forward pass, as with guidance.
        rounds: timed rounds of each variant, after one of warm-up.
        dtype: of the weights; with 16 bits the step runs in mixed precision.

    Raises:
        ValueError: for another name, no rounds, or a size that the network does not take.
    """
    if rounds < 1:
        raise ValueError(f"rounds={rounds}: at least one is needed")
    backbone = shape_on_meta(name, load("tiny"), dtype)
    multiple = backbone.architecture.size_multiple(backbone.network.config) * backbone.pipe.vae_scale_factor
    if pixels < multiple or pixels % multiple:
        raise ValueError(f"pixels={pixels}: expected a multiple of {multiple}")
    give_random_weights(backbone, pixels // backbone.pipe.vae_scale_factor)
    return network_costs(backbone, f"{name}, {pixels} px", rounds, dtype)


def give_random_weights(backbone: Backbone, side: int) -> None:
    """Give a network on the meta device memory and small random weights.

    Args:
        backbone: its network is changed in place.
        side: of the latents that it will get, which becomes the size of its own portraits.
    """
    network = backbone.network
    fill(network)
    network.register_to_config(sample_size=side)
    resolution = backbone.architecture.attention_resolution(network.config, 16)
    backbone.spec = replace(backbone.spec, attention_resolution=resolution)


def fill(network: nn.Module) -> None:
    """Give a module on the meta device memory and small random numbers, always the same."""
    generator = torch.Generator().manual_seed(0)
    network.to_empty(device="cpu")
    with torch.no_grad():
        for tensor in (*network.parameters(), *(one for one in network.buffers() if one.is_floating_point())):
            tensor.normal_(0, 0.02, generator=generator)


def network_costs(backbone: Backbone, name: str, rounds: int, dtype: torch.dtype = torch.float32) -> list[Cost]:
    """Costs of a network that has its adapter: the same four variants.

    Args:
        backbone: its adapter is trained on a random batch.
        name: of the model, for the results.
        rounds: timed rounds of each variant, after one of warm-up.
        dtype: that the passes compute in.
    """
    network, device = backbone.network, backbone.device
    assert backbone.trainable is not None
    optimizer = torch.optim.AdamW(list(backbone.trainable.parameters), lr=1e-5)
    batch = random_batch(backbone, 1, features=1)  # without enhancement, nobody reads CLIP's embeddings
    noise = torch.randn(batch.latents.shape, generator=torch.Generator().manual_seed(1)).to(device)
    timesteps = torch.tensor([500], device=device)

    def plain() -> None:
        naive_step(backbone, batch, noise, timesteps).terms["denoise"].mean().backward()

    def dual() -> None:
        with dual_path_step(backbone, batch, noise, timesteps, DUAL) as step:
            torch.stack([term.mean() for term in step.terms.values()]).sum().backward()

    latents, texts = torch.cat([batch.latents] * 2), torch.cat([batch.base, batch.complete])
    height, width = latents.shape[-2:]

    @torch.no_grad()
    def forward() -> None:
        backbone.predict(network, latents, timesteps, texts)

    def recorded() -> None:
        with record(network, (height, width), backbone.spec.attention_resolution):
            forward()

    def step(variant: Callable[[], None]) -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            variant()
        optimizer.step()

    def forget() -> None:
        optimizer.zero_grad(set_to_none=True)

    training: dict[str, Callable[[], None]] = {"(a) plain LoRA": plain, "(b) dual path": dual}
    sampling: dict[str, Callable[[], None]] = {"forward pass": forward, "forward pass, recorded": recorded}
    return [
        *alternate(name, training, step, forget, rounds, 1, device),
        *alternate(name, sampling, step, forget, rounds, 1, device, memory=False),
    ]
