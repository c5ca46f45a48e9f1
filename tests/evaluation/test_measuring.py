"""Measuring a model: planted pollution of known size, judged by the judge that ships; and a toy model end to end."""

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL.Image import Image

import spf_lite
from spf_lite import load
from spf_lite.data.sets.custom_set import CustomSet
from spf_lite.evaluation import measuring
from spf_lite.evaluation.judge import Judge, JudgeNet, load_judge
from spf_lite.evaluation.measures.attributes import unrelated_attributes
from spf_lite.evaluation.measuring import (
    FORMS,
    EvaluationSet,
    compare_portraits,
    measure_on,
    sample_evaluation_set,
    sample_evaluation_sets,
)
from spf_lite.evaluation.report import MEASURES, SHORT, PollutionReport, measures_of
from spf_lite.models.adapters.lora import add_lora
from spf_lite.models.backbone import Backbone
from spf_lite.models.specification import tiny_folder
from spf_lite.tiny_world.custom_sets import (
    SPURIOUS_ATTRIBUTES,
    spurious_attributes,
    unnamed_attributes,
    write_custom_set,
)
from spf_lite.tiny_world.portraits import TARGETS, Portrait, describe
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


# -- from the model to the report, on the toy --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def untrained() -> Judge:
    torch.manual_seed(0)
    return Judge(JudgeNet(width=8))


def train_at_random(backbone: Backbone) -> None:
    """Put an adapter on the UNet that visibly changes its portraits."""
    with torch.no_grad():
        for parameter in add_lora(backbone.pipe.unet, rank=2):
            parameter.add_(0.3)


def test_the_evaluation_set_is_the_base_models_and_names_no_target_in_its_base_texts(toy: Backbone) -> None:
    evaluation_set = sample_evaluation_set(toy, "blazer", 3, steps=1)
    assert len(evaluation_set.base_portraits) == len(evaluation_set.base_texts) == len(set(evaluation_set.seeds)) == 3
    for base, complete in zip(evaluation_set.base_texts, evaluation_set.complete_texts, strict=True):
        assert "a blazer" in complete and "a blazer" not in base
        assert len(base.split(", ")) == len(complete.split(", ")), "a replacement takes the place of its phrase"
    train_at_random(toy)
    again = sample_evaluation_set(toy, "blazer", 3, steps=1)
    assert again.base_texts == evaluation_set.base_texts
    for first, second in zip(evaluation_set.base_portraits, again.base_portraits, strict=True):
        assert first.tobytes() == second.tobytes(), "the adapter is off"


@pytest.mark.parametrize("target", TARGETS)
def test_short_texts_leave_out_what_silent_captions_do(toy: Backbone, target: str) -> None:
    full, short = sample_evaluation_sets(toy, target, 3, steps=1)
    assert (full.form, short.form) == ("full", "short")
    assert short.people == full.people and short.seeds == full.seeds
    silent = unnamed_attributes(target, "silent")
    assert short.base_texts == [describe(person, silent) for person in full.people]
    for base, complete, long in zip(short.base_texts, short.complete_texts, full.base_texts, strict=True):
        assert len(base) < len(long) and TARGETS[target].text in complete and TARGETS[target].text not in base
        assert ("background" in long) and ("background" in base) == ("background" not in silent)
    if target == TARGET:
        assert [base.split(", ")[2:] for base in short.base_texts] == [[f"{p.skin} skin"] for p in full.people]
        assert [text.split(", ")[3:] for text in short.complete_texts] == [["sunglasses"]] * 3
    for one, other in zip(full.base_portraits, short.base_portraits, strict=True):
        assert one.tobytes() != other.tobytes(), "sampled for the short base texts"


def test_text_forms_are_known_ones(toy: Backbone, toy_samples: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def sampled(*arguments: object, **options: object) -> None:
        raise AssertionError("sampled for a request that cannot be met")

    monkeypatch.setattr(measuring, "sample", sampled)
    unknown = "unknown text form 'long': expected one of full, short"
    with pytest.raises(ValueError, match=unknown):
        sample_evaluation_set(toy, TARGET, 1, form="long")
    with pytest.raises(ValueError, match=unknown):
        EvaluationSet(TARGET, [], [], [], [], [], form="long")
    judged = load(str(toy_samples / "tiny-portraits"))
    with pytest.raises(ValueError, match=unknown):
        spf_lite.measure(judged, TARGET, forms=("full", "long"))
    with pytest.raises(ValueError, match="no text form: expected some of full, short"):
        spf_lite.measure(judged, TARGET, forms=())


def test_bad_requests_are_refused(toy: Backbone) -> None:
    for prompts in (0, -1):
        with pytest.raises(ValueError, match=f"prompts={prompts}: at least one is needed"):
            sample_evaluation_set(toy, TARGET, prompts)
    with pytest.raises(ValueError, match="people are numbered from 0"):
        sample_evaluation_set(toy, TARGET, [2, -1])
    with pytest.raises(ValueError, match="unknown target 'monocle'"):
        sample_evaluation_set(toy, "monocle", 1)
    with pytest.raises(FileNotFoundError, match="no judge in"):
        load_judge(toy)


def test_an_untouched_model_is_measured_as_such(toy: Backbone, untrained: Judge) -> None:
    evaluation_set = sample_evaluation_set(toy, TARGET, 3, STEPS)
    found = measure_on(toy, untrained, [evaluation_set], STEPS)
    assert list(found.values) == measures_of("full") and {len(row) for row in found.values.values()} == {3}
    assert set(found.per_attribute) == set(unrelated_attributes(TARGET)) and set(found.bias) == set(
        SPURIOUS_ATTRIBUTES[TARGET]
    )
    assert means(found)["flip rate"] == pytest.approx(np.mean(list(found.per_attribute.values())))
    assert means(found)["bias pick-up"] == pytest.approx(np.mean(list(found.bias.values())))
    assert means(found)["flip rate at base text"] == 0 and not any(found.per_attribute_at_base.values())
    assert means(found)["reconstruction"] == 0, "an untouched model gives the portrait back"
    # The same prompts on both sides: nothing flips, and it is the same person.
    same_texts = replace(evaluation_set, complete_texts=evaluation_set.base_texts)
    idle = means(measure_on(toy, untrained, [same_texts], STEPS))
    assert idle["flip rate"] == idle["bias pick-up"] == idle["leakage"] == 0
    assert idle["identity"] == pytest.approx(1, abs=1e-5) and idle["CLIP-I"] == pytest.approx(1, abs=1e-5)
    assert idle["false-positive rate"] == idle["target found"], "both are sampled for the base texts"


def test_the_model_is_measured_with_the_adapter_that_it_carries(toy: Backbone, untrained: Judge) -> None:
    evaluation_set = sample_evaluation_set(toy, TARGET, 2, STEPS)
    train_at_random(toy)
    found = means(measure_on(toy, untrained, [evaluation_set], STEPS))
    assert found["reconstruction"] > 0.01 and found["identity"] < 1 - 1e-4


def test_one_call_measures_a_model_that_was_just_trained(toy_samples: Path) -> None:
    backbone = load(str(toy_samples / "tiny-portraits"))
    untouched = spf_lite.measure(backbone, TARGET, prompts=2, steps=STEPS)
    assert len(untouched.values["flip rate"]) == 2 and means(untouched)["reconstruction"] == 0
    train_at_random(backbone)
    trained = spf_lite.measure(backbone, TARGET, prompts=2, steps=STEPS)
    assert means(trained)["reconstruction"] > 0.01, "compared with the base model, whose adapter is off"
    by_hand = sample_evaluation_sets(load(str(toy_samples / "tiny-portraits")), TARGET, 2, STEPS)
    assert trained == measure_on(backbone, load_judge(backbone), by_hand, STEPS)
    other = spf_lite.measure(backbone, TARGET, prompts=2, steps=STEPS, spurious={"background": "pink"})
    assert list(other.bias) == ["background"] and other.values["flip rate"] == trained.values["flip rate"]
    assert list(trained.values) == list(MEASURES), "in both text forms"
    for form, one in zip(FORMS, by_hand, strict=True):
        alone = spf_lite.measure(backbone, TARGET, prompts=2, steps=STEPS, forms=(form,))
        assert alone == measure_on(backbone, load_judge(backbone), [one], STEPS)
        assert alone.values == {name: trained.values[name] for name in measures_of(form)}


def test_one_call_refuses_before_it_samples(toy: Backbone, toy_samples: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def sampled(*arguments: object, **options: object) -> None:
        raise AssertionError("sampled for a request that cannot be met")

    monkeypatch.setattr(measuring, "sample", sampled)
    with pytest.raises(FileNotFoundError, match="no judge in"):
        spf_lite.measure(toy, TARGET)
    judged = load(str(toy_samples / "tiny-portraits"))
    with pytest.raises(ValueError, match="unknown target 'monocle'"):
        spf_lite.measure(judged, "monocle")
    with pytest.raises(ValueError, match="prompts=0: at least one is needed"):
        spf_lite.measure(judged, TARGET, prompts=0)
