"""Random models with the shapes of Stable Diffusion XL, Stable Diffusion 3 and PixArt-Sigma, for counting memory.

Make them on the "meta" device, as :func:`shape_on_meta` does: with weights they take 10 to 30 GB.

Sources of the shapes: Podell et al. 2023 (arXiv 2307.01952), Esser et al. 2024 (arXiv 2403.03206), Chen et al. 2024
(arXiv 2403.04692), and diffusers' scripts that convert the published checkpoints.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from diffusers import (
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
    PixArtSigmaPipeline,
    PixArtTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

from spf_lite.models.adapters.trainable import Lora
from spf_lite.models.backbone import Backbone
from spf_lite.profiling.random_models import random_autoencoder, random_backbone, random_clip, random_sd15


def _clip_l() -> CLIPTextConfig:
    """The text encoder of CLIP ViT-L/14."""
    return CLIPTextConfig(
        hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12, projection_dim=768
    )


def _clip_g() -> CLIPTextConfig:
    """The text encoder of OpenCLIP ViT-bigG/14."""
    return CLIPTextConfig(
        hidden_size=1280, intermediate_size=5120, num_hidden_layers=32, num_attention_heads=20, projection_dim=1280
    )


def _t5() -> T5EncoderModel:
    """The encoder of T5 v1.1 XXL."""
    return T5EncoderModel(
        T5Config(d_model=4096, d_kv=64, d_ff=10240, num_layers=24, num_heads=64, feed_forward_proj="gated-gelu")
    )


def random_sdxl(tokenizer_of: Backbone) -> Backbone:
    """Stable Diffusion XL at 1,024 pixels with random weights.

    Args:
        tokenizer_of: a backbone whose tokenizer is used; any will do.
    """
    tokenizer = tokenizer_of.pipe.tokenizer
    unet = UNet2DConditionModel(
        sample_size=128,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(320, 640, 1280),
        transformer_layers_per_block=(1, 2, 10),
        attention_head_dim=(5, 10, 20),
        cross_attention_dim=2048,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=2816,
    )
    pipe = StableDiffusionXLPipeline(
        vae=random_autoencoder(sample_size=1024),
        text_encoder=CLIPTextModel(_clip_l()),
        text_encoder_2=CLIPTextModelWithProjection(_clip_g()),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        unet=unet,
        scheduler=DDIMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, steps_offset=1),
        add_watermarker=False,
    )
    return random_backbone(pipe, random_clip(_clip_l()))


def random_sd3(tokenizer_of: Backbone) -> Backbone:
    """Stable Diffusion 3 medium at 1,024 pixels, T5 included, with random weights; arguments as in
    :func:`random_sdxl`."""
    tokenizer = tokenizer_of.pipe.tokenizer
    transformer = SD3Transformer2DModel(
        sample_size=128,
        num_layers=24,
        num_attention_heads=24,
        caption_projection_dim=1536,
        pos_embed_max_size=192,
    )
    pipe = StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=random_autoencoder(sample_size=1024, latent_channels=16, shift_factor=0.0609, scaling_factor=1.5305),
        text_encoder=CLIPTextModelWithProjection(_clip_l()),
        tokenizer=tokenizer,
        text_encoder_2=CLIPTextModelWithProjection(_clip_g()),
        tokenizer_2=tokenizer,
        text_encoder_3=_t5(),
        tokenizer_3=T5Tokenizer(),
    )
    return random_backbone(pipe, random_clip(_clip_l()), latent_channels=16)


def random_pixart(tokenizer_of: Backbone) -> Backbone:
    """PixArt-Sigma XL/2 at 1,024 pixels, T5 included, with random weights; arguments as in :func:`random_sdxl`."""
    pipe = PixArtSigmaPipeline(
        tokenizer=T5Tokenizer(),
        text_encoder=_t5(),
        vae=random_autoencoder(sample_size=1024),
        transformer=PixArtTransformer2DModel(caption_channels=4096, use_additional_conditions=False),  # XL/2's defaults
        scheduler=DDIMScheduler(beta_schedule="linear"),
    )
    return random_backbone(pipe, random_clip(_clip_l()))


#: Shapes by name.
SHAPES: dict[str, Callable[[Backbone], Backbone]] = {
    "sd15": random_sd15,
    "sdxl": random_sdxl,
    "sd3": random_sd3,
    "pixart-sigma": random_pixart,
}


def shape_on_meta(name: str, tokenizer_of: Backbone, dtype: torch.dtype = torch.float32, rank: int = 16) -> Backbone:
    """A model of one of :data:`SHAPES` with a LoRA adapter on the meta device; it takes next to no memory.

    Args:
        name: of the shape.
        tokenizer_of: a backbone whose tokenizer is used; any will do.
        dtype: of the frozen weights; adapter and CLIP are float32.
        rank: of the adapter.

    Raises:
        ValueError: for another name.
    """
    backbone = meta_shape(name, tokenizer_of, dtype)
    backbone.trainable = Lora(backbone.network, rank, seed=0)
    return backbone


def meta_shape(name: str, tokenizer_of: Backbone, dtype: torch.dtype = torch.float32) -> Backbone:
    """The same without an adapter; arguments and errors as in :func:`shape_on_meta`."""
    if name not in SHAPES:
        raise ValueError(f"shape {name!r}: expected one of {', '.join(SHAPES)}")
    with torch.device("meta"):
        backbone = SHAPES[name](tokenizer_of)
    for module in backbone.architecture.modules(backbone.pipe).values():
        torch.nn.Module.to(module, dtype)
    return backbone
