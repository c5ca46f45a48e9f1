"""Do measures without a judge rank adapters as the truth does?

On the tiny world both exist: an audit, which needs no judge, and the measures of the judge, who knows what every
portrait shows. For each pair of them the adapters of one target are ranked twice, and Spearman's rank correlation says
how well both orders agree. So whoever has no judge learns which measure to trust.

In the book: :doc:`/13-real-models`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from math import atanh, sqrt, tanh
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from spf_lite.audit.auditing import audit
from spf_lite.audit.prompts import default_prompts
from spf_lite.audit.report import MEASURES
from spf_lite.evaluation.report import MEASURES as TRUTHS
from spf_lite.evaluation.rows import ROW_FILE, Row
from spf_lite.evaluation.statistics import Estimate
from spf_lite.files import read_text, write_file
from spf_lite.models.backbone import Backbone
from spf_lite.tiny_world.portraits import get_target
from spf_lite.training.run.export import MEASURES as MEASURES_FILE

#: Adapters that a rank correlation needs.
FEWEST = 5
#: Of a 95 % interval. A correlation of 1 has no Fisher transform, the largest that is told from it has.
NORMAL_QUANTILE, ALMOST_ONE = 1.959964, 1 - 1e-9


@dataclass(frozen=True)
class Audited:
    """One adapter, measured with and without a judge.

    Attributes:
        target: name of the target.
        adapter: name of the adapter.
        measures: means of an audit, by the names of :data:`spf_lite.audit.report.MEASURES`.
        truth: means by the judge, by the names of :data:`spf_lite.evaluation.report.MEASURES`.
    """

    target: str
    adapter: str
    measures: dict[str, float]
    truth: dict[str, float]


def truth_of(adapter: Path) -> dict[str, float]:
    """What the judge found of a shipped adapter: the means in its ``measures.json``.

    Raises:
        FileNotFoundError: if it has none.
    """
    said: dict[str, str] = json.loads(read_text(adapter / MEASURES_FILE))
    return {name: float(value.split()[0]) for name, value in said.items()}


def audit_all(
    backbone: Backbone,
    adapters: Path,
    kept: Path,
    prompts: int = 16,
    steps: int = 12,
    on_adapter: Callable[[Audited], None] | None = None,
) -> list[Audited]:
    """Audit every adapter of a folder that the judge has measured; those that are done already are kept.

    Args:
        backbone: the tiny model.
        adapters: folder with ``<target>/<adapter>``, each with a ``measures.json``.
        kept: file with a JSON line for each adapter.
        prompts: for each adapter.
        steps: denoising steps of each portrait.
        on_adapter: is called after each that was audited now.

    Raises:
        ValueError: for a folder that is no target of the tiny world, or without adapters.
    """
    done = {(one.target, one.adapter): one for one in read_audited(kept)} if kept.exists() else {}
    found = []
    for file in sorted(adapters.glob(f"*/*/{MEASURES_FILE}")):
        folder = file.parent
        target = folder.parent.name
        if (target, folder.name) not in done:
            text = get_target(target).text
            people, unrelated = default_prompts(backbone, text)
            report = audit(backbone, folder, people[:prompts], unrelated, target_text=text, steps=steps).report
            measures = {name: estimate.mean for name, estimate in report.estimates().items()}
            one = Audited(target, folder.name, measures, truth_of(folder))
            done[target, folder.name] = one
            write_file(kept, "".join(json.dumps(asdict(each)) + "\n" for each in done.values()))
            if on_adapter:
                on_adapter(one)
        found.append(done[target, folder.name])
    if not found:
        raise ValueError(f"no adapter in {adapters}: expected <target>/<adapter>/{MEASURES_FILE}")
    return found


def read_audited(kept: Path) -> list[Audited]:
    """What :func:`audit_all` has kept."""
    return [Audited(**json.loads(line)) for line in read_text(kept).splitlines()]


#: Measures of a row that need no judge, and what an audit calls them.
_WITHOUT_JUDGE = {"reconstruction": "reconstruction", "CLIP-I": "CLIP-I", "CLIP-T": "CLIP-T after"}


def read_measured(folder: Path) -> list[Audited]:
    """What the rows of a comparison say of its recipes; no adapter is needed.

    A row has some of the measures without a judge as well, of more people than an audit samples, but not all of them.
    The runs of one recipe on one target are one entry, the mean of them.

    Args:
        folder: with ``<target>/<recipe>-<seed>``, as :func:`spf_lite.evaluation.benchmark.compare` writes it.
    """
    runs: dict[tuple[str, str], list[dict[str, float]]] = {}
    for path in sorted(folder.glob(f"*/*/{ROW_FILE}")):
        row = Row.from_json(read_text(path))
        defined = {name: [one for one in values if one is not None] for name, values in row.report.values.items()}
        means = {name: float(np.mean(values)) for name, values in defined.items() if values}
        runs.setdefault((row.target, row.method), []).append(means)
    entries = []
    for (target, method), of in runs.items():
        shared = [name for name in of[0] if all(name in means for means in of)]
        mean = {name: float(np.mean([means[name] for means in of])) for name in shared}
        measures = {known: mean[name] for name, known in _WITHOUT_JUDGE.items() if name in mean}
        entries.append(Audited(target, method, measures, mean))
    return entries


def agreement(audited: Iterable[Audited], measure: str, truth: str, target: str) -> Estimate | None:
    """How well a measure of the audit ranks the adapters of a target as the judge's does.

    Args:
        audited: adapters, of any targets.
        measure: of :data:`spf_lite.audit.report.MEASURES`.
        truth: of :data:`spf_lite.evaluation.report.MEASURES`.
        target: name of the target.

    Returns:
        Spearman's rank correlation; 1: both call the same adapters better. Its interval is for other adapters (Fisher's
        transform with the variance of Bonett and Wright 2000). None for less than :data:`FEWEST` adapters, a measure
        that serves only to compare, or one that is the same for all.
    """
    sign = MEASURES[measure].better * TRUTHS[truth].better
    own = [one for one in audited if one.target == target and measure in one.measures and truth in one.truth]
    pairs = np.array([(one.measures[measure], one.truth[truth]) for one in own]).reshape(-1, 2)
    if not sign or len(pairs) < FEWEST or not np.ptp(pairs, axis=0).all():
        return None
    rho = sign * float(spearmanr(pairs[:, 0], pairs[:, 1]).statistic)
    reach = NORMAL_QUANTILE * sqrt((1 + rho**2 / 2) / (len(pairs) - 3))
    middle = atanh(min(max(rho, -ALMOST_ONE), ALMOST_ONE))
    return Estimate(rho, min(rho, tanh(middle - reach)), max(rho, tanh(middle + reach)), len(pairs))


#: What the judge counts, as far as a table shows it.
SHOWN = ("pure", "flip rate", "false-positive rate", "target found")


def table(audited: Iterable[Audited], target: str) -> list[str]:
    """The lines of a table in Markdown: for each measure without a judge how well it ranks the adapters of a target.

    Args:
        audited: adapters, of any targets.
        target: name of the target; without enough adapters of it there are no lines.
    """
    own = [one for one in audited if one.target == target]
    rows = {name: [agreement(own, name, truth, target) for truth in SHOWN] for name in MEASURES}
    rows = {name: cells for name, cells in rows.items() if any(cells)}
    if not rows:
        return []
    lines = [f"| {target}, {len(own)} adapters | {' | '.join(SHOWN)} |", "|---" * (len(SHOWN) + 1) + "|"]
    return lines + [f"| {name} | {' | '.join(str(cell or '') for cell in cells)} |" for name, cells in rows.items()]
