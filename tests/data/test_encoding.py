from dataclasses import replace

import pytest
import torch
from PIL import Image

from spf_lite.data import encoding as batches
from spf_lite.data.batch import Item, collate
from spf_lite.data.custom_set import CustomSet, Example
from spf_lite.data.encoding import custom_items, reference_items, reference_latents, region_of
from spf_lite.data.prompts import encode_pair
from spf_lite.models.adapters import add_lora
from spf_lite.models.backbone import Backbone
from spf_lite.models.codec import encode_text, to_tensor

from ..method.conftest import item

TEXTS: list[tuple[str, str | None]] = [("a person, tan skin", None), ("a person, blue hoodie", "blue hoodie")]


def test_a_batch_is_filled_up_with_what_counts_for_nothing(toy: Backbone) -> None:
    long, short = item(toy), item(toy, "a person")
    batch = collate([long, short], [False, False])
    assert len(batch) == 2
    assert batch.phrases.shape == (2, 3, 32) and batch.distances.shape == (2, 3)
    assert batch.phrases[1, 1:].sum() == 0 and batch.distances[1, 1:].sum() == 0
    assert batch.phrases.sum(dim=-1).flatten().tolist() == pytest.approx([1, 1, 1, 1, 0, 0]), "each row is an average"
    assert batch.aligned.sum(dim=1).tolist() == [len(long.pair.alignment), len(short.pair.alignment)]
    for row, single in enumerate((long, short)):
        pairs = zip(batch.base_tokens[row].tolist(), batch.complete_tokens[row].tolist(), strict=True)
        real = [pair for pair, counts in zip(pairs, batch.aligned[row], strict=True) if counts]
        assert real == list(single.pair.alignment)
        assert batch.target[row].nonzero().flatten().tolist() == list(single.pair.target.tokens)
        assert batch.target[row].sum() == pytest.approx(1)


def test_a_reconstruction_item_is_fed_the_base_text_on_both_paths(toy: Backbone) -> None:
    batch = collate([item(toy), item(toy)], [True, False])
    assert torch.equal(batch.base[0], batch.complete[0]) and not torch.equal(batch.base[1], batch.complete[1])
    assert torch.equal(batch.base_tokens[0], batch.complete_tokens[0])
    assert batch.target[0].sum() == 0
    assert batch.is_reconstruction.tolist() == [True, False]


def test_a_batch_says_who_is_a_reference_and_where_the_target_may_act(toy: Backbone) -> None:
    corner = torch.zeros(1, 8, 8)
    corner[:, :2, :2] = 1
    batch = collate([replace(item(toy), region=corner), item(toy, is_reference=True)], [False, False])
    assert batch.is_reference.tolist() == [False, True]
    assert torch.equal(batch.region[0], corner) and batch.region[1].min() == 1, "not known: everywhere"


def test_a_batch_moves_as_a_whole(toy: Backbone) -> None:
    moved = collate([item(toy)], [False]).to(torch.device("meta"))
    assert {value.device.type for value in vars(moved).values()} == {"meta"}


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
    drafts = toy.draft(torch.stack([single.latents for single in items])).clamp(0, 1)
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
    encode = batches.encode_text

    def count(pipe: object, ids: torch.Tensor) -> torch.Tensor:
        seen.extend(map(tuple, ids.tolist()))
        return encode(pipe, ids)  # type: ignore[arg-type]

    monkeypatch.setattr(batches, "encode_text", count)
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
    assert before.shape == (3, 4, 8, 8)
    parameters = add_lora(toy.pipe.unet, rank=2)
    with torch.no_grad():
        for parameter in parameters:
            parameter += 0.3
    assert torch.equal(reference_latents(toy, TEXTS, 3, seed=1), before)
    assert not torch.allclose(reference_latents(toy, TEXTS, 3, seed=2), before, atol=1e-3)
    assert not torch.allclose(before[0], before[2], atol=1e-3), "the same text, another noise"


def test_a_text_that_does_not_fit_is_refused(toy: Backbone, custom_set: CustomSet) -> None:
    bad: Example = replace(custom_set[0], replaces="a hat")
    with pytest.raises(ValueError, match="'a hat' does not stand in the base text"):
        custom_items(toy, CustomSet(custom_set.folder, (bad,), ""))
    with pytest.raises(ValueError, match="'a hat' does not stand in the base text"):
        reference_items(toy, [("a person", "a hat")], torch.zeros(1, 4, 8, 8), item(toy))


def test_items_without_phrases_to_protect_still_make_a_batch(toy: Backbone) -> None:
    pair = encode_pair(toy.pipe.tokenizer, "a person", "sunglasses", phrases=[])
    bare: Item = replace(item(toy, "a person"), pair=pair, distances=torch.zeros(0))
    assert collate([bare], [False]).phrases.shape == (1, 0, 32)
    mixed = collate([bare, item(toy)], [False, False])
    assert mixed.phrases[0].sum() == 0 and mixed.phrases[1].sum() == pytest.approx(3)
