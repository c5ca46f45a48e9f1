r"""A control map for each portrait, made once, when stage 2 begins, where the map is clear. Ours, not the paper's.

The paper makes the control map anew in every step, from that step's noise. At high noise the paths differ in what the
*whole* picture is to be, and the map shows the accidents of the set rather than the target. So noise difference and
phrase maps are averaged over a few noises at lower timesteps. Nearly all that this gains comes from the choice of
timesteps; that there are several noises makes the map a little less grainy, and hardly more right.

.. math:: M = \mathrm{SFCM}\Big(\frac1K \sum_k D(t_k, \epsilon_k),\ \frac1K \sum_k A(t_k, \epsilon_k)\Big)

In the book: :doc:`/07-control-map`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from spf_lite.attention import record
from spf_lite.batches import Item, collate
from spf_lite.config import TrainConfig
from spf_lite.control_map import combine, control_map, min_max
from spf_lite.noise import add_noise
from spf_lite.pipelines import Backbone


@torch.no_grad()
def averaged_maps(backbone: Backbone, items: Sequence[Item], config: TrainConfig) -> Tensor:
    """M of each item, (N, 1, h, w).

    Args:
        backbone: its UNet carries the adapter, at the end of stage 1.
        items: N of them.
        config: ``map_draws`` noises at timesteps spread evenly over the first ``map_timesteps`` of them.
    """
    unet, scheduler = backbone.pipe.unet, backbone.pipe.scheduler
    last = int(scheduler.config.num_train_timesteps * config.map_timesteps)
    times = [last * (k + 1) // (config.map_draws + 1) for k in range(config.map_draws)]
    found = []
    for start in range(0, len(items), config.batch_size):
        part = items[start : start + config.batch_size]
        batch = collate(part, [False] * len(part)).to(backbone.pipe.device)
        size = (batch.latents.shape[-2], batch.latents.shape[-1])
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + 500_000 + start)
        maps = []
        for time in times:
            timesteps = torch.full((len(part),), time, device=batch.latents.device)
            noise = torch.randn(batch.latents.shape, generator=generator).to(batch.latents)
            noisy = add_noise(scheduler, batch.latents, noise, timesteps)
            with backbone.reference() as frozen, record(frozen, size, backbone.facts.attention_resolution) as layers:
                reference = frozen(noisy, timesteps, encoder_hidden_states=batch.base).sample.float()
            response = unet(noisy, timesteps, encoder_hidden_states=batch.complete).sample.float()
            maps.append(control_map(response, reference, layers, batch.phrases, batch.distances, config.control))
        difference = min_max(torch.stack([m.noise_difference for m in maps]).mean(dim=0))
        phrases = min_max(torch.stack([m.phrase_maps for m in maps]).mean(dim=0))
        found.append(combine(difference, phrases, batch.distances, config.control))
    return torch.cat(found)


def with_averaged_maps(backbone: Backbone, items: Sequence[Item], config: TrainConfig) -> list[Item]:
    """The items, each with its averaged map as its region."""
    if not items:
        return []
    maps = averaged_maps(backbone, items, config).cpu()
    return [replace(item, region=region) for item, region in zip(items, maps, strict=True)]
