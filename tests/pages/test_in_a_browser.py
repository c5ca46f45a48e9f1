"""Every page in headless Chromium without a network: quiet, quick, accessible, and no wider than a phone."""

import json
import os
from pathlib import Path
from typing import Literal

import pytest

from tests.browser.conftest import Watched, stumbling_blocks
from tests.pages.conftest import HTML

pytestmark = [pytest.mark.pages, pytest.mark.browser]

WIDGETS = ".spf-widget"
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
#: Seconds until the widgets of a page are there, and milliseconds until a slider has moved: what we want, and what is
#: so far from it that something must be broken (machines that run tests are slow and busy).
READY, READY_AT_WORST = 1.5, 12.0
FRAME, FRAME_AT_WORST = 16.0, 150.0
#: How long one slider takes to answer: the handler and the layout that it causes, in the median.
ANSWER = """slider => {
  const times = [];
  const span = Number(slider.max) - Number(slider.min);
  for (let move = 1; move <= 15; move++) {
    slider.value = String(Number(slider.min) + (span * move) / 16);
    const start = performance.now();
    slider.dispatchEvent(new Event("input", { bubbles: true }));
    document.body.getBoundingClientRect();
    times.push(performance.now() - start);
  }
  return times.sort((a, b) => a - b)[7];
}"""


#: How figures look in the dark: portraits without a card, charts inverted.
IN_THE_DARK = """() => {
  document.documentElement.dataset.theme = "dark";
  const styles = (name) => [...document.querySelectorAll(`.cell_output img.${name}`)].map((image) => {
    const { filter, borderTopWidth, backgroundColor } = getComputedStyle(image);
    return [filter, borderTopWidth, backgroundColor].join(" ");
  });
  return [styles("spf-portraits"), styles("spf-chart")];
}"""


def _expects_widgets(path: Path) -> int:
    return path.read_text(encoding="utf-8").count("application/vnd.jupyter.widget-view+json")


def _wait_for_widgets(watched: Watched, page_file: Path) -> float:
    """Seconds from the start of navigation until all widgets are there."""
    expected = _expects_widgets(page_file)
    watched.page.wait_for_function(
        "([selector, count]) => document.querySelectorAll(selector).length >= count", arg=[WIDGETS, expected],
        timeout=60_000,
    )  # fmt: skip
    return float(watched.page.evaluate("performance.now()")) / 1000


def test_is_quiet_quick_accessible_and_fits(opened: Watched, page_file: Path) -> None:
    page = opened.page
    ready = _wait_for_widgets(opened, page_file)
    page.wait_for_timeout(300 if _expects_widgets(page_file) else 0)
    assert opened.troubles == []
    sliders = page.locator(f"{WIDGETS} input[type=range]")
    frames = [float(sliders.nth(number).evaluate(ANSWER)) for number in range(sliders.count())]
    slowest = max(frames, default=0.0)
    _report(page_file, ready, slowest)
    assert ready <= READY_AT_WORST, f"widgets took {ready:.1f} s"
    assert slowest <= FRAME_AT_WORST, f"a slider took {slowest:.0f} ms"
    assert opened.troubles == [], "while the sliders moved"
    for scheme in SCHEMES if _expects_widgets(page_file) else ():
        page.emulate_media(color_scheme=scheme)
        page.wait_for_function("theme => document.documentElement.dataset.theme === theme", arg=scheme)
        serious = stumbling_blocks(page, WIDGETS)
        assert not serious, "\n".join([scheme, *serious])
    page.set_viewport_size({"width": 390, "height": 800})
    page.wait_for_timeout(200)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    portraits, charts = page.evaluate(IN_THE_DARK)
    assert set(portraits) <= {"none 0px rgba(0, 0, 0, 0)"}
    assert set(charts) <= {"invert(0.93) hue-rotate(180deg) 0px rgb(255, 255, 255)"}
    assert page_file.stem != "01-semantic-pollution" or (portraits and charts), "figures lost their classes"


def _report(page_file: Path, ready: float, slowest: float) -> None:
    """One line of the benchmark, kept beside the rendered book."""
    path = HTML.parent / "widgets.jsonl"
    line = {"page": page_file.stem, "ready s": round(ready, 2), "slowest slider ms": round(slowest, 1)}
    line |= {"as wanted": ready <= READY and slowest <= FRAME, "process": os.getpid()}
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
