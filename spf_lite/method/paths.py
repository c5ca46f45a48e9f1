r"""The forward pass of both paths: one noisy latent, one timestep, one noise.

The *reference path* is the UNet with its adapters off, fed the base text, without gradient. The *response path* is the
UNet with its adapters on, fed the complete text.

.. math::
    \epsilon_\mathrm{ref} = \epsilon_{\theta_0}(z_t, t, E_\mathrm{base}), \qquad
    \epsilon_\mathrm{res} = \epsilon_\theta(z_t, t, E_\mathrm{complete})

Source: SPF-Portrait (arXiv 2504.00396), "dual-path contrastive learning".

In the book: :doc:`/06-dual-path`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from spf_lite.method.attention import LayerRecord, record
from spf_lite.models.backbone import Backbone
from spf_lite.models.prefix_cache import shared_prefix


@dataclass(frozen=True)
class PathOutput:
    """What one path predicts.

    Attributes:
        prediction: noise or velocity, (B, C, h, w), float32.
        layers: cross-attention by layer name; empty unless it was recorded.
    """

    prediction: Tensor
    layers: dict[str, LayerRecord] = field(default_factory=dict)


@contextmanager
def forward(
    backbone: Backbone, noisy: Tensor, timesteps: Tensor, text: Tensor, *, record_layers: bool = False
) -> Iterator[PathOutput]:
    """One forward pass of the UNet as it stands; the recording lasts as long as the context.

    A context, because gradient checkpointing computes layers once more in the backward pass and must find them recorded
    as they were: take the gradient inside.

    Args:
        backbone: whose UNet is passed.
        noisy: z_t, (B, C, h, w).
        timesteps: t, (B,).
        text: ``encoder_hidden_states``, (B, L, width).
        record_layers: whether cross-attention is recorded (:func:`spf_lite.method.attention.record`).
    """
    unet = backbone.pipe.unet
    if not record_layers:
        yield PathOutput(unet(noisy, timesteps, encoder_hidden_states=text).sample.float())
        return
    size = (noisy.shape[-2], noisy.shape[-1])
    with record(unet, size, backbone.spec.attention_resolution) as layers:
        yield PathOutput(unet(noisy, timesteps, encoder_hidden_states=text).sample.float(), layers)


@torch.no_grad()
def reference_path(
    backbone: Backbone, noisy: Tensor, timesteps: Tensor, base: Tensor, *, record_layers: bool = False
) -> PathOutput:
    """The frozen original model on the base text, without gradient. Arguments as in :func:`forward`."""
    with (
        backbone.reference(),
        forward(backbone, noisy, timesteps, base, record_layers=record_layers) as output,
    ):
        return output


@contextmanager
def both_paths(
    backbone: Backbone,
    noisy: Tensor,
    timesteps: Tensor,
    base: Tensor | None,
    complete: Tensor,
    *,
    record_reference: bool = False,
    record_response: bool = False,
) -> Iterator[tuple[PathOutput | None, PathOutput]]:
    """Reference and response path on the same z_t and t; take the gradient inside (see :func:`forward`).

    Args:
        backbone: its UNet carries what is trained.
        noisy: z_t, (B, C, h, w), shared by both paths.
        timesteps: t, (B,), shared by both paths.
        base: ``encoder_hidden_states`` of the base texts, (B, L, width); None: no reference path is wanted.
        complete: of the complete texts.
        record_reference: whether the reference path's cross-attention is recorded.
        record_response: whether the response path's is.

    Yields:
        output of the reference path (None without base texts), output of the response path.
    """
    # Up to the first cross-attention layer both paths compute the same.
    with shared_prefix(backbone.pipe.unet):
        reference = None
        if base is not None:
            reference = reference_path(backbone, noisy, timesteps, base, record_layers=record_reference)
        with forward(backbone, noisy, timesteps, complete, record_layers=record_response) as response:
            yield reference, response
