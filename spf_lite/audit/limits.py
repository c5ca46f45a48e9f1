"""Limits of an audit's measures, for continuous integration: which are above or below what is allowed."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

from spf_lite.audit.report import MEASURES, AuditReport

#: Measures that may have an upper limit, because lower is better, and those that may have a lower one.
LIMITED_ABOVE = tuple(name for name, measure in MEASURES.items() if measure.better < 0)
LIMITED_BELOW = tuple(name for name, measure in MEASURES.items() if measure.better > 0)


def read_limit(text: str, among: Collection[str] = LIMITED_ABOVE) -> tuple[str, float]:
    """A measure and its limit, from ``MEASURE=VALUE``. Hyphens may stand for the spaces of a name, in any case.

    Args:
        text: what was given.
        among: the measures that may have this kind of limit.

    Raises:
        ValueError: if it is not of that form, or there is no such measure among these.
    """
    name, equals, value = text.rpartition("=")
    known = {_plain(measure): measure for measure in among}
    if not equals or _plain(name) not in known:
        raise ValueError(f"{text!r}: expected MEASURE=VALUE with one of {', '.join(among)}")
    try:
        limit = float(value)
    except ValueError:
        limit = math.nan
    if not math.isfinite(limit):
        raise ValueError(f"{text!r}: the limit {value!r} is no finite number")
    return known[_plain(name)], limit


def _plain(name: str) -> str:
    return name.strip().lower().replace("-", " ").replace("_", " ")


def check_limits(limits: Collection[str], taken: Collection[str]) -> None:
    """Check that limited measures will be taken.

    Raises:
        ValueError: if some will not.
    """
    if missing := [name for name in limits if name not in taken]:
        possible = ", ".join(name for name in MEASURES if name in taken and MEASURES[name].better)
        raise ValueError(f"{', '.join(missing)}: not measured with these options, there are {possible}")


def above(report: AuditReport, limits: Mapping[str, float]) -> list[str]:
    """One line for each measure whose mean is above its limit, or that is not defined on any portrait."""
    return _beyond(report, limits, -1, "above")


def below(report: AuditReport, limits: Mapping[str, float]) -> list[str]:
    """One line for each measure whose mean is below its limit, or that is not defined on any portrait."""
    return _beyond(report, limits, 1, "below")


def _beyond(report: AuditReport, limits: Mapping[str, float], better: int, side: str) -> list[str]:
    found, lines = report.estimates(), []
    for name, limit in limits.items():
        if name not in found:
            lines.append(f"{name} is not defined on any of the portraits, its limit is {limit:g}")
        elif better * found[name].mean < better * limit:
            lines.append(f"{name} {found[name]} is {side} its limit {limit:g}")
    return lines
