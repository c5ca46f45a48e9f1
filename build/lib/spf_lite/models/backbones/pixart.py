"""PixArt-Sigma: a diffusion transformer (DiT) whose cross-attention reads a T5 text encoder.

Padding is masked: the mask lies in rows behind the hidden states. The network predicts noise, and a variance that
training leaves alone. All its layers have one resolution, so that some of them, evenly spread, stand for all when
attention is recorded.

Source: Chen et al. 2024 (arXiv 2403.04692).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, PixArtSigmaPipeline, PixArtTransformer2DModel
from diffusers.models.attention_processor import Attention
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
from spf_lite.models.backbones.files import peft_files, read_peft_file
from spf_lite.models.backbones.packing import pack, packed_rows, unpack
from spf_lite.models.backbones.transformers import evenly_spread, full_side
from spf_lite.models.backbones.unet import CROSS_ATTENTION, PLAIN_PROCESSORS, PREDICTION_TYPES, TEXT_PROJECTIONS
from spf_lite.models.diffusion import scheduler_faults, scheduler_of
from spf_lite.models.source import Source
from spf_lite.models.tokenizer import Reader

#: Tokens of a text, as in the pipeline (``max_sequence_length``).
LENGTH = 300
_NETWORK = "PixArtTransformer2DModel"
_PARTS = {"transformer": _NETWORK, "vae": "AutoencoderKL", "text_encoder": "T5EncoderModel"}
#: Options of the transformer that have to stay at their value, with what others stand for.
_DEFAULTS: dict[str, tuple[object, str]] = {
    "norm_type": ("ada_norm_single", "another conditioning on the timestep"),
    "use_additional_conditions": (False, "the size of the picture as a condition, as in PixArt-Alpha"),
    "attention_type": ("default", "gated attention, as in GLIGEN"),
}


class PixArtSigma(Architecture):
    """PixArt-Sigma."""

    title = "PixArt-Sigma"
    pipeline = PixArtSigmaPipeline
    prefix = "PixArt"
    part = "transformer"
    encoders = ("text_encoder",)
    guidance_scale = 4.5
    lora_layers = {"cross-attention": CROSS_ATTENTION}
    text_projections = TEXT_PROJECTIONS
    processors = PLAIN_PROCESSORS

    def claims(self, network: nn.Module) -> bool:
        return isinstance(network, PixArtTransformer2DModel)

    def check_source(self, source: Source, index: Mapping[str, Any]) -> None:
        if (index.get("transformer") or [None, None])[1] == "Transformer2DModel":  # what its first files say
            index = {**index, "transformer": ["diffusers", _NETWORK]}
        faults = self.name_faults(index) + part_faults(index, _PARTS, ("unet", "text_encoder_2", "text_encoder_3"))
        if not faults:
            vae = source.part_config(AutoencoderKL, "vae")
            faults += _faults(source.part_config(PixArtTransformer2DModel, "transformer"), vae)
            faults += scheduler_faults(scheduler_of(source, index), PREDICTION_TYPES)
        refuse(f"{source.configs!r} ({index.get('_class_name')})", faults)

    def check_network(self, network: PixArtTransformer2DModel) -> None:
        check_not_compiled(network)
        refuse("the transformer", _faults(network.config, None))
        processor_faults(network.attn_processors, self.processors)

    def check_pipeline(self, pipe: PixArtSigmaPipeline) -> None:
        self.check_network(pipe.transformer)
        faults = _faults(pipe.transformer.config, pipe.vae.config) + scheduler_faults(pipe.scheduler, PREDICTION_TYPES)
        wanted, found = pipe.transformer.config.caption_channels, pipe.text_encoder.config.d_model
        if wanted != found:
            faults.append(f"the transformer takes texts of width {wanted}, and the text encoder gives {found}")
        refuse("the pipeline", faults)

    def size_multiple(self, config: Mapping[str, Any]) -> int:
        return int(config["patch_size"])

    def attention_resolution(self, config: Mapping[str, Any], wanted: int) -> int:
        return full_side(config)

    def readers(self, pipe: PixArtSigmaPipeline) -> tuple[Reader, ...]:
        return (Reader(pipe.tokenizer, LENGTH, attends_to_padding=False, lower_case=True),)

    @torch.no_grad()
    def encode(self, pipe: PixArtSigmaPipeline, ids: Tensor) -> Tensor:
        ids = ids.to(pipe.device)
        mask = (ids != pipe.tokenizer.pad_token_id).long()
        return pack(pipe.text_encoder(ids, attention_mask=mask)[0], mask)

    def text_shape(self, pipe: PixArtSigmaPipeline) -> tuple[int, int]:
        width = int(pipe.transformer.config.caption_channels)
        return LENGTH + packed_rows(LENGTH, width), width

    @torch.no_grad()
    def projected_text(self, network: PixArtTransformer2DModel, text: Tensor) -> tuple[Tensor, Tensor]:
        hidden, mask = unpack(text, LENGTH)
        projected: Tensor = network.caption_projection(hidden[None].to(network.device, network.dtype))[0]
        return projected.float().cpu(), mask.bool()

    def predict(self, network: PixArtTransformer2DModel, noisy: Tensor, times: Tensor, text: Tensor) -> Tensor:
        hidden, mask = unpack(text, LENGTH)
        prediction: Tensor = network(
            noisy,
            encoder_hidden_states=hidden,
            timestep=times.expand(len(noisy)),
            encoder_attention_mask=mask,
            added_cond_kwargs={"resolution": None, "aspect_ratio": None},
        ).sample
        return prediction[:, : noisy.shape[1]].float()  # the variance lies behind

    def before_text(self, network: PixArtTransformer2DModel) -> list[nn.Module]:
        first = network.transformer_blocks[0]
        return [network.pos_embed, network.adaln_single, first.norm1, first.attn1]

    def recorded_layers(self, network: PixArtTransformer2DModel) -> dict[str, Attention]:
        chosen = evenly_spread(len(network.transformer_blocks))
        return {f"transformer_blocks.{k}.attn2": network.transformer_blocks[k].attn2 for k in chosen}

    def sampling_options(self, pipe: PixArtSigmaPipeline, negative: Sequence[str]) -> dict[str, Any]:
        """The portrait has the size that was asked for, and its prompt is read as the training texts are."""
        return {"negative_prompt": list(negative), "use_resolution_binning": False, "clean_caption": False}

    def read_lora_file(self, file: Path, network: PixArtTransformer2DModel) -> LoraFile:
        return read_peft_file(file)

    def adapter_files(self, layers: Mapping[str, Tensor], metadata: Mapping[str, str]) -> dict[str, bytes]:
        """Files of peft: diffusers' pipeline of this class reads no LoRA itself."""
        return peft_files(layers, metadata)

    def loading_hint(self) -> str:
        return "`PeftModel.from_pretrained(pipe.transformer, folder)` of peft loads it."


def _faults(config: Mapping[str, Any], vae: Mapping[str, Any] | None) -> list[str]:
    """What of a transformer's configuration is not supported; what a file leaves out has diffusers' default."""
    # Left out, the option depends on the size: of 128 latent pixels a side it is PixArt-Alpha's.
    given = config.get("use_additional_conditions")
    assumed = config.get("sample_size", 128) == 128 if given is None else given
    faults = option_faults("the transformer", {**config, "use_additional_conditions": assumed}, _DEFAULTS)
    if config.get("caption_channels") is None:
        faults.append("the transformer has no caption_channels: no text reaches it")
    if vae is None:
        return faults
    variance = config.get("out_channels", 8) == 2 * vae.get("latent_channels", 4)
    return faults + latent_faults("the transformer", config, vae, learned_variance=variance)
