"""Both explorers: the browser's numbers are the library's, and the static page works by keyboard, mouse and touch."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Locator, expect

from spf_lite.widgets import AttentionExplorer, ControlMapExplorer

from .conftest import Live, Watched, box_of

pytestmark = pytest.mark.browser


#: A canvas as numbers: red, green, blue and opacity of each pixel in turn. It is a copy that is read.
PIXELS = """canvas => {
  const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext("2d", { willReadFrequently: true });
  copy.drawImage(canvas, 0, 0);
  return [...copy.getImageData(0, 0, canvas.width, canvas.height).data];
}"""


#: Milliseconds from a slider's move until the handler is done, and until the next frame is painted; the medians.
MOVE = """async (field) => {
  const handled = [], painted = [];
  for (let move = 0; move < 21; move++) {
    field.value = Number(field.min) + (move + 1) / 23 * (field.max - field.min);
    const start = performance.now();
    field.dispatchEvent(new Event("input", { bubbles: true }));
    document.body.getBoundingClientRect();
    handled.push(performance.now() - start);
    await new Promise((done) => requestAnimationFrame(() => {
      const channel = new MessageChannel();
      channel.port1.onmessage = done;
      channel.port2.postMessage(0);
    }));
    painted.push(performance.now() - start);
  }
  const median = (times) => times.sort((a, b) => a - b)[10];
  return [median(handled), median(painted)];
}"""


def control_item(label: str = "Ada", phrases: tuple[str, ...] = ("hair", "skin", "hoodie")) -> dict[str, Any]:
    draw = np.random.default_rng(0)
    return {
        "label": label,
        "image": Image.new("RGB", (32, 32), "orange"),
        "phrases": phrases,
        "distances": draw.random(len(phrases)).round(3),
        "timesteps": [100, 300],
        "layers": ["all layers", "up 2.0"],
        "difference": draw.random((2, 16, 16)),
        "phrase_maps": draw.random((2, 2, len(phrases), 16, 16)),
    }


def attention_item(label: str = "Ada", tokens: int = 6) -> dict[str, Any]:
    maps = np.random.default_rng(0).random((2, 3, 4, tokens, 16, 16)) ** 3
    return {
        "label": label,
        "image": Image.new("RGB", (32, 32), "orange"),
        "tokens": [f"word {number}" for number in range(tokens)],
        "timesteps": [100, 700],
        "layers": ["down 0.0", "up 2.0", "up 2.1"],
        "maps": maps / maps.sum(axis=3, keepdims=True),
    }


def _press(slider: Locator, key: str, times: int = 1) -> None:
    slider.focus()
    for _ in range(times):
        slider.press(key)


def _drag(slider: Locator, share: float) -> None:
    """Move a slider's thumb by mouse from where it is to a share of its track."""
    slider.scroll_into_view_if_needed()
    box = box_of(slider)
    low, high, value = (float(slider.evaluate(f"field => field.{name}")) for name in ("min", "max", "value"))
    thumb, middle = 8, box["y"] + box["height"] / 2
    track = box["width"] - 2 * thumb
    mouse = slider.page.mouse
    mouse.move(box["x"] + thumb + track * (value - low) / (high - low), middle)
    mouse.down()
    mouse.move(box["x"] + thumb + track * share, middle, steps=5)
    mouse.up()


def test_a_kernel_and_the_control_map_follow_each_other(live: Live) -> None:
    page = live(ControlMapExplorer([control_item(), control_item("Ben", ("hat", "coat"))]))
    page.evaluate("model.set('threshold', 0.25); model.set('weight', 3.5); model.set('subtraction', 'sum')")
    expect(page.get_by_label("Threshold")).to_have_value("0.25")
    expect(page.get_by_label("Weight w")).to_have_value("3.5")
    expect(page.get_by_label("sum")).to_be_checked()
    page.evaluate("model.set('portrait', 'Ben')")  # the distances are still Ada's: three for two phrases
    expect(page.get_by_label("coat", exact=True)).to_be_visible()
    assert page.evaluate("model.saved") == 0
    page.get_by_role("combobox", name="Portrait").select_option("Ada")
    assert page.evaluate("[model.get('portrait'), model.get('distances').length, model.saved]") == ["Ada", 3, 1]
    page.get_by_label("Softness").fill("0.5")
    page.get_by_label("Rescale M").uncheck()
    page.get_by_label("Layer").select_option("up 2.0")
    _press(page.get_by_label("Timestep"), "End")
    names = ("softness", "rescale", "layer", "timestep")
    assert [page.evaluate(f"model.get('{name}')") for name in names] == [0.5, False, "up 2.0", 300]
    page.evaluate("stop()")
    assert page.evaluate("model.heard()") == 0


def test_a_kernel_and_the_attention_follow_each_other(live: Live) -> None:
    page = live(AttentionExplorer([attention_item(), attention_item("Ben", 4)]))
    page.evaluate("model.set('token', 5); model.set('head', '2'); model.set('opacity', 0.3)")
    expect(page.get_by_role("radio", name="word 5")).to_be_checked()
    expect(page.get_by_label("Head")).to_have_value("2")
    expect(page.get_by_label("Opacity")).to_have_value("0.3")
    expect(page.locator(".spf-heat")).to_have_css("opacity", "0.3")
    page.evaluate("model.set('portrait', 'Ben')")  # which has no sixth token
    expect(page.get_by_role("radio", name="word 3")).to_be_checked()
    assert page.evaluate("model.saved") == 0
    page.get_by_role("combobox", name="Portrait").select_option("Ada")
    page.get_by_label("Layer").select_option("up 2.1")
    page.get_by_label("Head").select_option("mean")
    _press(page.get_by_label("Timestep"), "End")
    names = ("portrait", "layer", "head", "timestep")
    assert [page.evaluate(f"model.get('{name}')") for name in names] == ["Ada", "up 2.1", "mean", 700]
    page.evaluate("stop()")
    assert page.evaluate("model.heard()") == 0


def test_sliders_change_the_map_and_the_readout(explorers: Watched) -> None:
    root = explorers.page.locator(".spf-control-map")
    drawn = root.locator(".spf-tint")
    readout = root.locator(".spf-readout")
    before, first = readout.inner_text(), drawn.evaluate(PIXELS)
    _press(root.get_by_label("Threshold"), "ArrowRight", 30)
    expect(root.get_by_label("Threshold")).to_have_attribute("aria-valuetext", "0.30")
    expect(root.locator(".spf-formula")).to_contain_text("0 where at most 0.30")
    second = drawn.evaluate(PIXELS)
    assert sum(second[3::4]) < sum(first[3::4]), "less is tinted"
    assert readout.inner_text() != before

    phrase = root.get_by_role("slider", name="a person")
    _drag(phrase, 0.95)
    expect(phrase).to_have_attribute("aria-valuetext", re.compile(r"^1\.[89]\d \(measured 0\.55\)$"))
    assert drawn.evaluate(PIXELS) != second
    root.get_by_role("button", name="Reset to the measured distances").click()
    expect(phrase).to_have_attribute("aria-valuetext", "0.55")
    expect(root.get_by_role("button")).to_be_disabled()
    assert drawn.evaluate(PIXELS) == second

    _press(root.get_by_label("Softness"), "Home")
    assert set(drawn.evaluate(PIXELS)[3::4]) == {0, 191}, "a hard mask"
    _press(root.get_by_label("Threshold"), "Home")
    root.get_by_label("sum").check()
    _press(root.get_by_label("Weight w"), "End")
    _press(root.get_by_role("slider", name="a person"), "End")
    _press(root.get_by_role("slider", name="red short hair"), "End")
    expect(root.locator(".spf-formula")).to_contain_text("M = clamp( D − 2.00 · Σ dₚ Aₚ )")
    explorers.assert_quiet()


def test_legends_have_a_scale_of_colours(explorers: Watched) -> None:
    for widget in (".spf-control-map", ".spf-attention"):
        bar = explorers.page.locator(f"{widget} .spf-legend .spf-bar").bounding_box()
        assert bar is not None and bar["width"] > 60 and bar["height"] > 8


def test_an_empty_map_says_so(live: Live) -> None:
    page = live(ControlMapExplorer([{**control_item(), "difference": np.zeros((2, 16, 16))}]))
    expect(page.locator(".spf-readout")).to_have_text("The target may change 0 % of the picture: the map is empty.")
    assert set(page.locator(".spf-tint").evaluate(PIXELS)) == {0}


def test_portrait_timestep_and_layer_can_be_chosen(explorers: Watched) -> None:
    root = explorers.page.locator(".spf-control-map")
    picture, drawn = root.locator(".spf-pale"), root.locator(".spf-tint")
    first, before = picture.get_attribute("src"), drawn.evaluate(PIXELS)
    root.get_by_label("Layer").select_option("up 2.0")
    layered = drawn.evaluate(PIXELS)
    assert layered != before
    _press(root.get_by_label("Timestep"), "ArrowRight")
    expect(root.get_by_label("Timestep")).to_have_attribute("aria-valuetext", "t = 300")
    assert drawn.evaluate(PIXELS) != layered
    root.get_by_role("combobox", name="Portrait").select_option("Ben")
    assert picture.get_attribute("src") != first
    expect(root.get_by_role("img", name=re.compile("^Control map over Ben. The target may change"))).to_be_visible()
    explorers.assert_quiet()


def test_words_are_chosen_by_mouse_keyboard_and_touch(explorers: Watched) -> None:
    page = explorers.page
    root = page.locator(".spf-attention")
    drawn, readout = root.locator(".spf-heat"), root.locator(".spf-readout")
    expect(readout).to_contain_text("“a” gets")
    legend, chip = box_of(root.locator(".spf-chips legend")), box_of(root.locator(".spf-chip").first)
    assert legend["x"] <= chip["x"] and legend["y"] + legend["height"] <= chip["y"], (
        "the heading stands above the words"
    )
    first = drawn.evaluate(PIXELS)
    root.get_by_role("radio", name="hair").click()
    expect(readout).to_contain_text("“hair” gets")
    assert drawn.evaluate(PIXELS) != first
    page.keyboard.press("ArrowLeft")
    expect(readout).to_contain_text("“red” gets")
    expect(root.get_by_role("radio", name="red")).to_be_focused()
    root.get_by_role("radio", name="PAD").tap()
    expect(readout).to_contain_text("“PAD × 25” gets")
    thumbs = [thumb.evaluate(PIXELS) for thumb in root.locator(".spf-chip canvas").all()]
    assert len(thumbs) == 8 and len({str(thumb) for thumb in thumbs}) == 8
    root.get_by_label("Head").select_option("2")
    assert root.locator(".spf-chip canvas").first.evaluate(PIXELS) != thumbs[0]
    _drag(root.get_by_label("Opacity"), 0.0)
    expect(drawn).to_have_css("opacity", "0")
    expect(root.locator(".spf-fading")).to_have_css("filter", "saturate(1)")
    explorers.assert_quiet()


def _brightness(color: str) -> float:
    """Relative luminance (WCAG 2) of a CSS colour."""
    channels = [int(value) / 255 for value in re.findall(r"\d+", color)[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_words_are_legible_and_pictures_stay_as_they_are(explorers: Watched, theme: str) -> None:
    page = explorers.page
    page.evaluate(
        f"document.documentElement.dataset.theme = '{theme}'; document.documentElement.dataset.mode = '{theme}'"
    )
    paper = _brightness(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    for selector in (
        ".spf-readout",
        ".spf-range label",
        ".spf-range output",
        ".spf-chip span",
        ".spf-formula",
        "legend",
    ):
        for place in page.locator(f".spf-widget {selector}").all():
            text = _brightness(place.evaluate("place => getComputedStyle(place).color"))
            assert (max(text, paper) + 0.05) / (min(text, paper) + 0.05) > 4.5, selector
    assert page.locator(".spf-card img").evaluate("image => getComputedStyle(image).filter") == "none"
    assert page.locator(".spf-pale").evaluate("image => getComputedStyle(image).filter") == "grayscale(1)"
    for plate in page.locator(".spf-widget").all():
        assert plate.evaluate("e => getComputedStyle(e.closest('.cell_output') ?? e).backgroundColor") in (
            "rgba(0, 0, 0, 0)", page.evaluate("getComputedStyle(document.body).backgroundColor"),
        )  # fmt: skip
    explorers.assert_quiet()


def test_both_fit_a_phone_and_keep_the_map_in_sight(explorers: Watched) -> None:
    page = explorers.page
    page.set_viewport_size({"width": 360, "height": 740})
    page.wait_for_timeout(200)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    for name in ("control-map", "attention"):
        root = page.locator(f".spf-{name}")
        assert root.evaluate("root => root.scrollWidth <= root.clientWidth")
        box = box_of(root.locator(".spf-stage"))
        assert box["width"] == pytest.approx(box["height"], abs=1) and box["width"] > 150
        last = root.locator("input").last
        last.evaluate("field => field.scrollIntoView({ block: 'end' })")
        expect(root.locator(".spf-stage")).to_be_in_viewport(ratio=0.99)
        header = box_of(page.locator(".bd-header-article"))
        assert box_of(root.locator(".spf-stage"))["y"] >= header["y"] + header["height"], "not beneath the header"
    explorers.assert_quiet()


def test_a_move_of_a_slider_is_fast(live: Live, record_property: Callable[[str, object], None]) -> None:
    usual = control_item(phrases=tuple("abcdefg"))
    for name, widget, label in (
        ("control map", ControlMapExplorer([usual]), "Threshold"),
        ("attention", AttentionExplorer([attention_item(tokens=20)]), "Timestep"),
    ):
        handled, painted = live(widget).get_by_label(label).evaluate(MOVE)
        report = f"{name}: handled in {handled:.1f} ms, painted after {painted:.1f} ms (medians)"
        record_property(name, report)
        print(report)
        assert painted < 100, report
