"""Latents on disk: the same numbers as without, and nothing that is out of date or damaged."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image, ImageOps
from safetensors.torch import load_file, save_file

from spf_lite.config import TrainConfig
from spf_lite.data import encoding
from spf_lite.data.encoding import custom_items
from spf_lite.data.latent_cache import LatentCache
from spf_lite.data.sets.custom_set import CustomSet
from spf_lite.files import UNFINISHED
from spf_lite.models.backbone import Backbone, load
from spf_lite.models.codec import encode_images
from spf_lite.training.trainer import DualPathTrainer

from ..conftest import load_toy


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many pictures pass through the autoencoder from now on, call by call."""
    calls: list[int] = []

    def count(pipe: Any, images: torch.Tensor) -> torch.Tensor:
        calls.append(len(images))
        return encode_images(pipe, images)

    monkeypatch.setattr(encoding, "encode_images", count)
    return calls


def latents(backbone: Backbone, custom_set: CustomSet, folder: Path | None) -> list[torch.Tensor]:
    cache = None if folder is None else LatentCache(folder, backbone.pipe)
    return [item.latents for item in custom_items(backbone, custom_set, cache=cache)]


def same(first: list[torch.Tensor], second: list[torch.Tensor]) -> bool:
    return all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


def test_a_set_is_encoded_once(
    toy_folders: dict[str, Path], custom_set: CustomSet, tmp_path: Path, encoded: list[int]
) -> None:
    many = replace(custom_set, examples=(custom_set.examples * 2)[:10])
    expected = latents(load_toy(toy_folders["epsilon"]), many, None)
    assert same(latents(load_toy(toy_folders["epsilon"]), many, tmp_path / "cache"), expected)
    assert encoded == [8, 2, 8, 2] and not list((tmp_path / "cache").glob(f"*{UNFINISHED}"))
    assert same(latents(load_toy(toy_folders["epsilon"]), many, tmp_path / "cache"), expected)
    assert encoded == [8, 2, 8, 2], "the second run reads both entries"
    some = replace(many, examples=many.examples[:8])
    assert same(latents(load_toy(toy_folders["epsilon"]), some, tmp_path / "cache"), expected[:8])
    assert encoded == [8, 2, 8, 2]


def test_nothing_is_out_of_date(
    toy_folders: dict[str, Path], custom_set: CustomSet, tmp_path: Path, encoded: list[int]
) -> None:
    backbone = load_toy(toy_folders["epsilon"])
    latents(backbone, custom_set, tmp_path)

    def is_new(other: Backbone, changed: CustomSet) -> bool:
        encoded.clear()
        found = latents(other, changed, tmp_path)
        return bool(encoded) and same(found, latents(other, changed, None))

    first = custom_set.examples[0]
    pixel = first.image.copy()
    pixel.putpixel((0, 0), (1, 2, 3))
    for image in (pixel, ImageOps.mirror(first.image)):
        assert is_new(backbone, replace(custom_set, examples=(replace(first, image=image), *custom_set.examples[1:])))
    assert is_new(backbone, replace(custom_set, examples=custom_set.examples[::-1])), "another order, another batch"
    wide = first.image.resize((96, 64))
    assert is_new(backbone, replace(custom_set, examples=(replace(first, image=wide), *custom_set.examples[1:])))
    for name, value in (("scaling_factor", 0.5), ("shift_factor", 0.1)):
        other = load_toy(toy_folders["epsilon"])
        other.pipe.vae.register_to_config(**{name: value})
        assert is_new(other, custom_set), name
    other = load_toy(toy_folders["epsilon"])
    with torch.no_grad():
        next(other.pipe.vae.parameters()).view(-1)[0] += 1e-3
    assert is_new(other, custom_set)
    assert is_new(load(str(toy_folders["epsilon"]), dtype=torch.bfloat16), custom_set)
    encoded.clear()
    unet = load_toy(toy_folders["epsilon"])
    with torch.no_grad():
        next(unet.pipe.unet.parameters()).view(-1)[0] += 1e-3
    texts = tuple(replace(example, base_text="a person") for example in custom_set)
    latents(unet, replace(custom_set, examples=texts), tmp_path)
    assert not encoded, "neither the UNet nor the texts matter"


def test_a_damaged_entry_is_made_anew(
    toy: Backbone, custom_set: CustomSet, tmp_path: Path, encoded: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    expected = latents(toy, custom_set, tmp_path)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[-5] ^= 1
    for content in (b"", whole[:100], whole[:-4], bytes(flipped), b"no such format"):
        path.write_bytes(content)
        caplog.clear()
        assert same(latents(toy, custom_set, tmp_path), expected)
        (record,) = [entry for entry in caplog.records if entry.levelno == logging.WARNING]
        assert "is damaged and is made anew" in record.message and path.read_bytes() == whole
    save_file({"latents": load_file(path)["latents"]}, path)
    assert same(latents(toy, custom_set, tmp_path), expected) and path.read_bytes() == whole, "it has no digest"
    save_file({"other": torch.ones(1)}, path)
    assert same(latents(toy, custom_set, tmp_path), expected) and path.read_bytes() == whole


def test_a_folder_that_cannot_be_written_is_no_error(
    toy: Backbone, custom_set: CustomSet, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    assert same(latents(toy, custom_set, tmp_path / "file"), latents(toy, custom_set, None))
    assert any("the latents are not kept" in entry.message for entry in caplog.records)


def test_a_run_with_a_cache_has_the_losses_of_one_without(
    toy_folders: dict[str, Path], custom_set: CustomSet, tmp_path: Path
) -> None:
    config = TrainConfig(stage1_steps=2, stage2_steps=0, batch_size=2, rank=2)
    losses = []
    for folder in (None, tmp_path, tmp_path):
        trainer = DualPathTrainer(load_toy(toy_folders["epsilon"]), custom_set, config, latent_cache=folder)
        losses.append([line["loss"] for line in trainer.fit(progress=False).history])
    assert losses[0] == losses[1] == losses[2] and len(list(tmp_path.iterdir())) == 1


def test_the_cache_does_not_mix_sizes(toy: Backbone, tmp_path: Path) -> None:
    cache = LatentCache(tmp_path, toy.pipe)
    flat = [Image.new("RGB", size) for size in ((8, 16), (16, 8))]
    assert len({cache.path([flat[0]]), cache.path([flat[1]]), cache.path(flat)}) == 3
