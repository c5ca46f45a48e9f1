"""Measuring whole models: evaluation sets, text forms, one call."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import spf_lite
from spf_lite import load
from spf_lite.evaluation import measuring
from spf_lite.evaluation.judge import Judge, JudgeNet, load_judge
from spf_lite.evaluation.measures.attributes import unrelated_attributes
from spf_lite.evaluation.measuring import (
    FORMS,
    EvaluationSet,
    measure_on,
    sample_evaluation_set,
    sample_evaluation_sets,
)
from spf_lite.evaluation.report import MEASURES, measures_of
from spf_lite.models.adapters.lora import add_lora
from spf_lite.models.backbone import Backbone
from spf_lite.tiny_world.custom_sets import (
    SPURIOUS_ATTRIBUTES,
    unnamed_attributes,
)
from spf_lite.tiny_world.portraits import TARGETS, describe

from .test_measuring import STEPS, TARGET, means

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
