"""The way back of ``from_single_file``: a pipeline's weights in the layout of the original code.

The names are those that ``diffusers.loaders.single_file_utils`` looks for.
"""

import re
from collections.abc import Mapping

import torch
from diffusers import DiffusionPipeline
from torch import Tensor

State = dict[str, Tensor]

_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
_UNET = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "mid_block.attentions.0": "middle_block.1",
}
_VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
_OPEN_CLIP = {
    "encoder.layers.": "transformer.resblocks.",
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
    "embeddings.token_embedding": "token_embedding",
    "embeddings.position_embedding.weight": "positional_embedding",
    "final_layer_norm": "ln_final",
}
_SD3 = {
    "pos_embed.pos_embed": "pos_embed",
    "pos_embed.proj": "x_embedder.proj",
    "time_text_embed.timestep_embedder.linear_1": "t_embedder.mlp.0",
    "time_text_embed.timestep_embedder.linear_2": "t_embedder.mlp.2",
    "time_text_embed.text_embedder.linear_1": "y_embedder.mlp.0",
    "time_text_embed.text_embedder.linear_2": "y_embedder.mlp.2",
    "proj_out": "final_layer.linear",
    "norm_out.linear": "final_layer.adaLN_modulation.1",
}
_SD3_BLOCK = {
    "attn.norm_q": "x_block.attn.ln_q",
    "attn.norm_k": "x_block.attn.ln_k",
    "attn.norm_added_q": "context_block.attn.ln_q",
    "attn.norm_added_k": "context_block.attn.ln_k",
    "attn.to_out.0": "x_block.attn.proj",
    "attn.to_add_out": "context_block.attn.proj",
    "attn2.norm_q": "x_block.attn2.ln_q",
    "attn2.norm_k": "x_block.attn2.ln_k",
    "attn2.to_out.0": "x_block.attn2.proj",
    "norm1.linear": "x_block.adaLN_modulation.1",
    "norm1_context.linear": "context_block.adaLN_modulation.1",
    "ff.net.0.proj": "x_block.mlp.fc1",
    "ff.net.2": "x_block.mlp.fc2",
    "ff_context.net.0.proj": "context_block.mlp.fc1",
    "ff_context.net.2": "context_block.mlp.fc2",
}
#: Queries, keys and values that lie in one matrix.
_SD3_JOINT = {
    "x_block.attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "context_block.attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    "x_block.attn2.qkv": ("attn2.to_q", "attn2.to_k", "attn2.to_v"),
}


def stable_diffusion(pipe: DiffusionPipeline) -> State:
    """Stable Diffusion 1."""
    text = _prefixed("cond_stage_model.transformer.text_model.", _bare(pipe.text_encoder.state_dict()))
    return {**_unet(pipe), **_autoencoder(pipe), **text}


def stable_diffusion_2(pipe: DiffusionPipeline) -> State:
    """Stable Diffusion 2. The text encoder is in the layout of OpenCLIP, with a last layer that nobody reads."""
    text = _prefixed("cond_stage_model.model.", _open_clip(_bare(pipe.text_encoder.state_dict())))
    first = "cond_stage_model.model.transformer.resblocks.0."
    unread = {key.replace(".0.", ".23.", 1): value.clone() for key, value in text.items() if key.startswith(first)}
    projection = torch.eye(pipe.text_encoder.config.hidden_size)
    return {**_unet(pipe), **_autoencoder(pipe), **text, **unread, "cond_stage_model.model.text_projection": projection}


def stable_diffusion_xl(pipe: DiffusionPipeline) -> State:
    """Stable Diffusion XL. Its second text encoder is in the layout of OpenCLIP."""
    first = _prefixed("conditioner.embedders.0.transformer.text_model.", _bare(pipe.text_encoder.state_dict()))
    second = _prefixed("conditioner.embedders.1.model.", _open_clip(_bare(pipe.text_encoder_2.state_dict())))
    return {**_unet(pipe), **_autoencoder(pipe), **first, **second}


def stable_diffusion_3(pipe: DiffusionPipeline) -> State:
    """Stable Diffusion 3. The file has no projection of CLIP-L: diffusers takes the identity."""
    texts: State = {}
    for encoder, name in ((pipe.text_encoder, "clip_l"), (pipe.text_encoder_2, "clip_g")):
        for key, value in encoder.state_dict().items():
            if name != "clip_l" or not key.startswith("text_projection"):
                texts[f"text_encoders.{name}.transformer.{key}"] = value
    if pipe.text_encoder_3 is not None:
        tied = "encoder.embed_tokens.weight"  # the same tensor as shared.weight
        t5 = {key: value for key, value in pipe.text_encoder_3.state_dict().items() if key != tied}
        texts |= _prefixed("text_encoders.t5xxl.transformer.", t5)
    return {**_sd3_transformer(pipe), **_autoencoder(pipe), **texts}


def _prefixed(prefix: str, state: Mapping[str, Tensor]) -> State:
    return {prefix + key: value for key, value in state.items()}


def _bare(state: Mapping[str, Tensor]) -> State:
    return {key.removeprefix("text_model."): value for key, value in state.items()}


def _renamed(key: str, names: Mapping[str, str]) -> str | None:
    """The key with the longest known beginning replaced; None: none is known."""
    for old in sorted(names, key=len, reverse=True):
        if key == old or key.startswith(old + "."):
            return names[old] + key[len(old) :]
    return None


def _unet(pipe: DiffusionPipeline) -> State:
    unet = pipe.unet
    per_block = unet.config.layers_per_block + 1
    names = dict(_UNET)
    for side, first, ldm in (("down_blocks", 1, "input_blocks"), ("up_blocks", 0, "output_blocks")):
        for number, block in enumerate(getattr(unet, side)):
            start = first + number * per_block
            attends = len(getattr(block, "attentions", ()))
            for layer in range(len(block.resnets)):
                for old, new in _RESNET.items():
                    names[f"{side}.{number}.resnets.{layer}.{old}"] = f"{ldm}.{start + layer}.0.{new}"
            for layer in range(attends):
                names[f"{side}.{number}.attentions.{layer}"] = f"{ldm}.{start + layer}.1"
            last = f"{ldm}.{start + per_block - 1}"
            names[f"{side}.{number}.downsamplers.0.conv"] = f"{last}.0.op"
            names[f"{side}.{number}.upsamplers.0.conv"] = f"{last}.{2 if attends else 1}.conv"
    for old, new in _RESNET.items():
        for layer in (0, 1):
            names[f"mid_block.resnets.{layer}.{old}"] = f"middle_block.{2 * layer}.{new}"
    return _prefixed("model.diffusion_model.", _all_renamed(unet.state_dict(), names))


def _all_renamed(state: Mapping[str, Tensor], names: Mapping[str, str]) -> State:
    found = {key: _renamed(key, names) for key in state}
    assert all(found.values()), [key for key, name in found.items() if name is None]
    return {str(name): state[key] for key, name in found.items()}


def _autoencoder(pipe: DiffusionPipeline) -> State:
    state, blocks, named = pipe.vae.state_dict(), len(pipe.vae.config.block_out_channels), {}
    for key, value in state.items():
        name = key.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
        name = re.sub(r"down_blocks\.(\d+)\.resnets", r"down.\1.block", name)
        name = re.sub(r"down_blocks\.(\d+)\.downsamplers\.0", r"down.\1.downsample", name)
        name = re.sub(r"up_blocks\.(\d+)\.resnets", lambda m: f"up.{blocks - 1 - int(m[1])}.block", name)
        name = re.sub(r"up_blocks\.(\d+)\.upsamplers\.0", lambda m: f"up.{blocks - 1 - int(m[1])}.upsample", name)
        name = re.sub(r"mid_block\.resnets\.(\d+)", lambda m: f"mid.block_{int(m[1]) + 1}", name)
        if "mid_block.attentions.0." in name:
            start, end = name.split("mid_block.attentions.0.")
            name = f"{start}mid.attn_1.{_renamed(end, _VAE_ATTENTION)}"
            value = value[:, :, None, None] if value.ndim == 2 else value  # a convolution with a kernel of 1
        named[name] = value
    return _prefixed("first_stage_model.", named)


def _open_clip(state: Mapping[str, Tensor]) -> State:
    named: State = {}
    joint: dict[str, dict[str, Tensor]] = {}
    for key, value in state.items():
        if match := re.match(r"encoder\.layers\.(\d+)\.self_attn\.([qkv])_proj\.(\w+)", key):
            joint.setdefault(f"transformer.resblocks.{match[1]}.attn.in_proj_{match[3]}", {})[match[2]] = value
        elif key == "text_projection.weight":
            named["text_projection"] = value.T.contiguous()
        else:
            for old, new in _OPEN_CLIP.items():
                key = key.replace(old, new)
            named[key] = value
    return named | {name: torch.cat([parts[letter] for letter in "qkv"]) for name, parts in joint.items()}


def _sd3_transformer(pipe: DiffusionPipeline) -> State:
    state = dict(pipe.transformer.state_dict())
    named: State = {}
    layers = pipe.transformer.config.num_layers
    for layer in range(layers):
        block = f"transformer_blocks.{layer}."
        own = {key.removeprefix(block): state.pop(key) for key in list(state) if key.startswith(block)}
        for joint, parts in _SD3_JOINT.items():
            for end in ("weight", "bias"):
                if f"{parts[0]}.{end}" in own:
                    stacked = torch.cat([own.pop(f"{part}.{end}") for part in parts])
                    named[f"joint_blocks.{layer}.{joint}.{end}"] = stacked
        for key, value in _all_renamed(own, _SD3_BLOCK).items():
            last = layer == layers - 1 and key.startswith("context_block.adaLN")
            named[f"joint_blocks.{layer}.{key}"] = _swapped(value) if last else value
    names = {**_SD3, "context_embedder": "context_embedder"}
    for key, value in _all_renamed(state, names).items():
        named[key] = _swapped(value) if key.startswith("final_layer.adaLN") else value
    return _prefixed("model.diffusion_model.", named)


def _swapped(value: Tensor) -> Tensor:
    """Scale and shift in the other order."""
    first, second = value.chunk(2)
    return torch.cat([second, first])
