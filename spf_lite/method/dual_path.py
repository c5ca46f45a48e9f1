r"""One training step of the method: the loss terms of stage 1 and of stage 2.

Stage 1 (:func:`naive_step`) is ordinary fine-tuning on the complete text. Stage 2 (:func:`dual_path_step`) runs both
paths (:mod:`spf_lite.method.paths`), finds where the target may change the portrait
(:mod:`spf_lite.method.control_map`), and requires the response path to agree with the reference path everywhere else
(:mod:`spf_lite.method.losses`). Loss terms leave here unreduced, with the items that each applies to;
:func:`spf_lite.method.losses.objective` reduces them.

Source: SPF-Portrait (arXiv 2504.00396), "dual-path contrastive learning".

In the book: :doc:`/06-dual-path`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from spf_lite.config import TrainConfig
from spf_lite.data.batch import Batch
from spf_lite.method import losses
from spf_lite.method.attention import mean_maps
from spf_lite.method.control_map import ControlMap, control_map, min_max
from spf_lite.method.losses import Term
from spf_lite.method.paths import PathOutput, both_paths, response_path
from spf_lite.method.purecc import purecc_loss
from spf_lite.models.backbone import Backbone
from spf_lite.models.backbones.recording import LayerRecord
from spf_lite.models.diffusion import add_noise, predicted_latents, training_target
from spf_lite.models.precision import full_precision


@dataclass(frozen=True)
class Step:
    """Loss terms of one batch, before they are reduced, and the maps that masked them.

    Attributes:
        terms: loss terms by name (:data:`spf_lite.choices.WEIGHTS`).
        control: the control map that was made in this step; None if no term needed one.
        allowed: M as the losses used it, (B, 1, h, w); None in stage 1.
    """

    terms: dict[str, Term]
    control: ControlMap | None = None
    allowed: Tensor | None = None


@dataclass(frozen=True)
class Needs:
    """What the terms of a configuration need besides the prediction of the response path.

    Attributes:
        reference: the prediction of the reference path.
        reference_layers: its cross-attention.
        response_layers: cross-attention of the response path.
        control_map: a control map made in this step.
    """

    reference: bool
    reference_layers: bool
    response_layers: bool
    control_map: bool

    @classmethod
    def of(cls, config: TrainConfig, terms: Collection[str]) -> Needs:
        """Needs of the named terms. Prior preservation, for example, needs none of the four."""
        given = set(terms)
        compares_layers = bool(given & {"text", "fine"})
        masked = compares_layers or "output" in given or ("denoise" in given and config.denoise_outside != 1)
        control = masked and config.map_source == "sfcm"
        return cls(
            reference=control or bool(given & {"text", "fine", "output", "reconstruction", "purecc"}),
            reference_layers=control or compares_layers,
            response_layers=compares_layers or (masked and config.map_source == "token"),
            control_map=control,
        )


def applies(
    config: TrainConfig, is_reference: Tensor, is_reconstruction: Tensor, timesteps: Tensor, num_train_timesteps: int
) -> dict[str, Tensor]:
    """Which items of a batch each term of stage 2 applies to: term name to (B,) of booleans.

    Terms with weight zero are left out, and not computed.

    Args:
        config: weights of the terms, and up to which timestep the enhancement loss is trusted.
        is_reference: portraits without the target, (B,).
        is_reconstruction: items with one text on both paths, (B,).
        timesteps: t, (B,).
        num_train_timesteps: of the scheduler.
    """
    aligned = ~is_reconstruction
    custom = ~is_reference & aligned
    rules = {
        "denoise": custom,
        "text": aligned,
        "fine": aligned,
        "output": aligned,
        "reconstruction": is_reconstruction,
        "prior": is_reconstruction & is_reference,
        "purecc": aligned,
        "enhancement": custom & (timesteps < config.trusted * num_train_timesteps),
    }
    return {name: items for name, items in rules.items() if config.weight(name)}


def naive_step(backbone: Backbone, batch: Batch, noise: Tensor, timesteps: Tensor) -> Step:
    """Stage 1: ordinary fine-tuning on the complete text, with the denoising loss alone.

    Args:
        backbone: its UNet carries what is trained.
        batch: B items.
        noise: eps, (B, C, h, w).
        timesteps: t, (B,).
    """
    scheduler = backbone.pipe.scheduler
    noisy = add_noise(scheduler, batch.latents, noise, timesteps)
    target = training_target(scheduler, batch.latents, noise, timesteps)
    with response_path(backbone, noisy, timesteps, batch.complete) as response, full_precision(noisy.device):
        values = losses.denoising(response.prediction, target)
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
    """Stage 2: every loss term that has a weight. Compute the gradient inside the context.

    Only what some term needs is computed (:class:`Needs`). Losses and the control map are computed in float32, also
    under autocast.

    Args:
        backbone: its UNet carries what is trained.
        batch: B items.
        noise: eps, (B, C, h, w), shared by both paths.
        timesteps: t, (B,), shared by both paths.
        config: weights of the terms, source of the map, and options of the control map.
        concept: for PureCC, R_target of z_t and t (:class:`spf_lite.method.purecc.Extractor`).

    Raises:
        ValueError: if PureCC has a weight and there is no ``concept``.
    """
    scheduler = backbone.pipe.scheduler
    where = applies(
        config, batch.is_reference, batch.is_reconstruction, timesteps, scheduler.config.num_train_timesteps
    )
    needs = Needs.of(config, where)
    noisy = add_noise(scheduler, batch.latents, noise, timesteps)
    target = training_target(scheduler, batch.latents, noise, timesteps)
    # Before the response path: the extractor changes the weights for a moment, and no gradient may wait across that.
    added = concept(noisy, timesteps) if concept and "purecc" in where else None
    if added is None and "purecc" in where:
        raise ValueError("weight_purecc needs concept, what the target adds to a prediction: see Extractor")
    with ExitStack() as stack:
        reference: PathOutput | None = None
        if needs.reference:
            paths = both_paths(
                backbone,
                noisy,
                timesteps,
                batch.base,
                batch.complete,
                batch.is_plain,
                record_reference=needs.reference_layers,
                record_response=needs.response_layers,
            )
            reference, response = stack.enter_context(paths)
        else:
            path = response_path(backbone, noisy, timesteps, batch.complete, record_layers=needs.response_layers)
            response = stack.enter_context(path)
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
                weighed = config.enclosed, batch.acting, config.earlier_weight
                output = losses.output_alignment(predicted, reference.prediction, allowed, *weighed)
                values |= {"output": output, "reconstruction": output}  # M = 0 for reconstruction items
            values["denoise"] = losses.denoising(predicted, target, allowed, config.denoise_outside)
            values["prior"] = losses.denoising(predicted, target)
            if added is not None and reference is not None:
                values["purecc"] = purecc_loss(predicted, reference.prediction, added)
        if "enhancement" in where:
            values["enhancement"] = _enhancement(backbone, batch, predicted, noisy, timesteps, where["enhancement"])
        yield Step({name: Term(values[name], items) for name, items in where.items()}, control, allowed)


def allowed_region(source: str, control: ControlMap | None, layers: dict[str, LayerRecord], batch: Batch) -> Tensor:
    """M as the losses use it, (B, 1, h, w), detached; zero for reconstruction items, which must not change anywhere.

    Args:
        source: one of :data:`spf_lite.choices.MAPS`.
        control: the control map of the step, for ``sfcm``; None if no term is masked.
        layers: cross-attention of the response path, for ``token``; empty if no term is masked.
        batch: B items, with their regions for ``given`` and ``averaged``.
    """
    if source in ("given", "averaged", "surprise"):
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
    """Text-consistent and fine-grained losses that have a weight, mean over the layers: (B,) each."""
    text, fine = [], []
    for name in response if config.weight_text or config.weight_fine else ():
        tuned, frozen = response[name], reference[name]
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
    """Attention maps of chosen tokens: (B, heads, positions, tokens) and indices (B, K) to (B, heads, positions, K)."""
    return maps.gather(3, tokens[:, None, None, :].expand(-1, *maps.shape[1:3], -1))


def _enhancement(
    backbone: Backbone, batch: Batch, response: Tensor, noisy: Tensor, timesteps: Tensor, chosen: Tensor
) -> Tensor:
    """The enhancement loss of the chosen items, zero for the others: (B,)."""
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
