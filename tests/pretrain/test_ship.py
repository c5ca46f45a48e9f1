"""What is shipped must load without a line of ours, in half the size, and compute in 32 bits."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file
from transformers import CLIPModel, CLIPTokenizer

import spf_lite
from spf_lite.evaluation.judge import Judge, JudgeNet
from spf_lite.pretrain import autoencoder, clip, ship, unet


@pytest.fixture(scope="module")
def parts(tokenizer: CLIPTokenizer) -> tuple[StableDiffusionPipeline, CLIPModel]:
    """An untrained pipeline of the shipped size, and its CLIP."""
    towers = clip.build(tokenizer)
    return ship.assemble(autoencoder.build(), towers, tokenizer, unet.build()), towers


@pytest.fixture(scope="module")
def folder(parts: tuple[StableDiffusionPipeline, CLIPModel], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shipped")
    pipe, towers = parts
    ship.ship(pipe, towers, pipe.tokenizer, folder)
    torch.manual_seed(0)
    ship.ship_judge(Judge(JudgeNet()), folder)
    return folder


def dtypes(module: torch.nn.Module) -> set[torch.dtype]:
    return {parameter.dtype for parameter in module.parameters()}


def test_plain_diffusers_loads_and_samples_from_it(folder: Path) -> None:
    index = json.loads((folder / "model_index.json").read_text())
    libraries = {entry[0] for entry in index.values() if isinstance(entry, list)}
    assert libraries <= {"diffusers", "transformers", None}, "no code of ours"
    pipe = StableDiffusionPipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    images = [pipe(prompt, num_inference_steps=1, output_type="np").images[0] for prompt in ("a person", "sunglasses")]
    assert images[0].shape == (128, 128, 3) and np.isfinite(images[0]).all()
    assert np.abs(images[0] - images[1]).max() > 0


def test_it_is_small_because_it_is_stored_in_16_bits(folder: Path) -> None:
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) <= 40e6
    files = sorted(path.relative_to(folder).parts[0] for path in folder.rglob("*.safetensors"))
    assert files == ["clip", "judge", "text_encoder", "unet", "vae"]
    for path in folder.rglob("*.safetensors"):
        kinds = {value.dtype for value in load_file(path).values() if value.is_floating_point()}
        assert kinds == {torch.float16}, path


def test_everybody_computes_in_32_bits(folder: Path) -> None:
    backbone = spf_lite.load(str(folder))
    plain = StableDiffusionPipeline.from_pretrained(folder)
    for pipe in (backbone.pipe, plain):
        for part in (pipe.unet, pipe.vae, pipe.text_encoder):
            assert dtypes(part) == {torch.float32}, type(part)
    assert dtypes(backbone.clip.model) == dtypes(CLIPModel.from_pretrained(folder / "clip")) == {torch.float32}
    assert dtypes(Judge.load(folder / "judge").net) == {torch.float32}
    assert backbone.spec.clip == str(folder / "clip")
    assert backbone.spec.attention_resolution == 16


def test_the_weights_are_those_that_went_in(folder: Path, parts: tuple[StableDiffusionPipeline, CLIPModel]) -> None:
    pipe, towers = parts
    backbone = spf_lite.load(str(folder))
    pairs = [
        (pipe.unet, backbone.pipe.unet),
        (pipe.vae, backbone.pipe.vae),
        (pipe.text_encoder, backbone.pipe.text_encoder),
        (towers, backbone.clip.model),
    ]
    for ours, theirs in pairs:
        assert dtypes(ours) == {torch.float32}, "shipping leaves the model as it was"
        loaded = theirs.state_dict()
        for name, value in ours.state_dict().items():
            assert torch.allclose(loaded[name], value.to(loaded[name].dtype), atol=1e-3), name


def test_the_text_tower_is_clips_own(parts: tuple[StableDiffusionPipeline, CLIPModel], folder: Path) -> None:
    pipe, towers = parts
    ids = pipe.tokenizer(["a person, red hair"], padding="max_length", return_tensors="pt").input_ids
    with torch.no_grad():
        assert torch.equal(pipe.text_encoder(ids).last_hidden_state, towers.text_model(ids).last_hidden_state)
    assert pipe.text_encoder is not towers.text_model


def test_the_log_is_thinned_and_keeps_both_ends(tmp_path: Path) -> None:
    for part, count in (("clip", 1000), ("unet", 3)):
        lines = [json.dumps({"step": step, "loss": 1.0}) for step in range(count)]
        (tmp_path / f"{part}.jsonl").write_text("\n".join(lines))
    ship.ship_log(tmp_path, tmp_path)
    log = [json.loads(line) for line in (tmp_path / "training-log.jsonl").read_text().splitlines()]
    steps = [line["step"] for line in log if line["part"] == "clip"]
    assert steps[0] == 0 and steps[-1] == 999 and len(steps) <= ship.LOG_LINES + 1
    assert {line["step"] for line in log if line["part"] == "unet"} == {0, 1, 2}
