from dataclasses import replace

import pytest
import torch

from spf_lite.data.batch import Item, by_size, collate, without_text
from spf_lite.data.prompts import encode_pair
from spf_lite.models.backbone import Backbone

from ..method.conftest import item


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


def test_items_without_phrases_to_protect_still_make_a_batch(toy: Backbone) -> None:
    pair = encode_pair(toy.pipe.tokenizer, "a person", "sunglasses", phrases=[])
    bare: Item = replace(item(toy, "a person"), pair=pair, distances=torch.zeros(0))
    assert collate([bare], [False]).phrases.shape == (1, 0, 32)
    mixed = collate([bare, item(toy)], [False, False])
    assert mixed.phrases[0].sum() == 0 and mixed.phrases[1].sum() == pytest.approx(3)


def test_a_batch_holds_one_size(toy: Backbone) -> None:
    square, wide = item(toy), replace(item(toy), latents=torch.zeros(4, 6, 8))
    assert by_size([square, wide, square]) == {(8, 8): [0, 2], (6, 8): [1]}
    assert collate([wide, wide], [False, False]).region.shape == (2, 1, 6, 8)
    with pytest.raises(ValueError, match=r"one size, these have \(8, 8\), \(6, 8\)"):
        collate([square, wide], [False, False])


def test_without_text_an_item_keeps_its_portrait_alone(toy: Backbone) -> None:
    whole, empty = item(toy), torch.full_like(item(toy).base, 3.0)
    untold = without_text(whole, empty)
    assert torch.equal(untold.latents, whole.latents) and torch.equal(untold.base, empty)
    batch = collate([whole, untold], [False, True])
    assert torch.equal(batch.complete[1], empty) and torch.equal(batch.base[1], empty)
    assert batch.phrases[1].abs().sum() == 0 and batch.aligned[1].sum() == 0 and batch.target[1].sum() == 0
