"""Which measures are taken, and that planted changes show in those that should see them."""

import numpy as np
import pytest

from spf_lite.audit.measures.faces import Identity
from spf_lite.audit.measuring import measured, measures_taken
from spf_lite.audit.report import MEASURES
from spf_lite.audit.sampling import Portraits
from spf_lite.models.backbone import Backbone

from .conftest import flat, images

NOISE = np.random.default_rng(0).random((2, 64, 64, 3))


def test_nothing_changed_is_nothing_measured(toy: Backbone) -> None:
    same = images(NOISE)
    region = np.zeros((2, 64, 64), dtype=bool)
    values = measured(toy, Portraits(same, same, same, same), "sunglasses", region)
    for name, row in values.items():
        if name.startswith("CLIP-I"):
            assert row == pytest.approx(1.0), name
        elif not name.startswith("CLIP-T") or "gain" in name:
            assert row.tolist() == [0.0, 0.0], name
    assert len(values) == 17


def test_planted_changes_show_where_they_are(toy: Backbone) -> None:
    """At the base text the left half changes; at the complete text a quarter, half of it outside the region.

    The words alone change the left half of that quarter, on both portraits.
    """
    base = flat(0.0, 0.0, size=64)
    again, after, by_words = base.copy(), base.copy(), base.copy()
    again[:, :, :32] = 1.0
    after[1, :32, :32] = 1.0
    by_words[:, :32, :16] = 1.0
    region = np.zeros((2, 64, 64), dtype=bool)
    region[:, :16] = True
    portraits = Portraits(images(base), images(again), images(after), images(by_words))
    values = measured(toy, portraits, "a beard", region)
    assert values["reconstruction"] == pytest.approx(0.5)
    assert values["pixel change"] == pytest.approx([0.0, 0.25])
    assert values["leakage"] == pytest.approx([0.0, 0.5]) and values["change outside"] == pytest.approx([0.0, 0.125])
    assert values["pixel change by words alone"] == pytest.approx(0.125)
    assert values["change outside by words alone"] == pytest.approx(0.0625)
    assert values["pixel change at complete text"] == pytest.approx(0.125), "what the adapter takes away counts as well"
    assert values["edge change at base text"] == pytest.approx(1.0)
    assert values["CLIP-I"][0] == pytest.approx(1.0) and values["CLIP-I"][1] < 1
    assert values["CLIP-T gain"] == pytest.approx(values["CLIP-T after"] - values["CLIP-T before"])


def test_clip_t_grows_when_the_portrait_turns_into_what_the_text_says(toy: Backbone) -> None:
    """The toy's CLIP is random, so the text is set to the embedding of the second picture."""
    first, second = images(NOISE)

    class Clip:
        model, image_features = toy.clip.model, toy.clip.image_features

        @staticmethod
        def text_features(texts: list[str]) -> object:
            from spf_lite.models.codec import to_tensor

            return toy.clip.image_features(to_tensor([second]))

    toy.__dict__["clip"] = Clip()
    values = measured(toy, Portraits([first], [first], [second], [first]), "anything")
    assert values["CLIP-T after"] == pytest.approx(1.0) and values["CLIP-T gain"] > 0
    assert values["CLIP-T gain over words"] == values["CLIP-T gain"], "a model that did not know the target"
    assert values["CLIP-I at complete text"] == values["CLIP-I"] < 1
    back = measured(toy, Portraits([second], [second], [first], [second]), "anything")
    assert back["CLIP-T gain"] == pytest.approx(-values["CLIP-T gain"])
    knew = measured(toy, Portraits([first], [first], [second], [second]), "anything")
    assert knew["CLIP-T gain"] == values["CLIP-T gain"] and knew["CLIP-T by words alone"] == pytest.approx(1.0)
    assert knew["CLIP-T gain over words"] == 0 and knew["CLIP-I at complete text"] == pytest.approx(1.0)


@pytest.mark.parametrize("complete", [False, True])
@pytest.mark.parametrize("target", [None, "sunglasses"])
@pytest.mark.parametrize("masked", [False, True])
def test_what_will_be_taken_is_what_is_taken(toy: Backbone, complete: bool, target: str | None, masked: bool) -> None:
    at_complete = images(NOISE) if complete else []
    portraits = Portraits(images(NOISE), images(NOISE), at_complete, at_complete)
    # Without masks the adapter's map gives regions if there is a target.
    region = np.ones((2, 64, 64), dtype=bool) if complete and (masked or target) else None
    identity = Identity(lambda picture: np.zeros(1))
    values = measured(toy, portraits, target, region, [identity])
    taken = measures_taken(complete, target is not None, masked, [identity.measure])
    assert set(values) | {"unrelated prompts"} == set(taken) <= set(MEASURES)
