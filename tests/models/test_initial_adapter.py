from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from diffusers.utils import convert_state_dict_to_diffusers
from safetensors.torch import save_file

from spf_lite.models.adapters import ADAPTER_FILE
from spf_lite.models.backbone import Backbone
from spf_lite.models.errors import BackboneError
from spf_lite.models.fingerprint import backbone_digest, digest_of
from spf_lite.models.initial_adapter import read_low_rank_factors, start_from
from spf_lite.models.trainable import Lora

from ..conftest import load_toy


@pytest.fixture
def lora(toy: Backbone) -> Lora:
    return Lora(toy.pipe.unet, rank=2, seed=0)


@pytest.mark.parametrize("names", ["diffusers", "peft"])
def test_what_either_library_writes_is_taken_up(lora: Lora, names: str, tmp_path: Path) -> None:
    wanted = {name: torch.rand_like(value) for name, value in lora.state().items()}
    if names == "diffusers":
        StableDiffusionPipeline.save_lora_weights(tmp_path, unet_lora_layers=convert_state_dict_to_diffusers(wanted))
    else:
        save_file({f"unet.{name}": value for name, value in wanted.items()}, tmp_path / ADAPTER_FILE)
    for path in (tmp_path, tmp_path / ADAPTER_FILE):
        start_from(lora, path)
        assert all(torch.equal(value, wanted[name]) for name, value in lora.state().items())


def test_what_does_not_fit_is_refused_by_name_and_changes_nothing(lora: Lora, tmp_path: Path) -> None:
    good = {f"unet.{name}": value.clone() for name, value in lora.state().items()}
    before = {name: value.clone() for name, value in lora.state().items()}
    first = next(name for name in good if "lora_A" in name)
    wide, nan = torch.zeros(5, good[first].shape[1]), torch.full_like(good[first], float("nan"))
    for changed, message in (
        ({**good, first: wide}, "has rank 5, the configuration says rank=2"),
        ({**good, first: torch.zeros(2, 3)}, r"for a layer of another size: .* is \(2, 3\), not \(2, \d+\)"),
        ({**good, first: torch.tensor(1.0)}, "for a layer of another size"),
        ({**good, first: nan}, "is not finite"),
        ({name: value for name, value in good.items() if name != first}, "it lacks .*lora_A.weight, and has nothing"),
        ({**good, "text_encoder.a.lora_A.weight": wide}, "found text_encoder.a.lora_A.weight"),
        ({f"base_model.model.{name}": value for name, value in good.items()}, "found base_model.model.unet"),
        ({}, "found nothing"),
    ):
        save_file(changed, tmp_path / ADAPTER_FILE)
        with pytest.raises(BackboneError, match=message):
            start_from(lora, tmp_path)
    (tmp_path / ADAPTER_FILE).write_bytes(b"torn")
    with pytest.raises(BackboneError, match="is no safetensors file"):
        read_low_rank_factors(tmp_path)
    with pytest.raises(BackboneError, match="no adapter in .*nowhere"):
        read_low_rank_factors(tmp_path / "nowhere")
    assert all(torch.equal(value, before[name]) for name, value in lora.state().items())


def test_the_same_weights_have_the_same_digest_and_others_another(toy_folders: dict[str, Path]) -> None:
    backbone, again = (load_toy(toy_folders["v_prediction"]) for _ in range(2))
    digest = backbone_digest(backbone)
    assert digest == backbone_digest(again) != backbone_digest(load_toy(toy_folders["epsilon"]))
    for module in (again.pipe.unet, again.pipe.text_encoder, again.pipe.vae, again.clip.model):
        parameter = next(module.parameters())
        old = parameter.detach().clone()
        with torch.no_grad():
            parameter.view(-1)[0] += 1e-3
        assert backbone_digest(again) != digest, type(module).__name__
        with torch.no_grad():
            parameter.copy_(old)
    assert backbone_digest(again) == digest


def test_names_shapes_and_types_are_part_of_a_digest() -> None:
    ones = torch.ones(4)
    digests = [
        digest_of([("a", ones)]),
        digest_of([("b", ones)]),
        digest_of([("a", ones.view(2, 2))]),
        digest_of([("a", ones.to(torch.bfloat16))]),
        digest_of([("a", ones), ("b", torch.tensor(1.0))]),
    ]
    assert len(set(digests)) == 5
    assert digest_of([("b", ones), ("a", torch.zeros(1))]) == digest_of([("a", torch.zeros(1)), ("b", ones)])
