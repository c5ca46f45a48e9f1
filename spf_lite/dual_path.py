r"""One training step of the method: two paths, one noisy latent, one timestep, one noise.

The *reference path* is the UNet with its adapters off, fed the base text, without gradient: a frozen witness of what
the portrait would have been. The *response path* is the UNet with its adapters on, fed the complete text. Where the
control map says that the target has no business, the second must do as the first did.

Loss terms leave here unreduced, with the items that each applies to: the trainer alone takes means.

Source: SPF-Portrait (arXiv 2504.00396), "dual-path contrastive learning".

In the book: :doc:`/06-dual-path`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from spf_lite import losses
from spf_lite.attention import LayerRecord, mean_maps, record
from spf_lite.batches import Batch
from spf_lite.config import TrainConfig
from spf_lite.control_map import ControlMap, control_map, min_max
from spf_lite.noise import add_noise, predicted_latents, training_target
from spf_lite.pipelines import Backbone
from spf_lite.shared_prefix import shared_prefix

_NOTHING: dict[str, LayerRecord] = {}


@dataclass(frozen=True)
class Term:
    """One loss term of a batch.

    Attributes:
        values: one number per item, (B,); zero where it does not apply.
        applies: which items it is about, (B,).
    """

    values: Tensor
    applies: Tensor

    def mean(self) -> Tensor:
        """Over the items that it applies to; 0 when there are none."""
        return (self.values * self.applies).sum() / self.applies.sum().clamp(min=1)


@dataclass(frozen=True)
class Step:
    """What came of one step.

    Attributes:
        terms: loss term by name.
        control: the control map of the batch; None in stage 1.
        allowed: the map that the losses were masked with, (B, 1, h, w); None in stage 1.
    """

    terms: dict[str, Term]
    control: ControlMap | None = None
    allowed: Tensor | None = None


def applies(
    config: TrainConfig, is_reference: Tensor, is_reconstruction: Tensor, timesteps: Tensor, last: int
) -> dict[str, Tensor]:
    """Which items each term of stage 2 is about, by name: known before anything is computed.

    Terms whose weight is zero are left out: they are not computed.

    Args:
        config: the run.
        is_reference: (B,).
        is_reconstruction: (B,).
        timesteps: t, (B,).
        last: how many timesteps there are.
    """
    custom, aligned = ~is_reference, ~is_reconstruction
    rules = {
        "denoise": custom,
        "text": aligned,
        "fine": aligned,
        "output": aligned,
        "reconstruction": is_reconstruction,
        "prior": is_reconstruction,
        "purecc": aligned,
        "enhancement": custom & (timesteps < config.trusted * last),
    }
    return {name: items for name, items in rules.items() if config.weight(name)}


def naive_step(backbone: Backbone, batch: Batch, noise: Tensor, timesteps: Tensor) -> Step:
    """Stage 1: ordinary fine-tuning on the complete text."""
    scheduler = backbone.pipe.scheduler
    noisy = add_noise(scheduler, batch.latents, noise, timesteps)
    prediction = backbone.pipe.unet(noisy, timesteps, encoder_hidden_states=batch.complete).sample.float()
    target = training_target(scheduler, batch.latents, noise, timesteps)
    values = losses.denoising(prediction, target)
    return Step({"denoise": Term(values, torch.ones_like(values, dtype=torch.bool))})


@contextmanager
def dual_path_step(
    backbone: Backbone,
    batch: Batch,
    noise: Tensor,
    timesteps: Tensor,
    config: TrainConfig,
    concept: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> Iterator[Step]:
    """Stage 2: both paths, the control map, every loss term that has a weight.

    A context, because gradient checkpointing computes layers once more in the backward pass, and must find them
    listened to as they were: take the gradient inside.

    Args:
        backbone: its UNet carries the adapter.
        batch: B items.
        noise: eps, (B, C, h, w), shared by both paths.
        timesteps: t, (B,), shared by both paths.
        config: which terms have a weight, the options of the control map, and what the losses are masked with.
        concept: for PureCC: from z_t and t, what the frozen extractor adds for the target alone.
    """
    unet, scheduler = backbone.pipe.unet, backbone.pipe.scheduler
    where = applies(
        config, batch.is_reference, batch.is_reconstruction, timesteps, scheduler.config.num_train_timesteps
    )
    noisy = add_noise(scheduler, batch.latents, noise, timesteps)
    size, resolution = (noisy.shape[-2], noisy.shape[-1]), backbone.facts.attention_resolution
    # Up to the first cross-attention layer both paths are one.
    with shared_prefix(unet):
        with torch.no_grad(), backbone.reference() as frozen, record(frozen, size, resolution) as reference_layers:
            reference = frozen(noisy, timesteps, encoder_hidden_states=batch.base).sample.float()
        added = concept(noisy, timesteps) if concept and "purecc" in where else None
        compares_layers = bool({"text", "fine"} & set(where)) or config.map_source == "token"
        listening: AbstractContextManager[dict[str, LayerRecord]]
        listening = record(unet, size, resolution) if compares_layers else nullcontext(_NOTHING)
        with listening as response_layers:
            response = unet(noisy, timesteps, encoder_hidden_states=batch.complete).sample.float()

            control = control_map(response, reference, reference_layers, batch.phrases, batch.distances, config.control)
            allowed = allowed_region(config.map_source, control, response_layers, batch)
            target = training_target(scheduler, batch.latents, noise, timesteps)
            values = _layer_terms(response_layers, reference_layers, batch, allowed, config) if compares_layers else {}
            output = losses.output_alignment(response, reference, allowed)
            values |= {
                "denoise": losses.denoising(response, target, allowed, config.denoise_outside),
                "output": output,
                "reconstruction": output,
                "prior": losses.denoising(response, target),
            }
            if added is not None:
                values["purecc"] = losses.purecc(response, reference, added)
            if "enhancement" in where:
                values["enhancement"] = _enhancement(backbone, batch, response, noisy, timesteps, where["enhancement"])
            yield Step({name: Term(values[name], items) for name, items in where.items()}, control, allowed)


def allowed_region(source: str, control: ControlMap, layers: dict[str, LayerRecord], batch: Batch) -> Tensor:
    """The map that the losses are masked with, (B, 1, h, w), detached: nowhere for reconstruction items.

    Args:
        source: one of :data:`spf_lite.config.MAPS`.
        control: the control map of the step.
        layers: cross-attention of the response path, for the target's own map.
        batch: B items.
    """
    if source == "none":
        return torch.zeros_like(control.map)
    if source == "token":
        own = torch.einsum("bt,bthw->bhw", batch.target, mean_maps(layers).detach().float())[:, None]
        allowed = min_max(F.interpolate(own, control.map.shape[-2:], mode="bilinear", align_corners=False))
    else:
        allowed = batch.region if source in ("given", "averaged") else control.map
    return allowed * (~batch.is_reconstruction)[:, None, None, None]


def _layer_terms(
    response: dict[str, LayerRecord],
    reference: dict[str, LayerRecord],
    batch: Batch,
    allowed: Tensor,
    config: TrainConfig,
) -> dict[str, Tensor]:
    """Text-consistent and fine-grained losses, mean over the layers: (B,) each."""
    text, fine = [], []
    for name, tuned in response.items():
        frozen = reference[name]
        keep = losses.outside(allowed, tuned.size)
        if config.weight_text:
            maps = _take(tuned.maps, batch.complete_tokens).float(), _take(frozen.maps, batch.base_tokens).float()
            text.append(losses.text_consistent(*maps, keep, batch.aligned))
        if config.weight_fine:
            features = [getattr(layer, config.fine_features).float() for layer in (tuned, frozen)]
            fine.append(losses.fine_grained(features[0], features[1], keep))
    means = {"text": text, "fine": fine}
    return {name: torch.stack(layers).mean(dim=0) for name, layers in means.items() if layers}


def _take(maps: Tensor, tokens: Tensor) -> Tensor:
    """(B, heads, positions, tokens) and (B, K) to (B, heads, positions, K)."""
    return maps.gather(3, tokens[:, None, None, :].expand(-1, *maps.shape[1:3], -1))


def _enhancement(
    backbone: Backbone, batch: Batch, response: Tensor, noisy: Tensor, timesteps: Tensor, chosen: Tensor
) -> Tensor:
    """The enhancement loss of the chosen items, zero for the others, (B,)."""
    values = torch.zeros_like(response[:, 0, 0, 0])
    if not bool(chosen.any()):
        return values
    latents = predicted_latents(backbone.pipe.scheduler, response[chosen], noisy[chosen], timesteps[chosen])
    images = backbone.draft(latents).float()
    predicted = backbone.clip.image_features(images.clamp(-0.2, 1.2))
    target = F.normalize(batch.target_features[chosen], dim=-1)
    return values.masked_scatter(chosen, losses.enhancement(predicted, batch.portrait_features[chosen], target))
