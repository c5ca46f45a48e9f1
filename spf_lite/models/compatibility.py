"""Which models the method can work with. Everything else is refused before its weights are read.

Supported is what Stable Diffusion 1.x and 2.x are: a ``UNet2DConditionModel`` whose cross-attention takes the output of
one CLIP text encoder, an ``AutoencoderKL``, and a scheduler with the noise schedule of DDPM (Ho et al. 2020) that
predicts noise or velocity. A model that differs would train without an error and learn something else, or fail an hour
later.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import diffusers
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.models.attention_processor import (
    AttnProcessor,
    AttnProcessor2_0,
    SlicedAttnProcessor,
    XFormersAttnProcessor,
)

from spf_lite.models.errors import BackboneError

#: Attention processors that compute softmax(Q K^T / sqrt(d)) V and nothing else, so that a recorded layer can stand in.
PLAIN_PROCESSORS = (AttnProcessor, AttnProcessor2_0, SlicedAttnProcessor, XFormersAttnProcessor)
PREDICTION_TYPES = ("epsilon", "v_prediction")
_NO_CROSS_ATTENTION = "no cross-attention layers: no word reaches its pixels, and nothing can be tuned"
#: Types of the frozen weights.
DTYPES = (torch.float32, torch.bfloat16, torch.float16)

#: Class of each part of a pipeline.
_PARTS = {"unet": "UNet2DConditionModel", "vae": "AutoencoderKL", "text_encoder": "CLIPTextModel"}
#: Parts that carry information past the one text encoder, which the paths would not be given.
_FOREIGN_PARTS = ("text_encoder_2", "text_encoder_3", "transformer")
#: Kinds of blocks, the default first.
_BLOCKS = {
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "mid_block_type": ("UNetMidBlock2DCrossAttn", "UNetMidBlock2D", None),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
}
#: Options of the UNet that have to stay at their default, with what they stand for.
_UNET_DEFAULTS: dict[str, tuple[object, str]] = {
    "addition_embed_type": (None, "a second condition beside the text, as in Stable Diffusion XL"),
    "class_embed_type": (None, "a class condition"),
    "num_class_embeds": (None, "a class condition"),
    "encoder_hid_dim_type": (None, "a projection of text or picture embeddings, as in IP-Adapter"),
    "time_cond_proj_dim": (None, "a guidance condition, as in latent consistency models"),
    "dual_cross_attention": (False, "two cross-attentions in each block"),
    "only_cross_attention": (False, "cross-attention in the place of self-attention"),
    "mid_block_only_cross_attention": (None, "cross-attention in the place of self-attention"),
    "cross_attention_norm": (None, "a norm of the text inside cross-attention"),
    "attention_type": ("default", "gated attention, as in GLIGEN"),
}


def check_source(source: str) -> None:
    """Check a pipeline by its configuration files, before its weights are read or downloaded.

    Args:
        source: folder or hub id.

    Raises:
        BackboneError: if it is of an unsupported kind.
        OSError: if a configuration file is missing.
    """
    index = StableDiffusionPipeline.load_config(source)
    faults = []
    for part, wanted in _PARTS.items():
        found = (index.get(part) or [None, None])[1]
        if found != wanted:
            faults.append(f"{part} is {found or 'missing'}, supported is {wanted}")
    faults += [f"it has a {part}" for part in _FOREIGN_PARTS if (index.get(part) or [None])[0]]
    if not faults:
        vae = AutoencoderKL.load_config(source, subfolder="vae")
        faults += _unet_faults(UNet2DConditionModel.load_config(source, subfolder="unet"), vae)
        scheduler = getattr(diffusers, (index.get("scheduler") or [None, ""])[1] or "", None)
        if scheduler is not None:  # of a library that is not there: loading will say so
            faults += _scheduler_faults(scheduler.from_pretrained(source, subfolder="scheduler"))
    _refuse(f"{source!r} ({index.get('_class_name', 'unknown pipeline')})", faults)


def check_pipeline(pipe: StableDiffusionPipeline) -> None:
    """Check a loaded pipeline: all that :func:`check_source` checks, its text encoder and its attention processors.

    Raises:
        BackboneError: if it is of an unsupported kind.
    """
    check_unet(pipe.unet)
    faults = _unet_faults(pipe.unet.config, pipe.vae.config) + _scheduler_faults(pipe.scheduler)
    text, widths = pipe.text_encoder.config, pipe.unet.config.cross_attention_dim
    for width in {widths} if isinstance(widths, int) else set(widths):
        if width != text.hidden_size:
            faults.append(
                f"cross-attention takes texts of width {width}, and the text encoder gives {text.hidden_size}"
            )
    if getattr(text, "use_attention_mask", False):
        faults.append("the text encoder masks its padding (use_attention_mask)")
    _refuse("the pipeline", faults)


def check_unet(unet: UNet2DConditionModel) -> None:
    """Check that a UNet can be tuned and recorded.

    Raises:
        BackboneError: if it is compiled, has no cross-attention, takes other conditions than one text, or has foreign
            attention processors.
    """
    check_not_compiled(unet)
    _refuse("the UNet", _unet_faults(unet.config, None))
    check_cross_attention(unet)
    check_processors(unet.attn_processors)


def check_cross_attention(unet: UNet2DConditionModel) -> None:
    """Check that a UNet has cross-attention layers ("attn2" in diffusers' transformer blocks).

    Raises:
        BackboneError: if it has none.
    """
    if not any(name.endswith("attn2.processor") for name in unet.attn_processors):
        raise BackboneError(f"the UNet has {_NO_CROSS_ATTENTION}")


def check_processors(processors: Mapping[str, object]) -> None:
    """Check that attention is computed as diffusers computes it.

    Recording replaces a processor by one that forms the attention probabilities. It can stand in for
    :data:`PLAIN_PROCESSORS` alone: what another one adds (the picture of an IP-Adapter, an edit of the maps, fused
    projections that an adapter would not reach) would silently be lost.

    Args:
        processors: of each attention layer, by name, as ``unet.attn_processors`` gives them.

    Raises:
        BackboneError: if one is of another class.
    """
    foreign = {name: kind for name, p in processors.items() if (kind := type(p)) not in PLAIN_PROCESSORS}
    if foreign:
        name, kind = next(iter(foreign.items()))
        raise BackboneError(
            f"foreign attention processors in {len(foreign)} layers ({name.removesuffix('.processor')}: "
            f"{kind.__name__}); supported are "
            f"{', '.join(plain.__name__ for plain in PLAIN_PROCESSORS)}: unload IP-Adapters, unfuse projections, and "
            "call unet.set_default_attn_processor()"
        )


def check_not_compiled(unet: UNet2DConditionModel) -> None:
    """Check that a UNet is not compiled, neither by ``torch.compile(unet)`` nor in place, nor one of its blocks.

    Every step switches adapters and attention processors, and each switch has the graph compiled anew: training works,
    and takes many times as long as without.

    Raises:
        BackboneError: if it is compiled.
    """
    compiled = next((name for name, module in unet.named_modules() if _is_compiled(module)), None)
    if compiled is not None:
        raise BackboneError(
            f"the UNet is compiled ({compiled or 'as a whole'}): training and recording switch its layers in every "
            "step, and each switch compiles it anew; load it without torch.compile"
        )


def check_precision(device: torch.device, dtype: torch.dtype) -> None:
    """Check that a device computes in a type, for frozen weights as for mixed precision.

    Raises:
        BackboneError: for float16 on a processor (PyTorch has no gradient scaling there, and few operations), or a type
            that is none of :data:`DTYPES`.
    """
    if dtype not in DTYPES:
        raise BackboneError(f"weights of {dtype} are not supported: expected one of {', '.join(map(str, DTYPES))}")
    if device.type == "cpu" and dtype == torch.float16:
        raise BackboneError(
            "float16 is a precision of graphics cards, and the device is a processor: choose bfloat16 or float32"
        )


def _refuse(what: str, faults: list[str]) -> None:
    if faults:
        raise BackboneError(f"{what} is not supported: {'; '.join(faults)}")


def _is_compiled(module: torch.nn.Module) -> bool:
    return hasattr(module, "_orig_mod") or getattr(module, "_compiled_call_impl", None) is not None


def _unet_faults(config: Mapping[str, Any], vae: Mapping[str, Any] | None) -> list[str]:
    """What of a UNet's configuration is not supported; what a file leaves out has diffusers' default."""
    blocks = {name: config.get(name, kinds[0]) for name, kinds in _BLOCKS.items()}
    used = {name: {kinds} if isinstance(kinds, str | None) else set(kinds) for name, kinds in blocks.items()}
    if not any("CrossAttn" in str(kind) for kinds in used.values() for kind in kinds):
        raise BackboneError(f"the UNet has {_NO_CROSS_ATTENTION}")
    faults = []
    for name, kinds in used.items():
        if foreign := sorted(map(str, kinds.difference(_BLOCKS[name]))):
            faults.append(f"{name} holds {', '.join(foreign)}, supported: {', '.join(map(str, _BLOCKS[name]))}")
    for name, (default, meaning) in _UNET_DEFAULTS.items():
        found = config.get(name, default)
        values = found if isinstance(found, list | tuple) else [found]
        if any(value != default and value not in (None, False) for value in values):
            faults.append(f"the UNet's {name} is {found!r} ({meaning}), supported: {default!r}")
    if config.get("sample_size") is None:
        faults.append("the UNet's sample_size is missing: it says for which portraits the model was made")
    if vae is not None:
        faults += _latent_faults(config, vae)
    return faults


def _latent_faults(unet: Mapping[str, Any], vae: Mapping[str, Any]) -> list[str]:
    """Whether the UNet takes and gives the autoencoder's latents, and these are only scaled."""
    channels = vae.get("latent_channels", 4)
    faults = [
        f"the UNet's {name} is {found} ({meaning} has more), supported: the {channels} of the autoencoder's latents"
        for name, meaning in (("in_channels", "an inpainting or editing model"), ("out_channels", "learned variance"))
        if (found := unet.get(name, 4)) != channels
    ]
    if (factor := 2 ** (len(vae.get("block_out_channels", (64,))) - 1)) != 8:
        faults.append(f"the autoencoder's latents have a {factor}th of a picture's side, supported: an 8th")
    for name in ("shift_factor", "latents_mean"):
        if vae.get(name) is not None:
            faults.append(
                f"the autoencoder's {name} is {vae[name]}, supported: latents that are scaled and not shifted"
            )
    return faults


def _scheduler_faults(scheduler: Any) -> list[str]:
    """Whether a scheduler has the variance-preserving noise schedule of DDPM and a supported prediction type."""
    name, alphas = type(scheduler).__name__, getattr(scheduler, "alphas_cumprod", None)
    if alphas is None or scheduler.config.get("use_flow_sigmas", False):
        return [f"{name} has no noise schedule alphas_cumprod (flow matching?), supported: those like DDIMScheduler"]
    kind = scheduler.config.get("prediction_type", "epsilon")
    if kind not in PREDICTION_TYPES:
        return [f"{name} has the prediction type {kind!r}, supported: {' and '.join(PREDICTION_TYPES)}"]
    if kind == "epsilon" and float(alphas[-1]) == 0:
        return [f"{name} ends without any signal (zero terminal SNR), where a prediction of the noise says nothing"]
    return []
