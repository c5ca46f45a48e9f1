"""Both explorers: the browser's numbers are the library's, and the static page works by keyboard, mouse and touch."""

import re
from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from playwright.sync_api import Locator, Page, expect

from spf_lite.evaluation.measures.maps import map_auc
from spf_lite.method.control_map import combine
from spf_lite.options import ControlMapOptions
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


def _control_item(label: str = "Ada", phrases: tuple[str, ...] = ("hair", "skin", "hoodie")) -> dict[str, Any]:
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


def _attention_item(label: str = "Ada", tokens: int = 6) -> dict[str, Any]:
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


def _formula_cases() -> list[tuple[Any, Any, Any, ControlMapOptions]]:
    """D, A, distances and options: random ones, and the edges."""
    draw = np.random.default_rng(7)
    inputs = []
    for phrases in (0, 1, 5):
        maps = draw.integers(0, 256, (phrases, 16)) / 255
        inputs.append((draw.integers(0, 256, 16) / 255, maps, draw.random(phrases) * 2))
    flat = np.full(16, 0.5)
    inputs += [
        (flat, draw.random((2, 16)), np.array([0.3, 0.9])),
        (draw.random(16), np.stack([flat, flat]), np.array([0.3, 0.9])),
        (flat, np.stack([flat, 0 * flat]), np.array([2.0, 2.0])),
        (0 * flat, draw.random((2, 16)), np.array([0.3, 0.9])),
        (flat / flat, 0 * draw.random((1, 16)), np.array([1.0])),
        (draw.random(16), draw.random((2, 16)), np.zeros(2)),
        (draw.random(16), draw.random((2, 16)), np.array([0.0, 1e-9])),
    ]
    choices = product((0.0, 0.7, 3.0), (0.0, 0.31, 0.99), (0.0, 0.6, 1.0), ("mean", "sum"), (True, False))
    options = [
        ControlMapOptions(weight=w, threshold=t, softness=s, subtraction=kind, rescale=stretch)
        for w, t, s, kind, stretch in choices
    ]
    return [(*one, option) for one in inputs for option in options]


def _in_the_browser(page: Page, cases: list[tuple[Any, Any, Any, ControlMapOptions]]) -> list[list[float]]:
    names = ("weight", "threshold", "softness", "subtraction", "rescale")
    plain = [
        [d.tolist(), maps.tolist(), distances.tolist(), {name: getattr(options, name) for name in names}]
        for d, maps, distances, options in cases
    ]
    result: list[list[float]] = page.evaluate("cases => cases.map((one) => [...module.combine(...one)])", plain)
    return result


def _in_python(case: tuple[Any, Any, Any, ControlMapOptions], dtype: torch.dtype) -> np.ndarray:
    difference, maps, distances = (torch.tensor(values, dtype=dtype) for values in case[:3])
    maps = maps.reshape(1, len(distances), 4, 4)
    return combine(difference.reshape(1, 1, 4, 4), maps, distances[None], case[3]).flatten().numpy()


def test_the_browsers_formula_is_the_librarys(live: Live) -> None:
    page = live(ControlMapExplorer([_control_item()]))
    cases = _formula_cases()
    found = _in_the_browser(page, cases)
    assert len(found) == len(cases) > 1000
    for case, control in zip(cases, found, strict=True):
        assert control == pytest.approx(_in_python(case, torch.float64), abs=1e-12), case


def test_the_browsers_formula_is_the_trainers_too(live: Live) -> None:
    """The trainer works in 32 bits. Where a hair decides about the hard threshold, neither is wrong: left out."""
    page = live(ControlMapExplorer([_control_item()]))
    draw, cases = np.random.default_rng(1), []
    for number in range(200):
        maps = draw.random((3, 16))
        options = ControlMapOptions(
            weight=draw.random(), threshold=draw.random() * 0.6, softness=draw.random(),
            rescale=number % 2 == 0, subtraction="mean" if number % 3 else "sum",
        )  # fmt: skip
        values = (0.5 + draw.random(16) / 2, maps / 4, draw.random(3))
        soft = _in_python((*values, ControlMapOptions(options.weight, 1, options.rescale, 0, 1, options.subtraction)),
                          torch.float64)  # fmt: skip
        if np.abs(soft - options.threshold).min() > 1e-4 and np.ptp(soft) > 0.1 and soft[soft > 0].min() > 1e-4:
            cases.append((*values, options))
    assert len(cases) > 100
    for case, control in zip(cases, _in_the_browser(page, cases), strict=True):
        assert control == pytest.approx(_in_python(case, torch.float32), abs=1e-6)


def test_the_browsers_auc_is_the_librarys(live: Live) -> None:
    draw = np.random.default_rng(3)
    region = draw.random((16, 16)) < 0.3
    explorer = ControlMapExplorer([{**_control_item(), "region": region}, {**_control_item(), "label": "no region"}])
    page = live(explorer)
    cases = [(draw.integers(0, 5, 64) / 4, draw.random(64) < share) for share in (0.1, 0.5, 0.9)]
    cases += [(draw.random(64), draw.random(64) < 0.5), (np.zeros(4), np.array([True, False, False, False]))]
    plain = [[values.tolist(), inside.tolist()] for values, inside in cases]
    found = page.evaluate("cases => cases.map((one) => module.auc(...one))", plain)
    assert found == pytest.approx([map_auc(*case) for case in cases], abs=1e-12)
    assert page.evaluate("[module.auc([1, 2], [true, true]), module.auc([1, 2], [false, false])]") == [None, None]

    readout, note = page.locator(".spf-readout"), page.get_by_text("Outline: where the target really")
    expect(readout).to_contain_text(f"AUC against the outline: {explorer.auc():.2f}.")
    expect(note).to_be_visible()
    outline = np.array(page.locator(".spf-tint + canvas").evaluate(PIXELS)).reshape(16 * 24, 16 * 24, 4)[..., 3] > 0
    edges = np.argwhere(region[:, 1:] != region[:, :-1])
    assert all(outline[24 * y + 12, 24 * (x + 1)] for y, x in edges), "between two positions, one inside"
    same = np.argwhere(region[:, 1:] == region[:, :-1])
    assert not any(outline[24 * y + 12, 24 * (x + 1)] for y, x in same)
    page.get_by_label("Portrait").select_option("no region")
    expect(note).to_be_hidden()
    expect(readout).not_to_contain_text("AUC")


@pytest.mark.parametrize("layer", ["all layers", "up 2.0"])
def test_the_map_drawn_is_the_map_in_python(live: Live, layer: str) -> None:
    explorer = ControlMapExplorer([_control_item()], layer=layer, timestep=300, threshold=0.2, softness=0.7)
    page = live(explorer)
    pixels = np.array(page.locator(".spf-tint").evaluate(PIXELS)).reshape(16, 16, 4)
    assert pixels[..., 3] / 255 / 0.75 == pytest.approx(explorer.map(), abs=0.004)
    strong = pixels[pixels[..., 3] > 100][:, :3]
    assert len(strong) and np.abs(strong - [0, 114, 178]).max() <= 2
    share = round(100 * (explorer.map() > 0).mean())
    expect(page.locator(".spf-readout")).to_contain_text(f"The target may change {share} % of the picture")


@pytest.mark.parametrize("layer", ["all layers", "up 2.1"])
@pytest.mark.parametrize("head", ["mean", "3"])
def test_the_browsers_attention_is_pythons(live: Live, layer: str, head: str) -> None:
    explorer = AttentionExplorer([_attention_item()], layer=layer, head=head, timestep=700, token=4)
    page = live(explorer)
    choice = {name: getattr(explorer, name) for name in ("layer", "head", "timestep", "token")}
    found = page.evaluate("choice => [...module.attentionMap(model.get('items')[0], choice)]", choice)
    assert found == pytest.approx(explorer.map().flatten(), abs=1e-12)
    expect(page.locator(".spf-readout")).to_contain_text(f"peak attention {explorer.map().max():.2f}")


def test_a_kernel_and_the_control_map_follow_each_other(live: Live) -> None:
    page = live(ControlMapExplorer([_control_item(), _control_item("Ben", ("hat", "coat"))]))
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
    page = live(AttentionExplorer([_attention_item(), _attention_item("Ben", 4)]))
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
    page = live(ControlMapExplorer([{**_control_item(), "difference": np.zeros((2, 16, 16))}]))
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
    usual = _control_item(phrases=tuple("abcdefg"))
    for name, widget, label in (
        ("control map", ControlMapExplorer([usual]), "Threshold"),
        ("attention", AttentionExplorer([_attention_item(tokens=20)]), "Timestep"),
    ):
        handled, painted = live(widget).get_by_label(label).evaluate(MOVE)
        report = f"{name}: handled in {handled:.1f} ms, painted after {painted:.1f} ms (medians)"
        record_property(name, report)
        print(report)
        assert painted < 100, report
