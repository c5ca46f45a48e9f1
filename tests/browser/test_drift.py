"""The drift explorer in a browser, with a stand-in for a kernel."""

import pytest
from playwright.sync_api import Page, expect

from spf_lite.widgets import DriftExplorer
from tests.widgets.test_drift_explorer import BEFORE, MOVED, TEXTS, model_of

from .conftest import Live, box_of

pytestmark = pytest.mark.browser


@pytest.fixture
def shown(live: Live) -> Page:
    return live(DriftExplorer([model_of(), model_of("ours", [value / 4 for value in MOVED])], TEXTS, BEFORE))


def test_words_are_chosen_with_the_keyboard_and_their_portraits_follow(shown: Page) -> None:
    words = shown.get_by_role("group", name="Drift of each word")
    expect(words.get_by_role("radio", name="smiling: +0.200")).to_be_checked()
    expect(shown.get_by_alt_text("a person, Smiling; before")).to_have_count(2)
    expect(shown.locator(".spf-note")).to_contain_text("“smiling” moved by +0.200 against the others, more than chance")
    words.get_by_role("radio", name="smiling").focus()
    shown.keyboard.press("ArrowDown")
    expect(shown.get_by_alt_text("a person, sad; naive")).to_have_count(2)
    expect(shown.locator(".spf-note")).to_contain_text("“sad” moved by −0.200")
    assert shown.evaluate("[model.get('word'), model.saved]") == ["sad", 1]


def test_bars_of_all_models_have_one_scale(shown: Page) -> None:
    first = box_of(shown.locator(".spf-bar").first)["width"]
    shown.get_by_label("ours").check()
    expect(shown.locator(".spf-bars output").first).to_have_text("+0.050 *")
    assert box_of(shown.locator(".spf-bar").first)["width"] == pytest.approx(first / 4, rel=0.02)
    zero, bar = (box_of(shown.locator(name).first)["x"] for name in (".spf-zero", ".spf-bar"))
    assert bar == pytest.approx(zero, abs=1)


def test_a_kernel_moves_the_view_and_nothing_is_left_behind(shown: Page) -> None:
    shown.evaluate("model.set('model', 'ours'); model.set('word', 'sad')")
    expect(shown.get_by_role("radio", name="sad: −0.050")).to_be_checked()
    expect(shown.get_by_alt_text("a person, sad; ours")).to_have_count(2)
    assert shown.evaluate("model.saved") == 0
    shown.evaluate("stop()")
    assert shown.evaluate("model.heard()") == 0


def test_a_word_without_portraits_says_so(live: Live) -> None:
    page = live(DriftExplorer([model_of(images=BEFORE[:1])], TEXTS, BEFORE[:1]))
    expect(page.locator(".spf-note")).to_contain_text("None of the portraits kept here has the word.")
    expect(page.locator(".spf-row:visible")).to_have_count(0)


def test_fits_a_phone(shown: Page) -> None:
    shown.set_viewport_size({"width": 360, "height": 740})
    assert shown.evaluate("document.documentElement.scrollWidth") <= 360
