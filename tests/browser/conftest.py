"""A one-page book with a widget, built with the real configuration, and a browser that cannot reach any network."""

import functools
import http.server
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, Route, sync_playwright

ROOT = Path(__file__).parents[2]
LOCAL = ("http://localhost", "file:", "data:", "blob:")
#: A remark of the widget manager's own schema checker; it says nothing about the page.
HARMLESS = "strict mode: use allowUnionTypes"

WIDGET = """
from spf_lite.artwork import counterfactual, render
from spf_lite.portraits import Portrait
from spf_lite.widgets import BeforeAfter

items = []
for target in ("sunglasses", "beard"):
    for seed, background in enumerate(("gray", "blue")):
        before, after = counterfactual(Portrait(background=background), target)
        polluted = render(Portrait(background="yellow", targets=(target,)))
        items.append({
            "target": target, "seed": seed, "prompt": f"a person, {background} background, {target}",
            "images": {"base": before, "naive": polluted, "spf": after},
            "changes": {"naive": [f"background {background} → yellow"], "spf": []},
        })
BeforeAfter(items)
"""


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the rendered page."""
    folder = tmp_path_factory.mktemp("book")
    for name in ("_config.yml", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    for name in ("_ext", "_assets"):
        shutil.copytree(ROOT / "book" / name, folder / "book" / name)
    (folder / "book" / "references.bib").touch()
    (folder / "book" / "_toc.yml").write_text("format: jb-book\nroot: page\n", encoding="utf-8")
    page = new_notebook(
        cells=[
            new_markdown_cell("# A page\n\nWith $x_0$ and a widget.", id="text"),
            new_code_cell(WIDGET, id="widget"),
        ],
        metadata={"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}},
    )
    nbformat.write(page, folder / "book" / "page.ipynb")
    tool = Path(sys.executable).parent / "jupyter-book"
    command = [str(tool), "build", "book", "--config", "_config.yml", "--path-output", ".", "-W", "--keep-going"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "_build" / "html"


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="session")
def served(site: Path) -> Iterator[str]:
    """The address under which the page is served."""
    with http.server.ThreadingHTTPServer(("localhost", 0), functools.partial(_Quiet, directory=str(site))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://localhost:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Headless Chromium that resolves no name but localhost."""
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        reason = "no Chromium on this machine: install it (Debian: apt-get install chromium) to run the browser tests"
        if os.environ.get("SPF_LITE_REQUIRE_BROWSER"):
            pytest.fail(reason)
        pytest.skip(reason)
    arguments = [
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE localhost",
    ]
    with sync_playwright() as playwright:
        instance = playwright.chromium.launch(executable_path=chromium, args=arguments)
        yield instance
        instance.close()


class Watched:
    """A page and everything that went wrong on it."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.troubles: list[str] = []
        page.on("console", self._heard)
        page.on("pageerror", lambda error: self.troubles.append(f"exception: {error}"))
        page.on("requestfailed", self._failed)
        page.route("**/*", self._allow_local)

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and HARMLESS not in message.text:
            self.troubles.append(f"{message.type}: {message.text}")

    def _failed(self, request: Request) -> None:
        self.troubles.append(f"not loaded: {request.url}")

    def _allow_local(self, route: Route) -> None:
        if route.request.url.startswith(LOCAL):
            route.continue_()
        else:
            self.troubles.append(f"asked the network for {route.request.url}")
            route.abort()


@pytest.fixture(params=["http", "file"])
def watched(request: pytest.FixtureRequest, browser: Browser, site: Path) -> Iterator[Watched]:
    """The page, opened over HTTP and as a file, with the widget on it."""
    base = request.getfixturevalue("served") if request.param == "http" else site.as_uri()
    context = browser.new_context(viewport={"width": 1100, "height": 900})
    watched = Watched(context.new_page())
    watched.page.goto(f"{base}/page.html")
    watched.page.wait_for_selector(".spf-before-after")
    yield watched
    context.close()
