import json
from typing import Any

import pytest
import traitlets

from spf_lite.profiling.memory import StepMemory
from spf_lite.widgets import MemoryCalculator
from spf_lite.widgets.memory_calculator import COLORS

GB = 10**9
#: Whole numbers of GB, so that sums can be done in the head.
STEPS = {
    "plain": {
        "32 bits": StepMemory({"UNet": 4 * GB}, {"activations": 2 * GB}),
        "16 bits": StepMemory({"UNet": 2 * GB}, {"activations": GB}),
    },
    "two models": {
        "32 bits": StepMemory({"UNet": 4 * GB, "second UNet": 4 * GB}, {"activations": 2 * GB}),
        "16 bits": StepMemory({"UNet": 2 * GB, "second UNet": 2 * GB}, {"activations": GB}),
    },
}
CARDS = {"small": 8.0, "large": 24.0}


def test_sums_the_parts_of_what_is_chosen() -> None:
    widget = MemoryCalculator(STEPS, CARDS, reserve=0.5)
    assert (widget.step, widget.precision, widget.batch_size, widget.card) == ("plain", "32 bits", 1, "small")
    assert widget.parts() == {"UNet": 4, "activations": 2} and widget.total() == 6.5 and widget.fits()
    widget.batch_size = 2
    assert widget.total() == 8.5 and not widget.fits()
    widget.precision = "16 bits"
    assert widget.total() == 4.5 and widget.fits()
    widget.step = "two models"
    assert widget.parts() == {"UNet": 2, "second UNet": 2, "activations": 2} and widget.total() == 6.5
    widget.set_state({"batch_size": 16, "card": "large"})
    assert widget.total() == 20.5 and widget.fits()
    assert repr(widget) == "MemoryCalculator('two models', '16 bits', batch_size=16, 20.5 GB)"


@pytest.mark.parametrize(
    ("trait", "value"),
    [("step", "three"), ("precision", "8 bits"), ("card", "none"), ("batch_size", 0), ("batch_size", 17)],
)
def test_unknown_choices_are_refused(trait: str, value: Any) -> None:
    widget = MemoryCalculator(STEPS, CARDS)
    before = getattr(widget, trait)
    with pytest.raises(traitlets.TraitError):
        setattr(widget, trait, value)
    assert getattr(widget, trait) == before
    with pytest.raises(traitlets.TraitError):
        MemoryCalculator(STEPS, CARDS, **{trait: value})


@pytest.mark.parametrize(
    ("steps", "cards", "message"),
    [
        ({}, CARDS, "steps is empty"),
        ({"plain": {}}, CARDS, "steps is empty"),
        (STEPS, {}, "cards must have memory"),
        (STEPS, {"none": 0}, "cards must have memory"),
        ({**STEPS, "odd": {"32 bits": StepMemory({}, {})}}, CARDS, "'odd' has the precisions"),
        ({"many": {"32 bits": StepMemory({str(n): n for n in range(10)}, {})}}, CARDS, "10 causes, and only 9 colours"),
    ],
)
def test_what_cannot_be_shown_is_refused(steps: Any, cards: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MemoryCalculator(steps, cards)


def test_the_state_is_plain_and_in_lists_that_keep_their_order() -> None:
    widget = MemoryCalculator(STEPS, CARDS)
    state = {name: getattr(widget, name) for name in ("steps", "causes", "precisions", "cards")}
    assert json.loads(json.dumps(state, sort_keys=True)) == state
    assert widget.causes == ["UNet", "second UNet", "activations"]
    assert widget.steps[0] == {"label": "plain", "fixed": [[4, 0, 0], [2, 0, 0]], "each": [[0, 0, 2], [0, 0, 1]]}


def test_the_snapshot_is_the_bar_to_scale() -> None:
    widget = MemoryCalculator(STEPS, CARDS, reserve=0.0, card="large")
    sheet = widget.snapshot()
    row = [sheet.getpixel((x, 40)) for x in range(sheet.width)]
    wide = {name: row.count(tuple(bytes.fromhex(COLORS[at][1:]))) for at, name in ((0, "UNet"), (2, "activations"))}
    assert wide["UNet"] == pytest.approx(2 * wide["activations"], abs=2)
    assert wide["UNet"] == pytest.approx(600 * 4 / 24, abs=2)
    assert widget._repr_mimebundle_()[0]["image/png"]  # type: ignore[index]
