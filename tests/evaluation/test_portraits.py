"""The same people by several models, and what changed about them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from spf_lite.evaluation.benchmark import train_row
from spf_lite.evaluation.judge import Judge, JudgeNet
from spf_lite.evaluation.measures.attributes import unrelated_attributes
from spf_lite.evaluation.portraits import sampled_for_both_texts, sampled_portraits, unrelated_changes
from spf_lite.models.backbone import Backbone

TARGET = "sunglasses"


class Reader(Judge):
    """Reads the attributes off a picture's colour: red for a yellow background, blue for the target."""

    def attributes(self, images: object) -> list[dict[str, str]]:
        assert isinstance(images, list)
        colors = [image.getpixel((0, 0)) for image in images]
        return [
            {
                **dict.fromkeys(unrelated_attributes(TARGET), "x"),
                "background": "yellow" if red else "gray",
                "glasses": TARGET if blue else "no",
            }
            for red, _, blue in colors
        ]


def test_changes_are_named_against_the_base_and_the_target_is_none() -> None:
    plain, target, polluted = (Image.new("RGB", (2, 2), color) for color in ("black", "#0000FF", "#FF00FF"))
    judge = Reader(JudgeNet(width=8))
    found = unrelated_changes({"base": [plain, plain], "naive": [polluted, target]}, TARGET, judge)
    assert found == {"base": [{}, {}], "naive": [{"background": ("gray", "yellow")}, {}]}


def test_the_same_people_are_sampled_by_the_base_model_and_with_every_adapter(
    small_world: Path, tmp_path: Path
) -> None:
    runs = {name: train_row("naive", TARGET, seed, tmp_path, "silent") for seed, name in enumerate(("one", "two"))}
    portraits = sampled_portraits(TARGET, {name: path / "adapter" for name, path in runs.items()}, people=2)
    assert list(portraits) == ["base", "one", "two"] and {len(row) for row in portraits.values()} == {2}
    assert len({row[0].tobytes() for row in portraits.values()}) == 3
    one = {"one": runs["one"] / "adapter"}
    asked, unasked = sampled_for_both_texts(TARGET, one, people=2)
    assert asked == {name: portraits[name] for name in ("base", "one")}
    assert unasked == sampled_portraits(TARGET, one, people=2, asked=False) != asked
    assert sampled_for_both_texts(TARGET, one, people=2, strength=0.0)[1]["one"] == asked["base"]
    alone = sampled_portraits(TARGET, one, people=[1])
    for name in ("base", "one"):  # other batches round otherwise
        (here,), there = alone[name], portraits[name][1]
        assert np.abs(np.asarray(here, dtype=float) - np.asarray(there, dtype=float)).max() <= 1, name


def test_base_model_and_adapters_take_the_steps_that_are_asked_for(
    small_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = train_row("naive", TARGET, 0, tmp_path, "silent") / "adapter"
    asked: list[int] = []

    def counted(backbone: Backbone, prompts: list[str], *, steps: int, **options: Any) -> list[Image.Image]:
        asked.append(steps)
        return [Image.new("RGB", (64, 64))] * len(prompts)

    monkeypatch.setattr("spf_lite.evaluation.measuring.sample", counted)
    monkeypatch.setattr("spf_lite.evaluation.portraits.sample", counted)
    sampled_portraits(TARGET, {"one": adapter}, people=1, steps=7)
    assert asked == [7, 7]
