"""Every link of the rendered book leads somewhere, and every picture says what it shows."""

from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tests.pages.conftest import HTML

pytestmark = pytest.mark.pages

#: Of one page: its HTML and its own pictures. Scripts, styles and fonts are shared by all pages.
HEAVIEST = 2_000_000


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.links: list[str] = []
        self.pictures: list[dict[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.names |= {name for key in ("id", "name") if (name := found.get(key))}
        if tag == "img":
            self.pictures.append(found)
        # Canonical and other addresses in the head are for machines.
        self.links += [link for key in ("href", "src") if (link := found.get(key)) and tag != "link"]


@cache
def _read(path: Path) -> _Page:
    page = _Page()
    page.feed(path.read_text(encoding="utf-8"))
    return page


def test_every_internal_link_resolves(page_file: Path) -> None:
    dead = []
    for link in _read(page_file).links:
        parts = urlsplit(link)
        if parts.scheme or parts.netloc or (not parts.path and not parts.fragment):
            continue
        there = (page_file.parent / unquote(parts.path)).resolve() if parts.path else page_file
        anchor = unquote(parts.fragment) if there.suffix == ".html" else ""
        if not there.exists() or (anchor and anchor not in _read(there).names):
            dead.append(link)
    assert not dead


def test_every_picture_has_real_alt_text(page_file: Path) -> None:
    for picture in _read(page_file).pictures:
        alt, source = picture.get("alt"), str(picture.get("src"))
        if "logo" in source or "_static" in source:
            continue
        assert alt and len(alt) >= 40 and not alt.startswith(("_images", "/")), f"{source[:60]}: {alt!r}"


def test_every_figure_has_a_look_in_the_dark(page_file: Path) -> None:
    """Portraits stand on nothing, charts are inverted (book/_assets/book.css): a white slab has neither class."""
    for picture in _read(page_file).pictures:
        source = str(picture.get("src"))
        if source.startswith("_images/"):
            assert {"spf-portraits", "spf-chart"} & set(str(picture.get("class")).split()), source


def test_a_click_opens_every_figure_in_full_size(page_file: Path) -> None:
    text = page_file.read_text(encoding="utf-8")
    for picture in _read(page_file).pictures:
        source = str(picture.get("src"))
        if source.startswith("_images/"):
            assert text.count(f'<a class="spf-full" href="{source}"') == text.count(f'src="{source}"'), source


def test_no_page_is_heavy(page_file: Path) -> None:
    sources = (str(picture.get("src")) for picture in _read(page_file).pictures)
    own = {page_file} | {page_file.parent / unquote(source) for source in sources if "_images/" in source}
    size = sum(path.stat().st_size for path in own)
    assert size <= HEAVIEST, f"{size / 1e6:.2f} MB"


def test_library_and_chapters_lead_to_each_other() -> None:
    pages = [HTML / "library.html", *HTML.glob("api/*.html")]
    chapters = {path.name for path in HTML.glob("[01][0-9]-*.html")}
    assert len(chapters) >= 10
    from_library = {Path(urlsplit(link).path).name for page in pages for link in _read(page).links}
    to_library = {
        name
        for name in chapters
        if any(link.startswith("api/") and "#spf_lite." in link for link in _read(HTML / name).links)
    }
    assert to_library == chapters
    assert chapters - from_library <= {"10-ablations.html"}, "the library is silent about a chapter"
