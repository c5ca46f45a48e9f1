"""Checks that the classes of backbones share. A fault is a text; a model is refused with all of its faults at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from diffusers import ModelMixin

from spf_lite.models.errors import BackboneError


def refuse(what: str, faults: Sequence[str]) -> None:
    """Raise :class:`BackboneError` if there are faults; the message names them all."""
    if faults:
        raise BackboneError(f"{what} is not supported: {'; '.join(faults)}")


def part_faults(index: Mapping[str, Any], wanted: Mapping[str, str], foreign: Sequence[str]) -> list[str]:
    """Faults of a pipeline's parts.

    Args:
        index: the pipeline's ``model_index.json``.
        wanted: class of each part.
        foreign: parts that must not be there.
    """
    faults = []
    for part, kind in wanted.items():
        found = (index.get(part) or [None, None])[1]
        if found != kind:
            faults.append(f"{part} is {found or 'missing'}, supported is {kind}")
    return faults + [f"it has a {part}" for part in foreign if (index.get(part) or [None])[0]]


def latent_faults(
    what: str, network: Mapping[str, Any], vae: Mapping[str, Any], learned_variance: bool = False, shifted: bool = False
) -> list[str]:
    """Whether a network takes and gives the autoencoder's latents, and these are scaled as the class expects.

    Args:
        what: the network's name in messages.
        network: its configuration.
        vae: configuration of the autoencoder.
        learned_variance: whether the network gives a variance beside each prediction.
        shifted: whether latents may be shifted before they are scaled.
    """
    channels = vae.get("latent_channels", 4)
    outputs = channels * 2 if learned_variance else channels
    faults = [
        f"{what}'s {name} is {found} ({meaning}), supported: the {wanted} of the autoencoder's latents"
        for name, wanted, meaning in (
            ("in_channels", channels, "an inpainting or editing model has more"),
            ("out_channels", outputs, "learned variance has more"),
        )
        if (found := network.get(name, 4)) not in (wanted, None)
    ]
    if (factor := 2 ** (len(vae.get("block_out_channels", (64,))) - 1)) != 8:
        faults.append(f"the autoencoder's latents have a {factor}th of a picture's side, supported: an 8th")
    for name in ("latents_mean",) if shifted else ("shift_factor", "latents_mean"):
        if vae.get(name) is not None:
            faults.append(
                f"the autoencoder's {name} is {vae[name]}, supported: latents that are scaled and not shifted"
            )
    return faults


def option_faults(what: str, config: Mapping[str, Any], defaults: Mapping[str, tuple[object, str]]) -> list[str]:
    """Options that are not at the one value that is supported.

    Args:
        what: the network's name in messages.
        config: its configuration; what a file leaves out has diffusers' default.
        defaults: of each option, the supported value, and what others stand for.
    """
    faults = []
    for name, (default, meaning) in defaults.items():
        found = config.get(name, default)
        values = found if isinstance(found, list | tuple) else [found]
        if any(value != default and value not in (None, False) for value in values):
            faults.append(f"{what}'s {name} is {found!r} ({meaning}), supported: {default!r}")
    return faults


def check_not_compiled(network: ModelMixin, what: str = "the network") -> None:
    """Check that a network is not compiled, neither by ``torch.compile`` nor in place, nor one of its blocks.

    Every step switches adapters and attention processors, and each switch has the graph compiled anew: training works,
    and takes many times as long as without.

    Raises:
        BackboneError: if it is compiled.
    """
    compiled = next((name for name, module in network.named_modules() if _is_compiled(module)), None)
    if compiled is not None:
        raise BackboneError(
            f"{what} is compiled ({compiled or 'as a whole'}): training and recording switch its layers in every "
            "step, and each switch compiles it anew; load it without torch.compile"
        )


def _is_compiled(module: torch.nn.Module) -> bool:
    return hasattr(module, "_orig_mod") or getattr(module, "_compiled_call_impl", None) is not None


def processor_faults(processors: Mapping[str, object], plain: Sequence[type]) -> None:
    """Check that attention is computed as diffusers computes it.

    Recording replaces a processor by one that forms the attention probabilities. It can stand in for plain ones alone:
    what another one adds (the picture of an IP-Adapter, an edit of the maps, fused projections that an adapter would
    not reach) would silently be lost.

    Args:
        processors: of each attention layer, by name, as ``attn_processors`` of the network gives them.
        plain: classes that a recorded layer can stand in for.

    Raises:
        BackboneError: if one is of another class.
    """
    foreign = {name: kind for name, p in processors.items() if (kind := type(p)) not in plain}
    if foreign:
        name, kind = next(iter(foreign.items()))
        raise BackboneError(
            f"foreign attention processors in {len(foreign)} layers ({name.removesuffix('.processor')}: "
            f"{kind.__name__}); supported are "
            f"{', '.join(known.__name__ for known in plain)}: unload IP-Adapters, unfuse projections, and "
            "call unet.set_default_attn_processor()"
        )
