r"""The Semantic-Aware Fine Control Map (SFCM): where, and how strongly, the target may change the portrait.

.. math:: M = \mathrm{clamp}\Big(D - w \sum_p D_\mathrm{CLIP}(p)\, A_p,\ 0,\ 1\Big)

:math:`D` is the difference between the predictions of both paths: where the target acts, plus spill. :math:`A_p` is the
attention map of phrase p of the base text, and :math:`D_\mathrm{CLIP}(p) = 1 - \cos` its CLIP distance to the target:
a phrase unrelated to the target is subtracted strongly, a related one weakly.

The paper makes the map anew in every step, from that step's noise. At high noise the paths differ in the layout of the
whole picture, and the map shows the set's spurious attributes rather than the target. :func:`averaged_maps` (ours)
makes one map per portrait when stage 2 begins, from K noises at low timesteps. Nearly all of its gain comes from the
timesteps; several noises only make it less grainy.

.. math:: M = \mathrm{SFCM}\Big(\frac1K \sum_k D(t_k, \epsilon_k),\ \frac1K \sum_k A(t_k, \epsilon_k)\Big)

Source: SPF-Portrait (arXiv 2504.00396), "Semantic-Aware Fine Control Map". What the public material leaves open is an
option of :class:`spf_lite.config.ControlMapOptions`.

In the book: :doc:`/07-control-map`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from spf_lite.config import ControlMapOptions, TrainConfig
from spf_lite.data.batch import Item, collate
from spf_lite.method.attention import LayerRecord, mean_maps
from spf_lite.method.paths import forward, reference_path
from spf_lite.models.backbone import Backbone
from spf_lite.models.diffusion import add_noise
from spf_lite.models.precision import full_precision


@dataclass(frozen=True)
class ControlMap:
    """A control map and what it was made of, per portrait; all detached.

    Attributes:
        noise_difference: D, (B, 1, h, w) in [0, 1].
        phrase_maps: A_p, (B, P, h, w) in [0, 1]; zeros for phrases that a portrait with fewer of them does not have.
        distances: D_CLIP(p), (B, P); zero for those.
        map: M, (B, 1, h, w) in [0, 1]: 1 where the target may act, 0 where everything must stay.
    """

    noise_difference: Tensor
    phrase_maps: Tensor
    distances: Tensor
    map: Tensor


def min_max(maps: Tensor) -> Tensor:
    """Stretch every map (the last two dimensions) to [0, 1]; a constant map becomes 0."""
    low, high = maps.amin(dim=(-2, -1), keepdim=True), maps.amax(dim=(-2, -1), keepdim=True)
    spread = high - low
    return torch.where(spread > 1e-8, (maps - low) / spread.clamp(min=1e-8), torch.zeros_like(maps))


def noise_difference(response: Tensor, reference: Tensor, smoothing: int = 3) -> Tensor:
    """D: absolute difference of both predictions, mean over channels, smoothed, min-max per portrait.

    Args:
        response: prediction of the tuned path, (B, C, h, w).
        reference: prediction of the frozen path, same shape. Noise or velocity: they differ by a factor that depends on
            the timestep alone, which the min-max takes out.
        smoothing: side of the averaging box.

    Returns:
        (B, 1, h, w) in [0, 1].
    """
    difference = (response - reference).abs().mean(dim=1, keepdim=True)
    if smoothing > 1:
        padded = F.pad(difference, [smoothing // 2] * 4, mode="replicate")
        difference = F.avg_pool2d(padded, smoothing, stride=1)
    return min_max(difference)


def combine(difference: Tensor, phrase_maps: Tensor, distances: Tensor, options: ControlMapOptions) -> Tensor:
    """The formula itself: M from D, A and the distances.

    Args:
        difference: D, (B, 1, h, w).
        phrase_maps: A_p, (B, P, h, w).
        distances: D_CLIP(p), (B, P).
        options: weight, rescaling, threshold and softness.

    Returns:
        M, (B, 1, h, w) in [0, 1].
    """
    protected = (distances[:, :, None, None] * phrase_maps).sum(dim=1, keepdim=True)
    if options.subtraction == "mean":
        protected = protected / distances.sum(dim=1)[:, None, None, None].clamp(min=1e-8)
    control = (difference - options.weight * protected).clamp(0, 1)
    if options.rescale:
        control = min_max(control)
    hard = (control > options.threshold).to(control.dtype)
    soft = control * hard
    return options.softness * soft + (1 - options.softness) * hard


@torch.no_grad()
def control_map(
    response: Tensor,
    reference: Tensor,
    reference_layers: dict[str, LayerRecord],
    phrases: Tensor,
    distances: Tensor,
    options: ControlMapOptions | None = None,
) -> ControlMap:
    """The control map of a batch.

    Args:
        response: prediction of the tuned path, (B, C, h, w).
        reference: prediction of the frozen path, same shape.
        reference_layers: cross-attention of the frozen path, from :func:`spf_lite.method.attention.record`.
        phrases: which tokens make up which phrase, (B, P, tokens), from :func:`phrase_matrix`.
        distances: CLIP distances of the phrases to the target, (B, P).
        options: what the paper leaves open.
    """
    options = options or ControlMapOptions()
    tokens = mean_maps(reference_layers)  # (B, tokens, height, width)
    maps = torch.einsum("bpt,bthw->bphw", phrases, tokens)
    if maps.shape[-2:] != response.shape[-2:]:
        maps = F.interpolate(maps, response.shape[-2:], mode="bilinear", align_corners=False)
    maps = min_max(maps)
    difference = noise_difference(response, reference, options.smoothing)
    return ControlMap(difference, maps, distances, combine(difference, maps, distances, options))


@torch.no_grad()
def averaged_maps(backbone: Backbone, items: Sequence[Item], config: TrainConfig) -> Tensor:
    """One control map per item, averaged over noises at low timesteps: (N, 1, h, w).

    Args:
        backbone: its UNet carries what is trained, at the end of stage 1.
        items: N of them.
        config: ``map_draws`` noises at timesteps spread evenly over the first ``map_timesteps`` of them.

    Raises:
        FloatingPointError: if a path's prediction is not finite.
    """
    scheduler = backbone.pipe.scheduler
    limit = int(scheduler.config.num_train_timesteps * config.map_timesteps)
    times = [limit * (k + 1) // (config.map_draws + 1) for k in range(config.map_draws)]
    found = []
    for start in range(0, len(items), config.batch_size):
        part = items[start : start + config.batch_size]
        batch = collate(part, [False] * len(part)).to(backbone.pipe.device)
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + 500_000 + start)
        maps = []
        for time in times:
            timesteps = torch.full((len(part),), time, device=batch.latents.device)
            noise = torch.randn(batch.latents.shape, generator=generator).to(batch.latents)
            noisy = add_noise(scheduler, batch.latents, noise, timesteps)
            reference = reference_path(backbone, noisy, timesteps, batch.base, record_layers=True)
            with forward(backbone, noisy, timesteps, batch.complete) as response, full_precision(noisy.device):
                for path in (response, reference):  # the map would be black, and nobody the wiser
                    if not bool(path.prediction.isfinite().all()):
                        raise FloatingPointError(f"averaged maps: a prediction at t = {time} is not finite")
                inputs = response.prediction, reference.prediction, reference.layers, batch.phrases, batch.distances
                maps.append(control_map(*inputs, config.control))
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
