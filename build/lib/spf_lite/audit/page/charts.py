"""One measure against the adapter's strength, as an SVG that takes the colours of its page."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from spf_lite.audit.report import SweepPoint

WIDTH, HEIGHT = 320, 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 12, 12, 36


def sweep_chart(sweep: Sequence[SweepPoint], measure: str) -> str:
    """A line through the means at each strength, with intervals; the text alternative has every number.

    Args:
        sweep: points of any order.
        measure: those that have it are drawn.

    Raises:
        ValueError: if none has.
    """
    points = sorted((point.strength, found[measure]) for point in sweep if measure in (found := point.estimates()))
    if not points:
        raise ValueError(f"no point of the sweep has the measure {measure!r}")
    lows, highs = [min(0.0, e.low) for _, e in points], [max(0.0, e.high) for _, e in points]
    bottom, top = _range(min(lows), max(highs))
    first, last = points[0][0], points[-1][0]

    def across(strength: float) -> float:
        share = (strength - first) / (last - first) if last > first else 0.5
        return _LEFT + share * (WIDTH - _LEFT - _RIGHT)

    def up(value: float) -> float:
        share = (min(max(value, bottom), top) - bottom) / (top - bottom)
        return HEIGHT - _BOTTOM - share * (HEIGHT - _TOP - _BOTTOM)

    said = "; ".join(f"strength {strength:g}: {estimate}" for strength, estimate in points)
    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(f"{measure} by {said}")}">']
    for value in (bottom, (bottom + top) / 2, top):
        parts.append(
            f'<line class="axis" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{up(value):.1f}" y2="{up(value):.1f}"/>'
        )
        parts.append(f'<text x="{_LEFT - 6}" y="{up(value) + 4:.1f}" text-anchor="end">{value:.3g}</text>')
    for strength, estimate in points:
        x = f"{across(strength):.1f}"
        parts.append(f'<text x="{x}" y="{HEIGHT - _BOTTOM + 15}" text-anchor="middle">{strength:g}</text>')
        parts.append(
            f'<line class="reach" x1="{x}" x2="{x}" y1="{up(estimate.low):.1f}" y2="{up(estimate.high):.1f}"/>'
        )
        parts.append(f'<circle class="point" cx="{x}" cy="{up(estimate.mean):.1f}" r="3.5"/>')
    line = " ".join(f"{across(strength):.1f},{up(estimate.mean):.1f}" for strength, estimate in points)
    parts.append(f'<polyline class="line" points="{line}"/>')
    parts.append(f'<text x="{(_LEFT + WIDTH) / 2}" y="{HEIGHT - 4}" text-anchor="middle">strength</text></svg>')
    return "".join(parts)


def _range(low: float, high: float) -> tuple[float, float]:
    """The least and the largest value of the axis; never the same, and never infinite."""
    low, high = max(low, -10.0), min(high, 10.0)
    return (low, high) if high - low > 1e-6 else (low, low + 1.0)
