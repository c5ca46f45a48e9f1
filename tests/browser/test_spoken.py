"""What a screen reader reads of pictures, maps and charts: what is seen, in step with what is shown."""

from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from spf_lite.widgets import (
    AttentionExplorer,
    BeforeAfter,
    ControlMapExplorer,
    DriftExplorer,
    TrainingScrubber,
    WeightExplorer,
)
from tests.widgets.test_drift_explorer import BEFORE, TEXTS, model_of
from tests.widgets.test_training_scrubber import run_of
from tests.widgets.test_weight_explorer import BASE, PEOPLE, sweep_of

from .conftest import Live, attribute
from .examples import WIDGETS

pytestmark = pytest.mark.browser

GRAY = Image.new("RGB", (16, 16), "gray")


def _spot(rows: slice, columns: slice) -> np.ndarray:
    """A map that is 1 in one place and 0 elsewhere, 16 x 16."""
    found = np.zeros((16, 16))
    found[rows, columns] = 1
    return found


TOP_LEFT, BOTTOM = _spot(slice(0, 4), slice(0, 4)), _spot(slice(12, 16), slice(6, 10))


def _alts(page: Page) -> tuple[str, str]:
    return attribute(page.locator(".spf-before"), "alt"), attribute(page.locator(".spf-after"), "alt")


def test_both_portraits_say_text_target_and_changes(live: Live) -> None:
    asked: dict[str, Any] = {"prompt": "a person, sunglasses", "images": {"base": GRAY, "naive": GRAY, "spf": GRAY}}
    asked |= {"changes": {"naive": ["skin tan → pale", "smiling → sad"], "spf": []}}
    asked |= {"shows": {"base": False, "naive": True, "spf": False}}
    unasked = {"prompt": "a person", "images": {"naive": GRAY, "spf": GRAY}, "shows": {"naive": True, "spf": False}}
    page = live(BeforeAfter([{"target": "sunglasses", "seed": 0, **asked, "base_text": unasked}]))
    before = "Portrait by the base model for “a person”, seed 0; does not show sunglasses"
    by_naive = "Portrait by naive fine-tuning for “a person, sunglasses”, seed 0; shows sunglasses"
    assert _alts(page) == (before, f"{by_naive}; unrelated changes: skin tan to pale, smiling to sad")
    page.evaluate("model.set('method', 'spf')")
    by_spf = "Portrait by dual path for “a person, sunglasses”, seed 0; does not show sunglasses; no unrelated change"
    assert _alts(page) == (before, by_spf)
    page.evaluate("model.set('method', 'naive'); model.set('text', 'base text')")
    leaked = "Portrait by naive fine-tuning for “a person”, seed 0; shows sunglasses, without being asked for it"
    assert _alts(page) == (before, leaked)


def test_portraits_of_which_nothing_is_known_say_their_text(live: Live) -> None:
    pictures = {"base": GRAY, "naive": GRAY}
    page = live(BeforeAfter([{"target": "a hat", "seed": 3, "prompt": "a person, a hat", "images": pictures}]))
    assert _alts(page) == (
        "Portrait by the base model for “a person, a hat”, seed 3",
        "Portrait by naive fine-tuning for “a person, a hat”, seed 3",
    )
    known = {"target": "a hat", "seed": 3, "prompt": "a person, a hat", "images": pictures, "shows": {"naive": True}}
    page = live(BeforeAfter([known]))
    assert _alts(page)[0] == "Portrait by the base model for the base text, seed 3"


def test_the_maps_of_the_control_map_say_where_they_are_high(live: Live) -> None:
    item = {
        "label": "Ada", "image": GRAY, "phrases": ["hair", "skin"], "distances": [0.5, 0.5], "timesteps": [100, 300],
        "layers": ["all layers"], "difference": np.stack([TOP_LEFT, BOTTOM]),
        "phrase_maps": np.stack([[[BOTTOM, np.zeros((16, 16))]], [[TOP_LEFT, np.ones((16, 16))]]]),
    }  # fmt: skip
    page = live(ControlMapExplorer([item]))
    expect(page.get_by_alt_text("Portrait: Ada")).to_be_visible()
    at = "at least half of its maximum on 6 % of the picture"
    for time, difference, phrases in (
        (100, "upper left", [f"highest at the bottom, {at}", "zero everywhere"]),
        (300, "bottom", [f"highest at the upper left, {at}", "the same everywhere"]),
    ):
        page.evaluate(f"model.set('timestep', {time})")
        maps = [attribute(map, "aria-label") for map in page.locator("canvas.spf-thumb").all()]
        said = [f"Attention map of “{name}”: {text}" for name, text in zip(("hair", "skin"), phrases, strict=True)]
        assert maps == [f"Map D: highest at the {difference}, {at}", *said]
        stage = attribute(page.locator(".spf-stage"), "aria-label")
        assert stage.startswith("Control map over Ada. The target may change 6 % of the picture, at a mean strength")
        assert f"It may change it most at the {difference}." in stage
    page.evaluate("model.set('threshold', 0.99); model.set('rescale', false)")
    assert "most" not in attribute(page.locator(".spf-stage"), "aria-label")


def test_the_attention_map_says_where_it_is_high(live: Live) -> None:
    maps = np.stack([0.5 * TOP_LEFT + 0.1, 0.5 * BOTTOM + 0.1])[None, None, None]
    item = {"label": "Ada", "image": GRAY, "tokens": ["hair", "hoodie"], "timesteps": [100], "layers": ["up 2.0"]}
    page = live(AttentionExplorer([{**item, "maps": maps}]))
    for token, word, place in ((0, "hair", "upper left"), (1, "hoodie", "bottom")):
        page.evaluate(f"model.set('token', {token})")
        said = attribute(page.locator(".spf-stage"), "aria-label")
        assert said.startswith(f"Attention map over the portrait Ada: “{word}” gets 14 % of all attention; peak")
        assert f"The map is highest at the {place}, at least half of its maximum on 6 % of the picture." in said


def test_the_scrubbers_portraits_and_charts_say_the_measures_of_the_step(live: Live) -> None:
    losses = {"denoise": [(step, 1 - step / 40) for step in range(20)]}
    run = run_of(measures={"pure": [1, None, 0.25], "found": [0, 0.5, 1]}, losses=losses)
    page = live(TrainingScrubber([run], PEOPLE))
    for checkpoint, measured in (
        (0, "pure 1.00, found 0"), (1, "pure not measured, found 0.500"), (2, "pure 0.250, found 1.00"),
    ):  # fmt: skip
        page.evaluate(f"model.set('checkpoint', {checkpoint})")
        alts = [attribute(picture, "alt") for picture in page.locator(".spf-strip img").all()]
        sampled = f"sampled after step {10 * checkpoint} of dual path. Measured there: {measured}"
        assert alts == [f"{person}, {sampled}" for person in PEOPLE]
        terms, measures = (attribute(chart, "aria-label") for chart in page.locator(".spf-chart > svg").all())
        assert measures.startswith(f"Measures. At step {10 * checkpoint}: {measured}. Values: pure: 1.00 at 0, ")
        assert "found: 0 at 0, 0.500 at 10, 1.00 at 20." in measures
        assert f"At step {10 * checkpoint}: denoise " in terms
        assert terms.endswith("Values: denoise: from 1.00 at 0 to 0.525 at 19.")


def test_the_weights_portraits_and_charts_say_the_measures_of_the_weight(live: Live) -> None:
    sweep = sweep_of(measures={"pure": [0.9, 0.5, None], "flips": [0.1, 0.2, 0.3]})
    page = live(WeightExplorer([sweep], PEOPLE, BASE))
    for choice, weight, pure, flips in ((0, "0 · weak", "0.90", "0.10"), (2, "3 · too much", "not measured", "0.30")):
        page.evaluate(f"model.set('choice', {choice})")
        said = f"Ben; enhancement, weight {weight}. Measured there: pure {pure}, flips {flips}"
        expect(page.get_by_alt_text(said, exact=True)).to_be_visible()
        large, small = (attribute(chart, "aria-label") for chart in page.locator(".spf-chart > svg").all())
        number = weight.partition(" ")[0]
        assert f". At weight {number}: pure {pure}. Values: pure: 0.90 at 0, 0.50 at 1." in large
        assert f". At weight {number}: flips {flips}. Values: flips: 0.10 at 0, 0.20 at 1, 0.30 at 3." in small
    expect(page.get_by_alt_text("Ben, sampled from the base model", exact=True)).to_be_visible()


def test_drifted_portraits_say_how_far_they_moved(live: Live) -> None:
    page = live(DriftExplorer([model_of()], TEXTS, BEFORE))
    moved = "naive: portraits with “smiling” moved by +0.200 against the others, more than chance explains"
    expect(page.get_by_alt_text(f"a person, Smiling; {moved}", exact=True)).to_have_count(2)
    page.evaluate("model.set('word', 'sad')")
    expect(page.get_by_alt_text("a person, sad; naive: portraits with “sad” moved by −0.200")).to_have_count(2)
    expect(page.get_by_alt_text("a person, sad; before", exact=True)).to_have_count(2)


def test_the_bar_of_memory_says_every_cause_and_the_card(live: Live) -> None:
    page = live(WIDGETS["memory"]())
    said = attribute(page.get_by_role("img"), "aria-label")
    for line in page.locator(".spf-causes li").all():
        assert " ".join(line.inner_text().split()) in said
    assert said.endswith("GB") and "; " in said
