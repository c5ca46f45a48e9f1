from dataclasses import replace
from typing import Any

import pytest
import torch
from PIL import Image

from spf_lite.data import encoding
from spf_lite.data.custom_set import CustomSet, Example
from spf_lite.data.encoding import custom_items, reference_items, reference_latents, region_of
from spf_lite.data.prompts import encode_pair
from spf_lite.models.adapters import add_lora
from spf_lite.models.backbone import Backbone
from spf_lite.models.codec import encode_text, to_tensor

from ..method.test_dual_path import item

TEXTS: list[tuple[str, str | None]] = [("a person, tan skin", None), ("a person, blue hoodie", "blue hoodie")]


def test_the_region_of_a_mask_has_every_place_that_is_touched() -> None:
    mask = Image.new("L", (64, 64))
    assert region_of(to_tensor([mask]), (8, 8)).sum() == 0
    mask.putpixel((63, 8), 255)
    region = region_of(to_tensor([mask]), (8, 8))
    assert region.shape == (1, 8, 8) and region.nonzero().tolist() == [[0, 1, 7]], "row 1, column 7, by one pixel"
    mask.putpixel((0, 0), 100)
    assert region_of(to_tensor([mask]), (8, 8)).sum() == 1, "dark gray is not white"
    assert region_of(to_tensor([Image.new("L", (64, 64), 255)]), (4, 4)).tolist() == [[[1.0] * 4] * 4]


def test_custom_items_hold_what_the_models_say(toy: Backbone, custom_set: CustomSet) -> None:
    items = custom_items(toy, custom_set)
    assert len(items) == len(custom_set) and not any(item.is_reference for item in items)
    for example, single in zip(custom_set, items, strict=True):
        pair = encode_pair(toy.pipe.tokenizer, example.base_text, example.target_text)
        texts = encode_text(toy.pipe, torch.stack([pair.base_ids, pair.complete_ids]))
        assert torch.allclose(torch.stack([single.base, single.complete]), texts, atol=1e-5)
        assert single.latents.shape == (4, 8, 8) and single.region is None
        assert len(single.distances) == len(pair.phrases)
    portraits = torch.stack([single.portrait_features for single in items])
    assert torch.equal(portraits, items[0].target_features.expand(6, -1)), "nobody needs them: not computed"
    enhanced = torch.stack([single.portrait_features for single in custom_items(toy, custom_set, enhance=True)])
    drafts = toy.decode_preview(torch.stack([single.latents for single in items])).clamp(0, 1)
    expected = toy.clip.image_features(drafts)
    assert torch.allclose(enhanced, expected, atol=1e-5)


def test_a_mask_becomes_the_region_of_its_own_item(toy: Backbone, custom_set: CustomSet) -> None:
    mask = Image.new("RGB", (64, 64))
    mask.paste("white", (0, 0, 16, 8))
    examples = (replace(custom_set[0], mask=mask), custom_set[1])
    first, second = custom_items(toy, CustomSet(custom_set.folder, examples, ""))
    assert second.region is None
    assert first.region is not None and first.region.nonzero().tolist() == [[0, 0, 0], [0, 0, 1]]


def encoded_texts(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Every text that goes through the text encoder from now on."""
    seen: list[tuple[int, ...]] = []

    def count(pipe: Any, ids: torch.Tensor) -> torch.Tensor:
        seen.extend(map(tuple, ids.tolist()))
        return encode_text(pipe, ids)

    monkeypatch.setattr(encoding, "encode_text", count)
    return seen


def test_each_different_text_is_encoded_once(
    toy: Backbone, custom_set: CustomSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = encoded_texts(toy, monkeypatch)
    twice = CustomSet(custom_set.folder, custom_set.examples * 2, "")
    items = custom_items(toy, twice)
    different = {example.base_text for example in custom_set}
    assert len(seen) == len(set(seen)) == 2 * len(different)
    for first, second in zip(items[:6], items[6:], strict=True):
        assert torch.equal(first.base, second.base) and torch.equal(first.complete, second.complete)
    seen.clear()
    reference_items(toy, TEXTS, torch.zeros(5, 4, 8, 8), items[0])
    assert len(seen) == len(set(seen)) == 4, "five portraits of two texts"


def test_reference_items_share_the_target(toy: Backbone, custom_set: CustomSet) -> None:
    like = custom_items(toy, custom_set)[0]
    latents = torch.arange(3.0)[:, None, None, None].expand(3, 4, 8, 8)
    items = reference_items(toy, TEXTS, latents, like)
    assert all(single.is_reference and single.region is None for single in items)
    assert [single.latents[0, 0, 0].item() for single in items] == [0, 1, 2]
    assert [single.pair.complete_text for single in items] == [
        "a person, tan skin, sunglasses",
        "a person, sunglasses",
        "a person, tan skin, sunglasses",
    ], "in turn; added, or in the place of what it replaces"
    for single in items:
        assert torch.equal(single.target_features, like.target_features)


def test_the_reference_draws_without_what_is_being_trained(toy: Backbone) -> None:
    before = reference_latents(toy, TEXTS, 3, seed=1)
    assert [latents.shape for latents in before] == [(4, 8, 8)] * 3
    with torch.no_grad():
        for parameter in add_lora(toy.pipe.unet, rank=2):
            parameter.add_(0.3)
    assert torch.equal(torch.stack(reference_latents(toy, TEXTS, 3, seed=1)), torch.stack(before))
    assert not torch.allclose(torch.stack(reference_latents(toy, TEXTS, 3, seed=2)), torch.stack(before), atol=1e-3)
    assert not torch.allclose(before[0], before[2], atol=1e-3), "the same text, another noise"


def test_a_text_that_does_not_fit_is_refused(toy: Backbone, custom_set: CustomSet) -> None:
    bad: Example = replace(custom_set[0], replaces="a hat")
    with pytest.raises(ValueError, match="'a hat' does not stand in the base text"):
        custom_items(toy, CustomSet(custom_set.folder, (bad,), ""))
    with pytest.raises(ValueError, match="'a hat' does not stand in the base text"):
        reference_items(toy, [("a person", "a hat")], torch.zeros(1, 4, 8, 8), item(toy))
