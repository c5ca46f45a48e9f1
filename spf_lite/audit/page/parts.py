"""Parts of an audit's page as HTML: cards, tables, pictures. Every text that comes from outside is escaped."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape

from PIL import Image

from spf_lite.audit.cases import GAIN, Case
from spf_lite.audit.report import MEASURES, AuditReport
from spf_lite.evaluation.statistics import Estimate

#: WebP quality of the pictures.
QUALITY = 85
ARROWS = {1: "higher is better", -1: "lower is better", 0: "to compare"}


def picture(image: Image.Image, alt: str, caption: str) -> str:
    """A figure that holds its picture."""
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, format="WEBP", quality=QUALITY, method=4)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return (
        f'<figure><img src="data:image/webp;base64,{data}" width="{image.width}" height="{image.height}" '
        f'alt="{escape(alt)}"><figcaption>{escape(caption)}</figcaption></figure>'
    )


def card(name: str, estimate: Estimate) -> str:
    """One headline number with its interval and what it means."""
    measure = MEASURES[name]
    return (
        f'<div class="card"><h3>{escape(name)}</h3><p class="number">{estimate.mean:.3f}</p>'
        f'<p class="quiet">95 % interval {estimate.low:.3f} to {estimate.high:.3f}, {ARROWS[measure.better]}</p>'
        f"<p>{escape(measure.says)}</p></div>"
    )


def table(caption: str, head: Sequence[str], rows: Sequence[Sequence[str]], long: Sequence[int] = ()) -> str:
    """A table whose first column names its rows. It scrolls by itself where it is too wide.

    Args:
        caption: says what the table shows.
        head: names of the columns.
        rows: of texts.
        long: columns of running text; all others are numbers.
    """
    cells = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    lines = [
        f'<tr><th scope="row">{escape(row[0])}</th>'
        + "".join(
            f'<td class="{"long" if i in long else "number"}">{escape(cell)}</td>' for i, cell in enumerate(row[1:], 1)
        )
        + "</tr>"
        for row in rows
    ]
    return (
        f'<div class="wide" role="region" tabindex="0" aria-label="{escape(caption)}"><table>'
        f"<caption>{escape(caption)}</caption><thead><tr>{cells}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )


def case(report: AuditReport, index: int, shown: Case) -> str:
    """The pictures of one prompt, its texts, and some of its measures."""
    text = report.base_texts[index]
    complete = report.complete_texts[index] if report.complete_texts else None
    pictures = [
        picture(shown.base, f"Portrait without the adapter of: {text}", "without the adapter, base text"),
    ]
    if shown.by_words is not None:
        pictures.append(
            picture(shown.by_words, f"Portrait without the adapter of: {complete}", "without it, complete text")
        )
    pictures.append(picture(shown.at_base, f"Portrait with the adapter of: {text}", "with it, base text"))
    if shown.at_complete is not None:
        pictures.append(
            picture(shown.at_complete, f"Portrait with the adapter of: {complete}", "with it, complete text")
        )
    outlined = ", the region outlined" if shown.region is not None else ""
    pictures.append(
        picture(
            shown.difference(),
            f"Difference of the first and the {'last' if complete else 'second'} portrait, times {GAIN:g}{outlined}",
            f"difference, times {GAIN:g}{outlined}",
        )
    )
    numbers = ", ".join(
        f"{name} {value:.3f}"
        for name in ("reconstruction", "change outside", "leakage", "CLIP-T gain", "CLIP-T gain over words")
        if (value := report.values.get(name, [None] * (index + 1))[index]) is not None
    )
    said = f"<p>{escape(text)}" + (f" <br>complete: {escape(complete)}" if complete else "") + "</p>"
    return (
        f'<article class="case"><h3>Prompt {index + 1}, seed {report.seeds[index]}</h3>{said}'
        f'<div class="pictures">{"".join(pictures)}</div><p class="quiet">{escape(numbers)}</p></article>'
    )
