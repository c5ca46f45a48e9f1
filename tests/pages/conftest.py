"""The rendered book, as ``make book`` left it."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.browser.conftest import Watched

HTML = Path(__file__).parents[2] / "_build" / "html"
TOC = [
    path.relative_to(HTML).as_posix()
    for path in sorted([*HTML.glob("*.html"), *HTML.glob("api/*.html")])
    if path.stem not in ("search", "py-modindex")
]


@pytest.fixture(scope="session", autouse=True)
def rendered() -> None:
    """Skip what looks at pages that are not there; where they must be there, fail."""
    if not TOC:
        reason = "the book is not rendered: run `make book` first"
        if os.environ.get("SPF_LITE_REQUIRE_PAGES"):
            pytest.fail(reason)
        pytest.skip(reason)


@pytest.fixture(params=TOC or ["index.html"])
def page_file(request: pytest.FixtureRequest) -> Path:
    """One page of the book after the other."""
    return HTML / str(request.param)


@pytest.fixture
def opened(browser: Browser, page_file: Path) -> Iterator[Watched]:
    """The page, opened as a file in a browser that reaches no network."""
    context = browser.new_context(viewport={"width": 1200, "height": 900})
    watched = Watched(context.new_page())
    watched.page.goto(page_file.as_uri(), wait_until="load")
    yield watched
    context.close()
