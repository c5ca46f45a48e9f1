"""A small book with widgets, built with the real configuration, and a browser that cannot reach any network."""

import functools
import http.server
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import nbformat
import pytest
from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from playwright.sync_api import Browser, ConsoleMessage, FloatRect, Locator, Page, Request, Route

from spf_lite.widgets.base import PicturedWidget

ROOT = Path(__file__).parents[2]
LOCAL = ("http://localhost", "file:", "data:", "blob:")
#: A remark of the widget manager's own schema checker; it says nothing about the page.
HARMLESS = "strict mode: use allowUnionTypes"

WIDGET = """
from spf_lite.tiny_world.rendering import counterfactual, render
from spf_lite.tiny_world.portraits import Portrait
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

FIGURE = """
from spf_lite.tiny_world.rendering import counterfactual
from spf_lite.tiny_world.portraits import Portrait
from spf_lite.viz.plots import portrait_grid

portrait_grid([counterfactual(Portrait(), target) for target in ("sunglasses", "beard")], ["sunglasses", "beard"])
"""

EXPLORERS = """
import numpy as np
from spf_lite.tiny_world.rendering import counterfactual
from spf_lite.tiny_world.portraits import Portrait
from spf_lite.widgets import AttentionExplorer, ControlMapExplorer

y, x = np.mgrid[0:16, 0:16] / 15

def spot(across, down, width=0.05):
    return np.exp(-((x - across) ** 2 + (y - down) ** 2) / width)

phrases = ["a person", "red short hair", "blue hoodie"]
words = ["start", "a", "person", ",", "red", "hair", "end", "PAD × 25"]
controls, attentions = [], []
for label, background in (("Ada", "gray"), ("Ben", "blue")):
    image, _ = counterfactual(Portrait(background=background), "sunglasses")
    maps = np.stack([spot(0.5, 0.5, 0.2), spot(0.5, 0.15), spot(0.5, 0.95)])
    controls.append({
        "label": label, "image": image, "phrases": phrases, "distances": [0.55, 0.7, 0.85],
        "timesteps": [100, 300], "layers": ["all layers", "up 2.0"],
        "difference": np.stack([spot(0.5, 0.45), spot(0.5, 0.45, 0.15)]),
        "phrase_maps": np.stack([np.stack([maps, maps ** 2]), np.stack([maps ** 0.5, maps])]),
    })
    scores = np.stack([spot(0.3 + 0.05 * k, 0.1 + 0.1 * k, 0.1) for k in range(len(words))])
    heads = np.stack([3 * scores, -2 * scores])
    layers = np.exp(np.stack([heads, 0.5 * heads]))
    maps = np.stack([layers, layers ** 0.5])
    attentions.append({
        "label": label, "image": image, "tokens": words, "timesteps": [100, 700], "layers": ["down 0.0", "up 2.0"],
        "maps": maps / maps.sum(axis=3, keepdims=True),
    })
"""

#: Stands in for a kernel: holds the state, tells listeners of every change, and notes what the view saves.
_WITH_KERNEL = """async ({ code, css, state }) => {
  const listeners = {};
  const model = {
    saved: 0,
    get: (name) => state[name],
    set: (name, value) => {
      const changed = state[name] !== value;
      state[name] = value;
      if (changed) for (const tell of listeners[`change:${name}`] ?? []) tell();
    },
    save_changes: () => { model.saved += 1; },
    on: (event, listener) => (listeners[event] ??= []).push(listener),
    off: (event, listener) => { listeners[event] = listeners[event].filter((other) => other !== listener); },
    heard: () => Object.values(listeners).flat().length,
  };
  const style = document.createElement("style");
  style.textContent = css;
  document.head.append(style);
  window.module = await import(URL.createObjectURL(new Blob([code], { type: "text/javascript" })));
  window.model = model;
  const output = document.createElement("div");
  document.body.append(output);
  window.stop = window.module.default.render({ model, el: output });
}"""

#: Shows a widget on an empty page, or on a page given, beneath what is there.
Live = Callable[..., Page]


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the rendered page."""
    folder = tmp_path_factory.mktemp("book")
    for name in ("_config.yml", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    for name in ("_ext", "_assets"):
        shutil.copytree(ROOT / "book" / name, folder / "book" / name)
    (folder / "book" / "references.bib").touch()
    toc = "format: jb-book\nroot: page\nchapters:\n- file: explorers\n"
    (folder / "book" / "_toc.yml").write_text(toc, encoding="utf-8")
    explorers = (EXPLORERS, "ControlMapExplorer(controls)", "AttentionExplorer(attentions)")
    for name, title, cells in (("page", "A page", (WIDGET, FIGURE)), ("explorers", "Two widgets", explorers)):
        page = new_notebook(
            cells=[
                new_markdown_cell(f"# {title}\n\nWith $x_0$ and a widget.", id="text"),
                *(new_code_cell(code, id=f"cell-{number}") for number, code in enumerate(cells)),
            ],
            metadata={"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}},
        )
        nbformat.write(page, folder / "book" / f"{name}.ipynb")
    tool = Path(sys.executable).parent / "jupyter-book"
    command = [str(tool), "build", "book", "--config", "_config.yml", "--path-output", ".", "-W", "--keep-going"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "_build" / "html"


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """Serve a folder over HTTP; gives its address."""
    with http.server.ThreadingHTTPServer(("localhost", 0), functools.partial(_Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://localhost:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="session")
def served(site: Path) -> Iterator[str]:
    """The address under which the page is served."""
    with serving(site) as address:
        yield address


def stumbling_blocks(page: Page, widgets: str = ".spf-widget") -> list[str]:
    """What axe-core finds on the widgets that a reader with a screen reader or without a mouse would stumble over."""
    found = Axe().run(page, context=widgets).response
    assert found["passes"], "axe has looked at nothing"
    return [
        f"{violation['id']}: {node['html'][:160]} {node['failureSummary'][:200]}"
        for violation in found["violations"]
        if violation["impact"] in ("serious", "critical")
        for node in violation["nodes"]
    ]


def box_of(place: Locator) -> FloatRect:
    """Where an element is on the page, in CSS pixels."""
    box = place.bounding_box()
    assert box is not None, f"{place} is not shown"
    return box


def attribute(place: Locator, name: str) -> str:
    """An attribute that an element has."""
    value = place.get_attribute(name)
    assert value is not None, f"{place} has no {name}"
    return value


def marks_of(chart: Locator, number: int) -> list[tuple[float, float]]:
    """Where the marks of a line are in a chart, in its own units; the number is that of its colour."""
    marks = chart.locator(f".spf-dot.spf-color-{number}").all()
    return [tuple(map(float, re.findall(r"[\d.]+", attribute(mark, "transform")))) for mark in marks]  # type: ignore[misc]


class Watched:
    """A page and everything that went wrong on it."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.troubles: list[str] = []
        page.on("console", self._heard)
        page.on("pageerror", lambda error: self.troubles.append(f"exception: {error}"))
        page.on("requestfailed", self._failed)
        page.route("**/*", self._allow_local)

    def assert_quiet(self) -> None:
        """Nothing went wrong, and nothing goes wrong in the next moments."""
        self.page.wait_for_timeout(300)
        assert self.troubles == []

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


def _opened(
    request: pytest.FixtureRequest, browser: Browser, site: Path, page: str, *selectors: str
) -> Iterator[Watched]:
    base = request.getfixturevalue("served") if request.param == "http" else site.as_uri()
    context = browser.new_context(viewport={"width": 1100, "height": 900}, has_touch=True)
    watched = Watched(context.new_page())
    watched.page.goto(f"{base}/{page}.html")
    for selector in selectors:
        watched.page.wait_for_selector(selector)
    yield watched
    context.close()


@pytest.fixture(params=["http", "file"])
def watched(request: pytest.FixtureRequest, browser: Browser, site: Path) -> Iterator[Watched]:
    """The page with the slider between two portraits, opened over HTTP and as a file."""
    yield from _opened(request, browser, site, "page", ".spf-before-after")


@pytest.fixture(params=["http", "file"])
def explorers(request: pytest.FixtureRequest, browser: Browser, site: Path) -> Iterator[Watched]:
    """The page with both explorers, opened over HTTP and as a file."""
    yield from _opened(request, browser, site, "explorers", ".spf-control-map", ".spf-attention")


@pytest.fixture
def live(browser: Browser) -> Iterator[Live]:
    """Shows a widget with a stand-in for a kernel: ``model``, ``module`` and ``stop`` are global in the page."""
    pages: list[Page] = []

    def show(widget: PicturedWidget, page: Page | None = None) -> Page:
        if page is None:
            page = browser.new_page()
            pages.append(page)
        inherited = ("layout", "tabbable", "tooltip")
        names = [name for name in widget.keys if not name.startswith("_") and name not in inherited]
        state = {name: getattr(widget, name) for name in names}
        page.evaluate(_WITH_KERNEL, {"code": str(widget._esm), "css": str(widget._css), "state": state})
        return page

    yield show
    for page in pages:
        page.close()
