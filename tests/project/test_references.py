"""The bibliography as it is rendered: nothing doubled, nothing left out."""

from pathlib import Path

import pytest
from pybtex.backends.plaintext import Backend  # type: ignore[import-untyped]
from pybtex.database import Entry, parse_file  # type: ignore[import-untyped]
from pybtex.plugin import find_plugin  # type: ignore[import-untyped]

ENTRIES: dict[str, Entry] = dict(parse_file(str(Path(__file__).parents[2] / "book" / "references.bib")).entries.items())


#: The style of the book (``bibtex_default_style`` in ``_config.yml``).
STYLE = find_plugin("pybtex.style.formatting", "unsrt")()


def rendered(entry: Entry) -> str:
    """An entry in the style of the book."""
    (formatted,) = STYLE.format_entries([entry])
    return str(formatted.text.render(Backend()))


@pytest.mark.parametrize("key", ENTRIES)
def test_an_entry_says_everything_once(key: str) -> None:
    entry = ENTRIES[key]
    text = rendered(entry)
    for field in ("eprint", "year", "volume"):
        if value := entry.fields.get(field):
            assert value in text, f"{field} is not shown"
    if number := entry.fields.get("eprint"):
        assert text.count(number) == 1
    parts = [part.strip() for part in text.rstrip(".").split(". ")]
    assert len(set(parts)) == len(parts)
    assert not text.endswith("..")


@pytest.mark.parametrize("key", ENTRIES)
def test_authors_are_named_in_full(key: str) -> None:
    people = ENTRIES[key].persons["author"]
    assert people
    assert "others" not in {str(person) for person in people}


def test_a_doubled_number_would_be_seen() -> None:
    doubled = Entry(
        "misc",
        {"title": "T", "year": "2025", "eprint": "2504.00396", "archiveprefix": "arXiv", "note": "arXiv:2504.00396"},
    )
    assert rendered(doubled).count("2504.00396") == 2
