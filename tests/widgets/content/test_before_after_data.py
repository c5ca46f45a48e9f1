"""Portraits of several models as items of the widget: what stands in the caption is what the judge reads."""

import pytest
import torch
from PIL import Image

from spf_lite.evaluation.judge import Judge, JudgeNet
from spf_lite.evaluation.measuring import sample_evaluation_set
from spf_lite.evaluation.portraits import in_words, unrelated_changes
from spf_lite.models.backbone import Backbone
from spf_lite.tiny_world.portraits import Portrait
from spf_lite.tiny_world.rendering import counterfactual
from spf_lite.widgets import BeforeAfter
from spf_lite.widgets.content.before_after_data import before_after_items


def test_changes_are_said_in_words() -> None:
    assert in_words({}) == []
    assert in_words({"hair_style": ("bob", "bun"), "skin": ("tan", "pale")}) == [
        "hair style bob → bun",
        "skin tan → pale",
    ]


def test_an_item_has_what_the_judge_reads_and_what_the_model_was_given(toy: Backbone) -> None:
    torch.manual_seed(0)
    judge = Judge(JudgeNet(width=8))
    pairs = [counterfactual(Portrait(background=color), "beard", 64) for color in ("gray", "blue")]
    portraits = {"base": [base for base, _ in pairs], "naive": [after for _, after in pairs]}
    portraits["other"] = [Image.new("RGB", (64, 64), "red")] * 2
    items = before_after_items(portraits, "beard", judge)

    given = sample_evaluation_set(toy, "beard", 2, steps=1)
    assert [item["prompt"] for item in items] == given.complete_texts
    assert [item["seed"] for item in items] == given.seeds
    changes = unrelated_changes(portraits, "beard", judge)
    assert any(changes["other"]), "or there is nothing to say"
    for i, item in enumerate(items):
        assert item["images"] == {name: row[i] for name, row in portraits.items()}
        assert item["changes"] == {name: in_words(changes[name][i]) for name in ("naive", "other")}
        assert item["shows"] == {name: judge(row).shows("beard")[i] for name, row in portraits.items()}
        assert "base_text" not in item
    assert BeforeAfter(items).target == "a beard"

    last = {name: row[1:] for name, row in portraits.items()}
    (alone,) = before_after_items(last, "beard", judge, numbers=[1])
    assert alone == items[1], "a person keeps text and seed"
    with pytest.raises(ValueError, match="1 numbers for 2 people"):
        before_after_items(portraits, "beard", judge, numbers=[1])

    unasked = {"base": portraits["base"], "naive": portraits["other"], "other": portraits["naive"]}
    both = before_after_items(portraits, "beard", judge, unasked)
    for i, item in enumerate(both):
        view = item.pop("base_text")
        assert item == items[i] and view["prompt"] == given.base_texts[i]
        assert view["images"]["naive"] is portraits["other"][i]
        assert view["changes"]["naive"] == items[i]["changes"]["other"]
