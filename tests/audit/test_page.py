"""The page: everything escaped, nothing loaded, readable by everybody."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
from PIL import Image, ImageDraw
from playwright.sync_api import Browser

from spf_lite.audit.cases import GAIN, OUTLINE, Case
from spf_lite.audit.page.charts import sweep_chart
from spf_lite.audit.page.document import WORST, audit_page
from spf_lite.audit.report import SweepPoint

from ..browser.conftest import Watched, stumbling_blocks
from .test_report import report


def cases(count: int = 8) -> list[Case]:
    found = []
    for number in range(count):
        before = Image.new("RGB", (48, 48), (20 * number, 90, 120))
        after, region = before.copy(), Image.new("L", (48, 48))
        ImageDraw.Draw(after).rectangle((10, 10, 30, 20), (0, 0, 0))
        ImageDraw.Draw(region).rectangle((8, 8, 32, 22), 255)
        found.append(Case(before, before, after, before, region))
    return found


def test_the_difference_is_amplified_and_outlines_the_region() -> None:
    case = cases()[0]
    difference = case.difference()
    assert difference.getpixel((15, 15)) == (0, round(90 * GAIN), round(120 * GAIN))
    assert difference.getpixel((8, 15)) == OUTLINE and difference.getpixel((40, 40)) == (0, 0, 0)
    assert replace(case, at_complete=None, region=None).difference().getbbox() is None


def test_a_page_holds_every_number_and_its_worst_portraits() -> None:
    page = audit_page(report(), cases())
    for name, estimate in report().estimates().items():
        assert f'<th scope="row">{name}</th>' in page and str(estimate) in page
    assert page.count("<img ") == 5 * WORST == len(re.findall(r'src="data:image/webp;base64,[\w+/=]+"', page))
    assert all(len(alt) > 20 for alt in re.findall(r'alt="([^"]*)"', page))
    assert page.index("Prompt 3, seed 2") < page.index("Prompt 7, seed 6") < page.index("Prompt 2, seed 1")
    assert page.count("<caption>") == page.count("<table>") >= 5
    rest = re.sub(r'src="data:[^"]*"', "", page)
    assert "<h1>What the adapter “hat” changes</h1>" in page
    run = replace(report(), settings={"adapter": "runs/hat/adapter"})
    assert "<h1>What the adapter “hat” changes</h1>" in audit_page(run), "the folder of an export says nothing"
    assert not re.search(r"//|url\(|@import|<link|<script", rest), "no address at all"


def test_a_page_needs_neither_pictures_nor_a_target_nor_a_sweep() -> None:
    few = replace(
        report(), target_text=None, complete_texts=[], sweep=[], values={"reconstruction": [0.5] * 3},
        base_texts=["a"] * 3, seeds=[0, 1, 2], unrelated_texts=[], settings={},
    )  # fmt: skip
    page = audit_page(few)
    assert "<img" not in page and "<svg" not in page and "too few prompts to say which words" in page
    page = audit_page(few, [replace(case, at_complete=None, by_words=None) for case in cases(3)])
    assert page.count("<img") == 3 * 3 and ", complete text<" not in page
    with pytest.raises(ValueError, match="pictures of 2 prompts, the report has 3"):
        audit_page(few, cases(2))


def test_texts_from_outside_are_escaped() -> None:
    evil = '"><script>alert(1)</script>'
    page = audit_page(
        replace(report(), target_text=evil, base_texts=[evil] * 8, complete_texts=[evil] * 8, settings={evil: evil}),
        cases(),
    )
    assert "<script" not in page and "&lt;script&gt;" in page


def test_a_chart_says_its_numbers_in_words() -> None:
    chart = sweep_chart(report().sweep, "reconstruction")
    assert 'role="img" aria-label="reconstruction by strength 0: 0.000 [' in chart and chart.count("<circle") == 2
    assert "nan" not in sweep_chart([SweepPoint(1.0, {"LPIPS": [0.0]})], "LPIPS"), "one point, endless interval"
    with pytest.raises(ValueError, match="no point of the sweep has the measure 'LPIPS'"):
        sweep_chart(report().sweep, "LPIPS")


@pytest.fixture(params=["light", "dark"])
def opened(
    request: pytest.FixtureRequest, browser: Browser, tmp_path: Path
) -> Iterator[tuple[Watched, Literal["light", "dark"]]]:
    (tmp_path / "page.html").write_text(audit_page(report(), cases()), encoding="utf-8")
    context = browser.new_context(viewport={"width": 1100, "height": 900}, color_scheme=request.param)
    watched = Watched(context.new_page())
    watched.page.goto((tmp_path / "page.html").as_uri(), wait_until="load")
    yield watched, request.param
    context.close()


@pytest.mark.browser
def test_a_browser_finds_nothing_to_load_nothing_wrong_and_a_fit_on_a_phone(
    opened: tuple[Watched, Literal["light", "dark"]],
) -> None:
    watched, scheme = opened
    page = watched.page
    assert (
        page.evaluate("performance.getEntriesByType('resource').filter((e) => !e.name.startsWith('data:')).length") == 0
    )
    assert page.evaluate("[...document.images].every((picture) => picture.naturalWidth === 48)")
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(21, 23, 26)"
    assert dark == (scheme == "dark")
    page.locator("summary").click()
    assert stumbling_blocks(page, "body") == []
    page.set_viewport_size({"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    watched.assert_quiet()
