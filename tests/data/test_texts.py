from dataclasses import replace
from typing import Any

import pytest
import torch

from spf_lite.data import texts
from spf_lite.data.prompts import encode_pair
from spf_lite.data.texts import empty_text, encode_texts, with_base_texts, with_text_forms
from spf_lite.models.backbone import Backbone
from spf_lite.models.codec import encode_text
from spf_lite.models.tokenizer import PromptTooLongError

from ..method.conftest import item


def test_both_text_forms_show_the_same_portraits(toy: Backbone) -> None:
    items = [item(toy, f"a person, {hair} hair, blue hoodie, smiling") for hair in ("red", "gray", "black") * 8]
    both = with_text_forms(toy, items, seed=0)
    assert both[::2] == items and [form.is_shortened for form in both] == [False, True] * len(items)
    kept: list[list[str]] = []
    for whole, form in zip(items, both[1::2], strict=True):
        assert form.latents is whole.latents
        phrases = form.pair.base_text.split(", ")
        assert phrases[0] == "a person"
        assert [p for p in whole.pair.base_text.split(", ") if p in phrases] == phrases, "some of them, in order"
        assert form.pair.complete_text == ", ".join([*phrases, "sunglasses"])
        texts = encode_text(toy.pipe, torch.stack([form.pair.base_ids, form.pair.complete_ids]))
        assert torch.allclose(torch.stack([form.base, form.complete]), texts, atol=1e-5)
        kept.append(phrases)
    share = sum(len(phrases) - 1 for phrases in kept) / (3 * len(items))
    assert 0.35 < share < 0.65 and len({tuple(phrases[1:]) for phrases in kept}) > 4
    assert [f.pair.base_text for f in with_text_forms(toy, items, seed=0)] == [f.pair.base_text for f in both]
    assert [f.pair.base_text for f in with_text_forms(toy, items, seed=1)] != [f.pair.base_text for f in both]


def test_a_target_whose_place_is_dropped_is_added_at_the_end(toy: Backbone) -> None:
    pair = encode_pair(toy.pipe.tokenizer, "a person, blue hoodie, smiling", "a blazer", replaces="blue hoodie")
    kept, dropped = with_base_texts(
        toy, [replace(item(toy), pair=pair)] * 2, ["a person, blue hoodie", "a person, smiling"]
    )
    assert kept.pair.complete_text == "a person, a blazer"
    assert dropped.pair.complete_text == "a person, smiling, a blazer"


def test_texts_are_encoded_once_and_in_order(toy: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def counted(pipe: Any, ids: torch.Tensor) -> torch.Tensor:
        seen.append(len(ids))
        return encode_text(pipe, ids)

    monkeypatch.setattr(texts, "encode_text", counted)
    rows = encode_texts(toy, ["smiling", "", "smiling", "sad"])
    assert sum(seen) == 3 and rows.shape == (4, 32, 32)
    assert torch.equal(rows[0], rows[2]) and torch.equal(rows[1], empty_text(toy)) and not torch.equal(rows[0], rows[3])
    with pytest.raises(PromptTooLongError):
        encode_texts(toy, ["word " * 80])
