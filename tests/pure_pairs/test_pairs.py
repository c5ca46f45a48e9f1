from dataclasses import replace
from pathlib import Path

import pytest
import torch

from spf_lite.config import TrainConfig
from spf_lite.data.batch import Item
from spf_lite.data.prompts import encode_pair
from spf_lite.data.sets.custom_set import CustomSet
from spf_lite.models.backbone import Backbone
from spf_lite.pure_pairs import pairs, rewrite
from spf_lite.pure_pairs.pairs import margin_ranks, painted, with_pure_pairs
from spf_lite.pure_pairs.plans import RepaintPlan, repaint_plans
from spf_lite.pure_pairs.surprise import Surprise
from spf_lite.pure_pairs.vocabulary import Vocabulary
from spf_lite.training.trainer import DualPathTrainer

from ..conftest import load_toy
from ..method.conftest import item

TEXTS = [f"a person, {hair} hair, {color} hoodie" for hair in ("red", "gray") for color in ("blue", "green", "yellow")]
CONFIG = TrainConfig(
    stage1_steps=0,
    stage2_steps=2,
    batch_size=4,
    rank=2,
    scale_terms=False,
    weight_output=1.0,
    denoise_outside=0.0,
    map_source="surprise",
    fill_captions=True,
    pure_pairs=4,
    contrast=1.0,
)


def test_new_portraits_keep_the_target_its_place_and_its_texts(toy: Backbone) -> None:
    region = torch.zeros(1, 8, 8)
    region[:, :3] = 1
    learned = region.roll(1, dims=1) * region  # of the three rows that stay, two
    portraits = [replace(item(toy, text), region=learned) for text in ("a person, red hair", "a person, gray hair")]
    stays, generator = torch.stack([region] * 2), torch.Generator().manual_seed(0)
    plan = repaint_plans(portraits, stays, {2: "blue hoodie"}, [2], Vocabulary(TEXTS), 6, generator)
    made = painted(toy, plan, 4, torch.Generator().manual_seed(1))
    assert len(made) == 4 and not any(one.is_reference for one in made)
    texts = [one.text for one in plan]
    places = [texts.index(one.pair.base_text) for one in made]
    assert places == sorted(places), "in the order of the plan"
    for one, place in zip(made, places, strict=True):
        assert torch.equal(one.latents[:, :3], plan[place].item.latents[:, :3])
        assert not torch.isclose(one.latents[:, 3:], plan[place].item.latents[:, 3:], atol=1e-3).any()
        assert one.pair.complete_text == f"{one.pair.base_text}, sunglasses"
        assert one.region is not None and torch.equal(one.region, learned)


def test_the_portraits_that_still_show_the_set_are_left_out(toy: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    portraits, stays = [item(toy, "a person, red hair")], torch.zeros(1, 1, 8, 8)
    vocabulary = Vocabulary(["a person, red hair, green hoodie"])
    plan = repaint_plans(portraits, stays, {2: "blue hoodie"}, [2], vocabulary, 4, torch.Generator().manual_seed(0))
    margins = torch.tensor([0.3, -0.2, 0.1, -0.4])
    monkeypatch.setattr(pairs, "classification_margin", lambda *_: margins)
    monkeypatch.setattr(pairs, "repaint", lambda *_: torch.arange(4.0)[:, None, None, None].expand(4, 4, 8, 8))
    made = painted(toy, plan, 2, torch.Generator())
    assert [float(one.latents[0, 0, 0]) for one in made] == [1, 3]


def test_every_phrase_keeps_its_share_however_hard_it_is_to_see(toy: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = ["blue hoodie", "green hoodie", "red hoodie", "red hoodie", "green hoodie", "blue hoodie"]
    one = item(toy, "a person")
    plan = [
        RepaintPlan(one, torch.ones(1, 8, 8), x, {1: x}, {} if x == "blue hoodie" else {1: "blue hoodie"})
        for x in drawn
    ]
    margins = {"green hoodie": [5.0, 4.0], "red hoodie": [-3.0, -2.0]}
    monkeypatch.setattr(
        pairs,
        "classification_margin",
        lambda _, rows, asked, *__: torch.tensor([margins[text].pop(0) for text in asked]),
    )
    ranks = margin_ranks(toy, plan, torch.zeros(6, 4, 8, 8), torch.Generator())
    assert ranks.tolist() == [0.25, 0.75, 0.25, 0.75, 0.25, 0.75]
    both = [replace(one, drawn={**one.drawn, 2: str(k)}) for k, one in enumerate(plan)]
    margins |= {"green hoodie": [5.0, 4.0], "red hoodie": [-3.0, -2.0]}
    assert margin_ranks(toy, both, torch.zeros(6, 4, 8, 8), torch.Generator()).tolist() == [
        0.5,
        0.75,
        0.5,
        0.75,
        0.5,
        0.75,
    ]


def test_a_replaced_phrase_keeps_the_targets_place(toy: Backbone) -> None:
    pair = encode_pair(toy.pipe.tokenizer, "a person, blue hoodie", "a blazer", replaces="blue hoodie")
    portrait, stays = replace(item(toy), pair=pair), torch.ones(1, 1, 8, 8)
    vocabulary = Vocabulary(["a person, blue hoodie, smiling", "a person, green hoodie, sad"])
    plan = repaint_plans([portrait], stays, {2: "sad"}, [], vocabulary, 1, torch.Generator())
    (made,) = painted(toy, plan, 1, torch.Generator().manual_seed(0))
    assert made.pair.complete_text == "a person, a blazer, sad"
    assert torch.equal(made.latents, portrait.latents), "all of it is target"


def test_without_pairs_the_set_itself_gets_maps_and_filled_captions(
    toy: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pairs, "read_captions", lambda *_: {2: "blue hoodie"})
    portraits: list[Item] = [item(toy, "a person, red hair"), item(toy, "a person, gray hair")]
    made = with_pure_pairs(toy, portraits, TEXTS, replace(CONFIG, pure_pairs=0))
    assert [one.pair.base_text for one in made] == [f"{one.pair.base_text}, blue hoodie" for one in portraits]
    assert all(torch.equal(a.latents, b.latents) for a, b in zip(made, portraits, strict=True))
    assert all(one.region is not None and set(one.region.unique().tolist()) <= {0.0, 1.0} for one in made)


def test_a_place_that_a_phrase_shares_is_kept_and_not_learned(toy: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    difference, reach = torch.full((2, 1, 8, 8), 0.1), torch.zeros(2, 1, 8, 8)
    difference[:, :, :4] = 1.0
    reach[:, :, 1] = 0.6  # a row within the four of the target
    reach[:, :, 6:] = 1.0  # the phrase's own place
    monkeypatch.setattr(pairs, "read_captions", lambda *_: {2: "blue hoodie"})
    monkeypatch.setattr(pairs, "surprise", lambda *_: Surprise(difference, {2: reach}))
    kept: list[torch.Tensor] = []

    def repaint(_: Backbone, latents: torch.Tensor, region: torch.Tensor, *__: object) -> torch.Tensor:
        kept.append(region)
        return latents

    monkeypatch.setattr(pairs, "repaint", repaint)
    portraits = [item(toy, "a person, red hair"), item(toy, "a person, gray hair")]
    for limit, rows in ((0.4, [0, 2, 3]), (0.7, [0, 1, 2, 3]), (5.0, [0, 1, 2, 3])):
        made = with_pure_pairs(toy, portraits, TEXTS, replace(CONFIG, learning_limit=limit))
        assert len(made) == CONFIG.pure_pairs
        for one in made:
            assert one.region is not None and one.region.sum(dim=(0, 2)).nonzero().flatten().tolist() == rows
        assert (kept.pop().sum(dim=(1, 3)) > 0).nonzero()[:, 1].unique().tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("stop", [0, 1])
def test_a_resumed_run_learns_from_the_same_portraits(
    custom_set: CustomSet, toy_folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    monkeypatch.setattr(pairs, "read_captions", lambda *_: {2: "blue hoodie"})
    config = replace(
        CONFIG,
        checkpoint_every=1,
        anchor_share=0.5,
        weight_reconstruction=1.0,
        reference_portraits=2,
        text_forms="both",
    )

    def trainer(folder: Path) -> DualPathTrainer:
        backbone = load_toy(toy_folders["v_prediction"])
        return DualPathTrainer(backbone, custom_set, config, folder, reference_texts=[(text, None) for text in TEXTS])

    whole = trainer(tmp_path / "whole")
    history = whole.fit(progress=False).history

    def interrupt(step: int, _: object) -> None:
        if step == stop:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trainer(tmp_path / "cut").fit(on_step=interrupt, progress=False)
    monkeypatch.setattr(pairs, "repaint", lambda *_: pytest.fail("the portraits lie in the checkpoint"))
    resumed = trainer(tmp_path / "cut")
    again = resumed.fit(resume=True, progress=False).history
    assert [line["loss"] for line in again] == [line["loss"] for line in history]
    for one, other in zip(resumed.stage2.custom, whole.stage2.custom, strict=True):
        assert torch.equal(one.latents, other.latents) and one.pair.base_text == other.pair.base_text
        assert one.region is not None and other.region is not None and torch.equal(one.region, other.region)


def test_a_place_that_a_phrase_shares_is_rewritten_and_kept(toy: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    difference, mouth, shirt = torch.full((2, 1, 8, 8), 0.1), torch.zeros(2, 1, 8, 8), torch.zeros(2, 1, 8, 8)
    difference[:, :, :4] = 1.0
    mouth[:, :, 1], mouth[:, :, 2], mouth[:, :, 5:] = 0.8, 0.4, 0.3  # a row above the limit of repainting, one below it
    shirt[:, :, 3], shirt[:, :, 4:] = 0.8, 4.0
    monkeypatch.setattr(pairs, "read_captions", lambda *_: {1: "red hair", 2: "blue hoodie"})
    monkeypatch.setattr(pairs, "surprise", lambda *_: Surprise(difference, {1: mouth, 2: shirt}))
    monkeypatch.setattr(rewrite, "STEPS", 1)
    kept: list[torch.Tensor] = []
    around: list[torch.Tensor] = []

    def repaint(_: Backbone, latents: torch.Tensor, region: torch.Tensor, *__: object) -> torch.Tensor:
        kept.append(region)
        around.append(latents)
        return latents

    monkeypatch.setattr(pairs, "repaint", repaint)
    portraits: list[Item] = [item(toy, "a person"), item(toy, "a person")]
    for limit in (0.0, 0.25):
        made = with_pure_pairs(toy, portraits, TEXTS, replace(CONFIG, rewrite_limit=limit))
        rows = torch.stack([one.region for one in made if one.region is not None])[0, 0, :, 0]
        assert rows.tolist() == [1, 0, 1, 0, 0, 0, 0, 0], "learned is the same"
    without, rewriting = (region[0, 0, :, 0].tolist() for region in kept)
    assert without == [1, 0, 1, 0, 0, 0, 0, 0]
    assert rewriting == [1, 1, 1, 0, 0, 0, 0, 0], "the mouth stays, the shirt is repainted"
    assert torch.equal(around[0], torch.stack([portraits[row % 2].latents for row in range(len(around[0]))]))
    moved = (around[1] - around[0]).abs().amax(dim=(1, 3))
    assert float(moved[:, [0, 3, 4, 5, 6, 7]].max()) == 0 and float(moved[:, 1:3].max()) > 0


@pytest.mark.parametrize(("everywhere", "limit", "is_style"), [(0.5, 4.0, True), (0.5, 0.0, False), (0.3, 4.0, False)])
def test_a_style_is_learned_from_the_sets_own_portraits(
    toy: Backbone, monkeypatch: pytest.MonkeyPatch, everywhere: float, limit: float, is_style: bool
) -> None:
    difference = torch.full((2, 1, 8, 8), everywhere)
    difference[:, :, :4] = 1.0
    own = torch.full((2, 1, 8, 8), 0.1)
    monkeypatch.setattr(pairs, "read_captions", lambda *_: {2: "blue hoodie"})
    asked: list[list[Item]] = []

    def surprise(_: Backbone, items: list[Item], *__: object) -> Surprise:
        asked.append(items)
        return Surprise(own[: len(items)] if items[0].is_reference else difference, {})

    monkeypatch.setattr(pairs, "surprise", surprise)
    portraits: list[Item] = [item(toy, "a person, red hair"), item(toy, "a person, gray hair")]
    references = [replace(one, is_reference=True) for one in portraits]
    other_size = replace(references[0], latents=torch.zeros(4, 8, 12))
    made = with_pure_pairs(toy, portraits, TEXTS, replace(CONFIG, style_limit=limit), [other_size, *references])
    assert all(one.region is not None for one in made)
    if is_style:
        assert all(torch.equal(a.latents, b.latents) for a, b in zip(made, portraits, strict=True))
        assert [one.pair.base_text for one in made] == [f"{one.pair.base_text}, blue hoodie" for one in portraits]
        assert all(bool((one.region == 1).all()) for one in made if one.region is not None)
    else:
        assert len(made) == CONFIG.pure_pairs
        assert all(0 < float(one.region.mean()) < 1 for one in made if one.region is not None)
    assert [len(items) for items in asked] == ([2, 2] if limit else [2]), "reference portraits of the same size"


def test_asking_whether_it_is_a_style_changes_no_number(toy: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairs, "read_captions", lambda *_: {2: "blue hoodie"})
    portraits: list[Item] = [item(toy, "a person, red hair"), item(toy, "a person, gray hair")]
    references = [replace(one, is_reference=True) for one in portraits]
    asked = with_pure_pairs(toy, portraits, TEXTS, replace(CONFIG, style_limit=1e9), references)
    silent = with_pure_pairs(toy, portraits, TEXTS, replace(CONFIG, style_limit=0.0), references)
    assert all(torch.equal(a.latents, b.latents) for a, b in zip(asked, silent, strict=True))
