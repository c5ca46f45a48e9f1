"""Measuring a model: planted pollution of known size, judged by the judge that ships; and a toy model end to end."""

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from PIL.Image import Image

from spf_lite import load
from spf_lite.data.sets.custom_set import CustomSet
from spf_lite.evaluation.judge import Judge, load_judge
from spf_lite.evaluation.measures.attributes import unrelated_attributes
from spf_lite.evaluation.measuring import (
    FORMS,
    EvaluationSet,
    compare_portraits,
)
from spf_lite.evaluation.report import SHORT, PollutionReport, measures_of
from spf_lite.models.backbone import Backbone
from spf_lite.models.specification import tiny_folder
from spf_lite.tiny_world.custom_sets import (
    SPURIOUS_ATTRIBUTES,
    spurious_attributes,
    write_custom_set,
)
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


#: Denoising steps of the toy's portraits.
STEPS = 2


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


def rendered(people: list[Portrait]) -> list[Image]:
    return [picture(person) for person in people]


def planted(
    shipped: tuple[Backbone, Judge],
    after: list[Portrait],
    again: list[Portrait] | None = None,
    target: str = TARGET,
    form: str = "full",
    before: list[Portrait] = PEOPLE,
    spurious: Mapping[str, str] | None = None,
) -> PollutionReport:
    """A report on renders: PEOPLE before, ``after`` for the complete texts and ``again`` for the base texts."""
    texts = [describe(person) for person in before]
    evaluation_set = EvaluationSet(target, before, texts, texts, list(range(len(before))), rendered(before), form)
    return compare_portraits(*shipped, evaluation_set, rendered(after), rendered(again or before), spurious)


def dosed(dose: int, changes: Mapping[str, str], target: str | None = TARGET) -> list[Portrait]:
    """Everybody with the target, the first few with something else changed as well."""
    people = [replace(person, **changes) if k < dose else person for k, person in enumerate(PEOPLE)]  # type: ignore[arg-type]
    return [person.with_targets(target) for person in people] if target else people


def means(found: PollutionReport) -> dict[str, float]:
    return {name: estimate.mean for name, estimate in found.estimates().items()}


@needs_judge
def test_planted_pollution_is_counted_exactly(shipped: tuple[Backbone, Judge]) -> None:
    found = [planted(shipped, dosed(dose, {"background": "yellow"})) for dose in DOSES]
    attributes, spurious = len(unrelated_attributes(TARGET)), len(SPURIOUS_ATTRIBUTES[TARGET])
    for dose, one in zip(DOSES, found, strict=True):
        share = dose / len(PEOPLE)
        assert means(one)["flip rate"] == pytest.approx(share / attributes)
        assert means(one)["bias pick-up"] == pytest.approx(share / spurious)
        assert one.values["pure"] == [float(k >= dose) for k in range(len(PEOPLE))]
        assert {name: rate for name, rate in one.per_attribute.items() if rate} == (
            {"background": share} if dose else {}
        )
        assert one.bias == {name: share if name == "background" else 0 for name in SPURIOUS_ATTRIBUTES[TARGET]}
        assert means(one)["target found"] == 1 and means(one)["false-positive rate"] == 0
        assert means(one)["over-alignment"] == pytest.approx(0, abs=1e-3) and means(one)["reconstruction"] == 0
    leaked = [means(one)["leakage"] for one in found]
    assert leaked[0] == 0 and all(a < b for a, b in zip(leaked, leaked[1:], strict=False))


@needs_judge
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("missing", "polluted"), [(0, 0), (1, 0), (0, 2), (1, 2), (2, 1), (4, 0), (0, 4)])
def test_pure_portraits_are_counted_exactly(
    shipped: tuple[Backbone, Judge], form: str, missing: int, polluted: int
) -> None:
    people = [*dosed(polluted, {"background": "yellow"})]
    people[len(people) - missing :] = [person.with_targets() for person in people[len(people) - missing :]]
    found = planted(shipped, people, form=form)
    suffix = SHORT if form == "short" else ""
    assert list(found.values) == measures_of(form)
    share = {"pure": len(PEOPLE) - missing - polluted, "target found": len(PEOPLE) - missing, "false-positive rate": 0}
    for name, number in share.items():
        assert means(found)[name + suffix] == number / len(PEOPLE), name
    assert means(found)["flip rate" + suffix] == pytest.approx(polluted / len(PEOPLE) / 7)
    assert means(found)["bias pick-up" + suffix] == pytest.approx(polluted / len(PEOPLE) / 4)
    assert means(found)["flip rate at base text" + suffix] == 0


@needs_judge
def test_a_beard_for_which_the_glasses_vanish_is_polluted(shipped: tuple[Backbone, Judge]) -> None:
    before = [replace(person, glasses="yes") for person in PEOPLE]
    after = [replace(person, glasses="no" if k == 0 else "yes") for k, person in enumerate(before)]
    found = planted(shipped, [person.with_targets("beard") for person in after], target="beard", before=before)
    assert found.values["target found"] == [1.0] * 4 and found.values["pure"] == [0.0, 1.0, 1.0, 1.0]
    assert found.values["flip rate"] == [1 / 8, 0.0, 0.0, 0.0]
    assert {name: rate for name, rate in found.per_attribute.items() if rate} == {"glasses": 0.25}


@needs_judge
def test_targets_that_nobody_asked_for_are_no_flips_unless_an_attribute_has_them(
    shipped: tuple[Backbone, Judge],
) -> None:
    after = [person.with_targets(TARGET, *(["beard"] if k == 0 else [])) for k, person in enumerate(PEOPLE)]
    assert shipped[1](rendered(after)).shows("beard").tolist() == [True, False, False, False]
    found = planted(shipped, after)
    assert means(found)["flip rate"] == 0 and means(found)["pure"] == 1
    after = [person.with_targets("beard", *(["eyepatch"] if k < 2 else [])) for k, person in enumerate(PEOPLE)]
    found = planted(shipped, after, target="beard")
    assert found.per_attribute["glasses"] == 0.5 and found.values["pure"] == [0.0, 0.0, 1.0, 1.0]


@needs_judge
@pytest.mark.parametrize("form", FORMS)
def test_flips_at_the_base_text_are_counted_exactly(shipped: tuple[Backbone, Judge], form: str) -> None:
    suffix = SHORT if form == "short" else ""
    for dose in DOSES:
        again = dosed(dose, {"background": "yellow"}, target=None)
        found = planted(shipped, dosed(0, {}), again, form=form)
        assert means(found)["flip rate at base text" + suffix] == pytest.approx(dose / len(PEOPLE) / 7)
        assert found.per_attribute_at_base["background"] == dose / len(PEOPLE)
        assert sum(found.per_attribute_at_base.values()) == dose / len(PEOPLE)
        for name, value in {"pure": 1, "target found": 1, "flip rate": 0, "false-positive rate": 0}.items():
            assert means(found)[name + suffix] == value, "the portraits for the complete texts are the same"


@needs_judge
def test_pollution_elsewhere_is_no_bias(shipped: tuple[Backbone, Judge]) -> None:
    found = [planted(shipped, dosed(dose, {"background": "purple"})) for dose in (0, 2, 4)]
    rates = [means(one)["flip rate"] for one in found]
    assert rates[0] == 0 and all(a < b for a, b in zip(rates, rates[1:], strict=False))
    assert all(means(one)["bias pick-up"] == 0 for one in found)


@needs_judge
def test_bias_counts_what_the_models_own_set_shares(shipped: tuple[Backbone, Judge]) -> None:
    drawn = spurious_attributes(TARGET, 1)
    assert drawn["background"] != "yellow"
    for dose in (0, 1, 3):
        to_drawn, to_shipped = (dosed(dose, {"background": value}) for value in (drawn["background"], "yellow"))
        share = sum(person.background != drawn["background"] for person in PEOPLE[:dose]) / len(PEOPLE)
        found = planted(shipped, to_drawn, spurious=drawn)
        assert found.bias == {name: share if name == "background" else 0 for name in drawn}
        assert means(found)["bias pick-up"] == pytest.approx(share / len(drawn))
        assert means(planted(shipped, to_drawn))["bias pick-up"] == 0, "nobody moved to the shipped set's wall"
        other = planted(shipped, to_shipped, spurious=drawn)
        assert other.bias["background"] <= 0 and planted(shipped, to_shipped).bias["background"] == dose / len(PEOPLE)
        assert {**found.values, "bias pick-up": []} == {**planted(shipped, to_drawn).values, "bias pick-up": []}


@needs_judge
@pytest.mark.parametrize("target", ["sunglasses", "blazer", "pencil-sketch"])
def test_the_judge_sees_what_a_drawn_set_shares(shipped: tuple[Backbone, Judge], target: str, tmp_path: Path) -> None:
    write_custom_set(target, tmp_path, count=6, size=SIZE, confounders=2)
    found = shipped[1].attributes([example.image for example in CustomSet.load(tmp_path)])
    for name, value in spurious_attributes(target, 2).items():
        assert [one[name] for one in found] == [value] * 6, name


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
def test_a_target_in_portraits_for_the_base_text_is_a_false_positive(shipped: tuple[Backbone, Judge]) -> None:
    for dose in (0, 3):
        again = [person.with_targets(TARGET) if k < dose else person for k, person in enumerate(PEOPLE)]
        short = planted(shipped, dosed(0, {}), again, form="short")
        assert short.values["false-positive rate (short)"] == [1.0] * dose + [0.0] * (len(PEOPLE) - dose)
        assert means(short)["flip rate at base text (short)"] == 0, "the target is no unrelated attribute"
        assert means(short)["pure (short)"] == 1
        again = [person.with_targets(TARGET) if k < dose else person for k, person in enumerate(PEOPLE)]
        one = planted(shipped, dosed(0, {}), again)
        assert one.values["false-positive rate"] == [1.0] * dose + [0.0] * (len(PEOPLE) - dose)
        assert [value > 0 for value in one.values["reconstruction"] if value is not None] == [
            k < dose for k in range(len(PEOPLE))
        ]
        assert means(one)["flip rate"] == 0, "the portraits for the complete texts are the same"


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
def test_a_style_has_no_leakage_and_no_segmentation(shipped: tuple[Backbone, Judge]) -> None:
    people = [*PEOPLE[:-1], replace(PEOPLE[-1], background="white")]
    texts = [describe(person) for person in people]
    evaluation_set = EvaluationSet("pencil-sketch", people, texts, texts, [0, 1, 2, 3], rendered(people))
    after = rendered([person.with_targets("pencil-sketch") for person in people])
    found = compare_portraits(*shipped, evaluation_set, after, evaluation_set.base_portraits)
    for name in ("leakage", "segmentation"):
        assert found.values[name] == [None] * 4, "on white paper, too"
        assert name not in found.estimates() and name not in str(found)
    assert set(found.estimates()) == set(measures_of("full")) - {"leakage", "segmentation"}
    assert means(found)["target found"] == 1 and means(found)["over-alignment"] == 0
