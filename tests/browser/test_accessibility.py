"""What axe-core finds on each widget. Contrast in each theme is checked in ``test_themes.py``."""

import pytest

from .conftest import Live, stumbling_blocks
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
