"""A file of several attributes: an ordinary LoRA that knows its parts."""

import json
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file, save_file

from spf_lite.models.adapters.combined_file import parts_of, write_combined
from spf_lite.models.adapters.learned import PARTS
from spf_lite.models.adapters.lora import load_adapter
from spf_lite.models.adapters.lora_file import ADAPTER_FILE, read_lora
from spf_lite.models.adapters.stack import load_stack
from spf_lite.models.backbone import Backbone
from spf_lite.models.errors import BackboneError

from ..conftest import factors_for, without_grad


@pytest.fixture
def adapters(toy: Backbone, tmp_path: Path) -> list[Path]:
    """A hat, and a beard as a run exports it: they share some layers."""
    paths = []
    for seed, (folder, ends) in enumerate(
        {"hat": ("attn2.to_k", "attn2.to_v"), "beard/adapter": ("attn2.to_v", "conv1")}.items()
    ):
        state = {key: 0.1 * value for key, value in factors_for(toy.pipe.unet, ends, 1 + seed, seed).items()}
        StableDiffusionPipeline.save_lora_weights(tmp_path / folder, unet_lora_layers=state)
        paths.append(tmp_path / folder)
    return paths


def test_the_file_paints_the_same_in_plain_diffusers_and_here(
    toy: Backbone, adapters: list[Path], tmp_path: Path
) -> None:
    parts = write_combined(tmp_path / "both", adapters, toy.pipe.unet, [1.0, 0.5])
    assert [(part.name, part.strength) for part in parts] == [("hat", 1.0), ("beard", 0.5)]
    load_stack(toy, adapters, [1.0, 0.5])
    wanted = without_grad(toy)
    load_adapter(toy, tmp_path / "both")
    assert torch.allclose(without_grad(toy), wanted, atol=1e-5)
    toy.pipe.unet.unload_lora()
    toy.pipe.load_lora_weights(tmp_path / "both")
    assert torch.allclose(without_grad(toy), wanted, atol=1e-5)
    card = (tmp_path / "both" / "README.md").read_text()
    assert "# LoRA adapter: hat, beard" in card and "| beard | 0.5 | 5 |" in card
    assert str(tmp_path) not in card


def test_a_part_is_taken_out_again_to_the_last_bit(toy: Backbone, adapters: list[Path], tmp_path: Path) -> None:
    write_combined(tmp_path / "one", adapters[:1], toy.pipe.unet)
    both = write_combined(tmp_path / "both", adapters, toy.pipe.unet)
    left = write_combined(tmp_path / "left", [tmp_path / "both"], toy.pipe.unet, without=["beard"])
    assert [part.name for part in left] == ["hat"]
    one, again = (load_file(tmp_path / name / ADAPTER_FILE) for name in ("one", "left"))
    assert one.keys() == again.keys() and all(torch.equal(one[key], again[key]) for key in one)
    read = parts_of(tmp_path / "both", read_lora(tmp_path / "both", toy.pipe.unet))
    assert read == both
    once_more = write_combined(tmp_path / "more", [tmp_path / "both", tmp_path / "other"][:1], toy.pipe.unet, [2.0])
    assert [part.strength for part in once_more] == [2.0, 2.0], "parts of parts are parts"


def test_a_file_that_says_nothing_is_one_part(toy: Backbone, adapters: list[Path], tmp_path: Path) -> None:
    names = []
    (adapters[0] / ADAPTER_FILE).rename(adapters[0] / "scarf.safetensors")
    for path in (adapters[0] / "scarf.safetensors", adapters[1]):
        factors = read_lora(path, toy.pipe.unet)
        (part,) = parts_of(path, factors)
        assert part.ranks == tuple(len(factors[name].down) for name in sorted(factors)) and part.strength == 1
        names.append(part.name)
    assert names == ["scarf", "beard"]


def test_what_cannot_be_combined_leaves_nothing_behind(toy: Backbone, adapters: list[Path], tmp_path: Path) -> None:
    unet, both = toy.pipe.unet, tmp_path / "both"
    for paths, strengths, without, error, message in (
        ([], None, [], BackboneError, "nothing is left"),
        (adapters, [1.0], [], ValueError, "1 strengths for 2 adapters"),
        (adapters, [1.0, float("inf")], [], ValueError, "finite"),
        ([adapters[0]] * 2, None, [], BackboneError, "several adapters are called hat"),
        (adapters, None, ["hat", "nose"], ValueError, "no part nose: there are hat, beard"),
        (adapters, None, ["hat", "beard"], BackboneError, "nothing is left"),
    ):
        with pytest.raises(error, match=message):
            write_combined(both, paths, unet, strengths, without)
        assert not both.exists()


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("no json", "nothing readable about its parts"),
        ('[{"name": "hat"}]', "nothing readable about its parts"),
        ('{"name": "hat"}', "nothing readable about its parts"),
        ('[{"name": "hat", "strength": 1, "ranks": [1]}]', "other ranks than its parts"),
        ("[]", "other ranks than its parts"),
    ],
)
def test_parts_that_do_not_fit_the_file_are_an_error(
    toy: Backbone, adapters: list[Path], tmp_path: Path, said: str, message: str
) -> None:
    file = tmp_path / "changed.safetensors"
    save_file(load_file(adapters[0] / ADAPTER_FILE), file, metadata={"format": "pt", PARTS: said})
    with pytest.raises(BackboneError, match=message):
        parts_of(file, read_lora(file, toy.pipe.unet))


def test_negative_ranks_are_an_error(toy: Backbone, adapters: list[Path], tmp_path: Path) -> None:
    factors = read_lora(adapters[0], toy.pipe.unet)
    ranks = [len(factors[name].down) for name in sorted(factors)]
    rows = [
        {"name": name, "strength": 1, "ranks": of}
        for name, of in (("a", [9] * len(ranks)), ("b", [r - 9 for r in ranks]))
    ]
    file = tmp_path / "changed.safetensors"
    save_file(load_file(adapters[0] / ADAPTER_FILE), file, metadata={PARTS: json.dumps(rows)})
    with pytest.raises(BackboneError, match="other ranks than its parts"):
        parts_of(file, read_lora(file, toy.pipe.unet))
