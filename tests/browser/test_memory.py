"""The memory calculator in a browser, with a stand-in for a kernel."""

import pytest
from playwright.sync_api import Page, expect

from spf_lite.widgets import MemoryCalculator
from tests.widgets.test_memory_calculator import CARDS, STEPS

from .conftest import Live, box_of

pytestmark = pytest.mark.browser


@pytest.fixture
def shown(live: Live) -> Page:
    return live(MemoryCalculator(STEPS, CARDS, reserve=0.5))


def test_bar_legend_and_verdict_follow_the_batch(shown: Page) -> None:
    verdict, slider = shown.locator(".spf-verdict"), shown.get_by_role("slider", name="Batch size")
    expect(verdict).to_have_text("6.50 GB of 8 GB: fits")
    expect(shown.get_by_role("img")).to_have_attribute(
        "aria-label", "UNet 4.00 GB, activations 2.00 GB, reserve 0.50 GB; small has 8 GB"
    )
    slider.focus()
    shown.keyboard.press("ArrowRight")
    expect(verdict).to_have_text("8.50 GB of 8 GB: does not fit (at most 1 portrait)")
    assert slider.get_attribute("aria-valuetext") == "2 portraits"
    assert shown.evaluate("[model.get('batch_size'), model.saved]") == [2, 1]
    first, _, activations = (box_of(shown.locator(f".spf-stack .spf-color-{n}"))["width"] for n in range(3))
    assert first == pytest.approx(activations, abs=1), "4 GB and 2 times 2 GB"
    expect(shown.locator(".spf-causes li")).to_have_count(3)


def test_another_precision_step_and_card(shown: Page) -> None:
    verdict = shown.locator(".spf-verdict")
    shown.get_by_label("16 bits").check()
    expect(verdict).to_have_text("3.50 GB of 8 GB: fits (at most 5 portraits)")
    shown.get_by_label("two models").check()
    expect(verdict).to_have_text("5.50 GB of 8 GB: fits (at most 3 portraits)")
    expect(shown.locator(".spf-causes")).to_contain_text("second UNet 2.00 GB")
    shown.get_by_label("Graphics card").select_option("large")
    expect(verdict).to_have_text("5.50 GB of 24 GB: fits (at least 16 portraits)")
    assert shown.evaluate("['step', 'precision', 'card'].map((name) => model.get(name))") == [
        "two models", "16 bits", "large",
    ]  # fmt: skip
    limit, stack = (box_of(shown.locator(f".spf-{name}")) for name in ("limit", "stack"))
    assert (limit["x"] - stack["x"]) / stack["width"] == pytest.approx(1 / 1.02, abs=0.02)


def test_not_even_one_portrait(live: Live) -> None:
    page = live(MemoryCalculator(STEPS, {"tiny": 3.0, **CARDS}))
    expect(page.locator(".spf-verdict")).to_have_text("7.00 GB of 3 GB: does not fit (not even one portrait)")


def test_the_precisions_may_have_another_heading(live: Live, shown: Page) -> None:
    expect(shown.get_by_role("group", name="Precision")).to_have_count(1)
    page = live(MemoryCalculator(STEPS, CARDS, heading="Moment"))
    expect(page.get_by_role("group", name="Moment")).to_have_count(1)


def test_a_kernel_moves_the_view_and_nothing_is_left_behind(shown: Page) -> None:
    shown.evaluate("model.set('precision', '16 bits'); model.set('batch_size', 3); model.set('card', 'large')")
    expect(shown.locator(".spf-verdict")).to_have_text("5.50 GB of 24 GB: fits (at least 16 portraits)")
    expect(shown.get_by_label("16 bits")).to_be_checked()
    expect(shown.get_by_label("Graphics card")).to_have_value("large")
    assert shown.evaluate("model.saved") == 0
    shown.evaluate("stop()")
    assert shown.evaluate("model.heard()") == 0


def test_fits_a_phone_and_every_input_keeps_its_keys(shown: Page) -> None:
    shown.set_viewport_size({"width": 360, "height": 740})
    assert shown.evaluate("document.documentElement.scrollWidth") <= 360
    for field in shown.locator("input, select").all():
        assert field.get_attribute("data-lm-suppress-shortcuts") == "true"
