"""Stable Diffusion 3: a transformer with joint attention (MM-DiT) that predicts the velocity of a rectified flow.

Texts are read by two CLIP text encoders and by T5, which may be missing. The tokens of CLIP and those of T5 are columns
of one attention, in which the picture's positions attend to each other and to all tokens. There is no cross-attention:
the recorded map is the softmax over the columns of the text alone,

.. math:: A = \\mathrm{softmax}\\big( Q K_\\mathrm{text}^\\top / \\sqrt d \\big)

the share of each token in what a position reads of the text, which is what a map of cross-attention says. Fused
attention computes the output as before. The pooled CLIP embedding lies in rows behind the hidden states.

Source: Esser et al. 2024 (arXiv 2403.03206).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, SD3Transformer2DModel, StableDiffusion3Pipeline
from diffusers.models.attention_processor import Attention, JointAttnProcessor2_0
from torch import Tensor, nn

from spf_lite.models.backbones.architecture import Architecture, LoraFile
from spf_lite.models.backbones.checks import check_not_compiled, latent_faults, part_faults, processor_faults, refuse
from spf_lite.models.backbones.clip_texts import clip_states, masked_faults, padded_for, tokenizer_faults
from spf_lite.models.backbones.files import diffusers_lora_bytes
from spf_lite.models.backbones.packing import pack, packed_rows, unpack
from spf_lite.models.backbones.recording import LayerRecord, Recorder, by_head
from spf_lite.models.backbones.transformers import evenly_spread, full_side
from spf_lite.models.diffusion import FLOW, scheduler_faults, scheduler_of
from spf_lite.models.source import Source
from spf_lite.models.tokenizer import Reader

#: Tokens of T5, as in the pipeline (``max_sequence_length``). Without T5 the pipeline fills as many columns with zeros.
T5_LENGTH = 256
_PARTS = {
    "transformer": "SD3Transformer2DModel",
    "vae": "AutoencoderKL",
    "text_encoder": "CLIPTextModelWithProjection",
    "text_encoder_2": "CLIPTextModelWithProjection",
}
_T5 = "text_encoder_3"


class StableDiffusion3(Architecture):
    """Stable Diffusion 3 and 3.5."""

    title = "Stable Diffusion 3"
    pipeline = StableDiffusion3Pipeline
    prefix = "StableDiffusion3"
    part = "transformer"
    encoders = ("text_encoder", "text_encoder_2", _T5)
    guidance_scale = 7.0
    #: Like cross-attention's: the picture's queries, keys and values of the text, and the picture's output. The queries
    #: and the output serve the attention within the picture as well.
    lora_layers = {"cross-attention": ("attn.to_q", "attn.add_k_proj", "attn.add_v_proj", "attn.to_out.0")}
    text_projections = ()
    processors = (JointAttnProcessor2_0,)

    def claims(self, network: nn.Module) -> bool:
        return isinstance(network, SD3Transformer2DModel)

    def check_source(self, source: Source, index: Mapping[str, Any]) -> None:
        parts = _PARTS | ({_T5: "T5EncoderModel"} if (index.get(_T5) or [None])[0] else {})
        faults = self.name_faults(index) + part_faults(index, parts, ("unet",))
        if not faults:
            vae = source.part_config(AutoencoderKL, "vae")
            faults += _faults(source.part_config(SD3Transformer2DModel, "transformer"), vae)
            faults += scheduler_faults(scheduler_of(source, index), (FLOW,))
        refuse(f"{source.configs!r} ({index.get('_class_name')})", faults)

    def loading_options(self, index: Mapping[str, Any]) -> dict[str, Any]:
        """Without T5 if it is stored without it."""
        return {} if (index.get(_T5) or [None])[0] else {_T5: None, "tokenizer_3": None}

    def check_network(self, network: SD3Transformer2DModel) -> None:
        check_not_compiled(network)
        refuse("the transformer", _faults(network.config, None))
        processor_faults(network.attn_processors, self.processors)

    def check_pipeline(self, pipe: StableDiffusion3Pipeline) -> None:
        self.check_network(pipe.transformer)
        config = pipe.transformer.config
        faults = _faults(config, pipe.vae.config) + scheduler_faults(pipe.scheduler, (FLOW,)) + tokenizer_faults(pipe)
        clips = pipe.text_encoder.config, pipe.text_encoder_2.config
        width, pooled = sum(clip.hidden_size for clip in clips), sum(clip.projection_dim for clip in clips)
        if width > config.joint_attention_dim:
            faults.append(
                f"attention takes texts of width {config.joint_attention_dim}, and both CLIP encoders give {width}"
            )
        if pooled != config.pooled_projection_dim:
            wanted = config.pooled_projection_dim
            faults.append(f"the transformer takes a pooled text of width {wanted}, and the encoders give {pooled}")
        if pipe.text_encoder_3 is not None and (found := pipe.text_encoder_3.config.d_model) != width_of(pipe):
            faults.append(f"attention takes texts of width {width_of(pipe)}, and T5 gives {found}")
        faults += masked_faults([(name, getattr(pipe, name)) for name in self.encoders])
        refuse("the pipeline", faults)

    def size_multiple(self, config: Mapping[str, Any]) -> int:
        return int(config["patch_size"])

    def attention_resolution(self, config: Mapping[str, Any], wanted: int) -> int:
        return full_side(config)

    def readers(self, pipe: StableDiffusion3Pipeline) -> tuple[Reader, ...]:
        clip = Reader.of(pipe.tokenizer)
        return (clip,) if pipe.text_encoder_3 is None else (clip, Reader(pipe.tokenizer_3, T5_LENGTH))

    def blank_rows(self, pipe: StableDiffusion3Pipeline) -> int:
        return T5_LENGTH if pipe.text_encoder_3 is None else 0

    @torch.no_grad()
    def encode(self, pipe: StableDiffusion3Pipeline, ids: Tensor) -> Tensor:
        ids, width = ids.to(pipe.device), width_of(pipe)
        clip, t5 = ids.split([pipe.tokenizer.model_max_length, T5_LENGTH], dim=1)
        first, pooled = clip_states(pipe.text_encoder, clip)
        second, other = clip_states(pipe.text_encoder_2, padded_for(clip, pipe.tokenizer, pipe.tokenizer_2))
        assert pooled is not None and other is not None, "CLIPTextModelWithProjection pools"
        states = torch.cat([first, second], dim=-1)
        states = F.pad(states, (0, width - states.shape[-1])).float()
        if pipe.text_encoder_3 is None:
            further = states.new_zeros(len(ids), T5_LENGTH, width)
        else:
            further = pipe.text_encoder_3(t5)[0].float()
        return pack(torch.cat([states, further], dim=1), torch.cat([pooled, other], dim=-1))

    def text_shape(self, pipe: StableDiffusion3Pipeline) -> tuple[int, int]:
        pooled = packed_rows(int(pipe.transformer.config.pooled_projection_dim), width_of(pipe))
        return pipe.tokenizer.model_max_length + T5_LENGTH + pooled, width_of(pipe)

    def predict(self, network: SD3Transformer2DModel, noisy: Tensor, times: Tensor, text: Tensor) -> Tensor:
        hidden, pooled = unpack(text, int(network.config.pooled_projection_dim))
        prediction: Tensor = network(
            hidden_states=noisy,
            encoder_hidden_states=hidden,
            pooled_projections=pooled,
            timestep=times.expand(len(noisy)),
        ).sample
        return prediction.float()

    def before_text(self, network: SD3Transformer2DModel) -> list[nn.Module]:
        return [network.pos_embed, network.time_text_embed.timestep_embedder]

    def recorded_layers(self, network: SD3Transformer2DModel) -> dict[str, Attention]:
        chosen = evenly_spread(len(network.transformer_blocks))
        return {f"transformer_blocks.{k}.attn": network.transformer_blocks[k].attn for k in chosen}

    def recorder(
        self, name: str, original: Any, size: tuple[int, int], resolution: int, records: dict[str, LayerRecord]
    ) -> Recorder:
        return JointAttentionRecorder(name, original, size, resolution, records)

    def read_lora_file(self, file: Path, network: SD3Transformer2DModel) -> LoraFile:
        state, metadata = self.pipeline.lora_state_dict(
            str(file.parent), weight_name=file.name, use_safetensors=True, return_lora_metadata=True
        )
        return state, {}, dict(metadata or {})

    def adapter_files(self, layers: Mapping[str, Tensor], metadata: Mapping[str, str]) -> dict[str, bytes]:
        return diffusers_lora_bytes(self.pipeline, "transformer_lora_layers", layers, metadata)


class JointAttentionRecorder(Recorder):
    """Records the columns of the text in joint attention; the layer's own processor computes its output."""

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        **options: Any,
    ) -> Any:
        result = self.original(attn, hidden_states, encoder_hidden_states, attention_mask, **options)
        size = self.layer_size(hidden_states.shape[1])
        if size is None or encoder_hidden_states is None:
            return result
        queries = attn.to_q(hidden_states)
        query, key = by_head(queries, attn.heads), by_head(attn.add_k_proj(encoder_hidden_states), attn.heads)
        query = query if attn.norm_q is None else attn.norm_q(query)
        key = key if attn.norm_added_k is None else attn.norm_added_k(key)
        maps = ((query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)).softmax(dim=-1)
        self.records[self.name] = LayerRecord(size, hidden_states, queries, maps, result[0])
        return result


def width_of(pipe: StableDiffusion3Pipeline) -> int:
    """Width of a text's rows: T5's, which the states of both CLIP encoders are filled up to."""
    return int(pipe.transformer.config.joint_attention_dim)


def _faults(config: Mapping[str, Any], vae: Mapping[str, Any] | None) -> list[str]:
    """What of a transformer's configuration is not supported; what a file leaves out has diffusers' default."""
    config = {"in_channels": 16, "out_channels": 16, **config}
    return [] if vae is None else latent_faults("the transformer", config, vae, shifted=True)
