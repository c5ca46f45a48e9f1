"""The before/after slider on a static page: no Python, no network, by mouse, by keyboard, in the dark, on a phone."""

import re

import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from spf_lite.widgets import BeforeAfter

from .conftest import Live, Watched, attribute, box_of

pytestmark = pytest.mark.browser

COUNT_HOLES = """canvas => {
  const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext("2d", { willReadFrequently: true });
  copy.drawImage(canvas, 0, 0);
  const { data } = copy.getImageData(0, 0, canvas.width, canvas.height);
  let holes = 0;
  for (let i = 3; i < data.length; i += 4) holes += data[i] === 0;
  return [holes, data.length / 4];
}"""


def _divider(page: Page) -> float:
    """Where the upper picture is cut, in percent of its width from the left."""
    clip = page.locator(".spf-after").evaluate("image => getComputedStyle(image).clipPath")
    return float(re.findall(r"([\d.]+)%", clip)[-1])


def test_starts_in_the_middle_and_says_what_changed(watched: Watched) -> None:
    page = watched.page
    assert _divider(page) == 50
    expect(page.locator(".spf-prompt")).to_contain_text("a person, gray background, sunglasses")
    expect(page.locator(".spf-changes")).to_have_text("Unrelated changes: background gray → yellow")
    expect(page.locator(".spf-before")).to_have_js_property("naturalWidth", 128)
    expect(page.locator(".spf-after")).to_have_js_property("naturalWidth", 128)
    assert page.locator("mjx-container").count() == 1, "mathematics is not typeset"
    watched.assert_quiet()


def test_the_mouse_drags_the_divider(watched: Watched) -> None:
    page = watched.page
    page.locator(".spf-stage").scroll_into_view_if_needed()
    box = box_of(page.locator(".spf-stage"))
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + 0.5 * box["width"], middle)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.8 * box["width"], middle, steps=6)
    page.mouse.up()
    assert _divider(page) == pytest.approx(80, abs=1.5)
    handle = box_of(page.locator(".spf-divider"))
    assert handle["x"] + handle["width"] / 2 == pytest.approx(box["x"] + 0.8 * box["width"], abs=6)
    watched.assert_quiet()


def test_the_keyboard_moves_the_divider(watched: Watched) -> None:
    page = watched.page
    slider = page.get_by_role("slider", name="Divider between before and after")
    slider.focus()
    for _ in range(5):
        page.keyboard.press("ArrowLeft")
    assert _divider(page) == 45
    assert slider.get_attribute("aria-valuetext") == "45 % base model, the rest naive fine-tuning"
    page.keyboard.press("End")
    assert _divider(page) == 100
    watched.assert_quiet()


def test_method_target_and_seed_can_be_chosen(watched: Watched) -> None:
    page = watched.page
    first = page.locator(".spf-after").get_attribute("src")
    page.get_by_label("dual path").check()
    expect(page.locator(".spf-changes")).to_have_text("No unrelated change.")
    expect(page.locator(".spf-tag-after")).to_have_text("dual path")
    assert page.locator(".spf-after").get_attribute("src") != first
    page.get_by_label("Target").select_option("beard")
    page.get_by_label("Seed").select_option("1")
    expect(page.locator(".spf-prompt")).to_contain_text("a person, blue background, beard")
    expect(page.get_by_label("dual path")).to_be_checked()
    assert "beard" in attribute(page.locator(".spf-after"), "alt")
    watched.assert_quiet()


def test_the_veil_leaves_only_the_target_lit(watched: Watched) -> None:
    page = watched.page
    veil = page.locator(".spf-veil")
    expect(veil).to_be_hidden()
    page.get_by_label("Fade what stayed the same").check()
    expect(veil).to_be_visible()
    expect(veil).to_have_js_property("width", 128)
    polluted, total = veil.evaluate(COUNT_HOLES)
    page.get_by_label("dual path").check()
    page.wait_for_timeout(300)
    clean, _ = veil.evaluate(COUNT_HOLES)
    assert 0 < clean < 0.15 * total < 0.3 * total < polluted
    watched.assert_quiet()


def test_in_the_dark_pictures_stay_as_they_are(watched: Watched) -> None:
    page = watched.page
    page.evaluate("document.documentElement.dataset.theme = 'dark'")
    style = "element => [getComputedStyle(element).filter, getComputedStyle(element).padding]"
    assert page.locator(".spf-before").evaluate(style) == ["none", "0px"]
    text, paper = page.locator(".spf-prompt").evaluate(
        "element => [getComputedStyle(element).color, getComputedStyle(document.body).backgroundColor]"
    )
    assert page.locator(".spf-before").evaluate("e => getComputedStyle(e).backgroundColor") == "rgba(0, 0, 0, 0)"
    light, dark = (sum(map(int, re.findall(r"\d+", color)[:3])) for color in (text, paper))
    assert light - dark > 300
    watched.assert_quiet()


def test_a_figure_on_white_lies_on_a_card_in_the_dark_and_keeps_its_pixels(watched: Watched) -> None:
    page = watched.page
    figure = page.locator("div.cell_output img:not(.spf-widget img)")
    expect(figure).to_have_count(1)
    style = """image => {
      const { filter, mixBlendMode, opacity, backgroundColor, borderTopWidth, borderTopLeftRadius } =
        getComputedStyle(image);
      return [[filter, mixBlendMode, opacity], backgroundColor, borderTopWidth, borderTopLeftRadius];
    }"""
    for theme, background, frame, radius in (
        ("light", "rgba(0, 0, 0, 0)", "0px", "4px"),
        ("dark", "rgb(255, 255, 255)", "8px", "16px"),
    ):
        page.evaluate(f"document.documentElement.dataset.theme = '{theme}'")
        assert figure.evaluate(style) == [["none", "normal", "1"], background, frame, radius]
    watched.assert_quiet()


def test_fits_a_phone(watched: Watched) -> None:
    page = watched.page
    page.set_viewport_size({"width": 360, "height": 740})
    page.wait_for_timeout(200)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    box = box_of(page.locator(".spf-stage"))
    assert box["width"] == pytest.approx(box["height"], abs=1)
    assert box["width"] > 220
    watched.assert_quiet()


def test_a_kernel_and_the_view_follow_each_other(live: Live) -> None:
    picture = Image.new("RGB", (8, 8))
    images = {"base": picture, "naive": picture, "spf": picture}
    items = [
        {"target": target, "seed": seed, "prompt": f"{target} {seed}", "images": images}
        for target, seed in (("hat", 1), ("hat", 2), ("beard", 3))
    ]
    page = live(BeforeAfter(items))
    page.evaluate("model.set('position', 12.5); model.set('seed', 2); model.set('method', 'spf')")
    expect(page.get_by_role("slider")).to_have_js_property("value", "13")
    expect(page.get_by_label("Seed")).to_have_value("2")
    expect(page.get_by_label("dual path")).to_be_checked()
    expect(page.locator(".spf-prompt")).to_contain_text("hat 2")
    assert page.evaluate("model.saved") == 0

    page.get_by_label("Target").select_option("beard")
    assert page.evaluate("[model.get('target'), model.get('seed'), model.saved]") == ["beard", 3, 1]
    page.get_by_role("slider").fill("70")
    page.get_by_label("Fade what stayed the same").check()
    assert page.evaluate("[model.get('position'), model.get('difference')]") == [70, True]

    page.evaluate("stop()")
    assert page.evaluate("model.heard()") == 0


def test_the_caption_says_whether_the_target_is_there_where_that_is_known(live: Live) -> None:
    picture = Image.new("RGB", (8, 8))
    images = {"base": picture, "naive": picture, "spf": picture, "other": picture}
    item = {"target": "a hat", "seed": 1, "prompt": "a hat", "images": images}
    item |= {"shows": {"naive": True, "spf": False}, "changes": {"spf": [], "other": ["skin tan → pale"]}}
    page = live(BeforeAfter([item]))
    caption = page.locator(".spf-changes")
    expect(caption).to_have_text("Shows a hat.")
    page.evaluate("model.set('method', 'spf')")
    expect(caption).to_have_text("Does not show a hat. No unrelated change.")
    page.evaluate("model.set('method', 'other')")
    expect(caption).to_have_text("Unrelated changes: skin tan → pale")


def test_the_text_is_switched_and_a_target_that_nobody_asked_for_is_named(live: Live) -> None:
    grey, blue, red = (Image.new("RGB", (16, 16), color) for color in ("gray", "blue", "red"))
    unasked = {"prompt": "a person", "images": {"naive": red}, "changes": {"naive": []}, "shows": {"naive": True}}
    item = {
        "target": "sunglasses", "seed": 0, "prompt": "a person, sunglasses", "images": {"base": grey, "naive": blue},
        "changes": {"naive": ["skin tan → pale"]}, "shows": {"naive": True}, "base_text": unasked,
    }  # fmt: skip
    page = live(BeforeAfter([item]))
    expect(page.locator(".spf-changes")).to_have_text("Shows sunglasses. Unrelated changes: skin tan → pale")
    expect(page.locator(".spf-prompt")).to_have_text("Right: “a person, sunglasses”. Left: the base text.")
    alt = "Portrait by naive fine-tuning for “a person, sunglasses”, seed 0; shows sunglasses"
    alt += "; unrelated changes: skin tan to pale"
    expect(page.locator(".spf-after")).to_have_attribute("alt", alt)
    before, after = (attribute(page.locator(f".spf-{side}"), "src") for side in ("before", "after"))
    page.get_by_label("base text", exact=True).check()
    expect(page.locator(".spf-prompt")).to_have_text("Left and right: “a person”")
    expect(page.locator(".spf-changes")).to_have_text(
        "Shows sunglasses, without being asked for it. No unrelated change."
    )
    assert attribute(page.locator(".spf-before"), "src") == before
    assert attribute(page.locator(".spf-after"), "src") != after
    assert page.evaluate("[model.get('text'), model.saved]") == ["base text", 1]
    page.evaluate("model.set('text', 'complete text')")
    expect(page.get_by_label("complete text")).to_be_checked()


def test_one_text_needs_no_switch(live: Live) -> None:
    pictures = {name: Image.new("RGB", (16, 16), "gray") for name in ("base", "naive")}
    page = live(BeforeAfter([{"target": "a beard", "seed": 0, "prompt": "a person, a beard", "images": pictures}]))
    expect(page.get_by_role("group", name="Text")).to_be_hidden()
