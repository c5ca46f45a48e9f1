"""An audit as one page that needs no other file and asks no network: an artefact to keep, or to send to somebody."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import PurePath

from spf_lite.audit.cases import Case
from spf_lite.audit.page.charts import sweep_chart
from spf_lite.audit.page.parts import ARROWS, card, case, table
from spf_lite.audit.page.style import STYLE
from spf_lite.audit.report import FACES, MEASURES, AuditReport, swept
from spf_lite.evaluation.statistics import holm

#: The measures of the headlines, if they were taken.
HEADLINES = (
    "reconstruction",
    "change outside",
    "leakage",
    "CLIP-T gain",
    "CLIP-T gain over words",
    "CLIP-I",
    *FACES,
    "unrelated prompts",
)
#: How many of the worst portraits, and of the words that drifted most, are shown.
WORST, WORDS = 6, 12
#: Nothing is loaded: pictures and style are in the page.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def audit_page(report: AuditReport, cases: Sequence[Case] = ()) -> str:
    """The page as HTML.

    Args:
        report: of the audit.
        cases: pictures of each prompt; empty: the page has none.

    Raises:
        ValueError: if there are some pictures, but not of every prompt.
    """
    if cases and len(cases) != len(report.base_texts):
        raise ValueError(f"pictures of {len(cases)} prompts, the report has {len(report.base_texts)}")
    title = f"What the adapter “{_name(report)}” changes"
    body = [
        _headlines(report),
        _worst(report, cases) if cases else "",
        _measures(report),
        _drift(report),
        _sweep(report) if report.sweep else "",
        _prompts(report),
        table("What decides the numbers.", ("setting", "value"), list(report.settings.items()), long=[1]),
    ]
    target = f"The target is <strong>{escape(report.target_text)}</strong>." if report.target_text else ""
    model = escape(report.settings.get("model", "the model"))
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<title>{escape(title)}</title>
<style>{STYLE}</style>
</head>
<body>
<main>
<h1>{escape(title)}</h1>
<p class="quiet">Model: {model}. {target} {len(report.base_texts)} prompts were sampled from the same seeds without and
with the adapter. No judge knows what these portraits show: the measures say how far they move, and where. A model that
knows the target moves by the words alone. What it paints for the complete text without the adapter is shown, too.</p>
{"".join(body)}
</main>
</body>
</html>
"""


def _name(report: AuditReport) -> str:
    """Of the adapter: its file or folder, or the run that it lies in."""
    path = PurePath(report.settings.get("adapter", "unknown"))
    return path.parent.name if path.name == "adapter" and path.parent.name else path.name


def _headlines(report: AuditReport) -> str:
    found = report.estimates()
    cards = "".join(card(name, found[name]) for name in HEADLINES if name in found)
    return f'<h2>In short</h2><div class="cards">{cards}</div>'


def _worst(report: AuditReport, cases: Sequence[Case]) -> str:
    shown = "".join(case(report, index, cases[index]) for index in report.worst(WORST))
    return (
        f"<h2>The worst portraits</h2><p>Those with the highest values of <em>{escape(report.ranked_by())}</em>, "
        f"the highest first.</p>{shown}"
    )


def _measures(report: AuditReport) -> str:
    rows = [
        (name, str(estimate), ARROWS[MEASURES[name].better], str(estimate.count), MEASURES[name].says)
        for name, estimate in report.estimates().items()
    ]
    caption = "Every measure: mean over the prompts with its 95 % interval."
    head = ("measure", "mean and interval", "reading", "prompts", "what it is")
    return "<h2>All measures</h2>" + table(caption, head, rows, long=[4])


def _drift(report: AuditReport) -> str:
    drift = report.drift()
    if not drift:
        return "<h2>Drift by word</h2><p>There are too few prompts to say which words moved portraits most.</p>"
    stands = holm(drift)
    rows = [
        (word, f"{e.mean:+.3f} [{e.low:+.3f}, {e.high:+.3f}]", "yes" if word in stands else "no")
        for word, e in list(drift.items())[:WORDS]
    ]
    caption = "How much more portraits of texts with a word moved than the others, at the base text; largest first."
    note = "<p>Of many words some stand out by chance. The last column says which do not (Holm 1979).</p>"
    return "<h2>Drift by word</h2>" + note + table(caption, ("word", "drift", "beyond chance"), rows)


def _sweep(report: AuditReport) -> str:
    names, points = swept(report.sweep), report.sweep
    found = [point.estimates() for point in points]
    names = [name for name in names if any(name in estimates for estimates in found)]
    charts = "".join(
        f"<figure>{sweep_chart(points, name)}"
        f"<figcaption>{escape(name)}, {ARROWS[MEASURES[name].better]}</figcaption></figure>"
        for name in names
    )
    rows = [
        (f"{point.strength:g}", *(str(estimates[name]) if name in estimates else "" for name in names))
        for point, estimates in zip(points, found, strict=True)
    ]
    first = len(next(iter(points[0].values.values())))
    caption = f"Each measure at each strength of the adapter, over the first {first} prompts."
    zero = (
        "<p>At strength 0 the model is as it was. What it shows there at the complete text is its own.</p>"
        if any(point.strength == 0 for point in points)
        else ""
    )
    return f'<h2>Strength of the adapter</h2>{zero}<div class="charts">{charts}</div>' + table(
        caption, ("strength", *names), rows
    )


def _prompts(report: AuditReport) -> str:
    names = [name for name in HEADLINES if name in report.values and name != "unrelated prompts"]

    def cell(name: str, index: int) -> str:
        value = report.values[name][index]
        return "" if value is None else f"{value:.3f}"

    rows = [
        (str(index + 1), text, str(report.seeds[index]), *(cell(name, index) for name in names))
        for index, text in enumerate(report.base_texts)
    ]
    shown = table("Every prompt.", ("prompt", "base text", "seed", *names), rows, long=[1])
    others = ""
    if "unrelated prompts" in report.values:
        moved = report.values["unrelated prompts"]
        lines = [(text, "" if v is None else f"{v:.3f}") for text, v in zip(report.unrelated_texts, moved, strict=True)]
        others = table("Texts without a person, and how far their pictures moved.", ("text", "change"), lines)
    return f"<h2>Prompts and settings</h2><details><summary>Every prompt</summary>{shown}{others}</details>"
