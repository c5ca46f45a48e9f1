"""From finished parts to a folder that is shipped: a pipeline of diffusers, CLIP, the judge, the training log.

Weights are stored in float16, for half the size, and loaded in float32. That is the default of diffusers; transformers
takes the precision from ``config.json``, so that says float32.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderTiny,
    DiffusionPipeline,
    PixArtSigmaPipeline,
    PixArtTransformer2DModel,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from PIL import Image
from torch import nn
from transformers import (
    CLIPImageProcessor,
    CLIPModel,
    CLIPTextModel,
    CLIPTokenizer,
    T5EncoderModel,
    T5Tokenizer,
)

from spf_lite.evaluation.judge import JUDGE, Judge
from spf_lite.pretrain import clip as tiny_clip
from spf_lite.pretrain.unet import build_scheduler

LOG_LINES = 200
#: The parts whose logs are shipped with a model of Stable Diffusion's class.
LOGGED = ("autoencoder", "decoder", "clip", "unet", "judge", "preview")


def text_tower(clip: CLIPModel) -> CLIPTextModel:
    """CLIP's text tower as the model class that Stable Diffusion pipelines hold."""
    tower = CLIPTextModel(clip.config.text_config)
    tower.load_state_dict(clip.text_model.state_dict())
    return tower.eval()


def image_processor() -> CLIPImageProcessor:
    """How images enter the image tower: resized to 64 x 64 pixels, values in [-1, 1]."""
    size = tiny_clip.IMAGE_SIZE
    return CLIPImageProcessor(
        size={"height": size, "width": size},
        crop_size={"height": size, "width": size},
        do_center_crop=False,
        resample=Image.Resampling.BILINEAR,
        image_mean=list(tiny_clip.MEAN),
        image_std=list(tiny_clip.STD),
    )


def assemble(
    autoencoder: AutoencoderKL, clip: CLIPModel, tokenizer: CLIPTokenizer, unet: UNet2DConditionModel
) -> StableDiffusionPipeline:
    """The parts of Stable Diffusion's class as one pipeline."""
    return StableDiffusionPipeline(
        vae=autoencoder.eval(),
        text_encoder=text_tower(clip),
        tokenizer=tokenizer,
        unet=unet.eval(),
        scheduler=build_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def assemble_transformer(
    autoencoder: AutoencoderKL,
    transformer: PixArtTransformer2DModel,
    text_encoder: T5EncoderModel,
    tokenizer: T5Tokenizer,
) -> PixArtSigmaPipeline:
    """The parts of PixArt-Sigma's class as one pipeline."""
    return PixArtSigmaPipeline(
        tokenizer=tokenizer,
        text_encoder=text_encoder.eval(),
        vae=autoencoder.eval(),
        transformer=transformer.eval(),
        scheduler=build_scheduler(),
    )


def ship(pipeline: DiffusionPipeline, clip: CLIPModel, tokenizer: CLIPTokenizer, folder: Path) -> None:
    """Write a pipeline, and CLIP with its tokenizer, in float16; the modules are in float32 again afterwards."""
    modules = [part for part in pipeline.components.values() if isinstance(part, nn.Module)] + [clip]
    for module in modules:
        module.to(torch.float16)
    pipeline.save_pretrained(folder, safe_serialization=True)
    clip.save_pretrained(folder / "clip", safe_serialization=True)
    tokenizer.save_pretrained(folder / "clip")
    image_processor().save_pretrained(folder / "clip")
    for config in folder.glob("*/config.json"):  # diffusers writes down which folder a part came from
        entries = {key: value for key, value in json.loads(config.read_text()).items() if key != "_name_or_path"}
        config.write_text(json.dumps(entries, indent=2) + "\n")
    for part in ("text_encoder", "clip"):
        config = folder / part / "config.json"
        config.write_text(config.read_text().replace('"float16"', '"float32"'))
    for module in modules:
        module.to(torch.float32)


def ship_judge(judge: Judge, folder: Path, name: str = JUDGE) -> None:
    """Write the judge in float16 beside the pipeline."""
    judge.net.to(torch.float16)
    judge.save(folder / name)
    judge.net.to(torch.float32)


def ship_preview(preview: AutoencoderTiny, folder: Path) -> None:
    """Write the small decoder in float16 beside the pipeline."""
    preview.to(torch.float16).save_pretrained(folder / "preview")
    preview.to(torch.float32)
    config = folder / "preview" / "config.json"
    # diffusers writes the second entry and warns of it when it loads the model.
    unwanted = ("_name_or_path", "block_out_channels")
    entries = {key: value for key, value in json.loads(config.read_text()).items() if key not in unwanted}
    config.write_text(json.dumps(entries, indent=2) + "\n")


def _without_repeats(log: list[dict[str, float]]) -> list[dict[str, float]]:
    """The log without what a killed run repeated: of steps since its last checkpoint, only the later lines count."""
    kept: list[dict[str, float]] = []
    for line in log:
        while kept and kept[-1]["step"] >= line["step"]:
            kept.pop()
        kept.append(line)
    return kept


def ship_log(checkpoints: Path, folder: Path, parts: Sequence[str] = LOGGED) -> None:
    """Thin each part's training log to about :data:`LOG_LINES` lines and write them to ``training-log.jsonl``."""
    lines = []
    for part in parts:
        path = checkpoints / f"{part}.jsonl"
        if path.exists():
            log = _without_repeats([json.loads(line) for line in path.read_text().splitlines()])
            stride = max(1, len(log) // LOG_LINES)
            lines += [{"part": part, **line} for line in [*log[::stride], log[-1]]]
    (folder / "training-log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
