"""The memory calculator in a browser, with a stand-in for a kernel."""

from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import expect

from spf_lite.widgets import MemoryCalculator
from tests.widgets.test_memory_calculator import CARDS, STEPS

pytestmark = pytest.mark.browser


@pytest.fixture
def shown(live: Callable[..., Any]) -> Any:
    return live(MemoryCalculator(STEPS, CARDS, reserve=0.5))


def test_bar_legend_and_verdict_follow_the_batch(shown: Any) -> None:
    verdict, slider = shown.locator(".spf-verdict"), shown.get_by_role("slider", name="Batch")
    expect(verdict).to_have_text("6.50 GB of 8 GB: fits")
    expect(shown.get_by_role("img")).to_have_attribute(
        "aria-label", "UNet 4.00 GB, activations 2.00 GB, reserve 0.50 GB; small has 8 GB"
    )
    slider.focus()
    shown.keyboard.press("ArrowRight")
    expect(verdict).to_have_text("8.50 GB of 8 GB: does not fit (1 would)")
    assert slider.get_attribute("aria-valuetext") == "2 portraits"
    assert shown.evaluate("[model.get('batch_size'), model.saved]") == [2, 1]
    first, _, activations = (shown.locator(f".spf-stack .spf-color-{n}").bounding_box()["width"] for n in range(3))
    assert first == pytest.approx(activations, abs=1), "4 GB and 2 times 2 GB"
    expect(shown.locator(".spf-causes li")).to_have_count(3)


def test_another_precision_step_and_card(shown: Any) -> None:
    verdict = shown.locator(".spf-verdict")
    shown.get_by_label("16 bits").check()
    expect(verdict).to_have_text("3.50 GB of 8 GB: fits (5 would)")
    shown.get_by_label("two models").check()
    expect(verdict).to_have_text("5.50 GB of 8 GB: fits (3 would)")
    expect(shown.locator(".spf-causes")).to_contain_text("second UNet 2.00 GB")
    shown.get_by_label("Card").select_option("large")
    expect(verdict).to_have_text("5.50 GB of 24 GB: fits (so do 16)")
    assert shown.evaluate("['step', 'precision', 'card'].map((name) => model.get(name))") == [
        "two models", "16 bits", "large",
    ]  # fmt: skip
    limit, stack = (shown.locator(f".spf-{name}").bounding_box() for name in ("limit", "stack"))
    assert (limit["x"] - stack["x"]) / stack["width"] == pytest.approx(1 / 1.02, abs=0.02)


def test_not_even_one_portrait(live: Callable[..., Any]) -> None:
    page = live(MemoryCalculator(STEPS, {"tiny": 3.0, **CARDS}))
    expect(page.locator(".spf-verdict")).to_have_text("7.00 GB of 3 GB: does not fit (not even one portrait does)")


def test_a_kernel_moves_the_view_and_nothing_is_left_behind(shown: Any) -> None:
    shown.evaluate("model.set('precision', '16 bits'); model.set('batch_size', 3); model.set('card', 'large')")
    expect(shown.locator(".spf-verdict")).to_have_text("5.50 GB of 24 GB: fits (so do 16)")
    expect(shown.get_by_label("16 bits")).to_be_checked()
    expect(shown.get_by_label("Card")).to_have_value("large")
    assert shown.evaluate("model.saved") == 0
    shown.evaluate("stop()")
    assert shown.evaluate("model.heard()") == 0


def test_fits_a_phone_and_every_input_keeps_its_keys(shown: Any) -> None:
    shown.set_viewport_size({"width": 360, "height": 740})
    assert shown.evaluate("document.documentElement.scrollWidth") <= 360
    for field in shown.locator("input, select").all():
        assert field.get_attribute("data-lm-suppress-shortcuts") == "true"
