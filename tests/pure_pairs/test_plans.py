from dataclasses import replace

import pytest
import torch

from spf_lite.data.earlier import EarlierTargets
from spf_lite.models.adapters.learned import LearnedTarget
from spf_lite.models.backbone import Backbone
from spf_lite.pure_pairs import plans as module
from spf_lite.pure_pairs.plans import partly_inside, repaint_plans, repaintable, rewritten, with_earlier
from spf_lite.pure_pairs.vocabulary import Vocabulary

from ..method.conftest import item

TEXTS = [f"a person, {hair} hair, {color} hoodie" for hair in ("red", "gray") for color in ("blue", "green", "yellow")]


def test_what_lies_inside_the_map_cannot_be_repainted() -> None:
    region = torch.zeros(2, 1, 4, 4)
    region[:, :, :2] = 1
    above, below, half = (torch.zeros(2, 1, 4, 4) for _ in range(3))
    above[:, :, 0], below[:, :, 3], half[:, :, 1:3] = 1, 1, 1
    below[:, :, 0] = 0.5
    reach = {1: above, 2: below, 3: half}
    found = {1: "red hair", 2: "smiling", 3: "glasses", 4: "blue hoodie"}
    assert repaintable(found, reach, region) == [2, 4], "half inside is inside; without a map it is outside"


def test_sketches_swap_what_can_be_changed_and_keep_the_rest(toy: Backbone) -> None:
    portraits = [item(toy, "a person, red hair"), item(toy, "a person, gray hair")]
    found = {2: "blue hoodie", 3: "glasses"}
    vocabulary = Vocabulary([*TEXTS, "a person, red hair, green hoodie, glasses"])
    plan = repaint_plans(
        portraits, torch.ones(2, 1, 8, 8), found, [2], vocabulary, 40, torch.Generator().manual_seed(0)
    )
    assert [one.item for one in plan[:4]] == portraits * 2, "taken in turn"
    for one in plan:
        person, hair, clothes, glasses = one.text.split(", ")
        assert f"{person}, {hair}" == one.item.pair.base_text and glasses == "glasses"
        same = f"{person}, {hair}, blue hoodie, glasses"
        assert one.drawn == {2: clothes}
        assert one.instead == ({} if clothes == "blue hoodie" else {2: same})
    assert {one.text.split(", ")[2] for one in plan} == {"blue hoodie", "green hoodie", "yellow hoodie"}


def test_a_share_of_the_new_portraits_shows_earlier_targets(toy: Backbone) -> None:
    vocabulary, generator = Vocabulary(TEXTS), torch.Generator().manual_seed(0)
    stays, found = torch.ones(1, 1, 8, 8), {2: "blue hoodie"}
    plan = repaint_plans([item(toy, "a person, red hair")], stays, found, [2], vocabulary, 20, generator)
    earlier = EarlierTargets((LearnedTarget("a beard"), LearnedTarget("pink hair", ("red hair",))), "sunglasses", 0.5)
    asked = with_earlier(toy, plan, earlier, {})
    texts = [one.text for one in asked]
    assert [one.text for one in plan[::2]] == texts[::2] and not set(texts[1::2]) & {one.text for one in plan}
    for before, after in zip(plan, asked, strict=True):
        for name, phrase in (("a beard", ", a beard"), ("pink hair", "pink hair")):
            wanted = phrase in after.text
            assert all((phrase in text) == wanted for text in after.instead.values()), name
        assert ("red hair" in after.text) != ("pink hair" in after.text)
        assert after.instead.keys() == before.instead.keys() and after.item.latents is before.item.latents
    assert any("a beard" in text for text in texts) and any("pink hair" in text for text in texts)
    assert with_earlier(toy, plan, EarlierTargets(), {}) == plan


def test_an_earlier_target_is_painted_where_it_acts(toy: Backbone) -> None:
    stays, there = torch.ones(2, 1, 8, 8), torch.zeros(2, 1, 8, 8)
    there[0, :, :2], there[1, :, 5:] = 1, 1
    portraits = [replace(item(toy), region=0.5 * stays[0]), item(toy, "a person, gray hair")]
    plan = repaint_plans(portraits, stays, {}, [], Vocabulary(TEXTS), 8, torch.Generator().manual_seed(0))
    beard = LearnedTarget("a beard")
    for number, one in enumerate(with_earlier(toy, plan, EarlierTargets((beard,), "sunglasses", 1.0), {beard: there})):
        assert torch.equal(one.region, 1 - there[number % 2])
        learned = one.item.region
        if number % 2:
            assert learned is None, "there was no map for learning"
        else:
            assert learned is not None and torch.equal(learned, 0.5 * (1 - there[0]))


def test_a_phrase_is_rewritten_if_it_acts_partly_inside() -> None:
    region, outside, edge = (torch.zeros(1, 1, 4, 4) for _ in range(3))
    region[:, :, :2], outside[:, :, 2:], edge[:, :, 1:] = 1, 1, 1
    assert partly_inside([1, 2, 3], {1: outside, 2: edge, 4: edge}, region) == [2], "3 was not measured, 4 stays"


def test_each_portrait_is_rewritten_once_for_a_phrase(toy: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    portraits = [
        item(toy, "a person, red hair"),
        replace(item(toy, "a person, gray hair"), latents=torch.ones(4, 8, 8)),
    ]
    found, vocabulary = {2: "blue hoodie"}, Vocabulary(TEXTS)
    stays, generator = torch.ones(2, 1, 8, 8), torch.Generator().manual_seed(0)
    plan = repaint_plans(portraits, stays, found, [2], vocabulary, 40, generator)
    asked: list[tuple[str, str]] = []

    def rewrite(
        _: Backbone, latents: torch.Tensor, places: torch.Tensor, own: list[str], other: list[str], __: torch.Generator
    ) -> torch.Tensor:
        asked.extend(zip(own, other, strict=True))
        assert torch.equal(places[:, 0, 0, 0], latents[:, 0, 0, 0].eq(1).float() + 1), "each has its own places"
        return torch.stack([torch.full((4, 8, 8), 10.0 + number) for number in range(len(latents))])

    monkeypatch.setattr(module, "rewrite", rewrite)
    places = {2: torch.stack([torch.ones(1, 8, 8), torch.full((1, 8, 8), 2.0)])}
    new = rewritten(toy, plan, found, places, vocabulary, generator)
    assert len(asked) == len(set(asked)) == 4, "two portraits, two other hoodies"
    assert all(own.endswith("blue hoodie") and own.split(", ")[:2] == other.split(", ")[:2] for own, other in asked)
    for before, after in zip(plan, new, strict=True):
        assert (after.text, after.drawn, after.instead) == (before.text, before.drawn, before.instead)
        if before.instead:
            row = [other for _, other in asked].index(before.text)
            assert torch.equal(after.item.latents, torch.full((4, 8, 8), 10.0 + row))
        else:
            assert torch.equal(after.item.latents, before.item.latents), "the set's own phrase"
    assert rewritten(toy, plan, found, {}, vocabulary, generator) == plan
