"""A LoRA file in any naming gives the same change; every other file is refused and says why."""

import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from diffusers.utils import convert_state_dict_to_diffusers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from spf_lite.models.adapters.lora import load_adapter
from spf_lite.models.adapters.lora_file import Factors, read_lora
from spf_lite.models.backbone import Backbone, load
from spf_lite.models.errors import BackboneError
from spf_lite.paths import DATA_SAMPLES

from ..conftest import factors_for, kohya, without_grad
from ..loading.test_compatibility import small_unet

#: Every kind of layer that trainers put a LoRA on: attention, feed-forward, projections, residual blocks.
LAYERS = ("to_q", "to_k", "to_v", "to_out.0", "net.0.proj", "net.2", "proj_in", "proj_out", "conv1", "time_emb_proj")
QUERY = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_q"

State = dict[str, torch.Tensor]


def prefixed(state: State, prefix: str) -> State:
    return {f"{prefix}{name}": value for name, value in state.items()}


def old_diffusers(state: State) -> State:
    """As attention processors were saved before peft: ``attn2.processor.to_q_lora.down.weight``."""
    named = {}
    for key, value in prefixed(state, "unet.").items():
        for projection in ("to_q", "to_k", "to_v", "to_out"):
            for end, direction in (("lora_A", "down"), ("lora_B", "up")):
                full = "to_out.0" if projection == "to_out" else projection
                key = key.replace(f".{full}.{end}", f".processor.{projection}_lora.{direction}")
        named[key] = value
    return named


NAMINGS: dict[str, Callable[[State], State]] = {
    "diffusers": lambda state: convert_state_dict_to_diffusers(prefixed(state, "unet.")),
    "diffusers, attention processors": old_diffusers,
    "peft in a pipeline": lambda state: prefixed(state, "unet."),
    "peft in a unet": lambda state: dict(state),
    "kohya": lambda state: kohya(state, alpha=None),
}


@pytest.mark.parametrize("naming", NAMINGS)
def test_every_naming_gives_the_same_picture(naming: str, toy_folders: dict[str, Path], tmp_path: Path) -> None:
    backbone = load(str(toy_folders["epsilon"]))
    layers = LAYERS[:4] if "processors" in naming else LAYERS
    state = {key: 0.2 * value for key, value in factors_for(backbone.pipe.unet, layers).items()}
    for key, value in state.items():
        unet_weight = backbone.pipe.unet.get_submodule(key.rsplit(".", 2)[0]).weight
        if key.endswith("lora_A.weight"):
            down = value
            continue
        with torch.no_grad():  # the plain way: add the product to the weight
            unet_weight += (value.flatten(1) @ down.flatten(1)).view_as(unet_weight)
    expected = without_grad(backbone)
    fresh = load(str(toy_folders["epsilon"]))
    base = without_grad(fresh)
    save_file(NAMINGS[naming](state), tmp_path / "any name.safetensors")
    load_adapter(fresh, tmp_path / "any name.safetensors")
    assert torch.allclose(without_grad(fresh), expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))
    assert not torch.allclose(base, expected, rtol=0.1, atol=0.1 * float(expected.abs().max()))


@pytest.mark.parametrize("alpha", [0.5, 2.0])
def test_kohyas_alpha_scales_each_layer_by_its_own_rank(alpha: float, tmp_path: Path) -> None:
    unet = small_unet()
    state = factors_for(unet, ("to_q", "net.2", "conv1"))
    named = kohya(state, alpha)
    named["lora_unet_" + QUERY.replace(".", "_") + ".alpha"] = torch.tensor(3.0)
    save_file(named, tmp_path / "a.safetensors")
    found = read_lora(tmp_path / "a.safetensors", unet)
    assert len({len(pair.down) for pair in found.values()}) > 2, "ranks differ"
    for name, (down, up) in found.items():
        scale = (3.0 if name == QUERY else alpha) / len(down)
        assert torch.equal(down, state[f"{name}.lora_A.weight"])
        assert torch.allclose(up, scale * state[f"{name}.lora_B.weight"])


def test_pefts_options_in_the_file_scale_as_peft_does(tmp_path: Path) -> None:
    for rslora in (False, True):
        unet = small_unet()
        config = LoraConfig(
            r=4,
            lora_alpha=6,
            target_modules=["to_q", "to_v"],
            alpha_pattern={"attn2.to_v": 1},
            rank_pattern={"attn2.to_q": 2},
            use_rslora=rslora,
            init_lora_weights=False,
        )
        unet.add_adapter(config)
        unet.save_lora_adapter(tmp_path)
        expected = {
            name: layer.lora_B["default"].weight @ layer.lora_A["default"].weight * layer.scaling["default"]
            for name, layer in unet.named_modules()
            if hasattr(layer, "lora_A")
        }
        found = read_lora(tmp_path, small_unet())
        assert found.keys() == expected.keys()
        for name, (down, up) in found.items():
            assert torch.allclose(up @ down, expected[name], atol=1e-6), name


def test_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    unet = small_unet()
    state = factors_for(unet, ("attn2.to_v",))
    StableDiffusionPipeline.save_lora_weights(tmp_path, unet_lora_layers=convert_state_dict_to_diffusers(state))
    found = read_lora(tmp_path, unet)
    assert set(found) == {name for name, _ in unet.named_modules() if name.endswith("attn2.to_v")}
    for name, pair in found.items():
        assert isinstance(pair, Factors)
        assert torch.equal(pair.down, state[f"{name}.lora_A.weight"])
        assert torch.equal(pair.up, state[f"{name}.lora_B.weight"])


def pair(name: str = f"unet.{QUERY}", down: tuple[int, ...] = (2, 8), up: tuple[int, ...] = (8, 2)) -> State:
    return {f"{name}.lora_A.weight": torch.ones(down), f"{name}.lora_B.weight": torch.ones(up)}


WRONG: dict[str, tuple[State, str]] = {
    "peft checkpoint": (
        pair(f"base_model.model.{QUERY}"),
        r"is a checkpoint of peft, whose scale stands in adapter_config.json beside it",
    ),
    "random keys": (pair("anything"), "2 of its keys have no layer in the network .*trained on another model"),
    "not a lora": ({"unet.conv_in.weight": torch.ones(4)}, "1 of its keys have no layer"),
    "transformer": (pair("transformer.blocks.0.attn.to_q"), "have no layer in the network"),
    "another unet": ({**pair(), **pair("unet.down_blocks.7.attentions.0.proj_in")}, "2 of its keys have no layer"),
    "kohya of another unet": (kohya(pair("down_blocks_7_attentions_0_proj_in"), None), "2 of its keys have no layer"),
    "two namings": ({**pair(), **kohya(pair(QUERY), None)}, "3 of its keys have no layer"),
    "kohya, lonely": ({"lora_unet_x.lora_down.weight": torch.ones(2, 8)}, "no known naming"),
    "text alone": (pair("text_encoder.text_model.encoder.layers.0.self_attn.q_proj"), "keys of text encoders only"),
    "dora": ({**pair(), f"unet.{QUERY}.lora_magnitude_vector": torch.ones(8)}, "is a DoRA"),
    "kohya dora": ({**kohya(pair(QUERY), None), "lora_unet_x.dora_scale": torch.ones(8)}, "is a DoRA"),
    "loha": ({"lora_unet_x.hada_w1_a": torch.ones(2, 2)}, "is a LoHa"),
    "lokr": ({"lora_unet_x.lokr_w1": torch.ones(2, 2)}, "is a LoKr"),
    "bias": ({**pair(), f"unet.{QUERY}.lora_B.bias": torch.ones(8)}, "1 of its keys have no layer"),
    "half a pair": ({f"unet.{QUERY}.lora_A.weight": torch.ones(2, 8)}, "has one of its two factors only"),
    "inputs": (pair(down=(2, 99)), r"size mismatch in .*attn2.to_q, whose weight is \(8, 8\).*\(2, 99\)"),
    "outputs": (pair(up=(99, 2)), "size mismatch"),
    "ranks": (pair(up=(8, 3)), "size mismatch"),
    "no rank": (pair(down=(0, 8), up=(8, 0)), "size mismatch"),
    "scalar": (pair(down=(), up=(8, 1)), "size mismatch"),
    "kernel": (pair("unet.conv_in", (2, 4, 1, 1), (8, 2, 1, 1)), "size mismatch"),
    "norm": (pair("unet.conv_norm_out", (2, 8), (8, 2)), "conv_norm_out is a GroupNorm"),
    "not finite": ({**pair(), f"unet.{QUERY}.lora_B.weight": torch.full((8, 2), torch.nan)}, "not finite"),
    "nothing": ({}, "is empty"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_file_that_does_not_fit_is_refused(name: str, tmp_path: Path) -> None:
    state, message = WRONG[name]
    save_file(state, tmp_path / "a.safetensors")
    with pytest.raises(BackboneError, match=f"the adapter .*a.safetensors .*{message}"):
        read_lora(tmp_path / "a.safetensors", small_unet())


def test_a_peft_checkpoint_without_its_options_is_refused(toy: Backbone, tmp_path: Path) -> None:
    model = get_peft_model(toy.pipe.unet, LoraConfig(target_modules=["attn2.to_q"], init_lora_weights=False))
    model.save_pretrained(tmp_path)
    config, wrong = tmp_path / "adapter_config.json", {"{": "cannot be read", '{"peft_type": "LOHA"}': "the kind LOHA"}
    for content, message in wrong.items():
        config.write_text(content)
        with pytest.raises(BackboneError, match=message):
            read_lora(tmp_path, small_unet())
    config.unlink()
    for path in (tmp_path, tmp_path / "adapter_model.safetensors"):
        with pytest.raises(BackboneError, match="whose scale stands in adapter_config.json beside it"):
            read_lora(path, small_unet())


def test_a_path_without_an_adapter_is_refused(tmp_path: Path) -> None:
    unet = small_unet()
    with pytest.raises(BackboneError, match="no adapter in .*nowhere: there is no pytorch_lora_weights.safetensors"):
        read_lora(tmp_path / "nowhere", unet)
    with pytest.raises(BackboneError, match="no adapter in .*x.safetensors: there is no such file"):
        read_lora(tmp_path / "x.safetensors", unet)
    with pytest.raises(BackboneError, match="there is no pytorch_lora_weights.safetensors$"):
        read_lora(tmp_path, unet)
    torch.save(pair(), tmp_path / "x.bin")
    with pytest.raises(BackboneError, match="is no .safetensors file"):
        read_lora(tmp_path / "x.bin", unet)
    save_file(pair(), tmp_path / "bad.safetensors", metadata={"lora_adapter_metadata": "{torn"})
    with pytest.raises(BackboneError, match="bad.safetensors"):
        read_lora(tmp_path / "bad.safetensors", unet)


@pytest.fixture(scope="module")
def unet() -> UNet2DConditionModel:
    return small_unet()


@pytest.fixture(scope="module")
def file(unet: UNet2DConditionModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("files") / "whole.safetensors"
    save_file(prefixed(factors_for(unet, ("attn2.to_q", "attn2.to_v")), "unet."), path)
    return path


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_a_torn_file_is_refused_wherever_it_is_torn(
    data: st.DataObject, unet: UNet2DConditionModel, file: Path
) -> None:
    whole = file.read_bytes()
    torn = file.with_name("torn.safetensors")
    torn.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(BackboneError, match="torn.safetensors cannot be read"):
        read_lora(torn, unet)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_changed_key_is_an_error_or_is_named(
    data: st.DataObject, unet: UNet2DConditionModel, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Rename, drop or reshape one tensor: the file is refused, or all of it but the text encoder's keys is loaded."""
    state = load_file(file)
    key = data.draw(st.sampled_from(sorted(state)))
    value = state.pop(key)
    beginning = data.draw(
        st.sampled_from(["", "unet.", "text_encoder.", "base_model.model.", "lora_unet_", "lora_te_"])
    )
    name = beginning + data.draw(st.sampled_from([key, key.removeprefix("unet."), key[3:], "x.lora_A.weight", "", "é"]))
    kept = data.draw(st.booleans())
    if kept:
        state[name] = value if data.draw(st.booleans()) else value[:1].contiguous()
    changed = file.with_name("changed.safetensors")
    save_file(state, changed)
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        try:
            found = read_lora(changed, unet)
        except BackboneError as error:
            assert "changed.safetensors" in str(error)
            return
    assert 2 * len(found) + sum(key.startswith(("text_encoder.", "lora_te_")) for key in state) == len(state)
    named = [record.message for record in caplog.records]
    assert all(any(key in line for line in named) for key in state if key.startswith(("text_encoder.", "lora_te_")))


def test_the_shipped_adapters_are_read_whole() -> None:
    config = json.loads((DATA_SAMPLES / "tiny-portraits" / "unet" / "config.json").read_text())
    unet = UNet2DConditionModel.from_config(config)
    for kind in ("spf", "adalora"):
        folder = DATA_SAMPLES / "adapters" / "sunglasses" / kind
        state = load_file(folder / "pytorch_lora_weights.safetensors")
        found = read_lora(folder, unet)
        assert 2 * len(found) == len(state)
