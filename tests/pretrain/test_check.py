from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spf_lite.evaluation.judge import HEADS, Judge, Verdict, head_of
from spf_lite.evaluation.statistics import Estimate
from spf_lite.models.backbone import Backbone
from spf_lite.pretrain import check
from spf_lite.pretrain.check import (
    ALLOWED_TARGET,
    REQUIRED,
    REQUIRED_JUDGE,
    Check,
    check_model,
    held_out_accuracy,
    prompt_following,
    unseen_targets,
)
from spf_lite.pretrain.dataset import Split
from spf_lite.tiny_world.portraits import ATTRIBUTES, TARGETS


def read(caption: str) -> dict[str, str]:
    """The attributes that a whole caption names."""
    found = {"glasses": "no"}
    for phrase in caption.split(", "):
        words = phrase.split()
        if words[-1] == "hair":
            found |= {"hair_color": words[0], "hair_style": words[1]}
        elif words[-1] in ("skin", "background"):
            found[words[-1]] = words[0]
        elif phrase == "glasses":
            found["glasses"] = "yes"
        elif phrase in ATTRIBUTES["expression"]:
            found["expression"] = phrase
        elif words[-1] in ATTRIBUTES["clothes"]:
            found |= {"clothes_color": words[0], "clothes": words[1]}
    return found


class PlantedJudge:
    """Reads captions instead of pictures, and is wrong about, or sees, what it was told to.

    Args:
        mistakes: attribute to the number of pictures, from the first on, for which another value is seen.
        shown: target to the number of pictures that show it.
    """

    def __init__(self, mistakes: dict[str, int] | None = None, shown: dict[str, int] | None = None) -> None:
        self.mistakes, self.shown = mistakes or {}, shown or {}

    def attributes(self, captions: Sequence[str]) -> list[dict[str, str]]:
        answers = [read(caption) for caption in captions]
        for name, count in self.mistakes.items():
            for answer in answers[:count]:
                answer[name] = next(value for value in ATTRIBUTES[name] if value != answer[name])
        return answers

    def __call__(self, captions: Sequence[str]) -> Verdict:
        answers = [{head: "no" for head in HEADS} for _ in captions]
        for target, count in self.shown.items():
            if TARGETS[target].text in captions[0]:
                for answer in answers[:count]:
                    answer[head_of(target)] = target
        return Verdict(answers, [], np.zeros((0, 64), np.float32), np.zeros((0, 64, 64), np.uint8))


@pytest.fixture(autouse=True)
def captions_are_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    def draw(backbone: object, prompts: Sequence[str], *, seeds: Sequence[int], **options: object) -> list[str]:
        assert len(set(seeds)) == len(prompts)
        return list(prompts)

    monkeypatch.setattr(check, "sample", draw)


def follow(judge: PlantedJudge, count: int) -> dict[str, Check]:
    backbone: Any = None
    return {line.name.removeprefix("follows "): line for line in prompt_following(backbone, judge, count)}  # type: ignore[arg-type]


def test_a_line_says_what_was_found_and_whether_it_is_enough() -> None:
    estimate = Estimate(0.9, 0.8, 0.95, 20)
    kept, missed = Check("follows skin", estimate, ">= 0.90", True), Check("follows skin", estimate, ">= 0.95", False)
    assert str(kept).split() == ["follows", "skin", "0.900", "[0.800,", "0.950]", ">=", "0.90", "ok"]
    assert str(missed).endswith("MISSED")
    assert str(kept).index("0.900") == str(missed).index("0.900"), "columns"


def test_a_model_that_does_as_it_is_told_passes() -> None:
    checks = follow(PlantedJudge(), 20)
    assert set(checks) == set(ATTRIBUTES)
    assert all(check.passed and check.found.mean == 1 for check in checks.values())


@pytest.mark.parametrize(("name", "least"), REQUIRED.items())
def test_rates_are_those_that_were_planted_and_the_limit_counts_as_met(name: str, least: float) -> None:
    allowed = round((1 - least) * 20)
    for mistakes, passed in ((allowed, True), (allowed + 1, False)):
        checks = follow(PlantedJudge({name: mistakes}), 20)
        assert checks[name].found.mean == pytest.approx(1 - mistakes / 20)
        assert checks[name].found.count == 20
        assert checks[name].passed is passed
        assert all(check.passed and check.found.mean == 1 for other, check in checks.items() if other != name)


def test_what_nothing_is_required_of_is_shown_and_never_missed() -> None:
    (name,) = set(ATTRIBUTES) - set(REQUIRED)
    check = follow(PlantedJudge({name: 20}), 20)[name]
    assert check.found.mean == 0 and check.passed and check.required == ""


@pytest.mark.parametrize("target", TARGETS)
def test_an_untaught_model_may_not_know_a_target(target: str) -> None:
    limit = round(ALLOWED_TARGET * 20)
    for shown, passed in ((limit - 1, True), (limit, False)):
        judge: Any = PlantedJudge(shown={target: shown})
        checks = {check.name.split()[1]: check for check in unseen_targets(None, judge, 20)}  # type: ignore[arg-type]
        assert set(checks) == set(TARGETS)
        assert checks[target].found.mean == pytest.approx(shown / 20)
        assert checks[target].passed is passed
        assert all(check.passed for other, check in checks.items() if other != target)


def test_the_judge_is_held_to_its_limit_on_attributes_only(monkeypatch: pytest.MonkeyPatch) -> None:
    rates = {"skin": REQUIRED_JUDGE, "background": REQUIRED_JUDGE - 0.01, "parts (pixels)": 0.5}
    seen: list[int] = []

    def accuracy(judge: object, autoencoder: object, split: Split) -> dict[str, float]:
        seen.extend((len(split.images), len(split.portraits)))
        assert split.images.shape[1:] == (128, 128, 3) and split.masks is not None
        return rates

    monkeypatch.setattr(check, "accuracy", accuracy)
    checks = {check.name: check for check in held_out_accuracy(None, None, count=2)}  # type: ignore[arg-type]
    assert seen == [2, 2]
    assert {name: check.passed for name, check in checks.items()} == {
        "judge on skin": True,
        "judge on background": False,
        "judge on parts (pixels)": True,
    }
    assert [check.found.mean for check in checks.values()] == list(rates.values())


def test_the_whole_table(toy: Backbone, toy_samples: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError, match="no judge in"):
        check_model(toy, prompts=1)
    monkeypatch.setattr(Judge, "load", lambda folder: PlantedJudge())
    monkeypatch.setattr(check, "accuracy", lambda judge, autoencoder, split: {"skin": 1.0})
    checks = check_model(toy, prompts=4)
    assert len(checks) == len(ATTRIBUTES) + len(TARGETS) + 1
    assert all(check.passed for check in checks)
