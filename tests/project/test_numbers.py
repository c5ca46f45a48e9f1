"""No sentence of the book types the number of a measure by hand: a cell prints it, or words say what it means.

A typed number goes stale as soon as a run is made again, and nothing notices. Read are the text of all notebooks,
folded boxes and exercises included, and the captions and alternative texts of figures.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from syntok import segmenter

BOOK = Path(__file__).parents[2] / "book"
NOTEBOOKS = sorted(BOOK.glob("*.ipynb"))

_COUNT = r"(?:one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|twenty|none|\d+)"
_PART = r"(?:thirds?|quarters?|fifths?|sixths?|sevenths?|eighths?|ninths?|tenths?|twelfths?)"
#: What an amount looks like: a decimal number, a percentage, points, memory, one count of another, a part, a multiple.
AMOUNT = re.compile(
    rf"""
    (?<![\w.])\d+\.\d+
    | \d+\s?(?:%|percent\b|points?\b|[GM]i?B\b)
    | \b{_COUNT}(?:\s(?!groups|rows|blocks|columns|panels|strips)[a-z]+)?\s(?:of|in|out\sof)\s
      (?:the\s|these\s|those\s|all\s|every\s)?{_COUNT}\b
    | \b{_COUNT}\stimes\b | \btwice\b
    | (?<!upper\s)(?<!lower\s)(?<!second\s)\bhalf\b(?!\sthe\srate)
    | \b(?:an?|{_COUNT})\s{_PART}\b
    """,
    re.VERBOSE | re.IGNORECASE,
)
#: What names a measure, or what a measure counts.
MEASURE = re.compile(
    r"""
    \bpure\b(?![ -]pairs?) | \bpurity | \bflip | \bfound\b | \bfinds?\b | \bunasked | false[- ]positive | \bCLIP-[TI]\b
    | \bleak | bias\b | pick-up | \bgains? | \breconstruction\b | \bidentity | segmentation | over-align | \bAUC\b
    | correlat | \bkept\b | \bkeeps?\b | \bshows?\b(?!\s(?:how|that|what|which)) | \bwears? | \bcosine | \bshare\b
    | \battention\b | \bgradient | \bpenalty | \bloss\b | \binterval | \bcosts? | \berror | \bmemory | \bdrift
    | \bmoved? | \bjudge | \bsunglasses | \bbeards? | \bglasses | \bbackgrounds? | \bopens? | \boverlap
    | \bas\slong\b | training\stime | \d\s?(?:[GM]i?B\b | % | points?\b)
    """,
    re.VERBOSE | re.IGNORECASE,
)
#: What is not read, and what stands for it: code, equations, targets of links, names, and values on an axis or of an
#: option ("at strength 0.5", "timesteps 100 and 300").
NO_TEXT = (
    (r"^(`{3,})(?!\{).*?^\1", ""),
    (r"\$\$.*?\$\$", ""),
    (r"\$([-−+]?[\d.]+)\$", r"\1"),
    (r"\$[^$]*\$", "x"),
    (r"\{(eq|cite|numref)\}`[^`]*`", "it"),
    (r"\{[\w:]+\}`([^`<]*)(<[^>]*>)?`", r"\1"),
    (r"`[^`]*`", "code"),
    (r"\[([^\]]*)\]\([^)]*\)", r"\1"),
    (r"</?(details|summary)>|^[`:]{3,}.*?$|^#+ ", "\n\n"),
    (r"Stable Diffusion (1\.5|2\.1)|(arXiv )?\d{4}\.\d{5}", "model"),
    (r"\b95 %(?= intervals?)|\bof 255\b", ""),
    (r"\b(doses?|strengths?|weights?|timesteps?|thresholds?|cut at) \d[\d.]*((,| and|, and| or) \d[\d.]*)*", "axis"),
)
#: What a sentence may say all the same: (notebook, the words around the number). Definitions, settings, values on an
#: axis, the drawn world itself, and exact consequences of an exercise's own numbers. No measured result belongs here.
ALLOWED = (
    ("02", "so one answer is 1.6 points"),  # of 64, counted in the sentence
    ("02", "default for this model is 1.5"),  # a setting
    ("02", "The best answer is 3.5"),  # the mean of a die
    ("02", "Half of the people in our world wear some"),  # how the world is drawn
    ("03", "a map that knows nothing has 0.5"),  # definition
    ("04", "Mouths change at 0.25, some backgrounds at 0.5; at 0.75 all"),  # values on an axis, here and below
    ("04", "at 1 there are dark glasses, at 1.5"),
    ("04", "Up to one half there are no sunglasses"),
    ("04", "at one quarter these are back"),
    ("04", "At one half, some backgrounds change"),
    ("04", "At 0.75 all four are yellow"),
    ("04", "At 1.5 the person"),
    ("04", "carry 90 % of the summed squares"),  # definition
    ("05", "One attribute of seven flips"),  # what was planted
    ("05", "keeps the middle 95 %"),  # definition
    ("05", "That is the meaning of 95 %"),
    ("05", "is then at most 5 %"),
    ("05", "Two of seven attributes flip"),  # what the exercise plants
    ("06", "half of each batch"),  # a setting
    ("07", "a dotted line at 0.5, chance"),  # definition
    ("07", "within the first 40 %"),  # a setting
    ("07", "ties cost half a point"),  # definition
    ("07", "which was fixed before this was measured; by this figure 0.1"),  # values on the figure's axis
    ("07", "code cuts at 0.2"),
    ("07", "M above 0.2"),
    ("09", "flips three of ten attributes in every portrait"),  # an invented method, and what follows from it
    ("09", "65 of 100 portraits and flips nothing: 0.65"),
    ("10", "of a false star among them is at most 5 %"),  # definition
    ("11", "three quarters of the training texts"),  # a setting
    ("11", "more of two and of five are found"),  # how many are asked for
    ("11", "four fifths of the rank"),  # arithmetic
    ("12", "leave half of the attributes open"),  # definition
    ("12", "Half of the mean difference is seen"),  # the exercise's own question
    ("intro", "Five attributes in one model"),
    ("13", "one portrait of 512 pixels"),  # what the count is of
    ("13", "are ranked twice"),
    ("13", "within 15 % of the count"),  # a bound that a test holds
    ("13", "a card of 16 GB"),  # what cards are sold
    ("13", "Stable Diffusion 3 needs 24 GB"),
    ("your", "with 16 GB, such as"),
    ("your", "That is about 6 GB"),  # the size of a download
)


def texts_of(notebook: Path) -> Iterator[tuple[str, str]]:
    """Where and what: Markdown, captions and alternative texts."""
    for cell in nbformat.read(notebook, as_version=4).cells:
        if cell.cell_type == "markdown":
            yield cell.id, cell.source
            continue
        shown = cell.metadata.get("mystnb", {})
        for kind, key in (("figure", "caption"), ("image", "alt")):
            yield f"{cell.id}, {key}", shown.get(kind, {}).get(key, "")


def sentences(text: str) -> Iterator[str]:
    """The sentences of a text, each on one line, and the lines of a table."""
    for pattern, stand_in in NO_TEXT:
        text = re.sub(pattern, stand_in, text, flags=re.DOTALL | re.MULTILINE)
    yield from re.findall(r"^\|.*$", text, flags=re.MULTILINE)
    for paragraph in segmenter.process(re.sub(r"^\|.*$", "", text, flags=re.MULTILINE)):
        for sentence in paragraph:
            yield " ".join("".join(token.spacing + token.value for token in sentence).split())


def typed_amounts(text: str, allowed: tuple[str, ...] = ()) -> list[str]:
    """The sentences that name a measure and hold an amount."""
    found = []
    for sentence in sentences(text):
        rest = sentence
        for phrase in allowed:
            rest = rest.replace(phrase, "")
        if AMOUNT.search(rest) and MEASURE.search(sentence):
            found.append(sentence)
    return found


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_no_number_of_a_measure_is_typed_by_hand(notebook: Path) -> None:
    allowed = tuple(phrase for start, phrase in ALLOWED if notebook.stem.startswith(start))
    typed = [f"[{where}] {found}" for where, text in texts_of(notebook) for found in typed_amounts(text, allowed)]
    assert not typed, "let a cell print it, or say it without a number:\n" + "\n".join(typed)


def test_what_is_allowed_stands_in_the_book() -> None:
    texts = {
        path.stem: " ".join(sentence for _, text in texts_of(path) for sentence in sentences(text))
        for path in NOTEBOOKS
    }
    unused = [
        (start, phrase)
        for start, phrase in ALLOWED
        if not any(stem.startswith(start) and phrase in text for stem, text in texts.items())
    ]
    assert not unused


@pytest.mark.parametrize(
    "planted",
    [
        "The flip rate of `spf` on sunglasses is 0.121.",
        "It leaves 88 % of the portraits pure.",
        "In 12 of 16 portraits the sunglasses are there.",
        "Four in ten unrelated attributes flip.",
        "With it, CLIP-T falls by a third.",
        "One portrait in five is pure.",
        "It picks up about half of the bias.",
        "Training takes five times as long.",
        "The second model costs 3.4 GB of memory.",
        "The share of the gradient is $0.43$ there.",
        ":::{dropdown} Answer\nThe AUC is\n0.96 at little noise.\n:::",
        "<details><summary>Solution</summary>\n\nIt prints 0.22 for the flips.\n\n</details>",
        "| method | found |\n|---|---|\n| spf | found 0.97 |",
    ],
)
def test_a_planted_number_is_found(planted: str) -> None:
    assert typed_amounts(planted)


@pytest.mark.parametrize(
    "said",
    [
        "The flip rate of `spf` falls, as the table says.",
        "At strength 0.5 some backgrounds change.",
        "The flip rate at timesteps 100, 300 and 500, with 95 % intervals.",
        "Stable Diffusion 1.5 keeps a trace of the picture.",
        "Pure pairs take 1000 steps.",
        "$$\n\\text{flip} = 0.25\n$$",
        "```python\nprint(found, 0.25)\n```",
    ],
)
def test_what_is_no_measured_number_is_not_found(said: str) -> None:
    assert not typed_amounts(said)
