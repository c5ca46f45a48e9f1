"""Stable Diffusion 1.x and 2.x: a UNet whose cross-attention reads the output of one CLIP text encoder.

Noise and velocity are predicted, with or without zero terminal SNR, at 512 or 768 pixels. Nothing of that is special
here: it stands in the scheduler's and the UNet's configurations.

Source: Rombach et al. 2022 (arXiv 2112.10752).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.models.attention_processor import (
    Attention,
    AttnProcessor,
    AttnProcessor2_0,
    SlicedAttnProcessor,
    XFormersAttnProcessor,
)
from diffusers.utils import convert_state_dict_to_diffusers
from torch import Tensor, nn

from spf_lite.models.backbones.architecture import Architecture, LoraFile
from spf_lite.models.backbones.checks import (
    check_not_compiled,
    latent_faults,
    option_faults,
    part_faults,
    processor_faults,
    refuse,
)
from spf_lite.models.backbones.files import diffusers_lora_bytes, split_alphas
from spf_lite.models.diffusion import scheduler_faults, scheduler_of
from spf_lite.models.errors import BackboneError
from spf_lite.models.source import Source
from spf_lite.models.specification import attention_resolution

#: Attention processors that compute softmax(Q K^T / sqrt(d)) V and nothing else, so that a recorded layer can stand in.
PLAIN_PROCESSORS = (AttnProcessor, AttnProcessor2_0, SlicedAttnProcessor, XFormersAttnProcessor)
#: The projections of cross-attention ("attn2" in diffusers' transformer blocks) that an adapter is put on.
CROSS_ATTENTION = ("attn2.to_q", "attn2.to_k", "attn2.to_v", "attn2.to_out.0")
#: The layers of each of :data:`spf_lite.choices.LAYERS`, by the ends of their names.
LORA_LAYERS = {"cross-attention": CROSS_ATTENTION, "resnets": (*CROSS_ATTENTION, "conv1", "conv2")}
#: The projections of cross-attention that read the text.
TEXT_PROJECTIONS = ("attn2.to_k", "attn2.to_v")
PREDICTION_TYPES = ("epsilon", "v_prediction")
_NO_CROSS_ATTENTION = "no cross-attention layers: no word reaches its pixels, and nothing can be tuned"
#: Kinds of blocks, the default first.
_BLOCKS = {
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "mid_block_type": ("UNetMidBlock2DCrossAttn", "UNetMidBlock2D", None),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
}
#: Options of the UNet that have to stay at their default, with what they stand for.
UNET_DEFAULTS: dict[str, tuple[object, str]] = {
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


class UNetArchitecture(Architecture):
    """What every UNet with cross-attention has in common.

    Attributes:
        parts: class of each part of the pipeline.
        foreign_parts: parts that carry information past the text encoders, which the paths would not be given.
        unet_defaults: options of the UNet with their one supported value.
    """

    part = "unet"
    network_name = "UNet"
    lora_layers = LORA_LAYERS
    text_projections = TEXT_PROJECTIONS
    processors = PLAIN_PROCESSORS
    parts: ClassVar[Mapping[str, str]]
    foreign_parts: ClassVar[tuple[str, ...]]
    unet_defaults: ClassVar[Mapping[str, tuple[object, str]]]

    def check_source(self, source: Source, index: Mapping[str, Any]) -> None:
        faults = self.name_faults(index) + part_faults(index, self.parts, self.foreign_parts)
        if not faults:
            vae = source.part_config(AutoencoderKL, "vae")
            faults += self.unet_faults(source.part_config(UNet2DConditionModel, "unet"), vae)
            faults += scheduler_faults(scheduler_of(source, index), PREDICTION_TYPES)
        refuse(f"{source.configs!r} ({index.get('_class_name', 'unknown pipeline')})", faults)

    def check_network(self, network: UNet2DConditionModel) -> None:
        check_not_compiled(network)
        refuse("the UNet", self.unet_faults(network.config, None))
        check_cross_attention(network)
        processor_faults(network.attn_processors, self.processors)

    def unet_faults(self, config: Mapping[str, Any], vae: Mapping[str, Any] | None) -> list[str]:
        """What of a UNet's configuration is not supported; what a file leaves out has diffusers' default."""
        blocks = {name: config.get(name, kinds[0]) for name, kinds in _BLOCKS.items()}
        used = {name: {kinds} if isinstance(kinds, str | None) else set(kinds) for name, kinds in blocks.items()}
        if not any("CrossAttn" in str(kind) for kinds in used.values() for kind in kinds):
            raise BackboneError(f"the UNet has {_NO_CROSS_ATTENTION}")
        faults = []
        for name, kinds in used.items():
            if foreign := sorted(map(str, kinds.difference(_BLOCKS[name]))):
                faults.append(f"{name} holds {', '.join(foreign)}, supported: {', '.join(map(str, _BLOCKS[name]))}")
        faults += option_faults("the UNet", config, self.unet_defaults)
        if config.get("sample_size") is None:
            faults.append("the UNet's sample_size is missing: it says for which portraits the model was made")
        return faults if vae is None else faults + latent_faults("the UNet", config, vae)

    def size_multiple(self, config: Mapping[str, Any]) -> int:
        return int(2 ** (len(config["block_out_channels"]) - 1))

    def attention_resolution(self, config: Mapping[str, Any], wanted: int) -> int:
        return attention_resolution(config, wanted)

    def before_text(self, network: UNet2DConditionModel) -> list[nn.Module]:
        return before_cross_attention(network)

    def recorded_layers(self, network: UNet2DConditionModel) -> dict[str, Attention]:
        return {name: module for name, module in network.named_modules() if name.endswith("attn2")}

    def read_lora_file(self, file: Path, network: UNet2DConditionModel) -> LoraFile:
        state, alphas, metadata = self.pipeline.lora_state_dict(
            str(file.parent), weight_name=file.name, use_safetensors=True, return_lora_metadata=True
        )
        return state, split_alphas(self.part, alphas), dict(metadata or {})

    def adapter_files(self, layers: Mapping[str, Tensor], metadata: Mapping[str, str]) -> dict[str, bytes]:
        named = convert_state_dict_to_diffusers(dict(layers))
        return diffusers_lora_bytes(self.pipeline, "unet_lora_layers", named, metadata)


class StableDiffusion(UNetArchitecture):
    """Stable Diffusion 1.x and 2.x, and the tiny model."""

    title = "Stable Diffusion"
    pipeline = StableDiffusionPipeline
    encoders = ("text_encoder",)
    parts = {"unet": "UNet2DConditionModel", "vae": "AutoencoderKL", "text_encoder": "CLIPTextModel"}
    foreign_parts = ("text_encoder_2", "text_encoder_3", "transformer")
    unet_defaults = UNET_DEFAULTS

    def claims(self, network: nn.Module) -> bool:
        return isinstance(network, UNet2DConditionModel)

    def loading_options(self, index: Mapping[str, Any]) -> dict[str, Any]:
        return {"safety_checker": None, "requires_safety_checker": False}

    def check_pipeline(self, pipe: StableDiffusionPipeline) -> None:
        self.check_network(pipe.unet)
        faults = self.unet_faults(pipe.unet.config, pipe.vae.config) + scheduler_faults(
            pipe.scheduler, PREDICTION_TYPES
        )
        text, widths = pipe.text_encoder.config, pipe.unet.config.cross_attention_dim
        for width in {widths} if isinstance(widths, int) else set(widths):
            if width != text.hidden_size:
                faults.append(
                    f"cross-attention takes texts of width {width}, and the text encoder gives {text.hidden_size}"
                )
        if getattr(text, "use_attention_mask", False):
            faults.append("the text encoder masks its padding (use_attention_mask)")
        refuse("the pipeline", faults)

    def encode(self, pipe: StableDiffusionPipeline, ids: Tensor) -> Tensor:
        hidden: Tensor = pipe.text_encoder(ids.to(pipe.device)).last_hidden_state
        return hidden.float()

    def text_shape(self, pipe: StableDiffusionPipeline) -> tuple[int, int]:
        return pipe.tokenizer.model_max_length, pipe.unet.config.cross_attention_dim

    def projected_text(self, network: UNet2DConditionModel, text: Tensor) -> tuple[Tensor, Tensor]:
        return text, torch.ones(len(text), dtype=torch.bool)

    def predict(self, network: UNet2DConditionModel, noisy: Tensor, times: Tensor, text: Tensor) -> Tensor:
        prediction: Tensor = network(noisy, times, encoder_hidden_states=text).sample
        return prediction.float()


def check_cross_attention(unet: UNet2DConditionModel) -> None:
    """Check that a UNet has cross-attention layers ("attn2" in diffusers' transformer blocks).

    Raises:
        BackboneError: if it has none.
    """
    if not any(name.endswith("attn2.processor") for name in unet.attn_processors):
        raise BackboneError(f"the UNet has {_NO_CROSS_ATTENTION}")


def before_cross_attention(unet: UNet2DConditionModel) -> list[nn.Module]:
    """The modules that a forward pass runs before its first cross-attention layer, in order.

    Args:
        unet: any whose down blocks are ``CrossAttnDownBlock2D`` or ``DownBlock2D``.
    """
    found: list[nn.Module] = [unet.time_embedding, unet.conv_in]
    for block in unet.down_blocks:
        if not getattr(block, "has_cross_attention", False):
            found.append(block)
            continue
        transformer = block.attentions[0]
        first = transformer.transformer_blocks[0]
        return [*found, block.resnets[0], transformer.norm, transformer.proj_in, first.norm1, first.attn1]
    return found
