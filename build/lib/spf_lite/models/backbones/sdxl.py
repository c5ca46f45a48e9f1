"""Stable Diffusion XL: a UNet with two CLIP text encoders, a pooled text embedding, and the size of the picture.

The hidden states of both encoders lie side by side in each token's row; the pooled embedding of the second one follows
in rows behind them. The picture's size ("time ids") comes from the latents: a portrait is neither cropped nor scaled.
The pooled embedding enters with the timestep, before the first layer, so that the paths share less than elsewhere.

Source: Podell et al. 2023 (arXiv 2307.01952).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionXLPipeline, UNet2DConditionModel
from torch import Tensor, nn

from spf_lite.models.backbones.architecture import LoraFile
from spf_lite.models.backbones.checks import refuse
from spf_lite.models.backbones.clip_texts import clip_states, masked_faults, padded_for, tokenizer_faults
from spf_lite.models.backbones.files import split_alphas
from spf_lite.models.backbones.packing import pack, packed_rows, unpack
from spf_lite.models.backbones.unet import PREDICTION_TYPES, UNET_DEFAULTS, UNetArchitecture
from spf_lite.models.diffusion import scheduler_faults
from spf_lite.models.errors import BackboneError

#: The one kind of further condition: pooled text and time ids.
_ADDED = "text_time"
#: Numbers of the time ids: original size, crop, target size; height and width of each.
_TIME_IDS = 6
#: Side of a picture in latent pixels.
_FACTOR = 8


class StableDiffusionXL(UNetArchitecture):
    """Stable Diffusion XL."""

    title = "Stable Diffusion XL"
    pipeline = StableDiffusionXLPipeline
    prefix = "StableDiffusionXL"
    guidance_scale = 5.0
    encoders = ("text_encoder", "text_encoder_2")
    parts = {
        "unet": "UNet2DConditionModel",
        "vae": "AutoencoderKL",
        "text_encoder": "CLIPTextModel",
        "text_encoder_2": "CLIPTextModelWithProjection",
    }
    foreign_parts = ("text_encoder_3", "transformer")
    unet_defaults = {**UNET_DEFAULTS, "addition_embed_type": (_ADDED, "another second condition")}

    def claims(self, network: nn.Module) -> bool:
        return isinstance(network, UNet2DConditionModel) and network.config.get("addition_embed_type") == _ADDED

    def loading_options(self, index: Mapping[str, Any]) -> dict[str, Any]:
        return {"add_watermarker": False}

    def unet_faults(self, config: Mapping[str, Any], vae: Mapping[str, Any] | None) -> list[str]:
        faults = super().unet_faults(config, vae)
        if config.get("addition_embed_type") is None:
            faults.append("the UNet takes no pooled text and no size (addition_embed_type)")
        elif _pooled_size(config) <= 0:
            faults.append("the UNet's projection_class_embeddings_input_dim leaves no room for a pooled text")
        return faults

    def check_pipeline(self, pipe: StableDiffusionXLPipeline) -> None:
        self.check_network(pipe.unet)
        faults = self.unet_faults(pipe.unet.config, pipe.vae.config)
        faults += scheduler_faults(pipe.scheduler, PREDICTION_TYPES) + tokenizer_faults(pipe)
        width = pipe.text_encoder.config.hidden_size + pipe.text_encoder_2.config.hidden_size
        if width != pipe.unet.config.cross_attention_dim:
            wanted = pipe.unet.config.cross_attention_dim
            faults.append(f"cross-attention takes texts of width {wanted}, and the text encoders give {width}")
        pooled, wanted = pipe.text_encoder_2.config.projection_dim, _pooled_size(pipe.unet.config)
        if pooled != wanted:
            faults.append(f"the UNet takes a pooled text of width {wanted}, and the text encoder gives {pooled}")
        faults += masked_faults([(name, getattr(pipe, name)) for name in self.encoders])
        refuse("the pipeline", faults)

    def check_dtype(self, pipe: StableDiffusionXLPipeline, dtype: torch.dtype) -> None:
        if dtype == torch.float16 and pipe.vae.config.force_upcast:
            raise BackboneError(
                "this autoencoder of Stable Diffusion XL overflows in float16: choose bfloat16, or a model whose "
                "autoencoder is made for float16 (force_upcast is false in its configuration)"
            )

    def encode(self, pipe: StableDiffusionXLPipeline, ids: Tensor) -> Tensor:
        ids = ids.to(pipe.device)
        first, _ = clip_states(pipe.text_encoder, ids)
        second, pooled = clip_states(pipe.text_encoder_2, padded_for(ids, pipe.tokenizer, pipe.tokenizer_2))
        assert pooled is not None, "CLIPTextModelWithProjection pools"
        return pack(torch.cat([first, second], dim=-1), pooled)

    def empty(self, pipe: StableDiffusionXLPipeline, encoded: Tensor) -> Tensor:
        """Zeros, if the pipeline's configuration says so: Stable Diffusion XL was trained with them."""
        return torch.zeros_like(encoded) if pipe.config.force_zeros_for_empty_prompt else encoded

    def text_shape(self, pipe: StableDiffusionXLPipeline) -> tuple[int, int]:
        width = int(pipe.unet.config.cross_attention_dim)
        return pipe.tokenizer.model_max_length + packed_rows(_pooled_size(pipe.unet.config), width), width

    def projected_text(self, network: UNet2DConditionModel, text: Tensor) -> tuple[Tensor, Tensor]:
        hidden, _ = unpack(text, _pooled_size(network.config))
        return hidden, torch.ones(len(hidden), dtype=torch.bool)

    def predict(self, network: UNet2DConditionModel, noisy: Tensor, times: Tensor, text: Tensor) -> Tensor:
        hidden, pooled = unpack(text, _pooled_size(network.config))
        size = [_FACTOR * side for side in noisy.shape[-2:]]
        time_ids = torch.tensor([*size, 0, 0, *size], dtype=text.dtype, device=text.device).expand(len(noisy), -1)
        added = {"text_embeds": pooled, "time_ids": time_ids}
        prediction: Tensor = network(noisy, times, encoder_hidden_states=hidden, added_cond_kwargs=added).sample
        return prediction.float()

    def before_text(self, network: UNet2DConditionModel) -> list[nn.Module]:
        return [network.time_embedding, network.conv_in]

    def sampling_options(self, pipe: StableDiffusionXLPipeline, negative: Sequence[str]) -> dict[str, Any]:
        if pipe.config.force_zeros_for_empty_prompt and not any(negative):
            return {"negative_prompt": None}
        return super().sampling_options(pipe, negative)

    def read_lora_file(self, file: Path, network: UNet2DConditionModel) -> LoraFile:
        state, alphas, metadata = self.pipeline.lora_state_dict(
            str(file.parent),
            weight_name=file.name,
            use_safetensors=True,
            return_lora_metadata=True,
            unet_config=network.config,  # kohya's files number the blocks as the original code does
        )
        return state, split_alphas(self.part, alphas), dict(metadata or {})


def _pooled_size(config: Mapping[str, Any]) -> int:
    """Width of the pooled text that a UNet takes."""
    whole, each = config["projection_class_embeddings_input_dim"], config["addition_time_embed_dim"]
    return int(whole or 0) - _TIME_IDS * int(each or 0)
