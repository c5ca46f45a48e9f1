"""The playground's page with a stand-in for its engine, so that it is tested without the exported model.

``tests/pages/test_playground.py`` tests the page of the rendered book, with the model.
"""

import importlib
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from .conftest import ROOT, Watched, attribute, serving, stumbling_blocks

pytestmark = pytest.mark.browser

#: Paints gray portraits; the strength of an adapter brightens the lower right of the second one. While it is held, it
#: stops after the first step. Each word's map is high in one of nine places. The text "too long" is refused.
ENGINE = b"""
let held = false, go = null;
function portrait(side, strength, words) {
  const pixels = new Uint8ClampedArray(4 * 36).fill(100);
  for (const at of [28, 29, 34, 35]) pixels.fill(100 + 100 * strength, 4 * at, 4 * at + 3);
  const maps = new Float32Array(36 * words.length);
  words.forEach((_, t) => { maps[36 * t + 12 * Math.floor((t % 9) / 3) + 2 * (t % 3)] = 1; });
  return { side, pixels, height: 6, width: 6, maps, mapSize: [words.length, 6, 6] };
}
onmessage = async ({ data }) => {
  const { id, ticket, steps } = data;
  if (data.type === "start") postMessage({ type: "ready", ticket });
  if (data.type === "adapter") postMessage({ type: "adapter", ticket });
  if (data.type === "hold") { held = data.on; go?.(); postMessage({ type: "hold", ticket }); }
  if (data.type !== "paint") return;
  const words = data.text.split(" ").map((word, at) => ({ word, tokens: [at] }));
  const portraits = [portrait("base", 0, words)];
  if (data.adapter) portraits.push(portrait("tuned", data.strength, words));
  postMessage({ type: "step", id, step: 1, steps, portraits });
  if (held) await new Promise((resolve) => { go = resolve; });
  if (data.text === "too long") postMessage({ type: "error", id, request: "paint", message: "too many tokens" });
  else postMessage({ type: "done", id, portraits, words, milliseconds: 1 });
};
"""


@pytest.fixture(scope="module")
def extension() -> Iterator[Any]:
    """The Sphinx extension that writes the page's files."""
    folder = str(ROOT / "book" / "_ext")
    sys.path.insert(0, folder)
    yield importlib.import_module("playground")
    sys.path.remove(folder)


@pytest.fixture(scope="module")
def folder(extension: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page alone, as its Markdown has it, and its files."""
    folder = tmp_path_factory.mktemp("page")
    files = folder / "_static" / "playground"
    shutil.copytree(ROOT / "book" / "_assets" / "playground", files)
    scripts = extension.small_scripts(22) | {
        "runtime.js": extension.as_script({"ort.js": b"", "engine.js": ENGINE}),
        "model.js": "",
        **{
            f"adapter-{one['name']}.js": extension.as_script({f"{one['name']}.safetensors": b"-"})
            for one in extension.adapters()
        },
    }
    for name, content in scripts.items():
        (files / name).write_text(content, encoding="utf-8")
    text = (ROOT / "book" / "playground.md").read_text("utf-8")
    (raw,) = re.findall(r"```{raw} html\n(.*?)```", text, flags=re.DOTALL)
    head = "<!doctype html><html lang=en><meta charset=utf-8><title>Playground</title>"
    (folder / "playground.html").write_text(f"{head}<main>{raw}</main>", encoding="utf-8")
    return folder


@pytest.fixture
def page(browser: Browser, folder: Path) -> Iterator[Page]:
    """The page, started, with sunglasses and pure pairs painted."""
    watched = Watched(browser.new_page())
    with serving(folder) as address:  # axe reads style sheets, which it may not where the page is a file
        watched.page.goto(f"{address}/playground.html")
        watched.page.get_by_role("button", name="Start the model").click()
        expect(watched.page.locator(".spf-status")).to_contain_text("Two portraits", timeout=30_000)
        yield watched.page
        watched.assert_quiet()
        watched.page.close()


def _said(page: Page) -> list[str]:
    return [attribute(canvas, "aria-label") for canvas in page.locator(".spf-canvases canvas:first-child").all()]


def _hold(page: Page, on: bool) -> None:
    page.evaluate("on => spfPlayground.ask({ type: 'hold', on })", on)


def test_a_portrait_says_whether_it_is_being_painted_and_then_what_is_seen(page: Page) -> None:
    text = page.get_by_label("Text", exact=True).input_value()
    assert "sunglasses" in text
    portrait = f"portrait for the text “{text}”, seed 0"
    different = "different from the base model's on 11 % of the picture, most at the lower right"
    assert _said(page) == [f"Base model: {portrait}", f"Fine-tuned (pure pairs): {portrait}; {different}"]
    _hold(page, True)
    page.get_by_label("strength of the adapter").fill("0")
    page.get_by_label("seed", exact=True).fill("7")
    page.get_by_label("seed", exact=True).press("Enter")
    painting = f"being painted: step 1 of 12 of the portrait for the text “{text}”, seed 7"
    canvas = page.locator(".spf-canvases canvas:first-child").first
    expect(canvas).to_have_attribute("aria-label", f"Base model, {painting}")
    assert _said(page)[1] == f"Fine-tuned (pure pairs), {painting}"
    page.get_by_label("Text", exact=True).press_sequentially("!")  # what is typed meanwhile is not what is painted
    _hold(page, False)
    portrait = f"portrait for the text “{text}”, seed 7"
    expect(canvas).to_have_attribute("aria-label", f"Base model: {portrait}")
    assert _said(page)[1] == f"Fine-tuned (pure pairs): {portrait}; the same picture as the base model's"


def test_a_portrait_that_was_broken_off_says_so(page: Page) -> None:
    page.get_by_label("Text", exact=True).fill("too long")
    page.get_by_label("Text", exact=True).press("Enter")
    expect(page.locator(".spf-status")).to_have_text("too many tokens")
    assert _said(page)[0] == "Base model, unfinished: the portrait for the text “too long”, seed 0"


def test_the_map_over_a_portrait_says_where_it_is_high(page: Page) -> None:
    maps = page.get_by_role("img", name="Attention map")
    expect(maps).to_have_count(0)
    page.get_by_label("Text", exact=True).fill("a tall person")
    page.get_by_label("Text", exact=True).press("Enter")
    expect(page.locator("#spf-pg-word option")).to_have_text(["no word", "a", "tall", "person"])
    at = "at least half of its maximum on 3 % of the picture"
    for word, place in (("tall", "top"), ("person", "upper right")):
        page.get_by_label("attention to").select_option(label=word)
        for number, title in enumerate(("Base model", "Fine-tuned (pure pairs)")):
            said = f"Attention map of “{word}” over the portrait, {title}: highest at the {place}, {at}"
            expect(maps.nth(number)).to_have_attribute("aria-label", said)
    assert stumbling_blocks(page, "#spf-playground") == []
    page.get_by_label("attention to").select_option(label="no word")
    expect(maps).to_have_count(0)


def test_recipes_have_the_chapters_names_and_a_target_without_the_best_one_says_which_is_used(page: Page) -> None:
    method, note = page.get_by_label("fine-tuned with"), page.locator("#spf-pg-recipe")
    names = ["nothing", "naive fine-tuning", "our first recipe", "pure pairs"]
    assert method.locator("option").all_inner_texts() == names
    expect(note).to_be_hidden()
    page.get_by_label("target", exact=True).select_option("blazer")
    lacking = "This target has no adapter of pure pairs."
    expect(note).to_have_text(f"{lacking} The adapter is that of our first recipe.")
    expect(method).to_have_accessible_description(f"{lacking} The adapter is that of our first recipe.")
    expect(page.locator(".spf-portrait figcaption").nth(1)).to_have_text("Fine-tuned (our first recipe)")
    method.select_option("naive")
    expect(note).to_have_text(f"{lacking} The adapter is that of naive fine-tuning.")
    method.select_option("none")
    expect(note).to_have_text(lacking)
    page.get_by_label("target", exact=True).select_option("beard")
    expect(note).to_be_hidden()
