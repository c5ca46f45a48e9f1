"""Tiny random models of the supported classes, made on the spot, and one way through the library that all of them go.

Each folder holds a whole pipeline for 64-pixel portraits with 8 x 8 latents, a CLIP model, and an untrained judge.
"""

import json
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, DiffusionPipeline
from PIL import Image
from torch import Tensor
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPTokenizer, T5Config, T5EncoderModel, T5Tokenizer

from spf_lite.choices import KINDS
from spf_lite.config import TrainConfig
from spf_lite.data.sets.custom_set import CustomSet
from spf_lite.data.texts import encode_texts
from spf_lite.evaluation.judge import Judge, JudgeNet
from spf_lite.evaluation.measuring import measure
from spf_lite.method.paths import reference_path
from spf_lite.models.adapters.lora import load_adapter
from spf_lite.models.adapters.trainable import make_trainable
from spf_lite.models.backbone import Backbone, load
from spf_lite.models.running.sampling import sample
from spf_lite.pretrain.ship import image_processor
from spf_lite.tiny_world.portraits import all_phrases
from spf_lite.training.trainer import DualPathTrainer
from tests.processes import command, ended_well, killed_while_training, ranks, run_command

SIZES = {"intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
#: Every term of the method, PureCC among them.
EVERY_TERM = TrainConfig(
    stage1_steps=1,
    stage2_steps=3,
    batch_size=2,
    rank=2,
    checkpoint_every=1,
    weight_text=1.0,
    weight_fine=1.0,
    weight_enhancement=1.0,
    weight_output=1.0,
    weight_reconstruction=1.0,
    weight_purecc=1.0,
    reference_portraits=2,
    anchor_share=0.5,
    trusted=1.0,
)
PROMPTS = ["a person, red short hair", "a person, pale skin, sunglasses"]


def text_config(tokenizer: CLIPTokenizer, width: int, pooled: int) -> CLIPTextConfig:
    ends = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    return CLIPTextConfig(
        hidden_size=width,
        vocab_size=len(tokenizer),
        max_position_embeddings=tokenizer.model_max_length,
        projection_dim=pooled,
        **SIZES,
        **ends,
    )


def second_tokenizer(tokenizer: CLIPTokenizer, folder: Path) -> CLIPTokenizer:
    """The same tokens and another PAD token, as in Stable Diffusion XL and 3."""
    tokenizer.save_pretrained(folder)
    return CLIPTokenizer.from_pretrained(folder, pad_token="!")


def t5_tokenizer() -> T5Tokenizer:
    """Whole words of the tiny world, and letters for all others."""
    words = sorted({word for phrase in all_phrases() for word in phrase.replace("-", " ").split()})
    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *((f"▁{word}", -1.0) for word in words), (",", -1.0)]
    vocabulary += [(letter, -9.0) for letter in "▁abcdefghijklmnopqrstuvwxyz-"]
    return T5Tokenizer(vocab=vocabulary, extra_ids=0, model_max_length=512)


def t5_encoder(tokenizer: T5Tokenizer, width: int) -> T5EncoderModel:
    config = T5Config(vocab_size=len(tokenizer), d_model=width, d_kv=4, d_ff=16, num_layers=1, num_heads=2)
    return T5EncoderModel(config)


def autoencoder(**options: Any) -> AutoencoderKL:
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 8, 8, 8),
        norm_num_groups=4,
        sample_size=64,
        mid_block_add_attention=False,
        **options,
    )


def write(pipe: DiffusionPipeline, folder: Path, tokenizer: CLIPTokenizer) -> Path:
    """Write a pipeline with a CLIP model and a judge beside it."""
    pipe.save_pretrained(folder)
    text = text_config(tokenizer, 16, 24).to_dict()
    vision = {**SIZES, "hidden_size": 16, "image_size": 32, "patch_size": 8, "projection_dim": 24}
    clip = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=24))
    for part in (clip, tokenizer, image_processor()):
        part.save_pretrained(folder / "clip")
    Judge(JudgeNet(width=8)).save(folder / "judge")
    return folder


def few(custom_set: CustomSet) -> CustomSet:
    """Three portraits of a set."""
    return CustomSet(custom_set.folder, custom_set.examples[:3], custom_set.digest)


def check_two_processes(folder: Path, custom_folder: Path, work: Path) -> None:
    """Two processes have the portraits and the losses of one, pure pairs among them, also with a sharded network.

    Args:
        folder: of a model.
        custom_folder: of a custom set.
        work: for the runs.
    """
    changes = {
        "stage2_steps": 3,
        "batch_size": 2,
        "rank": 2,
        "layers": "cross-attention",
        "reference_portraits": 2,
        "pure_pairs": 2,
        "rewrite_limit": 0,
        "contrast": 0,
        "checkpoint_every": 1,
    }
    settings = [f"--set={name}={value}" for name, value in changes.items()]
    train = ["train", str(custom_folder), "--model", str(folder), "--method", "pure-pairs", *settings]
    said = work / "said"
    alone = command([*train[:2], str(work / "one"), *train[2:]], said)
    together = ranks(run_command, [*train[:2], str(work / "two"), *train[2:]], output=said)
    sharded = ranks(run_command, [*train[:2], str(work / "sharded"), *train[2:], "--shard"], output=said)
    for process in (alone, *together, *sharded):
        ended_well(process, said)
    logs = {name: (work / name / "log.jsonl").read_text().splitlines() for name in ("one", "two", "sharded")}
    assert {len(lines) for lines in logs.values()} == {3}, "only one process writes"
    one, *others = ([json.loads(line) for line in lines] for lines in logs.values())
    for name in ("loss", "denoise", "output"):
        for other in others:
            assert [line[name] for line in other] == pytest.approx([line[name] for line in one], abs=1e-5)


def go_the_whole_way(
    folder: Path,
    custom_set: CustomSet,
    work: Path,
    paint_plain: Callable[[Path, Path], list[Image.Image]],
    config: TrainConfig = EVERY_TERM,
) -> Backbone:
    """Load, train, be killed, resume, export, paint with plain diffusers, measure.

    Args:
        folder: of a model with a CLIP model and a judge.
        custom_set: to train on.
        work: for the runs.
        paint_plain: from the model's and the adapter's folder to pictures of :data:`PROMPTS`, without this library:
            seeds 5 and 6, two steps, guidance 2.
        config: of the run.

    Returns:
        the model with the exported adapter.
    """
    custom_set = few(custom_set)
    whole = DualPathTrainer(load(str(folder)), custom_set, config)
    history = whole.fit(progress=False).history
    terms = {"denoise", "text", "fine", "output", "reconstruction", "enhancement", "purecc"}
    assert terms <= set(history[-1]) and all(history[-1][name] >= 0 for name in terms)
    _check_the_reference(whole.backbone, load(str(folder)), whole)

    killed_while_training(folder, custom_set, config, work / "run", after=2, output=work / "said")
    assert torch.load(work / "run" / "checkpoint.pt", weights_only=True)["state"]["step"] == 2, "the third step is lost"
    resumed = DualPathTrainer(load(str(folder)), custom_set, config, work / "run")
    assert [line["loss"] for line in resumed.fit(resume=True, progress=False).history] == [
        line["loss"] for line in history
    ]
    for name, value in whole.trained.state().items():
        assert torch.equal(value, resumed.trained.state()[name]), name

    resumed.export(work / "adapter")
    backbone = load(str(folder))
    before = paint(backbone)
    load_adapter(backbone, work / "adapter")
    here, plain = paint(backbone), paint_plain(folder, work / "adapter")
    assert [picture.tobytes() for picture in plain] == [picture.tobytes() for picture in here]
    assert [picture.tobytes() for picture in before] != [picture.tobytes() for picture in here]

    report = measure(backbone, "sunglasses", prompts=2, steps=1, forms=("full",))
    assert {"pure", "target found", "CLIP-T", "CLIP-I"} <= set(report.estimates())
    return backbone


def paint(backbone: Backbone) -> list[Image.Image]:
    return sample(backbone, PROMPTS, seeds=[5, 6], steps=2, guidance_scale=2.0)


def plain_options() -> dict[str, Any]:
    """What the plain pipeline is called with to paint what :func:`paint` does."""
    return {
        "prompt": PROMPTS,
        "num_inference_steps": 2,
        "guidance_scale": 2.0,
        "generator": [torch.Generator().manual_seed(seed) for seed in (5, 6)],
    }


def _check_the_reference(backbone: Backbone, fresh: Backbone, trainer: DualPathTrainer) -> None:
    """The reference path is the untouched model, with the adapter on it."""
    item = trainer.custom[0]
    inputs = item.latents[None], torch.tensor([600]), item.base[None]
    with torch.no_grad():
        expected: Tensor = reference_path(fresh, *inputs).prediction
        found = reference_path(backbone, *inputs).prediction
    assert torch.equal(found, expected)


def check_every_kind(folder: Path) -> None:
    """LoRA, AdaLoRA and the weights themselves: each is taken back for the reference, and exported as a plain LoRA."""
    for kind in KINDS:
        backbone = load(str(folder))
        text = encode_texts(backbone, ["a person, red short hair"])
        noisy = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))

        def predict(of: Backbone, noisy: Tensor = noisy, text: Tensor = text) -> Tensor:
            with torch.no_grad():
                return of.predict(of.network, noisy, torch.tensor([300]), text)

        untouched = predict(backbone)
        trained = make_trainable(kind, backbone.network, rank=2, seed=0, steps=10)
        with torch.no_grad():
            for parameter in trained.parameters:
                parameter.add_(0.1)
        tuned = predict(backbone)
        with trained.reference():
            assert torch.equal(predict(backbone), untouched), kind
        assert not torch.allclose(tuned, untouched, atol=1e-3), kind
        files = backbone.architecture.adapter_files(trained.lora_layers(), {})
        with TemporaryDirectory() as written:
            for name, content in files.items():
                (Path(written) / name).write_bytes(content)
            fresh = load(str(folder))
            load_adapter(fresh, written)
            assert torch.allclose(predict(fresh), tuned, atol=1e-4), kind
            load_adapter(fresh, written, strength=0.0)
            assert torch.equal(predict(fresh), untouched), kind


def train_on_pure_pairs(folder: Path, custom_set: CustomSet) -> None:
    """One step of the recommended recipe's terms, with 16-bit weights, autocast, and gradient checkpointing."""
    config = TrainConfig(
        stage1_steps=0,
        stage2_steps=1,
        batch_size=2,
        rank=2,
        weight_output=1.0,
        weight_text=0.5,
        weight_reconstruction=1.0,
        anchor_share=0.5,
        reference_portraits=2,
        reference_share=0.0,
        map_source="surprise",
        fill_captions=True,
        pure_pairs=2,
        mixed_precision="bf16",
        gradient_checkpointing=True,
    )
    backbone = load(str(folder), dtype=torch.bfloat16)
    trainer = DualPathTrainer(backbone, few(custom_set), config)
    (line,) = trainer.fit(progress=False).history
    assert torch.tensor(line["loss"]).isfinite() and len(trainer.custom) == 2
    assert all(parameter.dtype == torch.float32 for parameter in trainer.parameters)
    assert any(bool(parameter.grad.abs().sum() > 0) for parameter in trainer.parameters if parameter.grad is not None)
