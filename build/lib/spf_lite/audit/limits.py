"""Limits of an audit's measures, for continuous integration: which measures are above what is allowed."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

from spf_lite.audit.report import MEASURES, AuditReport

#: Measures that can be limited, those of which lower is better.
LIMITABLE = tuple(name for name, measure in MEASURES.items() if measure.better < 0)


def read_limit(text: str) -> tuple[str, float]:
    """A measure and its limit, from ``MEASURE=VALUE``. Hyphens may stand for the spaces of a name, in any case.

    Raises:
        ValueError: if it is not of that form, there is no such measure, or higher values of it are better.
    """
    name, equals, value = text.rpartition("=")
    known = {_plain(measure): measure for measure in LIMITABLE}
    if not equals or _plain(name) not in known:
        raise ValueError(f"{text!r}: expected MEASURE=VALUE with one of {', '.join(LIMITABLE)}")
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
        possible = ", ".join(name for name in LIMITABLE if name in taken)
        raise ValueError(f"{', '.join(missing)}: not measured with these options, there are {possible}")


def above(report: AuditReport, limits: Mapping[str, float]) -> list[str]:
    """One line for each measure whose mean is above its limit, or that is not defined on any portrait."""
    found, lines = report.estimates(), []
    for name, limit in limits.items():
        if name not in found:
            lines.append(f"{name} is not defined on any of the portraits, its limit is {limit:g}")
        elif found[name].mean > limit:
            lines.append(f"{name} {found[name]} is above its limit {limit:g}")
    return lines
