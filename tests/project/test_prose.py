"""How long chapters are, and their sentences: counted on the prose alone, its sentences by syntok."""

import re
from pathlib import Path

import nbformat
import pytest
from syntok import segmenter

BOOK = Path(__file__).parents[2] / "book"
CHAPTERS = sorted(BOOK.glob("*.ipynb"))
#: Words of a chapter that are not folded, and words of its average sentence.
WORDS, SENTENCE = 2200, 20.0
#: What is not read as running text, and what stands for it.
NO_PROSE = (
    (r"<details>.*?</details>", ""),
    (r"^(`{3,}|:{3,}).*?^\1", ""),  # directives: folded boxes, bibliographies
    (r"\$\$.*?\$\$", ""),
    (r"\$[^$]*\$", "x"),
    (r"\{[\w:]+\}`([^`<]*)(<[^>]*>)?`", r"\1"),  # roles
    (r"\[([^\]]*)\]\([^)]*\)", r"\1"),  # links
    (r"^\|.*?$", ""),  # tables
    (r"^#+ .*?$", ""),  # headings
)


def prose(markdown: str) -> str:
    """The running text of a Markdown cell."""
    for pattern, stand_in in NO_PROSE:
        markdown = re.sub(pattern, stand_in, markdown, flags=re.DOTALL | re.MULTILINE)
    return markdown


def chapter_prose(path: Path) -> str:
    cells = nbformat.read(path, as_version=4).cells
    return "\n\n".join(prose(cell.source) for cell in cells if cell.cell_type == "markdown")


def words_per_sentence(text: str) -> float:
    """How many words a sentence has on average; punctuation is no word."""
    sentences = [sentence for paragraph in segmenter.process(text) for sentence in paragraph]
    words = [token for sentence in sentences for token in sentence if re.search(r"\w", token.value)]
    return len(words) / len(sentences)


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_chapters_are_short_and_so_are_their_sentences(path: Path) -> None:
    text = chapter_prose(path)
    assert len(text.split()) <= WORDS
    assert words_per_sentence(text) <= SENTENCE


def test_words_and_sentences_are_counted() -> None:
    assert words_per_sentence("One thought, i.e. two words. Another one!\n\nA third.") == pytest.approx(9 / 3)


def test_prose_leaves_out_what_is_no_text() -> None:
    cell = "# Title\n\nA [link](x.md) and {term}`pure`, $x^2$.\n\n| a | b |\n\n```{dropdown} More\nFolded.\n```\n\nEnd."
    assert prose(cell).split() == ["A", "link", "and", "pure,", "x.", "End."]
    assert prose("<details>\n<summary>S</summary>\nA solution.\n</details>").strip() == ""
