r"""One training step of the method: the loss terms of stage 1 and of stage 2.

Stage 2 compares both paths (:mod:`spf_lite.method.paths`): where the control map leaves no room for the target, the
response path must agree with the reference path. Loss terms leave here unreduced, with the items that each applies to;
:func:`spf_lite.method.losses.objective` reduces them.

Source: SPF-Portrait (arXiv 2504.00396), "dual-path contrastive learning".

In the book: :doc:`/06-dual-path`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from spf_lite.config import TrainConfig
from spf_lite.data.batch import Batch
from spf_lite.method import losses
from spf_lite.method.attention import LayerRecord, mean_maps
from spf_lite.method.control_map import ControlMap, control_map, min_max
from spf_lite.method.losses import Term
from spf_lite.method.paths import both_paths
from spf_lite.method.purecc import purecc_loss
from spf_lite.models.backbone import Backbone
from spf_lite.models.diffusion import add_noise, predicted_latents, training_target
from spf_lite.models.precision import full_precision


@dataclass(frozen=True)
class Step:
    """What came of one step.

    Attributes:
        terms: loss term by name.
        control: the control map of the batch; None in stage 1, and where no term is masked with it.
        allowed: the map that the losses were masked with, (B, 1, h, w); None in stage 1.
    """

    terms: dict[str, Term]
    control: ControlMap | None = None
    allowed: Tensor | None = None


def applies(
    config: TrainConfig, is_reference: Tensor, is_reconstruction: Tensor, timesteps: Tensor, num_train_timesteps: int
) -> dict[str, Tensor]:
    """Which items each term of stage 2 is about, by name: known before anything is computed.

    Terms whose weight is zero are left out: they are not computed.

    Args:
        config: the run.
        is_reference: (B,).
        is_reconstruction: (B,).
        timesteps: t, (B,).
        num_train_timesteps: of the scheduler.
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
        "enhancement": custom & (timesteps < config.trusted * num_train_timesteps),
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
    """Stage 2: both paths, the control map, every loss term that has a weight. Take the gradient inside.

    What no term needs is not computed: prior preservation has no reference path, a given mask no control map.

    Args:
        backbone: its UNet carries what is trained.
        batch: B items.
        noise: eps, (B, C, h, w), shared by both paths.
        timesteps: t, (B,), shared by both paths.
        config: which terms have a weight, the options of the control map, and what the losses are masked with.
        concept: for PureCC: from z_t and t, what the frozen extractor adds for the target alone.
    """
    scheduler = backbone.pipe.scheduler
    where = applies(
        config, batch.is_reference, batch.is_reconstruction, timesteps, scheduler.config.num_train_timesteps
    )
    needs = Needs.of(config, set(where))
    noisy = add_noise(scheduler, batch.latents, noise, timesteps)
    target = training_target(scheduler, batch.latents, noise, timesteps)
    added = concept(noisy, timesteps) if concept and "purecc" in where else None
    paths = both_paths(
        backbone,
        noisy,
        timesteps,
        batch.base if needs.reference else None,
        batch.complete,
        record_reference=needs.reference_layers,
        record_response=needs.response_layers,
    )
    with paths as (reference, response):
        predicted = response.prediction
        values: dict[str, Tensor] = {}
        with full_precision(noisy.device):
            control = None
            if needs.control_map and reference is not None:
                inputs = predicted, reference.prediction, reference.layers, batch.phrases, batch.distances
                control = control_map(*inputs, config.control)
            allowed = allowed_region(config.map_source, control, response.layers, batch)
            if reference is not None:
                values |= _layer_terms(response.layers, reference.layers, batch, allowed, config)
                output = losses.output_alignment(predicted, reference.prediction, allowed)
                values |= {"output": output, "reconstruction": output}
            values["denoise"] = losses.denoising(predicted, target, allowed, config.denoise_outside)
            values["prior"] = losses.denoising(predicted, target)
            if added is not None and reference is not None:
                values["purecc"] = purecc_loss(predicted, reference.prediction, added)
        if "enhancement" in where:
            values["enhancement"] = _enhancement(backbone, batch, predicted, noisy, timesteps, where["enhancement"])
        yield Step({name: Term(values[name], items) for name, items in where.items()}, control, allowed)


@dataclass(frozen=True)
class Needs:
    """What the terms of a configuration need of both paths."""

    reference: bool
    reference_layers: bool
    response_layers: bool
    control_map: bool

    @classmethod
    def of(cls, config: TrainConfig, terms: set[str]) -> Needs:
        """For the terms that have a weight."""
        masked = bool(terms & {"text", "fine", "output"}) or ("denoise" in terms and config.denoise_outside != 1)
        layers = bool(terms & {"text", "fine"})
        control = masked and config.map_source == "sfcm"
        reference = control or bool(terms & {"text", "fine", "output", "reconstruction", "purecc"})
        return cls(reference, layers or control, layers or (masked and config.map_source == "token"), control)


def allowed_region(source: str, control: ControlMap | None, layers: dict[str, LayerRecord], batch: Batch) -> Tensor:
    """The map that the losses are masked with, (B, 1, h, w), detached: zero for reconstruction items.

    Args:
        source: one of :data:`spf_lite.config.MAPS`.
        control: the control map of the step; None where no term is masked with it.
        layers: cross-attention of the response path, for the target's own map.
        batch: B items.
    """
    if source in ("given", "averaged"):
        allowed = batch.region
    elif source == "token" and layers:
        own = torch.einsum("bt,bthw->bhw", batch.target, mean_maps(layers).detach())[:, None]
        allowed = min_max(F.interpolate(own, batch.latents.shape[-2:], mode="bilinear", align_corners=False))
    elif control is not None:
        allowed = control.map
    else:
        return torch.zeros_like(batch.region)
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
    images = backbone.decode_preview(latents).float()
    predicted = backbone.clip.image_features(images.clamp(-0.2, 1.2))
    with full_precision(values.device):
        target = F.normalize(batch.target_features[chosen], dim=-1)
        loss = losses.enhancement(predicted.float(), batch.portrait_features[chosen], target)
        return values.masked_scatter(chosen, loss)
