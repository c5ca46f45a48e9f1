"""The weight explorer in a browser, with a stand-in for a kernel."""

import json

import pytest
from playwright.sync_api import Page, expect

from spf_lite.widgets import WeightExplorer
from tests.widgets.test_weight_explorer import BASE, PEOPLE, bare, sweep_of

from .conftest import Live, attribute, box_of, marks_of

pytestmark = pytest.mark.browser

LONG = sweep_of(
    weights=(0, 0.1, 0.3, 1, 3),
    measures={"target found": [0.1, None, 0.5, 0.9, 1], "flips": [0, 0, 0, 0, 0.5]},
)


@pytest.fixture
def shown(live: Live) -> Page:
    return live(WeightExplorer([LONG, sweep_of("output")], PEOPLE, BASE))


def _marker(page: Page) -> float:
    return float(attribute(page.locator(".spf-marker"), "x1"))


def _tick(page: Page, text: str) -> float:
    return float(attribute(page.locator(".spf-tick[text-anchor=middle]").get_by_text(text, exact=True), "x"))


def test_pictures_words_and_marker_follow_the_keyboard(shown: Page) -> None:
    slider, output = shown.get_by_role("slider", name="Weight"), shown.locator(".spf-range output")
    expect(output).to_have_text("weight 0.3 · right")
    assert _marker(shown) == pytest.approx(_tick(shown, "0.3"))
    first = shown.locator(".spf-row").nth(1).locator("img").first.get_attribute("src")
    before = shown.locator(".spf-row").first.locator("img").first.get_attribute("src")
    slider.focus()
    shown.keyboard.press("ArrowRight")
    expect(output).to_have_text("weight 1 · right")
    shown.keyboard.press("End")
    expect(output).to_have_text("weight 3 · too much")
    assert slider.get_attribute("aria-valuetext") == "weight 3 · too much"
    assert shown.locator(".spf-row").nth(1).locator("img").first.get_attribute("src") != first
    assert shown.locator(".spf-row").first.locator("img").first.get_attribute("src") == before, "the base model stays"
    expect(shown.get_by_alt_text("Ben; enhancement, weight 3 · too much")).to_be_visible()
    expect(shown.get_by_alt_text("Ben, sampled from the base model")).to_be_visible()
    assert _marker(shown) == pytest.approx(_tick(shown, "3"))
    expect(shown.locator(".spf-chart li output")).to_have_text(["1.00", "0.50"])
    assert shown.evaluate("[model.get('choice'), model.saved]") == [4, 2]


def test_the_chart_dots_what_was_measured_at_equal_distances_on_a_scale_to_one(shown: Page) -> None:
    ticks = shown.locator(".spf-tick[text-anchor=middle]")
    places = [float(attribute(tick, "x")) for tick in ticks.all()]
    assert ticks.all_text_contents() == ["0", "0.1", "0.3", "1", "3"]
    assert [b - a for a, b in zip(places, places[1:], strict=False)] == pytest.approx([places[1] - places[0]] * 4)
    chart = shown.locator(".spf-chart svg[role=img]")
    dots = marks_of(chart, 0)
    assert [x for x, _ in dots] == pytest.approx(places[:1] + places[2:], abs=0.06)
    ceiling, floor = (float(attribute(shown.locator(f".spf-{name}").last, "y1")) for name in ("grid", "axis"))
    assert dots[-1][1] == ceiling
    assert marks_of(chart, 1)[-1][1] == pytest.approx((ceiling + floor) / 2, abs=0.06)
    shown.get_by_role("slider").fill("1")
    expect(shown.locator(".spf-chart li output").first).to_have_text("–")
    expect(shown.get_by_role("img", name="target found: 0.10 at 0, 0.50 at 0.3")).to_be_visible()


def test_measures_that_stay_small_have_an_axis_of_their_own_whatever_the_sweep(live: Live) -> None:
    first = sweep_of(measures={"pure": [0.2, 0.5, 0.9], "flips": [0.11, 0.15, 0.2], "false positives": [0, 0, 0]})
    other = sweep_of("output", measures={"pure": [0.2, 0.2, 0.3], "flips": [0.1, 0.1, 0.1], "false positives": [0] * 3})
    page = live(WeightExplorer([first, other], PEOPLE))
    titles = page.locator(".spf-chart figcaption")
    for sweep in ("enhancement", "output"):
        page.get_by_label(sweep, exact=True).check()
        over = f"over the weight of {sweep}"
        expect(titles).to_have_text([f"Measures {over}", f"Small measures {over}, on an axis to 0.2"])
        levels = [page.locator(".spf-chart").nth(k).locator(".spf-tick[text-anchor=end]") for k in (0, 1)]
        expect(levels[0]).to_have_text(["0", "0.5", "1"])
        expect(levels[1]).to_have_text(["0", "0.1", "0.2"])
    page.get_by_label("enhancement", exact=True).check()
    small = page.locator(".spf-chart").nth(1).locator("svg[role=img]")
    (_, first_y), *_, (_, last_y) = marks_of(small, 1)
    assert first_y - last_y == pytest.approx(0.45 * 104, abs=0.5), "0.09 of 0.2: near half of the chart's height"
    page.evaluate("model.set('choice', 2)")
    expect(page.locator(".spf-chart li output")).to_have_text(["0.90", "0.20", "0.00"])
    for chart in page.locator(".spf-chart").all():
        assert attribute(chart.locator(".spf-marker"), "x1") == pytest.approx(
            attribute(chart.locator(".spf-tick[text-anchor=middle]").last, "x")
        )


@pytest.mark.parametrize(
    ("values", "levels"), [([0, 0, 0], ["0", "0.5", "1"]), ([0, 0, 0.001], ["0", "0.03", "0.06"]),
                           ([0, 0.349, 0.1], ["0", "0.2", "0.4"]), ([0, 0.35, 0.1], ["0", "0.5", "1"])],
)  # fmt: skip
def test_one_chart_is_enough_for_measures_of_one_size(live: Live, values: list[float], levels: list[str]) -> None:
    page = live(WeightExplorer([sweep_of(measures={"flips": values})], PEOPLE))
    expect(page.locator(".spf-tick[text-anchor=end]")).to_have_text(levels)
    expect(page.locator(".spf-chart")).to_have_count(1)


def test_lines_keep_their_order_where_a_file_has_sorted_the_state(live: Live) -> None:
    widget = WeightExplorer([sweep_of(measures={"target found": [0, 1, 1], "flips": [0, 0, 1]})], PEOPLE)
    widget.sweeps = json.loads(json.dumps(widget.sweeps, sort_keys=True))
    page = live(widget)
    expect(page.locator(".spf-chart li")).to_contain_text(["target found 1.00", "flips 0.00"])


def test_another_sweep_keeps_the_share_of_the_way(shown: Page) -> None:
    shown.get_by_role("slider").fill("3")  # three quarters of the way: between the other sweep's last two weights
    shown.get_by_role("group", name="Loss weight").get_by_label("output").check()
    expect(shown.locator(".spf-range output")).to_have_text("weight 3 · too much")
    assert shown.evaluate("[model.get('sweep'), model.get('choice')]") == ["output", 2]
    shown.get_by_role("slider").fill("1")
    shown.get_by_label("enhancement").check()
    expect(shown.locator(".spf-range output")).to_have_text("weight 0.3 · right")
    assert shown.evaluate("model.get('choice')") == 2


def test_a_kernel_moves_the_view_and_nothing_is_left_behind(shown: Page) -> None:
    shown.evaluate("model.set('sweep', 'output'); model.set('choice', 0)")
    expect(shown.locator(".spf-range output")).to_have_text("weight 0 · weak")
    expect(shown.get_by_label("output", exact=True)).to_be_checked()
    expect(shown.get_by_role("figure", name="output, weight 0 · weak")).to_be_visible()
    shown.evaluate("model.set('people', ['Eve', 'Dan'])")
    expect(shown.get_by_alt_text("Dan; output, weight 0 · weak")).to_be_visible()
    shown.evaluate("model.set('base', [])")
    expect(shown.locator(".spf-row").first).to_be_hidden()
    assert shown.evaluate("model.saved") == 0
    shown.evaluate("stop()")
    assert shown.evaluate("model.heard()") == 0
    shown.get_by_role("slider").fill("2")
    assert shown.evaluate("[model.get('choice'), model.saved]") == [0, 0]


def test_a_bare_sweep_shows_pictures_and_slider_alone(live: Live) -> None:
    page = live(WeightExplorer([bare(weights=(0.1 + 0.2, 5))], PEOPLE))
    expect(page.locator(".spf-range output")).to_have_text("weight 5")
    page.get_by_role("slider").fill("0")
    expect(page.locator(".spf-range output")).to_have_text("weight 0.3")
    expect(page.get_by_alt_text("Ada; enhancement, weight 0.3", exact=True)).to_be_visible()
    expect(page.get_by_role("radio")).to_have_count(0)
    expect(page.locator(".spf-row:visible")).to_have_count(1)
    expect(page.locator(".spf-chart")).to_have_count(0)


@pytest.mark.parametrize(("people", "rows"), [(2, 1), (4, 1), (6, 2)])
def test_fits_a_phone_with_person_under_person(live: Live, people: int, rows: int) -> None:
    row = BASE * (people // 2)
    sweeps = [sweep_of("a rather long name of a loss term", images=[row] * 3), {**LONG, "images": [row] * 5}]
    page = live(WeightExplorer(sweeps, [f"person {p}" for p in range(people)], row))
    page.set_viewport_size({"width": 360, "height": 740})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    base, chosen = (
        [box_of(image) for image in page.locator(".spf-row").nth(row).locator("img").all()] for row in (0, 1)
    )
    assert [box["x"] for box in base] == [box["x"] for box in chosen]
    assert len({box["y"] for box in base}) == rows
    assert min(box["width"] for box in base) > 60


def test_nothing_moves_by_itself_and_every_input_keeps_its_keys(shown: Page) -> None:
    style = "e => { const s = getComputedStyle(e); return [s.transitionDuration, s.animationName].join() }"
    for element in shown.locator(".spf-widget, .spf-widget *").all():
        assert element.evaluate(style) == "0s,none"
    for field in shown.locator("input").all():
        assert field.get_attribute("data-lm-suppress-shortcuts") == "true"


def test_other_numbers_than_weights_have_their_own_words(live: Live) -> None:
    sweep = {**sweep_of("naive", weights=(-1, 0, 2)), "changes": None}
    page = live(WeightExplorer([sweep], PEOPLE, word="strength", kind="Adapter"))
    slider = page.get_by_role("slider", name="Strength")
    slider.focus()
    page.keyboard.press("Home")
    assert attribute(slider, "aria-valuetext").startswith("strength -1")
    expect(page.get_by_alt_text("Ben; naive, strength -1 · weak").first).to_be_visible()
    expect(page.locator(".spf-chart figcaption")).to_have_text("Measures over the strength of naive")
    assert "weight" not in page.locator(".spf-widget").inner_text().lower()
