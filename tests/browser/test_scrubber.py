"""The training scrubber in a browser, with a stand-in for a kernel."""

import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from spf_lite.widgets import TrainingScrubber
from tests.widgets.test_training_scrubber import PEOPLE, run_of

from .conftest import Live, attribute

pytestmark = pytest.mark.browser


@pytest.fixture
def shown(live: Live) -> Page:
    return live(
        TrainingScrubber([run_of("naive", (0, 10, 20, 30, 40)), run_of(measures={"flips": [0, None, 0.5]})], PEOPLE)
    )


def _marker(page: Page) -> float:
    return float(attribute(page.locator(".spf-marker").first, "x1"))


def test_pictures_words_and_charts_follow_the_slider(shown: Page) -> None:
    slider = shown.get_by_role("slider", name="Checkpoint")
    first, start = shown.locator(".spf-strip img").first.get_attribute("src"), _marker(shown)
    expect(shown.locator(".spf-range output")).to_have_text("step 0 of 40, stage 1")
    slider.focus()
    shown.keyboard.press("End")
    expect(shown.locator(".spf-range output")).to_have_text("step 40 of 40, stage 2")
    assert slider.get_attribute("aria-valuetext") == "step 40 of 40, stage 2"
    assert shown.locator(".spf-strip img").first.get_attribute("src") != first
    expect(shown.get_by_alt_text("Ben, sampled after step 40 of naive")).to_be_visible()
    assert _marker(shown) > start + 200
    expect(shown.locator(".spf-chart").nth(1).locator("output")).to_have_text("0.800")
    assert shown.evaluate("[model.get('checkpoint'), model.saved]") == [4, 1]


def test_another_run_keeps_the_share_of_the_way(shown: Page) -> None:
    shown.get_by_role("slider").fill("2")
    shown.get_by_label("dual path").check()
    expect(shown.locator(".spf-range output")).to_have_text("step 10 of 20, stage 2")
    assert shown.evaluate("[model.get('run'), model.get('checkpoint')]") == ["dual path", 1]


def test_a_kernel_moves_the_view_and_nothing_is_left_behind(shown: Page) -> None:
    shown.evaluate("model.set('run', 'dual path'); model.set('checkpoint', 2)")
    expect(shown.locator(".spf-range output")).to_have_text("step 20 of 20, stage 2")
    expect(shown.get_by_label("dual path")).to_be_checked()
    assert shown.evaluate("model.saved") == 0
    shown.evaluate("stop()")
    assert shown.evaluate("model.heard()") == 0


def test_runs_beside_each_other_move_together(live: Live) -> None:
    runs = [run_of("naive", (0, 10, 20), losses={}), run_of(steps=(0, 50, 100), losses={}, stage2_from=None)]
    page = live(TrainingScrubber(runs, PEOPLE, beside=True))
    expect(page.get_by_role("radio")).to_have_count(0)
    expect(page.locator(".spf-range output")).to_have_text("0 % of the steps")
    page.get_by_role("slider").fill("1")
    expect(page.locator(".spf-range output")).to_have_text("50 % of the steps")
    captions = page.locator(".spf-row figcaption")
    expect(captions).to_have_text(["naive, step 10 of 20, stage 2", "dual path, step 50 of 100"])
    expect(page.get_by_alt_text("Ben, sampled after step 50 of dual path")).to_be_visible()
    titles = page.locator(".spf-chart figcaption")
    expect(titles).to_have_text(["naive: measures", "dual path: measures"])
    markers = page.evaluate("[...document.querySelectorAll('.spf-marker')].map((line) => line.getAttribute('x1'))")
    assert markers[0] == markers[1], "each chart is as wide as its run is long"
    page.evaluate("model.set('beside', false)")
    expect(captions).to_have_count(1)
    expect(page.get_by_label("dual path")).to_be_visible()


def test_fits_a_phone(shown: Page) -> None:
    shown.set_viewport_size({"width": 360, "height": 740})
    assert shown.evaluate("document.documentElement.scrollWidth") <= 360


def test_rows_of_pictures_are_equally_long_on_a_phone(live: Live) -> None:
    people = [f"person {number}" for number in range(6)]
    row = [Image.new("RGB", (8, 8), "gray")] * len(people)
    page = live(TrainingScrubber([run_of(images=[row] * 3)], people))
    for width, rows in ((1100, 1), (390, 2)):
        page.set_viewport_size({"width": width, "height": 740})
        tops = page.evaluate(
            "[...document.querySelectorAll('.spf-strip img')].map((i) => i.getBoundingClientRect().top)"
        )
        assert [tops.count(top) for top in sorted(set(tops))] == [6 // rows] * rows
