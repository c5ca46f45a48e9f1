"""Which model is this? A digest of its weights: the same weights are the same model, wherever they lie."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from spf_lite.models.diffusion import noise_schedule, prediction_type
from spf_lite.models.digests import digest_of

if TYPE_CHECKING:
    from spf_lite.models.backbone import Backbone


def backbone_digest(backbone: Backbone, enhance: bool = False) -> str:
    """SHA-256 of all weights of a backbone that a training run depends on, and of its noise schedule.

    Take it before anything is trained on the backbone. A gigabyte takes about a second.

    Args:
        backbone: network, text encoders, autoencoder, CLIP and noise schedule count.
        enhance: whether the decoder of one-step predictions counts as well (:attr:`Backbone.preview`).
    """
    pipe = backbone.pipe
    modules: dict[str, nn.Module] = {**backbone.architecture.modules(pipe), "clip": backbone.clip.model}
    if enhance and backbone.preview is not None:
        modules["preview"] = backbone.preview
    named = [(f"{part}.{name}", value) for part, module in modules.items() for name, value in _tensors(module)]
    named.append((f"scheduler.{prediction_type(pipe.scheduler)}", noise_schedule(pipe.scheduler)))
    named.append(("vae.scaling_factor", torch.tensor(float(pipe.vae.config.scaling_factor))))
    return digest_of(named)


def _tensors(module: nn.Module) -> Iterable[tuple[str, Tensor]]:
    state: dict[str, Tensor] = module.state_dict()
    return state.items()
