"""Random models and batches with the shapes of real ones: enough to measure what a training step costs."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderTiny,
    DDIMScheduler,
    DiffusionPipeline,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from torch import Tensor
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPTextModel

from spf_lite.data.batch import Batch
from spf_lite.models.backbone import Backbone
from spf_lite.models.backbones.registry import architecture_of
from spf_lite.models.clip import Clip
from spf_lite.models.specification import BackboneSpec


def random_sd15(tokenizer_of: Backbone, text_width: int = 768) -> Backbone:
    """Stable Diffusion 1.5, CLIP ViT-L/14 and TAESD with random weights: nothing is downloaded.

    Args:
        tokenizer_of: a backbone whose tokenizer is used; any will do.
        text_width: width of the text encoder's output.
    """
    unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=text_width)  # diffusers' defaults are SD 1.5's
    vae = random_autoencoder()
    text = CLIPTextConfig(hidden_size=text_width, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12)
    clip = random_clip(text)
    pipe = StableDiffusionPipeline(
        vae=vae,
        text_encoder=CLIPTextModel(text),
        tokenizer=tokenizer_of.pipe.tokenizer,
        unet=unet,
        scheduler=DDIMScheduler(
            beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, clip_sample=False, steps_offset=1
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    return random_backbone(pipe, clip)


def random_autoencoder(**options: Any) -> AutoencoderKL:
    """The autoencoder of Stable Diffusion, which other models have as well; options change it."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(128, 256, 512, 512),
        layers_per_block=2,
        **{"sample_size": 512, **options},
    )


def random_clip(text: CLIPTextConfig) -> CLIPModel:
    """CLIP ViT-L/14, with the sizes of a text encoder."""
    vision = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
    return CLIPModel(
        CLIPConfig(
            text_config={**text.to_dict(), "projection_dim": 768},
            vision_config={**vision, "image_size": 224, "patch_size": 14, "projection_dim": 768},
            projection_dim=768,
        )
    )


def random_backbone(pipe: DiffusionPipeline, clip: CLIPModel, latent_channels: int = 4) -> Backbone:
    """A backbone of a pipeline with random weights, frozen; TAESD decodes its previews.

    Args:
        pipe: of a supported class.
        clip: that measures.
        latent_channels: of its autoencoder.
    """
    architecture = architecture_of(pipe)
    pipe.set_progress_bar_config(disable=True)
    for module in (*architecture.modules(pipe).values(), clip):
        module.requires_grad_(False).eval()
    zero, one = torch.zeros(3, 1, 1), torch.ones(3, 1, 1)
    resolution = architecture.attention_resolution(architecture.network(pipe).config, 16)
    spec = BackboneSpec("random", "random", attention_resolution=resolution)
    backbone = Backbone(pipe, spec, Clip(clip, pipe.tokenizer, zero, one))
    # diffusers' defaults are TAESD's
    backbone.preview = AutoencoderTiny(latent_channels=latent_channels).requires_grad_(False).eval()
    return backbone


def random_batch(
    backbone: Backbone, size: int, phrases: int = 5, side: int | None = None, features: int | None = None
) -> Batch:
    """A random batch of custom portraits.

    Args:
        backbone: decides shapes and device.
        size: B, number of portraits.
        phrases: number of phrases in each base text.
        side: height and width of the latents; default: the network's ``sample_size``.
        features: width of CLIP's embeddings; default: that of the backbone's CLIP.
    """
    config, rows = backbone.network.config, backbone.architecture.text_shape(backbone.pipe)
    length = sum(reader.length for reader in backbone.readers) + backbone.architecture.blank_rows(backbone.pipe)
    side = side or config.sample_size
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    tokens = torch.arange(length).expand(size, -1)
    features = features or int(backbone.clip.model.config.projection_dim)
    return Batch(
        latents=normal(size, config.in_channels, side, side),
        base=normal(size, *rows),
        complete=normal(size, *rows),
        phrases=torch.rand(size, phrases, length, generator=generator),
        distances=torch.rand(size, phrases, generator=generator),
        base_tokens=tokens,
        complete_tokens=tokens,
        aligned=torch.ones(size, length),
        is_reference=torch.zeros(size, dtype=torch.bool),
        is_reconstruction=torch.zeros(size, dtype=torch.bool),
        is_plain=torch.zeros(size, dtype=torch.bool),
        target=torch.zeros(size, length),
        portrait_features=normal(size, features),
        target_features=normal(size, features),
        region=torch.ones(size, 1, side, side),
        acting=torch.zeros(size, 1, side, side),
    ).to(backbone.device)
