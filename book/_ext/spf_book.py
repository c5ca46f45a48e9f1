"""What the book asks of Sphinx beyond ``_config.yml``.

* The public address is read from ``pyproject.toml``, the only place where it stands.
* Chapters are executed side by side (``chapters.py``) and cached under a key that is a hash of the library and the
  weights (``execution_key.py``).
* The library's pages list every public module (``api_pages.py``), and names of other libraries lead to their pages
  without a network at build time (``references.py``).
* Pages of source code, which are most of all pages, share the list of contents at their side.
* Figures are served as WebP, which takes a quarter of what their PNG takes, and a click opens them in full size.
* anywidget's script for static pages is copied out of the installed Python package; pages open cleanly as files, too.
"""

from __future__ import annotations

import re
import shutil
import tomllib
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import anywidget
from PIL import Image
from spf_lite.cli.threads import set_thread_policy
from sphinx.application import Sphinx
from sphinx.config import Config

from api_pages import expand
from chapters import execute_missing
from execution_key import ROOT, cache_folder, digest
from references import write_inventories

#: What a rendered page depends on, besides those.
PAGE = ("book/_assets/**/*", "book/_ext/*.py", "pyproject.toml")
#: A figure in a page: its name is a hash of what it shows, so that one that was converted stays converted.
FIGURE = re.compile(r"_images/[0-9a-f]{64}\.png")
#: A figure, and the link around it if it has one already.
SHOWN = re.compile(r'(<a class="spf-full"[^>]*>)?<img\b[^>]*\bsrc="(_images/[0-9a-f]{64}\.\w+)"[^>]*>')
#: Docutils calls citations a list whose children are no list items, which screen readers stumble over.
CITATIONS = ('<div role="list" class="citation-list">', '<div class="citation-list">')
FONT_PRELOAD = re.compile(r'<link rel="preload" as="font"[^>]*>\s*')


def public_address(root: Path = ROOT) -> str:
    """The address of the repository."""
    return str(tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"]["Repository"])


def configure(app: Sphinx, config: Config) -> None:
    """Fill in what depends on files outside the book."""
    config.html_theme_options = {
        **config.html_theme_options,
        "repository_url": public_address(),
    }
    config.nb_execution_cache_path = str(cache_folder(Path(app.outdir).parent))
    config.intersphinx_mapping = write_inventories(Path(app.outdir).parent / ".inventories")
    config.spf_inputs = digest(PAGE)


def share_contents(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: object) -> None:
    """Make the list of contents of all pages of source code once for each depth of folders, which its links depend on.

    None of these pages stands in the list, so it looks the same on all of them. Sphinx would make it anew for each.
    """
    if not page.startswith("_modules/"):
        return
    make, depth = context["toctree"], page.count("/")
    made: dict[object, str] = app.__dict__.setdefault("_spf_contents", {})

    def contents(**options: object) -> str:
        key = (depth, *sorted(options.items()))
        if key not in made:
            made[key] = make(**options)
        return made[key]

    context["toctree"] = contents


def finish(app: Sphinx, error: Exception | None) -> None:
    """Put anywidget's AMD bundle where ``require-config.js`` looks for it, and drop the theme's font preloads.

    The preloads only save a moment, and browsers refuse them with an error when a page is opened as a file.
    """
    if error is not None or app.builder.format != "html":
        return
    bundle = Path(anywidget.__file__).parent / "nbextension" / "index.js"
    shutil.copyfile(bundle, Path(app.outdir) / "_static" / "offline" / "anywidget.js")
    output = Path(app.outdir)
    # The theme's own pages stay as they are: Sphinx would wonder at the next build.
    pages = [page for page in output.glob("**/*.html") if "_static" not in page.parts]
    texts = [page.read_text(encoding="utf-8") for page in pages]
    figures = sorted({name for text in texts for name in FIGURE.findall(text)})
    with ThreadPoolExecutor() as pool:
        lighter = dict(zip(figures, pool.map(partial(light, output), figures), strict=True))
    for page, text in zip(pages, texts, strict=True):
        cleaned = FIGURE.sub(lambda found: lighter[found[0]], FONT_PRELOAD.sub("", text))
        cleaned = SHOWN.sub(opens_in_full, cleaned).replace(*CITATIONS)
        if text != cleaned:
            page.write_text(cleaned, encoding="utf-8")


def opens_in_full(figure: re.Match[str]) -> str:
    """A figure within a link to its picture: on a phone, its labels are small."""
    if figure[1]:
        return figure[0]
    return f'<a class="spf-full" href="{figure[2]}" title="Open in full size">{figure[0]}</a>'


def light(folder: Path, name: str) -> str:
    """The name of a figure as WebP, made beside the PNG if it is not there yet; the PNG's if that is smaller."""
    source = folder / name
    smaller = source.with_suffix(".webp")
    if not smaller.exists():
        with Image.open(source) as figure:
            figure.save(smaller, quality=88, method=5)
    return str(Path(name).with_suffix(".webp")) if smaller.stat().st_size < source.stat().st_size else name


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx. A changed ``spf_inputs`` or cache path makes it read every page again."""
    app.add_config_value("spf_inputs", "", "env", types=[str])
    app.add_config_value("execute_first", [], "", types=[list])
    set_thread_policy(threads=1)  # the kernels of chapters inherit it
    app.connect("config-inited", configure)
    app.connect("env-before-read-docs", execute_missing)
    app.connect("source-read", expand)
    app.connect("html-page-context", share_contents, priority=400)  # before the theme asks for it
    app.connect("build-finished", finish)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
