"""Measures of a whole report: planted pollution of known size, judged by the judge that ships."""

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from PIL.Image import Image

from spf_lite import load
from spf_lite.evaluation import report
from spf_lite.evaluation.attributes import unrelated_attributes
from spf_lite.evaluation.judge import Judge, JudgeNet
from spf_lite.evaluation.report import (
    MEASURES,
    EvaluationSet,
    PollutionReport,
    compare_portraits,
    estimates,
    evaluation_set,
    load_judge,
    measure,
)
from spf_lite.models.adapters import add_lora
from spf_lite.models.backbone import Backbone
from spf_lite.models.sampling import sample
from spf_lite.models.specification import tiny_folder
from spf_lite.tiny_world.custom_sets import SPURIOUS_ATTRIBUTES
from spf_lite.tiny_world.portraits import Portrait, describe
from spf_lite.tiny_world.rendering import render

TARGET = "sunglasses"
#: Nobody has anything of what the portraits of the sunglasses' set have in common.
PEOPLE = [
    Portrait("bun", "red", "pale", "serious", "v-neck", "blue", "green"),
    Portrait("afro", "black", "dark", "sad", "sweater", "white", "gray"),
    Portrait("curly", "blonde", "tan", "shouting", "t-shirt", "green", "blue"),
    Portrait("bob", "brown", "brown", "serious", "overalls", "yellow", "pink"),
]
DOSES = (0, 1, 2, 4)
SIZE = 64

needs_judge = pytest.mark.skipif(
    not (tiny_folder() / "judge" / "config.json").is_file(), reason="the shipped judge is not there yet"
)


@pytest.fixture(scope="module")
def shipped() -> tuple[Backbone, Judge]:
    backbone = load("tiny")
    return backbone, load_judge(backbone)


@cache
def picture(person: Portrait) -> Image:
    return render(person, SIZE)


def draw(people: list[Portrait]) -> list[Image]:
    return [picture(person) for person in people]


def planted(
    shipped: tuple[Backbone, Judge],
    after: list[Portrait],
    again: list[Portrait] | None = None,
    target: str = TARGET,
) -> PollutionReport:
    """A report on true renders: everybody without the target, and whatever they have become."""
    texts = [describe(person) for person in PEOPLE]
    portraits = EvaluationSet(target, PEOPLE, texts, texts, list(range(len(PEOPLE))), draw(PEOPLE))
    return compare_portraits(*shipped, portraits, draw(after), draw(again or PEOPLE))


def dosed(dose: int, changes: Mapping[str, str], target: str | None = TARGET) -> list[Portrait]:
    """Everybody with the target, the first few with something else changed as well."""
    people = [replace(person, **changes) if k < dose else person for k, person in enumerate(PEOPLE)]  # type: ignore[arg-type]
    return [person.with_targets(target) for person in people] if target else people


def means(found: PollutionReport) -> dict[str, float]:
    return {name: estimate.mean for name, estimate in found.estimates().items()}


@needs_judge
def test_planted_pollution_is_counted_exactly(shipped: tuple[Backbone, Judge]) -> None:
    found = [planted(shipped, dosed(dose, {"background": "yellow"})) for dose in DOSES]
    asked, accidents = len(unrelated_attributes(TARGET)), len(SPURIOUS_ATTRIBUTES[TARGET])
    for dose, one in zip(DOSES, found, strict=True):
        share = dose / len(PEOPLE)
        assert means(one)["flip rate"] == pytest.approx(share / asked)
        assert means(one)["bias pick-up"] == pytest.approx(share / accidents)
        assert {name: rate for name, rate in one.per_attribute.items() if rate} == (
            {"background": share} if dose else {}
        )
        assert one.bias == {name: share if name == "background" else 0 for name in SPURIOUS_ATTRIBUTES[TARGET]}
        assert means(one)["target found"] == 1 and means(one)["false-positive rate"] == 0
        assert means(one)["over-alignment"] == pytest.approx(0, abs=1e-3) and means(one)["reconstruction"] == 0
    leaked = [means(one)["leakage"] for one in found]
    assert leaked[0] == 0 and all(a < b for a, b in zip(leaked, leaked[1:], strict=False))


@needs_judge
def test_pollution_elsewhere_is_no_bias(shipped: tuple[Backbone, Judge]) -> None:
    found = [planted(shipped, dosed(dose, {"background": "purple"})) for dose in (0, 2, 4)]
    rates = [means(one)["flip rate"] for one in found]
    assert rates[0] == 0 and all(a < b for a, b in zip(rates, rates[1:], strict=False))
    assert all(means(one)["bias pick-up"] == 0 for one in found)


@needs_judge
def test_the_target_is_found_where_it_is_and_is_no_pollution(shipped: tuple[Backbone, Judge]) -> None:
    for dose in (0, 3):
        after = [person.with_targets(TARGET) if k < dose else person for k, person in enumerate(PEOPLE)]
        found = means(planted(shipped, after))
        share = dose / len(PEOPLE)
        assert found["target found"] == pytest.approx(share)
        assert found["over-alignment"] == pytest.approx(1 - share)
        assert found["flip rate"] == found["bias pick-up"] == found["leakage"] == found["false-positive rate"] == 0


@needs_judge
def test_the_target_where_nobody_asked_for_it(shipped: tuple[Backbone, Judge]) -> None:
    for dose in (0, 3):
        again = [person.with_targets(TARGET) if k < dose else person for k, person in enumerate(PEOPLE)]
        one = planted(shipped, dosed(0, {}), again)
        assert one.values["false-positive rate"] == [1.0] * dose + [0.0] * (len(PEOPLE) - dose)
        assert [value > 0 for value in one.values["reconstruction"] if value is not None] == [
            k < dose for k in range(len(PEOPLE))
        ]
        assert means(one)["flip rate"] == 0, "portraits for the complete text do not know"


@needs_judge
def test_similarities_fall_when_it_is_somebody_else(shipped: tuple[Backbone, Judge]) -> None:
    same = means(planted(shipped, PEOPLE))
    assert same["CLIP-I"] == pytest.approx(1) and same["identity"] == pytest.approx(1)
    assert same["segmentation"] == 1 and same["over-alignment"] == 1 and same["leakage"] == 0
    dressed, strangers = (means(planted(shipped, people)) for people in (dosed(0, {}), PEOPLE[1:] + PEOPLE[:1]))
    for name in ("identity", "segmentation"):
        assert same[name] >= dressed[name] > strangers[name] + 0.1, name
    assert strangers["CLIP-I"] < 0.99


@needs_judge
def test_a_style_has_no_outside(shipped: tuple[Backbone, Judge]) -> None:
    people = [*PEOPLE[:-1], replace(PEOPLE[-1], background="white")]
    texts = [describe(person) for person in people]
    portraits = EvaluationSet("pencil-sketch", people, texts, texts, [0, 1, 2, 3], draw(people))
    after = draw([person.with_targets("pencil-sketch") for person in people])
    found = compare_portraits(*shipped, portraits, after, portraits.before)
    for name in ("leakage", "segmentation"):
        assert found.values[name] == [None] * 4, "on white paper, too"
        assert name not in found.estimates() and name not in str(found)
    assert set(found.estimates()) == set(MEASURES) - {"leakage", "segmentation"}
    assert means(found)["target found"] == 1 and means(found)["over-alignment"] == 0


# -- reports as such ---------------------------------------------------------------------------------------------------


def made_up(found: list[float | None], flip: list[float | None] | None = None) -> PollutionReport:
    values = {"target found": found, "flip rate": flip or [0.0] * len(found)}
    return PollutionReport(TARGET, values, {"background": 0.5, "skin": 0.0}, {"background": 0.25})


def test_undefined_values_are_left_out() -> None:
    one = made_up([1.0, 0.0, 1.0, 1.0], [None, 0.5, None, 0.1])
    assert means(one) == pytest.approx({"target found": 0.75, "flip rate": 0.3})
    assert one.estimates()["flip rate"].count == 2
    other = made_up([0.0] * 4, [0.2, 0.3, 0.4, None])
    assert estimates([one, other])["flip rate"].mean == pytest.approx(0.4), "the one prompt that both runs have"
    assert estimates([one, other])["target found"].count == 8
    assert "flip rate" not in estimates([one, made_up([1.0] * 4, [0.5, None, 0.5, None])])


def test_runs_that_differ_make_the_interval_wider() -> None:
    rng = np.random.default_rng(0)
    alike = [made_up((rng.random(30) < 0.5).astype(float).tolist()) for _ in range(3)]
    apart = [made_up((rng.random(30) < share).astype(float).tolist()) for share in (0.05, 0.5, 0.95)]
    near, far = (estimates(runs)["target found"] for runs in (alike, apart))
    assert far.high - far.low > 1.5 * (near.high - near.low)


def test_json_brings_a_report_back() -> None:
    one = made_up([1.0, 0.0], [None, 0.125])
    again = PollutionReport.from_json(one.to_json())
    assert again == one and again.estimates() == one.estimates()
    assert json.loads(one.to_json())["values"]["flip rate"] == [None, 0.125], "ordinary JSON, without NaN"


def test_a_report_reads_as_a_list_of_all_that_is_defined() -> None:
    one = made_up([1.0, 0.0], [None, None])
    lines = str(one).splitlines()
    assert lines[0] == "sunglasses, 2 prompts"
    assert lines[1].startswith("target found    0.500 [") and lines[1].endswith("higher is better: " + SAYS)
    assert lines[2:] == ["flips: background 0.50", "picked up: background +0.25"], "what is zero or undefined is not"
    assert "lower is better" in str(made_up([1.0]))


SAYS = MEASURES["target found"].says


# -- from the model to the report, on the toy --------------------------------------------------------------------------


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Portraits of two steps."""

    def two_steps(backbone: Backbone, prompts: list[str], **options: object) -> object:
        return sample(backbone, prompts, **{**options, "steps": 2})  # type: ignore[arg-type]

    monkeypatch.setattr(report, "sample", two_steps)


@pytest.fixture(scope="module")
def untrained() -> Judge:
    torch.manual_seed(0)
    return Judge(JudgeNet(width=8))


def loud(backbone: Backbone) -> None:
    """An adapter that changes the picture."""
    with torch.no_grad():
        for parameter in add_lora(backbone.pipe.unet, rank=2):
            parameter += 0.3


def test_the_before_side_is_drawn_once_and_knows_no_target(toy: Backbone) -> None:
    portraits = evaluation_set(toy, "blazer", 3, steps=1)
    assert len(portraits.before) == len(portraits.base_texts) == len(set(portraits.seeds)) == 3
    for base, complete in zip(portraits.base_texts, portraits.complete_texts, strict=True):
        assert "a blazer" in complete and "a blazer" not in base
        assert len(base.split(", ")) == len(complete.split(", ")), "a replacement takes the place of its phrase"
    loud(toy)
    again = evaluation_set(toy, "blazer", 3, steps=1)
    assert again.base_texts == portraits.base_texts
    assert [image.tobytes() for image in again.before] == [image.tobytes() for image in portraits.before], "no adapter"


def test_bad_requests_are_refused(toy: Backbone) -> None:
    for prompts in (0, -1):
        with pytest.raises(ValueError, match=f"prompts={prompts}: at least one is needed"):
            evaluation_set(toy, TARGET, prompts)
    with pytest.raises(ValueError, match="unknown target 'monocle'"):
        evaluation_set(toy, "monocle", 1)
    with pytest.raises(FileNotFoundError, match="no judge in"):
        load_judge(toy)


def test_what_is_measured(toy: Backbone, untrained: Judge, quick: None) -> None:
    portraits = evaluation_set(toy, TARGET, 3)
    found = measure(toy, untrained, portraits)
    assert list(found.values) == list(MEASURES) and {len(row) for row in found.values.values()} == {3}
    assert set(found.per_attribute) == set(unrelated_attributes(TARGET)) and set(found.bias) == set(
        SPURIOUS_ATTRIBUTES[TARGET]
    )
    assert means(found)["flip rate"] == pytest.approx(np.mean(list(found.per_attribute.values())))
    assert means(found)["bias pick-up"] == pytest.approx(np.mean(list(found.bias.values())))
    assert means(found)["reconstruction"] == 0, "an untouched model gives the portrait back"
    # The same prompts on both sides: nothing flips, and it is the same person.
    idle = means(measure(toy, untrained, replace(portraits, complete_texts=portraits.base_texts)))
    assert idle["flip rate"] == idle["bias pick-up"] == idle["leakage"] == 0
    assert idle["identity"] == pytest.approx(1, abs=1e-5) and idle["CLIP-I"] == pytest.approx(1, abs=1e-5)
    assert idle["false-positive rate"] == idle["target found"], "both are drawn for the base texts"


def test_the_pipeline_is_measured_with_the_adapter_that_it_carries(
    toy: Backbone, untrained: Judge, quick: None
) -> None:
    portraits = evaluation_set(toy, TARGET, 2)
    loud(toy)
    found = means(measure(toy, untrained, portraits))
    assert found["reconstruction"] > 0.01 and found["identity"] < 1 - 1e-4


def test_every_measure_is_defined_somewhere() -> None:
    assert {entry.better for entry in MEASURES.values()} == {1, -1}
    for name, entry in MEASURES.items():
        module, _, attribute = entry.source.partition(".")
        owner = __import__(f"spf_lite.evaluation.{module}", fromlist=[attribute or module])
        assert not attribute or callable(getattr(owner, attribute)), name
