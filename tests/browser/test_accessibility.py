"""What axe-core finds on each widget, and on a whole page. Contrast in each theme is checked in ``test_themes.py``."""

import pytest

from .conftest import Live, Watched, stumbling_blocks
from .examples import WIDGETS

pytestmark = pytest.mark.browser


@pytest.mark.parametrize("name", WIDGETS)
def test_axe_finds_nothing_serious(name: str, live: Live) -> None:
    serious = stumbling_blocks(live(WIDGETS[name]()))
    assert not serious, "\n".join(serious)


def test_axe_finds_a_slider_without_a_name(live: Live) -> None:
    page = live(WIDGETS["weights"]())
    page.evaluate("document.querySelectorAll('.spf-widget label').forEach((label) => label.removeAttribute('for'))")
    assert "label" in {block.partition(":")[0] for block in stumbling_blocks(page)}


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_serious_on_a_whole_page(watched: Watched, theme: str) -> None:
    """Text, formula, code, figure and widget, with the book's own configuration."""
    watched.page.evaluate(f"document.documentElement.dataset.theme = '{theme}'")
    serious = stumbling_blocks(watched.page, "main")
    assert not serious, "\n".join(serious)
