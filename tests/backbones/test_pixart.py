"""PixArt-Sigma: a transformer with cross-attention, T5, masked padding and a learned variance."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, PixArtSigmaPipeline, PixArtTransformer2DModel
from peft import LoraConfig, PeftModel, get_peft_model
from PIL import Image
from transformers import CLIPTokenizer

from spf_lite.config import TrainConfig
from spf_lite.data.sets.custom_set import CustomSet
from spf_lite.data.texts import encode_texts, text_pair
from spf_lite.method.attention import record
from spf_lite.method.contrast import contrast_directions
from spf_lite.models.adapters.lora_file import read_lora
from spf_lite.models.adapters.trainable import Lora, make_trainable
from spf_lite.models.backbone import load
from spf_lite.models.backbones.pixart import LENGTH, PixArtSigma
from spf_lite.models.errors import BackboneError
from spf_lite.models.tokenizer import PromptTooLongError
from spf_lite.training.trainer import DualPathTrainer

from ..models.conftest import without_weights as without_tensors
from .conftest import (
    autoencoder,
    check_every_kind,
    check_two_processes,
    few,
    go_the_whole_way,
    plain_options,
    t5_encoder,
    t5_tokenizer,
    train_on_pure_pairs,
    write,
)

WIDTH = 16


def transformer(**options: Any) -> PixArtTransformer2DModel:
    usual: dict[str, Any] = {
        "num_attention_heads": 2,
        "attention_head_dim": 8,
        "in_channels": 4,
        "out_channels": 8,
        "num_layers": 2,
        "cross_attention_dim": 16,
        "sample_size": 8,
        "patch_size": 2,
        "caption_channels": WIDTH,
        "use_additional_conditions": False,
    }
    return PixArtTransformer2DModel(**{**usual, **options})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tokenizer: CLIPTokenizer) -> Path:
    torch.manual_seed(0)
    t5 = t5_tokenizer()
    pipe = PixArtSigmaPipeline(
        tokenizer=t5,
        text_encoder=t5_encoder(t5, WIDTH),
        vae=autoencoder(),
        transformer=transformer(),
        scheduler=DPMSolverMultistepScheduler(beta_start=0.0001, beta_end=0.02),
    )
    return write(pipe, tmp_path_factory.mktemp("pixart") / "model", tokenizer)


def paint_plain(folder: Path, adapter: Path) -> list[Image.Image]:
    pipe = PixArtSigmaPipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    pipe.transformer = PeftModel.from_pretrained(pipe.transformer, adapter).base_model.model
    options = {"use_resolution_binning": False, "clean_caption": False}
    images: list[Image.Image] = pipe(**plain_options(), **options).images
    return images


def test_the_whole_way(folder: Path, custom_set: CustomSet, tmp_path: Path) -> None:
    backbone = go_the_whole_way(folder, custom_set, tmp_path, paint_plain)
    assert isinstance(backbone.architecture, PixArtSigma)


@pytest.mark.usefixtures("fresh_accelerate")
def test_pure_pairs_in_16_bits_with_checkpointing(folder: Path, custom_set: CustomSet) -> None:
    train_on_pure_pairs(folder, custom_set)


def test_two_processes_have_the_losses_of_one(folder: Path, custom_folder: Path, tmp_path: Path) -> None:
    check_two_processes(folder, custom_folder, tmp_path)


def test_every_kind_of_training_is_taken_back_and_exported(folder: Path) -> None:
    check_every_kind(folder)


def test_texts_are_encoded_as_the_pipeline_encodes_them(folder: Path) -> None:
    backbone = load(str(folder))
    texts = ["A Person, sunglasses", "a person"]
    hidden, mask, *_ = backbone.pipe.encode_prompt(texts, do_classifier_free_guidance=False, device="cpu")
    found = encode_texts(backbone, texts)
    assert found.shape == (2, *backbone.architecture.text_shape(backbone.pipe))
    assert torch.equal(found[:, :LENGTH], hidden)
    rows, read = backbone.architecture.projected_text(backbone.network, found[0])
    assert torch.equal(read, mask[0].bool()) and rows.shape == (LENGTH, 16)
    with pytest.raises(PromptTooLongError, match="the text encoder takes 300"):
        encode_texts(backbone, ["a " * 300])


def test_phrases_have_maps_and_padding_has_none(folder: Path) -> None:
    backbone = load(str(folder))
    network, pair = backbone.network, text_pair(backbone, "a person, red short hair", "sunglasses")
    assert [[*phrase.tokens] for phrase in pair.phrases] == [[0, 1], [3, 4, 5]] and pair.target.tokens == (7,)
    assert pair.alignment == (*((k, k) for k in range(6)), (6, 8)), "padding is masked, and not aligned"
    inputs = torch.randn(1, 4, 8, 4), torch.tensor([10]), encode_texts(backbone, [pair.base_text])
    with torch.no_grad():
        alone = backbone.predict(network, *inputs)
        with record(network, (8, 4), backbone.spec.attention_resolution) as layers:
            recorded = backbone.predict(network, *inputs)
    assert torch.allclose(alone, recorded, atol=1e-5) and alone.shape == (1, 4, 8, 4)
    assert set(layers) == {"transformer_blocks.0.attn2", "transformer_blocks.1.attn2"}
    for layer in layers.values():
        assert layer.size == (4, 2) and layer.maps.shape == (1, 2, 8, LENGTH)
        assert layer.maps[..., 7:].max() == 0 and torch.allclose(layer.maps.sum(dim=-1), torch.ones(1, 2, 8))


def test_factors_start_along_what_keys_read(folder: Path, custom_set: CustomSet) -> None:
    backbone = load(str(folder))
    config = TrainConfig(stage1_steps=0, stage2_steps=1, batch_size=2, rank=2, contrast=3.0, weight_output=1.0)
    trainer = DualPathTrainer(backbone, few(custom_set), config)
    assert isinstance(trainer.trained, Lora)
    trainer.fit(progress=False)
    rows = contrast_directions(
        trainer.custom,
        trainer.passes.empty,
        2,
        lambda text: backbone.architecture.projected_text(backbone.network, text),
    )
    assert rows.shape == (2, 16) and rows.isfinite().all()


def test_what_plain_peft_has_trained_is_read_with_its_scale(folder: Path, tmp_path: Path) -> None:
    network = load(str(folder)).network
    options = LoraConfig(r=2, lora_alpha=6, target_modules=["attn2.to_k"], init_lora_weights=False)
    get_peft_model(network, options).save_pretrained(tmp_path)
    fresh = load(str(folder)).network
    found = read_lora(tmp_path, fresh)
    assert set(found) == {f"transformer_blocks.{k}.attn2.to_k" for k in (0, 1)}
    for name, pair in found.items():
        trained = network.get_submodule(name)
        change = 3 * trained.lora_B["default"].weight @ trained.lora_A["default"].weight
        assert torch.allclose(pair.up @ pair.down, change, atol=1e-6)


def test_resnets_are_refused_by_name(folder: Path) -> None:
    with pytest.raises(BackboneError, match="PixArt-Sigma has no resnets to train: set layers=cross-attention"):
        make_trainable("lora", load(str(folder)).network, rank=2, seed=0, steps=10, layers="resnets")


INDEX, NETWORK = "model_index.json", "transformer/config.json"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({INDEX: {"_class_name": "PixArtAlphaPipeline"}}, "the pipeline is PixArtAlphaPipeline, supported is PixArtS"),
        ({NETWORK: {"use_additional_conditions": True}}, "use_additional_conditions is True .*PixArt-Alpha"),
        ({NETWORK: {"use_additional_conditions": None, "sample_size": 128}}, "use_additional_conditions is True"),
        ({NETWORK: {"in_channels": 9}}, r"in_channels is 9 \(an inpainting"),
        ({NETWORK: {"caption_channels": None}}, "no text reaches it"),
        ({INDEX: {"text_encoder": ["transformers", "CLIPTextModel"]}}, "text_encoder is CLIPTextModel"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(
    changes: dict[str, dict[str, Any]], message: str, folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(BackboneError, match=message):
        load(str(without_tensors(folder, tmp_path / "model", changes)))
