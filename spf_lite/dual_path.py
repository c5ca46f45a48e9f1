r"""One training step of the method: two paths, one noisy latent, one timestep, one noise.

The *reference path* is the UNet with its adapters off, fed the base text, without gradient: a frozen witness of what
the portrait would have been. The *response path* is the UNet with its adapters on, fed the complete text. Where the
control map says that the target has no business, the second must do as the first did.

Source: SPF-Portrait (arXiv 2504.00396), "dual-path contrastive learning".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler
from torch import Tensor

from spf_lite import losses
from spf_lite.attention import LayerRecord, mean_maps, record
from spf_lite.control_map import ControlMap, ControlMapOptions, control_map, min_max, phrase_matrix
from spf_lite.pipelines import Backbone, decode_latents, encode_text
from spf_lite.prompts import PromptPair


@dataclass(frozen=True)
class Batch:
    """B items. An item is a custom portrait, or (``is_reference``) a portrait of the reference model's own making.

    Attributes:
        latents: x0, scaled, (B, C, h, w).
        base: ``encoder_hidden_states`` of the base texts, (B, L, width).
        complete: of the complete texts; of the base texts again for reconstruction items.
        phrases: token averages per phrase, (B, P, L), see :func:`spf_lite.control_map.phrase_matrix`.
        distances: CLIP distances of the phrases to the target, (B, P).
        base_tokens: indices of aligned tokens in the base text, (B, K).
        complete_tokens: of their counterparts in the complete text, (B, K).
        aligned: (B, K), 1 for real pairs, 0 for filling.
        is_reference: (B,), True for portraits without the target: no denoising and no enhancement loss on them.
        is_reconstruction: (B,), True for reference items whose response path is fed the base text: M = 0 there.
        target: token average of the target in the complete text, (B, L); zeros for reconstruction items.
        portrait_features: CLIP embeddings of the custom portraits, (B, width); only for the enhancement loss.
        target_features: CLIP embedding of the target text, (B, width).
    """

    latents: Tensor
    base: Tensor
    complete: Tensor
    phrases: Tensor
    distances: Tensor
    base_tokens: Tensor
    complete_tokens: Tensor
    aligned: Tensor
    is_reference: Tensor
    is_reconstruction: Tensor
    target: Tensor
    portrait_features: Tensor
    target_features: Tensor


@dataclass(frozen=True)
class Item:
    """What is known of one training item before any step: its latents, its texts, its CLIP embeddings."""

    latents: Tensor
    pair: PromptPair
    distances: Tensor
    portrait_features: Tensor
    target_features: Tensor
    is_reference: bool = False


def collate(backbone: Backbone, items: Sequence[Item], reconstruction: Sequence[bool]) -> Batch:
    """Put items together, filling up phrases and alignments to the longest of the batch."""
    length = len(items[0].pair.base_ids)
    pairs = [item.pair for item in items]
    phrases = phrase_matrix(pairs, length)
    distances = torch.zeros(phrases.shape[:2])
    width = max(len(pair.alignment) for pair in pairs)
    indices = torch.zeros(2, len(items), width, dtype=torch.long)
    aligned = torch.zeros(len(items), width)
    target = torch.zeros(len(items), length)
    for row, (item, again) in enumerate(zip(items, reconstruction, strict=True)):
        distances[row, : len(item.distances)] = item.distances
        matched = [(i, i) for i, _ in item.pair.alignment] if again else item.pair.alignment
        indices[:, row, : len(matched)] = torch.tensor(matched).T
        aligned[row, : len(matched)] = 1
        if not again:
            target[row, item.pair.target.start : item.pair.target.stop] = 1 / len(item.pair.target.tokens)
    base_ids = torch.stack([pair.base_ids for pair in pairs])
    response_ids = torch.stack(
        [pair.base_ids if again else pair.complete_ids for pair, again in zip(pairs, reconstruction, strict=True)]
    )
    return Batch(
        latents=torch.stack([item.latents for item in items]),
        base=encode_text(backbone.pipe, base_ids),
        complete=encode_text(backbone.pipe, response_ids),
        phrases=phrases,
        distances=distances,
        base_tokens=indices[0],
        complete_tokens=indices[1],
        aligned=aligned,
        is_reference=torch.tensor([item.is_reference for item in items]),
        is_reconstruction=torch.tensor(list(reconstruction)),
        target=target,
        portrait_features=torch.stack([item.portrait_features for item in items]),
        target_features=torch.stack([item.target_features for item in items]),
    )


def signal_and_noise(scheduler: DDIMScheduler, timesteps: Tensor) -> tuple[Tensor, Tensor]:
    """The factors of x0 and of the noise in z_t, each (B, 1, 1, 1)."""
    alphas = scheduler.alphas_cumprod[timesteps][:, None, None, None]
    return alphas.sqrt(), (1 - alphas).sqrt()


def add_noise(scheduler: DDIMScheduler, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
    """z_t, (B, C, h, w)."""
    signal, spread = signal_and_noise(scheduler, timesteps)
    return signal * latents + spread * noise


def training_target(scheduler: DDIMScheduler, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
    """What the UNet should have predicted: the noise (Stable Diffusion 1.5), or the velocity.

    Raises:
        ValueError: for any other prediction type.
    """
    kind = scheduler.config.prediction_type
    if kind == "epsilon":
        return noise
    if kind == "v_prediction":
        signal, spread = signal_and_noise(scheduler, timesteps)
        return signal * noise - spread * latents
    raise ValueError(f"prediction type {kind!r} is not supported: expected epsilon or v_prediction")


def predicted_latents(scheduler: DDIMScheduler, prediction: Tensor, noisy: Tensor, timesteps: Tensor) -> Tensor:
    """One-step prediction of x0 from z_t, (B, C, h, w)."""
    signal, spread = signal_and_noise(scheduler, timesteps)
    if scheduler.config.prediction_type == "epsilon":
        return (noisy - spread * prediction) / signal
    return signal * noisy - spread * prediction


@dataclass(frozen=True)
class Step:
    """What came of one step.

    Attributes:
        terms: loss term by name, each reduced to a scalar over the items that it applies to.
        control: the control map of the batch; None in stage 1.
    """

    terms: dict[str, Tensor]
    control: ControlMap | None


def naive_step(backbone: Backbone, batch: Batch, noise: Tensor, timesteps: Tensor) -> Step:
    """Stage 1: ordinary fine-tuning on the complete text."""
    scheduler = backbone.pipe.scheduler
    noisy = add_noise(scheduler, batch.latents, noise, timesteps)
    prediction = backbone.pipe.unet(noisy, timesteps, encoder_hidden_states=batch.complete).sample
    target = training_target(scheduler, batch.latents, noise, timesteps)
    return Step({"denoise": losses.denoising(prediction, target).mean()}, None)


def dual_path_step(
    backbone: Backbone,
    batch: Batch,
    noise: Tensor,
    timesteps: Tensor,
    options: ControlMapOptions,
    *,
    features: str = "inputs",
    enhance: bool = False,
    trusted: float = 0.7,
    map_source: str = "sfcm",
    concept: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> Step:
    """Stage 2: both paths, the control map, every loss term.

    Args:
        backbone: its UNet carries the adapter.
        batch: B items.
        noise: eps, (B, C, h, w), shared by both paths.
        timesteps: t, (B,), shared by both paths.
        options: of the control map.
        features: which features the fine-grained loss aligns: ``inputs`` (entering cross-attention), ``queries`` (their
            projection) or ``outputs`` (leaving it).
        enhance: whether to compute the enhancement term, which decodes a picture.
        trusted: share of the timesteps, from the clean end, at which one-step predictions are good enough for CLIP.
        map_source: where the target may act: the control map, the target's own attention map, or nowhere.
        concept: for PureCC: from z_t and t, what the frozen extractor adds for the target alone.
    """
    pipe = backbone.pipe
    unet, scheduler = pipe.unet, pipe.scheduler
    noisy = add_noise(scheduler, batch.latents, noise, timesteps)
    size = (noisy.shape[-2], noisy.shape[-1])
    resolution = backbone.facts.attention_resolution
    with torch.no_grad(), backbone.reference(), record(unet, size, resolution) as reference_layers:
        reference = unet(noisy, timesteps, encoder_hidden_states=batch.base).sample
    added = None if concept is None else concept(noisy, timesteps)
    with record(unet, size, resolution) as response_layers:
        response = unet(noisy, timesteps, encoder_hidden_states=batch.complete).sample

    control = control_map(response, reference, reference_layers, batch.phrases, batch.distances, options)
    allowed = _allowed(map_source, control, response_layers, batch) * (~batch.is_reconstruction)[:, None, None, None]
    text, fine = _aligned_layers(response_layers, reference_layers, batch, allowed, features)
    output = losses.output_alignment(response, reference, allowed)
    custom, again = ~batch.is_reference, batch.is_reconstruction
    target = training_target(scheduler, batch.latents, noise, timesteps)
    terms = {
        "denoise": _mean(losses.denoising(response, target), custom),
        "text": _mean(text, ~again),
        "fine": _mean(fine, ~again),
        "output": _mean(output, ~again),
        "reconstruction": _mean(output, again),
        "prior": _mean(losses.denoising(response, target), again),
    }
    if added is not None:
        terms["purecc"] = _mean(losses.purecc(response, reference, added), ~again)
    if enhance:
        trusted_items = custom & (timesteps < trusted * scheduler.config.num_train_timesteps)
        terms["enhancement"] = _enhancement(backbone, batch, response, noisy, timesteps, trusted_items)
    return Step(terms, control)


def _allowed(source: str, control: ControlMap, layers: dict[str, LayerRecord], batch: Batch) -> Tensor:
    """The map that the losses are masked with, (B, 1, h, w), detached."""
    if source == "none":
        return torch.zeros_like(control.map)
    if source == "token":
        own = torch.einsum("bt,bthw->bhw", batch.target, mean_maps(layers).detach())[:, None]
        return min_max(F.interpolate(own, control.map.shape[-2:], mode="bilinear", align_corners=False))
    return control.map


def _mean(values: Tensor, chosen: Tensor) -> Tensor:
    """Mean over the chosen items; 0 when there are none."""
    weights = chosen.to(values.dtype)
    return (values * weights).sum() / weights.sum().clamp(min=1)


def _aligned_layers(
    response: dict[str, LayerRecord], reference: dict[str, LayerRecord], batch: Batch, allowed: Tensor, features: str
) -> tuple[Tensor, Tensor]:
    """Text-consistent and fine-grained losses, mean over the layers: two of (B,)."""
    text, fine = [], []
    for name, tuned in response.items():
        frozen = reference[name]
        keep = losses.outside(allowed, tuned.size)
        text.append(
            losses.text_consistent(
                _take(tuned.maps, batch.complete_tokens), _take(frozen.maps, batch.base_tokens), keep, batch.aligned
            )
        )
        fine.append(losses.fine_grained(getattr(tuned, features), getattr(frozen, features), keep))
    return torch.stack(text).mean(dim=0), torch.stack(fine).mean(dim=0)


def _take(maps: Tensor, tokens: Tensor) -> Tensor:
    """(B, heads, positions, tokens) and (B, K) to (B, heads, positions, K)."""
    return maps.gather(3, tokens[:, None, None, :].expand(-1, *maps.shape[1:3], -1))


def _enhancement(
    backbone: Backbone, batch: Batch, response: Tensor, noisy: Tensor, timesteps: Tensor, chosen: Tensor
) -> Tensor:
    if not bool(chosen.any()):
        return response.sum() * 0
    latents = predicted_latents(backbone.pipe.scheduler, response[chosen], noisy[chosen], timesteps[chosen])
    images = decode_latents(backbone.pipe, latents)
    predicted = backbone.clip.image_features(images.clamp(-0.2, 1.2))
    target = F.normalize(batch.target_features[chosen], dim=-1)
    return losses.enhancement(predicted, batch.portrait_features[chosen], target).mean()
