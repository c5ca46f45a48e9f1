"""Widgets where people are: each host's own mark-up, by day and by night, against what the system prefers.

A host says "dark" by an attribute or a class. The page around the widget gets the host's background, and the system
always prefers the opposite, so that a widget that overlooks the mark-up is seen to be wrong.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Browser, Page

from .conftest import Live, stumbling_blocks
from .examples import WIDGETS

pytestmark = pytest.mark.browser

Theme = Literal["light", "dark"]
THEMES: tuple[Theme, Theme] = ("light", "dark")

#: Host and theme: what the host writes on <html> and <body>, and what it lays beneath an output.
HOSTS: dict[tuple[str, Theme], tuple[dict[str, str], dict[str, str], str]] = {
    ("colab", "light"): ({"theme": "light"}, {}, "#ffffff"),
    ("colab", "dark"): ({"theme": "dark"}, {}, "#383838"),
    ("jupyterlab", "light"): ({}, {"data-jp-theme-light": "true"}, "#ffffff"),
    ("jupyterlab", "dark"): ({}, {"data-jp-theme-light": "false"}, "#111111"),
    ("vscode", "light"): ({}, {"class": "vscode-light"}, "#ffffff"),
    # Not a mistake: VS Code lays widgets on white in its dark themes.
    ("vscode", "dark"): ({}, {"class": "vscode-dark"}, "#ffffff"),
    ("vscode-high-contrast", "light"): ({}, {"class": "vscode-high-contrast-light vscode-high-contrast"}, "#ffffff"),
    ("vscode-high-contrast", "dark"): ({}, {"class": "vscode-high-contrast"}, "#ffffff"),
    ("book", "light"): ({"data-theme": "light"}, {}, "#ffffff"),
    ("book", "dark"): ({"data-theme": "dark"}, {}, "#121212"),
    ("system", "light"): ({}, {}, "#ffffff"),
    ("system", "dark"): ({}, {}, "#000000"),
}
PAPER = {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 24, 30)"}
INK = {"light": "rgb(36, 41, 47)", "dark": "rgb(221, 227, 233)"}
#: As ControlMapExplorer's own words: the parts of a widget that hold text, or that a reader operates.
READ = ".spf-widget :is(label, legend, output, p, b, li, select, option, button, figcaption, .spf-chip span)"

LOOKS = """selector => [...document.querySelectorAll(selector)].map((element) => {
  const { color, backgroundColor, colorScheme } = getComputedStyle(element);
  return [color, backgroundColor, colorScheme];
})"""


@pytest.fixture(scope="module")
def _page(browser: Browser) -> Iterator[Page]:
    page = browser.new_page(viewport={"width": 900, "height": 1000})
    yield page
    page.close()


@pytest.fixture
def hosted(live: Live, _page: Page) -> Page:
    """One page with a widget of each kind."""
    if not _page.locator(".spf-widget").count():
        for make in WIDGETS.values():
            live(make(), _page)
    return _page


def _dress(page: Page, host: str, theme: Theme) -> None:
    html, body, beneath = HOSTS[host, theme]
    page.evaluate(
        """([html, body, beneath]) => {
          for (const [element, given] of [[document.documentElement, html], [document.body, body]]) {
            for (const { name } of [...element.attributes]) element.removeAttribute(name);
            for (const [name, value] of Object.entries(given)) element.setAttribute(name, value);
          }
          document.body.style.background = beneath;
        }""",
        [html, body, beneath],
    )
    opposite = THEMES[theme == "light"]
    page.emulate_media(color_scheme=theme if host == "system" else opposite)


@pytest.mark.parametrize(("host", "theme"), HOSTS)
def test_every_widget_has_the_hosts_theme(hosted: Page, host: str, theme: Theme) -> None:
    _dress(hosted, host, theme)
    if folder := os.environ.get("SPF_LITE_SCREENSHOTS"):
        hosted.screenshot(path=Path(folder) / f"{host}-{theme}.png", full_page=True)
    widgets = hosted.evaluate(LOOKS, ".spf-widget")
    assert len(widgets) == len(WIDGETS)
    for color, background, scheme in widgets:
        assert (color, background) == (INK[theme], PAPER[theme])
        assert scheme == ("light dark" if host == "system" else theme)
    read = hosted.evaluate(LOOKS, READ)
    assert len(read) > 50
    assert {color for color, _, _ in read} == {INK[theme]}
    assert {background for _, background, _ in read} == {"rgba(0, 0, 0, 0)", PAPER[theme]}


@pytest.mark.parametrize(("host", "theme"), HOSTS)
def test_axe_finds_enough_contrast(hosted: Page, host: str, theme: Theme) -> None:
    _dress(hosted, host, theme)
    serious = stumbling_blocks(hosted)
    assert not serious, "\n".join(serious)


def test_axe_finds_words_that_keep_the_pages_colour(hosted: Page) -> None:
    """What the widgets did before they brought their own paper: dark words of a light rule on VS Code's dark theme."""
    _dress(hosted, "vscode", "dark")
    style = hosted.add_style_tag(content=".spf-widget { color: #24292f !important; }")
    try:
        assert "color-contrast" in {block.partition(":")[0] for block in stumbling_blocks(hosted)}
    finally:
        style.evaluate("style => style.remove()")


def test_a_theme_may_change_while_a_widget_is_shown(hosted: Page) -> None:
    for host, theme in (("colab", "dark"), ("colab", "light"), ("system", "dark"), ("jupyterlab", "light")):
        assert theme in THEMES
        _dress(hosted, host, theme)
        assert {tuple(look[:2]) for look in hosted.evaluate(LOOKS, ".spf-widget")} == {(INK[theme], PAPER[theme])}


@pytest.mark.parametrize("theme", THEMES)
def test_lines_of_a_high_contrast_theme_are_as_strong_as_its_words(hosted: Page, theme: Theme) -> None:
    border = "e => getComputedStyle(e).borderTopColor"
    for host, strong in (("vscode-high-contrast", True), ("vscode", False)):
        _dress(hosted, host, theme)
        assert (hosted.locator(".spf-widget").first.evaluate(border) == INK[theme]) is strong
