"""Several adapters as one: sums of changes, in one file, in the weights, in plain diffusers, and taken out again."""

import copy
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import save_file

from spf_lite.models.adapters.lora import load_adapter
from spf_lite.models.adapters.lora_file import ADAPTER_FILE, read_lora
from spf_lite.models.adapters.stack import change, combined, load_stack, merge, read_stack, take_out
from spf_lite.models.backbone import Backbone
from spf_lite.models.errors import BackboneError

from ..conftest import factors_for, without_grad

#: The layers of three adapters; some share layers, and the ranks differ from layer to layer.
LAYERS = {"hat": ("attn2.to_k", "attn2.to_v"), "beard": ("attn2.to_v", "conv1"), "scarf": ("attn2.to_q",)}


@pytest.fixture
def adapters(toy: Backbone, tmp_path: Path) -> dict[str, Path]:
    """Three adapters of the toy."""
    paths = {}
    for seed, (name, ends) in enumerate(LAYERS.items()):
        state = {key: 0.1 * value for key, value in factors_for(toy.pipe.unet, ends, 1 + seed, seed).items()}
        paths[name] = tmp_path / name
        StableDiffusionPipeline.save_lora_weights(paths[name], unet_lora_layers=state)
    return paths


def weights(unet: UNet2DConditionModel) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in unet.state_dict().items()}


def test_a_stack_adds_up(toy: Backbone, adapters: dict[str, Path]) -> None:
    untouched = copy.deepcopy(toy.pipe.unet)
    base = without_grad(toy)
    strengths = {"hat": 1.0, "beard": 0.5, "scarf": -2.0}
    load_stack(toy, list(adapters.values()), list(strengths.values()))
    stacked = without_grad(toy)
    assert not torch.allclose(stacked, base, atol=1e-3)
    # diffusers adds them up, one adapter beside the other
    toy.pipe.unet = untouched
    for name, path in adapters.items():
        toy.pipe.load_lora_weights(path, adapter_name=name)
    toy.pipe.set_adapters(list(adapters), list(strengths.values()))
    assert torch.allclose(without_grad(toy), stacked, atol=1e-5)


def test_one_is_taken_out_by_loading_the_others(toy: Backbone, adapters: dict[str, Path]) -> None:
    base = without_grad(toy)
    load_adapter(toy, adapters["hat"])
    hat = without_grad(toy)
    load_stack(toy, [adapters["hat"], adapters["beard"]])
    assert not torch.allclose(without_grad(toy), hat, atol=1e-3)
    load_stack(toy, [adapters["hat"]])
    assert torch.allclose(without_grad(toy), hat, atol=1e-6)
    load_stack(toy, [adapters["hat"], adapters["beard"]], [0.0, 0.0])
    assert torch.equal(without_grad(toy), base)


def test_a_change_has_the_shape_of_its_weight(toy: Backbone, adapters: dict[str, Path]) -> None:
    factors = read_lora(adapters["beard"], toy.pipe.unet)
    kinds = set()
    for name, pair in factors.items():
        weight = toy.pipe.unet.get_submodule(name).weight
        found = change(pair)
        kinds.add(weight.ndim)
        assert found.shape == weight.shape
        flat = pair.up.reshape(len(pair.up), -1) @ pair.down.reshape(len(pair.down), -1)
        assert torch.allclose(found.reshape(len(pair.up), -1), flat)
    assert kinds == {2, 4}, "projections and convolutions"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_merged_is_the_model_until_it_is_taken_out(
    toy: Backbone, adapters: dict[str, Path], dtype: torch.dtype
) -> None:
    unet = toy.pipe.unet.to(dtype)
    before, kept = weights(unet), {name: id(value) for name, value in unet.named_parameters()}
    factors = read_stack(list(adapters.values()), unet)
    undo = merge(unet, factors)
    after = weights(unet)
    for name, value in before.items():
        layer = name.removesuffix(".weight")
        wanted = (value.float() + change(factors[layer])).to(dtype) if layer in factors else value
        assert torch.equal(after[name], wanted)
    assert {name: id(value) for name, value in unet.named_parameters()} == kept, "the parameters are the same objects"
    take_out(unet, undo)
    assert all(torch.equal(value, before[name]) for name, value in weights(unet).items())


def test_merged_and_loaded_predict_the_same(toy: Backbone, adapters: dict[str, Path]) -> None:
    merge(toy.pipe.unet, read_stack(list(adapters.values()), toy.pipe.unet))
    merged = without_grad(toy)
    toy.pipe.unet = copy.deepcopy(toy.pipe.unet)
    with pytest.raises(BackboneError, match="the network already has an adapter"):
        load_adapter(toy, adapters["hat"], -1.0)
        merge(toy.pipe.unet, read_lora(adapters["hat"], toy.pipe.unet))
    less = without_grad(toy)
    assert not torch.allclose(less, merged, atol=1e-3), "an adapter on top of merged ones"
    load_stack(toy, [adapters["hat"], adapters["hat"]], [-1.0, 1.0])
    assert torch.allclose(without_grad(toy), merged, atol=1e-5)


def test_bad_stacks_are_refused_and_leave_the_model_alone(
    toy: Backbone, adapters: dict[str, Path], tmp_path: Path
) -> None:
    base, two = without_grad(toy), [adapters["hat"], adapters["beard"]]
    save_file({"a.lora_A.weight": torch.ones(1, 1)}, tmp_path / "other.safetensors")
    for paths, strengths, error, message in (
        ([], None, BackboneError, "no adapter to load"),
        (two, [1.0], ValueError, "1 strengths for 2 adapters"),
        (two, [1.0, float("nan")], ValueError, "expected finite numbers"),
        ([*two, tmp_path / "other.safetensors"], None, BackboneError, "does not fit this model"),
        ([*two, tmp_path / "none"], None, BackboneError, f"no adapter in .*none: there is no {ADAPTER_FILE}"),
    ):
        with pytest.raises(error, match=message):
            load_stack(toy, paths, strengths)
        assert torch.equal(without_grad(toy), base)


def test_factors_keep_their_own_ranks(toy: Backbone, adapters: dict[str, Path]) -> None:
    parts = [read_lora(path, toy.pipe.unet) for path in adapters.values()]
    whole = combined([(part, 1.0) for part in parts])
    assert whole.keys() == set().union(*parts)
    for name, pair in whole.items():
        assert len(pair.down) == pair.up.shape[1] == sum(len(part[name].down) for part in parts if name in part)
