"""The exported graphs compute what PyTorch computes, for the base model and for every adapter."""

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler
from onnxruntime import InferenceSession, SessionOptions
from safetensors.numpy import load_file

from spf_lite.export.folder import STEPS, description, export_onnx
from spf_lite.export.graphs import export_graphs
from spf_lite.method.attention import mean_maps, record
from spf_lite.models.adapters.lora import add_lora, load_adapter
from spf_lite.models.backbone import Backbone, load
from spf_lite.models.codec import decode_latents, encode_text
from spf_lite.models.errors import BackboneError
from spf_lite.models.running.sampling import sample
from spf_lite.paths import DATA_SAMPLES

TEXT = "a person, brown short hair, tan skin, smiling, blue hoodie, gray background, sunglasses"
Arrays = dict[str, np.ndarray]


def session(folder: Path, name: str) -> InferenceSession:
    options = SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    return InferenceSession(str(folder / f"{name}.onnx"), options)


def weights_of(folder: Path) -> Arrays:
    return {name: value.astype(np.float32) for name, value in load_file(folder / "unet_weights.safetensors").items()}


def with_adapter(folder: Path, name: str, strength: float = 1.0) -> Arrays:
    """The weights with an adapter merged into them."""
    factors = load_file(folder / "adapters" / f"{name}.safetensors")
    weights = weights_of(folder)
    for layer in {key.rpartition(".")[0] for key in factors}:
        down, up = (factors[f"{layer}.{end}"].astype(np.float32) for end in ("down", "up"))
        change = up.reshape(len(up), -1) @ down.reshape(len(down), -1)
        weights[layer] = weights[layer] + strength * change.reshape(weights[layer].shape)
    return weights


@pytest.fixture(scope="module")
def text(backbone: Backbone) -> torch.Tensor:
    padded = {"padding": "max_length", "return_tensors": "pt"}
    return encode_text(backbone.pipe, backbone.pipe.tokenizer(["", TEXT], **padded)["input_ids"])


def latents(count: int) -> torch.Tensor:
    return torch.randn(count, 4, 16, 16, generator=torch.Generator().manual_seed(3))


def test_texts_are_encoded_alike(folder: Path, backbone: Backbone, text: torch.Tensor) -> None:
    ids = backbone.pipe.tokenizer(["", TEXT], padding="max_length", return_tensors="np")["input_ids"]
    (found,) = session(folder, "text_encoder").run(None, {"ids": ids})
    assert np.abs(found - text.numpy()).max() < 1e-4


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("adapter", [None, "sunglasses-naive", "beard-pure-pairs"])
def test_the_unet_predicts_alike(folder: Path, text: torch.Tensor, adapter: str | None, count: int) -> None:
    backbone = load("tiny", device="cpu")
    if adapter:
        target, _, method = adapter.partition("-")
        load_adapter(backbone, DATA_SAMPLES / "adapters" / target / method)
    noisy, timesteps = latents(count), torch.tensor([900, 500, 20])[:count]
    texts = text[[1, 0, 1][:count]]
    with torch.no_grad(), record(backbone.pipe.unet, (16, 16)) as layers:
        expected = backbone.pipe.unet(noisy, timesteps, texts).sample
        maps = mean_maps(layers)
    weights = with_adapter(folder, adapter) if adapter else weights_of(folder)
    feeds = {"latents": noisy.numpy(), "timesteps": timesteps.numpy(), "text": texts.numpy(), **weights}
    prediction, attention = session(folder, "unet").run(None, feeds)
    # An adapter's factors are rounded to 16 bits; nothing else is.
    assert np.abs(prediction - expected.numpy()).max() < (5e-3 if adapter else 1e-4)
    assert np.abs(attention - maps.numpy()).max() < (5e-3 if adapter else 1e-5)
    assert attention.shape == (count, 32, 16, 16)


def test_latents_are_decoded_alike(folder: Path, backbone: Backbone) -> None:
    scaled = latents(2)
    with torch.no_grad():
        expected = {"decoder": decode_latents(backbone.pipe, scaled), "preview": backbone.decode_preview(scaled)}
    for name, images in expected.items():
        (found,) = session(folder, name).run(None, {"latents": scaled.numpy()})
        assert np.abs(found - images.numpy()).max() < 1e-4


@pytest.mark.parametrize("steps", [6, 12])
def test_the_described_schedule_samples_as_diffusers_does(folder: Path, backbone: Backbone, steps: int) -> None:
    described = description(backbone)
    embedded = session(folder, "text_encoder").run(
        None, {"ids": backbone.pipe.tokenizer(["", TEXT], padding="max_length", return_tensors="np")["input_ids"]}
    )[0]
    unet, weights = session(folder, "unet"), weights_of(folder)
    z = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(7)).numpy()
    for timestep, now, following in described["schedules"][str(steps)]:
        feeds = {"latents": np.repeat(z, 2, 0), "timesteps": np.full(2, timestep), "text": embedded, **weights}
        without, asked = unet.run(["prediction"], feeds)[0]
        v = without + described["guidance_scale"] * (asked - without)
        clean, noise = np.sqrt(now) * z - np.sqrt(1 - now) * v, np.sqrt(now) * v + np.sqrt(1 - now) * z
        z = (np.sqrt(following) * clean + np.sqrt(1 - following) * noise).astype(np.float32)
    expected = sample(backbone, [TEXT], seeds=[7], steps=steps, output_type="latent")
    assert np.abs(z - expected.numpy()).max() < 1e-3


def test_every_weight_is_an_input_and_no_constant(folder: Path, backbone: Backbone) -> None:
    layers = dict(backbone.pipe.unet.named_modules())
    weights = weights_of(folder)
    assert {name for name in layers if ".attn2.to_" in name and hasattr(layers[name], "weight")} <= set(weights)
    assert set(weights) <= {one.name for one in session(folder, "unet").get_inputs()}
    for name, value in weights.items():
        assert np.array_equal(value, layers[name].weight.detach().numpy()), name


def test_numbers_of_steps_have_their_timesteps(backbone: Backbone) -> None:
    schedules = description(backbone)["schedules"]
    assert list(schedules) == [str(steps) for steps in STEPS]
    assert all(len(schedules[str(steps)]) == steps for steps in STEPS)
    assert all(now < following for schedule in schedules.values() for _, now, following in schedule)
    assert schedules["25"][-1][2] == 1.0  # the last step ends without noise


def test_an_adapter_or_16_bits_are_refused() -> None:
    backbone = load("tiny", device="cpu")
    add_lora(backbone.pipe.unet, rank=2)
    with pytest.raises(BackboneError, match="already has an adapter"):
        export_graphs(backbone)
    with pytest.raises(BackboneError, match="float32 on the CPU"):
        export_graphs(load("tiny", device="cpu", dtype=torch.bfloat16))


def test_bad_input_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    backbone = load("tiny", device="cpu")
    goal = tmp_path / "exported"
    with pytest.raises(ValueError, match="no name for a file"):
        export_onnx(backbone, goal, {"../outside": DATA_SAMPLES / "adapters" / "beard" / "naive"})
    with pytest.raises(BackboneError, match="no adapter"):
        export_onnx(backbone, goal, {"beard": tmp_path})
    backbone.pipe.scheduler = DDPMScheduler.from_config(backbone.pipe.scheduler.config)
    with pytest.raises(BackboneError, match="DDIM"):
        export_onnx(backbone, goal)
    assert not goal.exists()
