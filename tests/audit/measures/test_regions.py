"""Where the target may act: maps of the adapter, and masks."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from spf_lite.audit.measures import regions
from spf_lite.audit.measures.regions import adapter_regions, mask_regions, read_masks
from spf_lite.audit.sampling import Sampler
from spf_lite.models.adapters.lora import load_adapter
from spf_lite.models.backbone import Backbone

from ..conftest import PROMPTS


def test_the_region_of_an_adapter_is_part_of_each_portrait(toy: Backbone, diffusers_lora: Path) -> None:
    load_adapter(toy, diffusers_lora)
    prompts = [replace(prompt, complete_text=f"sunglasses on {prompt.base_text}") for prompt in PROMPTS[:2]]
    base = Sampler(toy, steps=1).before([prompt.base_text for prompt in prompts], [1, 2])
    found = adapter_regions(toy, prompts, base, "sunglasses")
    assert found.shape == (2, 64, 64) and found.dtype == np.bool_
    assert all(0 < region.mean() < 1 for region in found)
    assert not np.array_equal(found[0], found[1])


def test_otsu_makes_a_region_of_the_library_s_map(toy: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    planted = torch.zeros(1, 1, 8, 8)
    planted[..., 2:6, 2:6] = 0.9
    monkeypatch.setattr(regions, "averaged_maps", lambda *arguments: planted)
    prompts = [replace(PROMPTS[0], complete_text="a person, sunglasses")]
    (found,) = adapter_regions(toy, prompts, [Image.new("RGB", (64, 64))], "sunglasses")
    assert found[20:44, 20:44].all() and not found[:12].any() and not found[:, 52:].any()


def white(path: Path, box: tuple[int, int, int, int]) -> None:
    picture = Image.new("RGB", (32, 32))
    picture.paste((255, 255, 255), box)
    picture.save(path)


def test_masks_are_read_by_the_number_of_the_prompt(tmp_path: Path) -> None:
    white(tmp_path / "002.png", (0, 0, 16, 32))
    white(tmp_path / "mask.png", (16, 0, 32, 32))
    (tmp_path / "notes.txt").write_text("left alone")
    first, second = mask_regions(read_masks(tmp_path, 2), (64, 64))
    assert first[:, 40:].all() and not first[:, :24].any()
    assert second[:, :24].all() and not second[:, 40:].any()


def test_masks_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no mask for prompt 1, 2: expected 1.png, or mask.png for all"):
        read_masks(tmp_path, 2)
    white(tmp_path / "1.png", (0, 0, 4, 4))
    with pytest.raises(ValueError, match="no mask for prompt 2"):
        read_masks(tmp_path, 2)
    white(tmp_path / "01.png", (0, 0, 4, 4))
    with pytest.raises(ValueError, match=r"01.png and 1.png are masks of one prompt"):
        read_masks(tmp_path, 1)
    (tmp_path / "01.png").unlink()
    (tmp_path / "1.png").write_text("no picture")
    with pytest.raises(ValueError, match=r"1.png cannot be read"):
        read_masks(tmp_path, 1)
