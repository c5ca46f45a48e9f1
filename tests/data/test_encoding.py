from dataclasses import replace
from typing import Any

import pytest
import torch
from PIL import Image

from spf_lite.config import TrainConfig
from spf_lite.data import encoding, texts
from spf_lite.data.encoding import custom_items, reference_items, reference_latents, reference_sizes, region_of
from spf_lite.data.prompts import encode_pair
from spf_lite.data.sets.custom_set import CustomSet, Example
from spf_lite.data.sets.geometry import fit
from spf_lite.data.texts import check_texts
from spf_lite.method.control_map import ControlMap
from spf_lite.models.adapters.lora import add_lora
from spf_lite.models.backbone import Backbone
from spf_lite.models.codec import encode_images, encode_text, to_tensor
from spf_lite.models.tokenizer import EmptyTextError, PromptError, PromptTooLongError
from spf_lite.training.recipes import recipe
from spf_lite.training.trainer import DualPathTrainer

from ..method.conftest import item

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


def test_square_portraits_are_encoded_as_they_always_were(toy: Backbone, custom_set: CustomSet) -> None:
    twice = CustomSet(custom_set.folder, custom_set.examples * 2, "")
    images = to_tensor([example.image for example in twice], 64)
    latents = torch.cat([encode_images(toy.pipe, part) for part in images.split(8)])
    with torch.no_grad():
        previews = [toy.decode_preview(part).float().clamp(0, 1) for part in latents.split(8)]
        features = torch.cat([toy.clip.image_features(part) for part in previews])
    items = custom_items(toy, twice, enhance=True)
    assert torch.equal(torch.stack([single.latents for single in items]), latents)
    assert torch.equal(torch.stack([single.portrait_features for single in items]), features), "to the last bit"


def in_sizes(custom_set: CustomSet, *sizes: tuple[int, int]) -> CustomSet:
    """The first portrait, cut to each width and height, with a mask of its left half."""
    examples = []
    for width, height in sizes:
        mask = Image.new("L", (width, height))
        mask.paste(255, (0, 0, width // 2, height))
        examples.append(replace(custom_set[0], image=custom_set[0].image.resize((width, height)), mask=mask))
    return CustomSet(custom_set.folder, tuple(examples), "")


def test_portraits_of_other_shapes_go_into_buckets(toy: Backbone, custom_set: CustomSet) -> None:
    sizes = (64, 64), (128, 192), (192, 128), (128, 130), (100, 400)
    wide = in_sizes(custom_set, *sizes)
    items = custom_items(toy, wide, enhance=True)
    assert [tuple(single.latents.shape) for single in items] == [(4, 8, 8), (4, 8, 6), (4, 6, 8), (4, 8, 8), (4, 8, 4)]
    for example, single in zip(wide, items, strict=True):
        height, width = single.latents.shape[-2:]
        alone = encode_images(toy.pipe, to_tensor([fit(example.image, (height * 8, width * 8))]))[0]
        assert torch.allclose(single.latents, alone, atol=1e-5), "cropped, not squashed"
        assert single.region is not None and single.region.shape == (1, height, width)
        assert single.region[0, :, : width // 2].min() == 1 and single.region[0, :, width // 2 + 1 :].max() == 0
        assert single.portrait_features.shape == items[0].portrait_features.shape


def test_reference_portraits_have_the_sizes_of_the_set(toy: Backbone, custom_set: CustomSet) -> None:
    items = custom_items(toy, in_sizes(custom_set, (64, 64), (64, 64), (64, 64), (64, 96)))
    assert reference_sizes(items, 8) == [(8, 8)] * 6 + [(8, 6)] * 2
    assert reference_sizes(items, 1) == [(8, 8), (8, 6)], "one of each at least"
    assert reference_sizes(items, 0) == reference_sizes([], 5) == []
    latents = reference_latents(toy, TEXTS, 4, 1, items)
    assert [tuple(latent.shape) for latent in latents] == [(4, 8, 8)] * 3 + [(4, 8, 6)]
    square = reference_latents(toy, TEXTS, 3, 1)
    assert torch.allclose(torch.stack(latents[:3]), torch.stack(square), atol=1e-5)
    references = reference_items(toy, TEXTS, latents, items[0])
    assert [tuple(single.latents.shape[-2:]) for single in references] == [(8, 8)] * 3 + [(8, 6)]


def test_enlarging_is_said(toy: Backbone, custom_set: CustomSet, caplog: pytest.LogCaptureFixture) -> None:
    custom_items(toy, custom_set)
    assert not caplog.records
    custom_items(toy, in_sizes(custom_set, (64, 64), (40, 40)))
    assert [entry.message.split(":")[0] for entry in caplog.records] == [
        "1 of 2 portraits have fewer pixels than the model generates"
    ]


def test_every_text_is_checked_before_anything_is_encoded(
    toy: Backbone, custom_set: CustomSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoding, "encode_images", lambda *_: pytest.fail("too late"))
    long = "hair " * 40
    with pytest.raises(PromptTooLongError, match=r"^metadata\.jsonl, line 3: .* has 42 tokens"):
        bad = replace(custom_set[0], base_text=long, where="metadata.jsonl, line 3")
        custom_items(toy, CustomSet(custom_set.folder, (custom_set[0], bad), ""))
    with pytest.raises(PromptTooLongError, match=r"^references\.jsonl, line 2: "):
        lines = ("references.jsonl, line 1", "references.jsonl, line 2")
        references = (("a man", None), (long, None))
        DualPathTrainer(toy, CustomSet(custom_set.folder, custom_set.examples, "", references, lines), TrainConfig())
    with pytest.raises(EmptyTextError, match="reference text 2: the base text is empty"):
        check_texts(toy, [("a man", None), (" ", None)], "sunglasses")
    for given in ([(long, None)], [("a man", "a hat")], [("a man, Sunglasses", None)]):
        with pytest.raises(PromptError, match="^reference text 1: "):
            DualPathTrainer(toy, custom_set, TrainConfig(), reference_texts=given)


@pytest.mark.parametrize("source", ["sfcm", "averaged", "token", "given"])
def test_a_run_over_buckets_has_both_stages(source: str, toy: Backbone, custom_set: CustomSet) -> None:
    changes = ["stage1_steps=2", "stage2_steps=6", "batch_size=2", "reference_portraits=2", "rank=2"]
    config = recipe("spf").changed([*changes, f"map_source={source}", "weight_text=1", "weight_fine=1"])
    mixed = in_sizes(custom_set, (64, 64), (128, 192), (192, 128))
    trainer = DualPathTrainer(toy, mixed, config)
    maps: set[tuple[int, ...]] = set()

    def look(_: int, control: ControlMap | None) -> None:
        if control is not None:
            maps.add(tuple(control.map.shape[-2:]))

    history = trainer.fit(progress=False, on_step=look).history
    assert [line["stage"] for line in history] == [1] * 2 + [2] * 6 and len(trainer.stage2.references) == 3
    assert {"text", "fine", "output"} <= history[-1].keys()
    assert (len(maps) > 1) == (source == "sfcm") and maps <= {(8, 8), (8, 6), (6, 8)}
    for single in (*trainer.custom, *trainer.stage2.references):
        assert single.region is None or single.region.shape[-2:] == single.latents.shape[-2:]


def encoded_texts(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Every text that goes through the text encoder from now on."""
    seen: list[tuple[int, ...]] = []

    def count(pipe: Any, ids: torch.Tensor) -> torch.Tensor:
        seen.extend(map(tuple, ids.tolist()))
        return encode_text(pipe, ids)

    monkeypatch.setattr(texts, "encode_text", count)
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
