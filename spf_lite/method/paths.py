r"""Reference path and response path: two forward passes of one network on the same noisy latents and timesteps.

.. math::
    \epsilon_\mathrm{ref} = \epsilon_{\theta_0}(z_t, t, c_\mathrm{base}), \qquad
    \epsilon_\mathrm{res} = \epsilon_\theta(z_t, t, c_\mathrm{full})

The *reference path* is the original network, :math:`\theta_0`, with the encoded base text; no gradient is taken
through it. The *response path* is the network in training, :math:`\theta`, with the encoded complete text. Both may
record their cross-attention (:mod:`spf_lite.method.attention`).

Source: SPF-Portrait (arXiv 2504.00396), "dual-path contrastive learning".

In the book: :doc:`/06-dual-path`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, fields

import torch
from diffusers import ModelMixin
from torch import Tensor

from spf_lite.method.attention import record
from spf_lite.models.backbone import Backbone
from spf_lite.models.backbones.recording import LayerRecord
from spf_lite.models.diffusion import network_times
from spf_lite.models.running.at_a_time import at_a_time
from spf_lite.models.running.prefix_cache import shared_prefix
from spf_lite.models.running.shared_work import shared_out

#: Latents that pass through the reference path at a time, where any number is asked for.
CHUNK = 32


@dataclass(frozen=True)
class PathOutput:
    """What one path computes.

    Attributes:
        prediction: predicted noise or velocity, (B, C, h, w), float32.
        layers: recorded cross-attention by layer name; empty unless recording was asked for.
    """

    prediction: Tensor
    layers: dict[str, LayerRecord] = field(default_factory=dict)


@torch.no_grad()
def reference_path(
    backbone: Backbone,
    noisy: Tensor,
    timesteps: Tensor,
    base: Tensor,
    plain: Tensor | None = None,
    *,
    record_layers: bool = False,
) -> PathOutput:
    """The original network on the base text, without gradient.

    In a run on top of earlier adapters it has these as well, but for plain texts, which ask for none of their targets.

    Args:
        backbone: what is trained on its network is switched off during the pass.
        noisy: z_t, (B, C, h, w).
        timesteps: t, (B,).
        base: the base texts, encoded, (B, R, width).
        plain: which texts are plain, (B,); None: none of them.
        record_layers: whether to record cross-attention.
    """
    rows, original = _plain_rows(backbone, plain), backbone.original
    with backbone.reference() as network:
        if rows is None or original is None:
            with _forward(backbone, network, noisy, timesteps, base, record_layers) as output:
                return output
        parts = []
        for chosen, weights in ((rows, original.in_place()), (~rows, nullcontext())):
            if bool(chosen.any()):
                inputs = noisy[chosen], timesteps[chosen], base[chosen]
                with weights, _forward(backbone, network, *inputs, record_layers) as output:
                    parts.append(output)
        return parts[0] if len(parts) == 1 else _interleaved(rows, *parts)


@torch.no_grad()
def reference_predictions(backbone: Backbone, noisy: Tensor, times: Tensor, text: Tensor) -> Tensor:
    """Predictions of the reference model for any number of noisy latents, a few at a time, in main memory.

    The processes of a run share them (:mod:`spf_lite.models.running.shared_work`).

    Args:
        backbone: the model; its reference path is used.
        noisy: z_t, (N, C, h, w).
        times: t, (N,).
        text: encoded, (N, R, width).

    Returns:
        predicted noise or velocity, (N, C, h, w), float32.
    """

    def predicted(part: Tensor) -> Tensor:
        inputs = (rows[part].to(backbone.device) for rows in (noisy, times, text))
        return reference_path(backbone, *inputs).prediction.cpu()

    together = at_a_time(noisy.shape[-2:], CHUNK)
    return torch.cat(shared_out(torch.arange(len(noisy)).split(together), predicted))


@contextmanager
def response_path(
    backbone: Backbone, noisy: Tensor, timesteps: Tensor, complete: Tensor, *, record_layers: bool = False
) -> Iterator[PathOutput]:
    """The network in training on the complete text. Compute the gradient inside the context.

    Gradient checkpointing runs layers again in the backward pass; it needs the recording to be still in place.

    Args:
        backbone: its network carries what is trained.
        noisy: z_t, (B, C, h, w).
        timesteps: t, (B,).
        complete: the complete texts, encoded, (B, R, width).
        record_layers: whether to record cross-attention.
    """
    with _forward(backbone, backbone.network, noisy, timesteps, complete, record_layers) as output:
        yield output


@contextmanager
def both_paths(
    backbone: Backbone,
    noisy: Tensor,
    timesteps: Tensor,
    base: Tensor,
    complete: Tensor,
    plain: Tensor | None = None,
    *,
    record_reference: bool = False,
    record_response: bool = False,
) -> Iterator[tuple[PathOutput, PathOutput]]:
    """Both paths on the same z_t and t. Compute the gradient inside the context, as in :func:`response_path`.

    Args:
        backbone: its network carries what is trained.
        noisy: z_t, (B, C, h, w).
        timesteps: t, (B,).
        base: the base texts, encoded, (B, R, width).
        complete: the complete texts, encoded, (B, R, width).
        plain: for which items the reference path has no earlier adapters, (B,) (:func:`reference_path`).
        record_reference: whether to record cross-attention of the reference path.
        record_response: whether to record cross-attention of the response path.

    Yields:
        outputs of the reference path and of the response path.
    """
    # Up to the first layer that a text enters both paths compute the same, if they have the same weights there.
    differ = _plain_rows(backbone, plain) is not None
    with nullcontext() if differ else shared_prefix(backbone.network):
        reference = reference_path(backbone, noisy, timesteps, base, plain, record_layers=record_reference)
        with response_path(backbone, noisy, timesteps, complete, record_layers=record_response) as response:
            yield reference, response


def _plain_rows(backbone: Backbone, plain: Tensor | None) -> Tensor | None:
    """Which items need the weights without earlier adapters; None if no item does, or there are no such adapters."""
    return plain if plain is not None and backbone.original is not None and bool(plain.any()) else None


def _interleaved(first: Tensor, one: PathOutput, other: PathOutput) -> PathOutput:
    """Two outputs as one, in the order of the batch: ``one`` where ``first``, (B,), is True."""
    order = torch.cat([first.nonzero()[:, 0], (~first).nonzero()[:, 0]]).argsort()

    def woven(a: Tensor, b: Tensor) -> Tensor:
        return torch.cat([a, b])[order]

    layers = {}
    for name, layer in one.layers.items():
        names = [part.name for part in fields(layer) if part.name != "size"]
        pairs = {part: (getattr(layer, part), getattr(other.layers[name], part)) for part in names}
        layers[name] = LayerRecord(layer.size, **{part: woven(*pair) for part, pair in pairs.items()})
    return PathOutput(woven(one.prediction, other.prediction), layers)


@contextmanager
def _forward(
    backbone: Backbone, network: ModelMixin, noisy: Tensor, timesteps: Tensor, text: Tensor, record_layers: bool
) -> Iterator[PathOutput]:
    """One pass of a network; its layers are recorded if asked for."""
    times = network_times(backbone.pipe.scheduler, timesteps)
    if not record_layers:
        yield PathOutput(backbone.predict(network, noisy, times, text))
        return
    size = (noisy.shape[-2], noisy.shape[-1])
    with record(network, size, backbone.spec.attention_resolution) as layers:
        yield PathOutput(backbone.predict(network, noisy, times, text), layers)
