"""What a stage of a chain counts."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from PIL import Image

from spf_lite.evaluation import stages
from spf_lite.evaluation.incremental import ORDERS
from spf_lite.evaluation.judge import HEADS
from spf_lite.evaluation.measuring import FIRST_SEED, EvaluationSet
from spf_lite.evaluation.stages import Stage, measured_stage, together, unrelated_texts
from spf_lite.models.backbone import Backbone

from ..method.conftest import train

PLAIN = {name: values[0] for name, values in HEADS.items()}


class Painted:
    """A portrait of one colour, and the text that was asked for."""

    def __init__(self, text: str, level: int = 0) -> None:
        self.text, self.image = text, Image.new("RGB", (8, 8), (level,) * 3)

    def convert(self, mode: str) -> Image.Image:
        return self.image.convert(mode)


class Reader:
    """A judge of texts: what a portrait shows stands in ``answers``."""

    def __init__(self, **answers: dict[str, str]) -> None:
        self.answers = answers

    def attributes(self, images: Sequence[Painted]) -> list[dict[str, str]]:
        return [{**PLAIN, **self.answers.get(image.text, {})} for image in images]


def asked(target: str, base: Sequence[str], complete: Sequence[str]) -> EvaluationSet:
    seeds = list(range(len(base)))
    before = [Painted("before")] * len(base)
    return EvaluationSet(target, [], list(base), list(complete), seeds, before)  # type: ignore[arg-type]


def test_a_stage_counts_what_a_reader_would(toy: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: a lost target, a flip, a target that nobody asked for, one that is lost in company, and a grey veil."""
    train(toy)
    calls: list[tuple[bool, list[int]]] = []

    def paint(backbone: Backbone, texts: Sequence[str], seeds: Sequence[int]) -> list[Painted]:
        tuned = any(module.merged or not module.disable_adapters for module in _adapted(backbone))
        calls.append((tuned, list(seeds)))
        plain = [text for text in texts if not text.startswith(("beard", "shades", "all"))]
        return [Painted(text, 51 if tuned and text in plain else 0) for text in texts]

    monkeypatch.setattr(stages, "sample", paint)
    monkeypatch.setattr(stages, "together", lambda targets, prompts: ["all 0", "all 1"])
    monkeypatch.setattr(stages, "unrelated_texts", lambda prompts: ["plain 0", "plain 1"])
    embeddings = {0: [1.0, 0.0], 51: [0.6, 0.8]}
    monkeypatch.setattr(
        stages,
        "clip_images",
        lambda backbone, images: np.array([embeddings[one.image.getpixel((0, 0))[0]] for one in images]),
    )
    beard, shades = {"beard": "beard"}, {"glasses": "sunglasses"}
    judge = Reader(
        **{
            "beard 0": beard,
            "beard 1": {**beard, **shades},  # pure of every flip, but sunglasses were not asked for
            "shades 0": {**shades, "background": HEADS["background"][1]},
            "shades 1": {},
            "base 0": beard,
            "base 1": {"expression": HEADS["expression"][1]},
            "all 0": {**beard, **shades},
            "all 1": beard,
        }
    )
    sets = {
        "beard": asked("beard", ["old 0", "old 1"], ["beard 0", "beard 1"]),
        "sunglasses": asked("sunglasses", ["base 0", "base 1"], ["shades 0", "shades 1"]),
    }
    stage = measured_stage(toy, judge, ["beard", "sunglasses"], sets)  # type: ignore[arg-type]
    assert stage.learned == ("beard", "sunglasses")
    assert stage.found == {"beard": [1, 1], "sunglasses": [1, 0]}
    assert stage.pure == {"beard": [1, 0], "sunglasses": [0, 0]}
    assert stage.unasked == [1, 0]
    assert stage.together == {"beard": [1, 1], "sunglasses": [1, 0]}
    assert stage.flips["base"] == [0, pytest.approx(1 / 7)] and stage.flips["unrelated"] == [0, 0]
    assert stage.moved["base"] == [pytest.approx(51 / 255)] * 2 == stage.moved["unrelated"]
    assert stage.clip_i["base"] == [pytest.approx(0.6)] * 2 == stage.clip_i["unrelated"]
    assert Stage.from_json(stage.to_json()) == stage
    of_base = [seeds for tuned, seeds in calls if not tuned]
    assert of_base == [[FIRST_SEED, FIRST_SEED + 1]], "one painting by the untouched model, for the unrelated texts"
    assert sum(seeds == of_base[0] for _, seeds in calls) == 3, "the same noise by the tuned one, and for all targets"


def _adapted(backbone: Backbone) -> list[Any]:
    return [module for module in backbone.network.modules() if hasattr(module, "lora_A")]


def test_all_targets_are_asked_together_of_the_same_people() -> None:
    two, five = together(ORDERS[0][:2], 4), together(ORDERS[0], 4)
    assert all(text.endswith(", sunglasses, a beard") for text in two)
    for text in five:
        assert text.count("hair") == 2, "pink hair, and a style without another colour"
        assert "a blazer" in text and "a winter hat" in text and "hoodie" not in text
    assert [text.split(" skin")[0].split()[-1] for text in two] == [text.split(" skin")[0].split()[-1] for text in five]


def test_unrelated_texts_are_of_another_form() -> None:
    texts = unrelated_texts(12)
    assert texts == unrelated_texts(12) and texts[:4] == unrelated_texts(4) and len(set(texts)) > 8
    for text in texts:
        phrases = text.split(", ")
        assert len(phrases) == 2 and "a person" not in phrases
