"""Charts for readers who do not see all colours, and for readers with a phone."""

import pytest
from playwright.sync_api import Locator

from spf_lite.widgets import TrainingScrubber, WeightExplorer
from tests.widgets.test_training_scrubber import run_of
from tests.widgets.test_weight_explorer import PEOPLE, sweep_of

from .conftest import Live, attribute, marks_of

pytestmark = pytest.mark.browser

MEASURES = {f"measure {number}": [0.5, 0.4 + 0.05 * number, 0.9] for number in range(8)}
#: The pixels of a text's line height on the page, whatever the chart is scaled by.
SIZES = """texts => texts.map((text) => parseFloat(getComputedStyle(text).fontSize) * text.getScreenCTM().d)"""
COLOR = r"spf-color-\d"


def _look(part: Locator) -> tuple[str, str, str]:
    """Dashes, shape of the mark, and colour."""
    line, mark = part.locator(".spf-line"), part.locator(".spf-dot").first
    color = line.evaluate("line => getComputedStyle(line).stroke")
    return attribute(line, "stroke-dasharray"), attribute(mark, "d"), color


def test_lines_differ_by_dashes_and_marks_and_the_legend_shows_both(live: Live) -> None:
    page = live(WeightExplorer([sweep_of(measures=MEASURES)], PEOPLE))
    legend = [_look(key) for key in page.locator(".spf-chart li").all()]
    assert len({dashes for dashes, _, _ in legend[:6]}) == 6
    assert len({mark for _, mark, _ in legend[:6]}) == 6
    assert len({look[:2] for look in legend}) == 8, "the seventh line is not the first one again"
    lines = page.locator(".spf-chart > svg > .spf-line").all()
    assert [attribute(line, "stroke-dasharray") for line in lines] == [dashes for dashes, _, _ in legend]
    assert [line.evaluate("line => getComputedStyle(line).stroke") for line in lines] == [c for *_, c in legend]
    after = "line => line.nextElementSibling.getAttribute('d')"
    assert [line.evaluate(after) for line in lines] == [mark for _, mark, _ in legend]


def test_a_long_line_has_few_marks_and_a_short_one_all(live: Live) -> None:
    losses = {"denoise": [(step, 1.0 / (1 + step)) for step in range(100)]}
    page = live(TrainingScrubber([run_of(losses=losses, measures={"flips": [0, 0.2, 0.4]})], PEOPLE))
    long, short = (page.locator(".spf-chart > svg").nth(number) for number in (0, 1))
    assert 4 <= len(marks_of(long, 0)) <= 8
    assert len(marks_of(short, 0)) == 3


@pytest.mark.parametrize("width", [360, 390, 1100])
def test_texts_of_a_chart_are_legible_and_do_not_overlap(live: Live, width: int) -> None:
    many = (0, 50, 150, 250, 350, 450, 550, 650, 750, 850, 999)
    measures = {"pure": [k / 11 for k in range(11)], "flips": [0.01] * 11}
    sweep = sweep_of(weights=many, measures=measures)
    page = live(WeightExplorer([sweep], PEOPLE))
    live(TrainingScrubber([run_of(steps=(0, 500, 1000))], PEOPLE), page)
    page.set_viewport_size({"width": width, "height": 800})
    assert page.locator(".spf-chart").count() == 4
    sizes = page.locator(".spf-tick").evaluate_all(SIZES)
    assert len(sizes) > 20 and min(sizes) >= 12 and max(sizes) < 22
    for chart in page.locator(".spf-chart > svg").all():
        frame = chart.evaluate("svg => { const b = svg.getBoundingClientRect(); return [b.left, b.right] }")
        for anchor in ("middle", "end"):
            boxes = chart.locator(f".spf-tick[text-anchor={anchor}]").evaluate_all(
                "texts => texts.map((t) => t.getBoundingClientRect()).map((b) => [b.left, b.right, b.top, b.bottom])"
            )
            for one, other in zip(boxes, boxes[1:], strict=False):
                assert one[1] < other[0] or one[3] <= other[2] or other[3] <= one[2] + 4, (one, other)
            assert all(frame[0] - 1 <= box[0] and box[1] <= frame[1] + 1 for box in boxes)
