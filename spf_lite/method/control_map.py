r"""The Semantic-Aware Fine Control Map (SFCM): where, and how strongly, the target may change the portrait.

.. math:: M = \mathrm{clamp}\Big(D - w \sum_p D_\mathrm{CLIP}(p)\, A_p,\ 0,\ 1\Big)

=============================  =========================================================  =============================
symbol                         meaning                                                    function
=============================  =========================================================  =============================
:math:`D`                      where the predictions of both paths differ                 :func:`noise_difference`
:math:`A_p`                    attention map of phrase p of the base text                 :func:`phrase_attention_maps`
:math:`D_\mathrm{CLIP}(p)`     CLIP distance of phrase p to the target, 1 - cos           ``Clip.phrase_distances``
:math:`M`                      1 where the target may act, 0 where nothing may change     :func:`combine`
=============================  =========================================================  =============================

:math:`D` shows where the target acts, and also what else changes. The subtraction takes the regions of the phrases out
of it: a phrase unrelated to the target counts much, a related one little.

The paper makes a new map in every step, from that step's noise. At high noise the paths differ in the layout of the
whole picture, and the map shows the set's spurious attributes rather than the target. :func:`averaged_maps` (ours)
makes one map per portrait when stage 2 begins, from K noises at low timesteps. Nearly all of its gain comes from the
timesteps; several noises only make it less grainy.

.. math:: M = \mathrm{SFCM}\Big(\frac1K \sum_k D(t_k, \epsilon_k),\ \frac1K \sum_k A(t_k, \epsilon_k)\Big)

Source: SPF-Portrait (arXiv 2504.00396), "Semantic-Aware Fine Control Map". What the public material leaves open is an
option of :class:`spf_lite.options.ControlMapOptions`.

In the book: :doc:`/07-control-map`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from spf_lite.config import TrainConfig
from spf_lite.data.batch import Item, by_size, collate
from spf_lite.method.attention import mean_maps
from spf_lite.method.paths import both_paths
from spf_lite.models.backbone import Backbone
from spf_lite.models.backbones.recording import LayerRecord
from spf_lite.models.diffusion import add_noise
from spf_lite.models.precision import full_precision
from spf_lite.options import ControlMapOptions


@dataclass(frozen=True)
class ControlMap:
    """Control maps of a batch with the parts that they are made of; all detached.

    Attributes:
        noise_difference: D, (B, 1, h, w) in [0, 1].
        phrase_maps: A_p, (B, P, h, w) in [0, 1]; zero where a portrait has fewer than P phrases.
        distances: D_CLIP(p), (B, P); zero where a portrait has fewer than P phrases.
        map: M, (B, 1, h, w) in [0, 1]: 1 where the target may act, 0 where nothing may change.
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


def smoothed(maps: Tensor, side: int) -> Tensor:
    """Maps (B, C, h, w), each place averaged over a box around it; borders are repeated.

    Args:
        maps: of any size.
        side: of the box in latent pixels, odd; 1: unchanged.
    """
    if side <= 1:
        return maps
    return F.avg_pool2d(F.pad(maps, [side // 2] * 4, mode="replicate"), side, stride=1)


def noise_difference(response: Tensor, reference: Tensor, smoothing: int = 3) -> Tensor:
    r"""D, the difference between the predictions of both paths: (B, 1, h, w) in [0, 1].

    .. math::
        D = \mathrm{minmax}\Big(\mathrm{smooth}\Big(
        \frac1C \sum_c | \epsilon_{\mathrm{res}, c} - \epsilon_{\mathrm{ref}, c} |\Big)\Big)

    Predictions may be noise or velocity. These differ by a factor that depends on the timestep alone, which the min-max
    normalisation takes out.

    Args:
        response: prediction of the response path, (B, C, h, w).
        reference: prediction of the reference path, (B, C, h, w).
        smoothing: side of the averaging box in latent pixels, odd; 1: none.
    """
    return min_max(smoothed((response - reference).abs().mean(dim=1, keepdim=True), smoothing))


def phrase_attention_maps(layers: dict[str, LayerRecord], phrases: Tensor, size: tuple[int, int]) -> Tensor:
    r"""A_p, the attention map of every phrase: (B, P, h, w) in [0, 1].

    .. math:: A_p = \mathrm{minmax}\Big(\frac1{|p|} \sum_{i \in p} A_\mathrm{ref}[i]\Big)

    with :math:`A_\mathrm{ref}[i]` the reference path's attention map of token i, averaged over heads and layers and
    resized to the latents.

    Args:
        layers: cross-attention of the reference path, from :func:`spf_lite.method.attention.record`.
        phrases: token averages per phrase, (B, P, tokens), from :func:`spf_lite.data.batch.phrase_matrix`.
        size: (h, w) of the latents.

    Raises:
        AttentionError: if no layer was recorded.
    """
    maps = torch.einsum("bpt,bthw->bphw", phrases, mean_maps(layers))
    if maps.shape[-2:] != size:
        maps = F.interpolate(maps, size, mode="bilinear", align_corners=False)
    return min_max(maps)


def combine(difference: Tensor, phrase_maps: Tensor, distances: Tensor, options: ControlMapOptions) -> Tensor:
    r"""The control map's formula: M from D, the phrase maps and their distances, (B, 1, h, w) in [0, 1].

    .. math:: M = \mathrm{clamp}\Big(D - w \sum_p D_\mathrm{CLIP}(p)\, A_p,\ 0,\ 1\Big)

    With ``subtraction="sum"``, ``rescale=False``, ``threshold=0`` and ``softness=1`` this is all. By default (ours) the
    sum is divided by :math:`\sum_p D_\mathrm{CLIP}(p)` and M is stretched to [0, 1]; threshold and softness follow.

    Args:
        difference: D, (B, 1, h, w).
        phrase_maps: A_p, (B, P, h, w).
        distances: D_CLIP(p), (B, P).
        options: w, and what follows the formula.
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
    r"""Control maps of a batch, from what both paths computed in one step: D, every A_p, and M.

    Args:
        response: prediction of the response path, (B, C, h, w).
        reference: prediction of the reference path, (B, C, h, w).
        reference_layers: cross-attention of the reference path, from :func:`spf_lite.method.attention.record`.
        phrases: token averages per phrase, (B, P, tokens), from :func:`spf_lite.data.batch.phrase_matrix`.
        distances: CLIP distances of the phrases to the target, (B, P).
        options: what the paper leaves open; default: :class:`~spf_lite.options.ControlMapOptions`.

    Raises:
        AttentionError: if no layer was recorded.
    """
    options = options or ControlMapOptions()
    maps = phrase_attention_maps(reference_layers, phrases, (response.shape[-2], response.shape[-1]))
    difference = noise_difference(response, reference, options.smoothing)
    return ControlMap(difference, maps, distances, combine(difference, maps, distances, options))


@torch.no_grad()
def averaged_maps(backbone: Backbone, items: Sequence[Item], config: TrainConfig) -> Tensor:
    """One control map per item, averaged over noises at low timesteps: (N, 1, h, w).

    D and the phrase maps are averaged over the noises; then the formula is applied once.

    Args:
        backbone: its UNet carries what is trained, at the end of stage 1.
        items: N items.
        config: number of noises (``map_draws``), and the share of the timesteps that they are evenly spread over
            (``map_timesteps``).

    Raises:
        FloatingPointError: if a path's prediction is not finite.
    """
    scheduler = backbone.pipe.scheduler
    limit = int(scheduler.config.num_train_timesteps * config.map_timesteps)
    times = [limit * (k + 1) // (config.map_draws + 1) for k in range(config.map_draws)]
    found = []
    for start in range(0, len(items), config.batch_size):
        part = items[start : start + config.batch_size]
        batch = collate(part, [False] * len(part)).to(backbone.device)
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + 500_000 + start)
        maps = []
        for time in times:
            timesteps = torch.full((len(part),), time, device=batch.latents.device)
            noise = torch.randn(batch.latents.shape, generator=generator).to(batch.latents)
            noisy = add_noise(scheduler, batch.latents, noise, timesteps)
            paths = both_paths(backbone, noisy, timesteps, batch.base, batch.complete, record_reference=True)
            with paths as (reference, response), full_precision(noisy.device):
                for path in (response, reference):  # the map would be black without a word
                    if not bool(path.prediction.isfinite().all()):
                        raise FloatingPointError(f"averaged maps: a prediction at t = {time} is not finite")
                inputs = response.prediction, reference.prediction, reference.layers, batch.phrases, batch.distances
                maps.append(control_map(*inputs, config.control))
        difference = min_max(torch.stack([m.noise_difference for m in maps]).mean(dim=0))
        phrases = min_max(torch.stack([m.phrase_maps for m in maps]).mean(dim=0))
        found.append(combine(difference, phrases, batch.distances, config.control))
    return torch.cat(found)


def with_averaged_maps(backbone: Backbone, items: Sequence[Item], config: TrainConfig) -> list[Item]:
    """Copies of the items, each with its averaged map as its region; see :func:`averaged_maps`."""
    mapped = list(items)
    for indices in by_size(items).values():
        maps = averaged_maps(backbone, [items[i] for i in indices], config).cpu()
        for i, region in zip(indices, maps, strict=True):
            mapped[i] = replace(items[i], region=region)
    return mapped
