"""How well an order by a measure without a judge agrees with the judge's."""

import json
from dataclasses import asdict, replace
from math import nan
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spf_lite import cli
from spf_lite.audit import agreement as module
from spf_lite.audit.agreement import Audited, agreement, audit_all, read_audited, read_measured, table, truth_of
from spf_lite.audit.auditing import Audit
from spf_lite.audit.report import AuditReport
from spf_lite.evaluation.report import PollutionReport
from spf_lite.evaluation.rows import ROW_FILE, Row
from spf_lite.models.backbone import Backbone
from spf_lite.paths import DATA_SAMPLES

RNG = np.random.default_rng(0)


def rows(pairs: list[tuple[float, float]], measure: str = "reconstruction", truth: str = "pure") -> list[Audited]:
    return [Audited("beard", str(k), {measure: one}, {truth: other}) for k, (one, other) in enumerate(pairs)]


def test_one_order_is_a_correlation_of_one_whichever_way_is_better() -> None:
    # a low reconstruction error is better, a high share of pure portraits is
    agreeing = rows([(0.5, 0.1), (0.4, 0.2), (0.3, 0.25), (0.2, 0.9), (0.1, 0.95)])
    found = agreement(agreeing, "reconstruction", "pure", "beard")
    assert found is not None and found.mean == pytest.approx(1) and found.count == 5
    assert -1 < found.low < 1 and found.high == pytest.approx(1)
    both_low = rows([(0.5, 0.1), (0.4, 0.2), (0.3, 0.25), (0.2, 0.9), (0.1, 0.95)], truth="flip rate")
    against = agreement(both_low, "reconstruction", "flip rate", "beard")
    assert against is not None and against.mean == pytest.approx(-1)


def test_the_interval_covers() -> None:
    """Normal pairs with a known rank correlation, (6 / pi) arcsin(r / 2)."""
    r, count, covered = 0.6, 15, 0
    truth = 6 / np.pi * np.arcsin(r / 2)
    for _ in range(400):
        x, noise = RNG.normal(size=(2, count))
        y = r * x + np.sqrt(1 - r**2) * noise
        found = agreement(rows(list(zip(x, y, strict=True)), "CLIP-T gain"), "CLIP-T gain", "pure", "beard")
        assert found is not None
        covered += found.low <= truth <= found.high
    assert 0.91 < covered / 400 < 0.985


@pytest.mark.parametrize(
    ("pairs", "measure"),
    [
        ([(0.1, 0.1), (0.2, 0.2), (0.3, 0.3), (0.4, 0.4)], "reconstruction"),
        ([(0.1, k / 9) for k in range(9)], "reconstruction"),
        ([(k / 9, 0.0) for k in range(9)], "reconstruction"),
        ([(k / 9, k / 9) for k in range(9)], "CLIP-T before"),
    ],
    ids=["too few", "one value of the measure", "one value of the truth", "only compares"],
)
def test_nothing_is_said_without_two_orders(pairs: list[tuple[float, float]], measure: str) -> None:
    assert agreement(rows(pairs, measure), measure, "pure", "beard") is None
    assert agreement(rows(pairs, measure), measure, "pure", "sunglasses") is None
    assert table(rows(pairs, measure), "beard") == []


def test_adapters_without_the_measure_are_left_out() -> None:
    known = rows([(k / 9, k / 9) for k in range(9)])
    unknown = [Audited("beard", "other", {}, {"pure": 0.5}), Audited("sunglasses", "x", {"reconstruction": 9}, {})]
    assert str(agreement([*known, *unknown], "reconstruction", "pure", "beard")) == str(
        agreement(known, "reconstruction", "pure", "beard")
    )


def test_lines_from_before_a_measure_existed_are_read(tmp_path: Path) -> None:
    """They say nothing about it, and the rest of the table stays as it was."""
    old = rows([(k / 9, k / 9) for k in range(6)], "CLIP-T gain")
    new = [replace(one, measures={**one.measures, "CLIP-T gain over words": 0.1}) for one in old[:1]]
    kept = tmp_path / "kept.jsonl"
    kept.write_text("".join(json.dumps(asdict(one)) + "\n" for one in [*new, *old[1:]]))
    found = read_audited(kept)
    assert found == [*new, *old[1:]] and table(found, "beard") == table(old, "beard")
    assert agreement(found, "CLIP-T gain over words", "pure", "beard") is None


def adapter(folder: Path, target: str, name: str, pure: float) -> None:
    (folder / target / name).mkdir(parents=True)
    said = {"pure": f"{pure:.3f} [0.000, 1.000]", "flip rate": "0.250 [0.100, 0.400]"}
    (folder / target / name / "measures.json").write_text(json.dumps(said))


def test_what_was_audited_is_kept(toy: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    fails = ["4"]

    def audit(backbone: Backbone, path: Path, prompts: Any, unrelated: Any, *, target_text: str, steps: int) -> Audit:
        asked.append(f"{path.name}: {len(prompts)} prompts, {target_text}, {steps}")
        if path.name in fails:
            raise KeyboardInterrupt
        values: dict[str, list[float | None]] = {"reconstruction": [0.1 * int(path.name), None, nan]}
        return Audit(AuditReport(target_text, [], [], [], [], values), [])

    monkeypatch.setattr(module, "audit", audit)
    for number in range(6):
        adapter(tmp_path / "adapters", "beard", str(number), 1 - number / 10)
    kept = tmp_path / "kept.jsonl"
    with pytest.raises(KeyboardInterrupt):
        audit_all(toy, tmp_path / "adapters", kept, prompts=3, steps=2)
    assert [one.adapter for one in read_audited(kept)] == ["0", "1", "2", "3"]
    fails.clear()
    done = audit_all(toy, tmp_path / "adapters", kept, prompts=3, steps=2)
    assert asked == [f"{number}: 3 prompts, a beard, 2" for number in (0, 1, 2, 3, 4, 4, 5)]
    assert [one.adapter for one in done] == [str(number) for number in range(6)] and done == read_audited(kept)
    assert done[1].truth == {"pure": 0.9, "flip rate": 0.25} == truth_of(tmp_path / "adapters/beard/1")
    assert done[1].measures == pytest.approx({"reconstruction": 0.1})
    lines = table(done, "beard")
    assert lines[0].startswith("| beard, 6 adapters | pure |") and lines[2].startswith("| reconstruction | 1.000 [")


def test_the_stored_measures_are_of_the_shipped_adapters() -> None:
    stored = read_audited(DATA_SAMPLES / "results" / "agreement.jsonl")
    found = {(one.target, one.adapter): one.truth for one in stored}
    shipped = sorted((DATA_SAMPLES / "adapters").glob("*/*/measures.json"))
    assert found == {(path.parents[1].name, path.parent.name): truth_of(path.parent) for path in shipped}
    assert all("CLIP-I at base text" in one.measures for one in stored)


def test_a_folder_without_measured_adapters_is_refused(
    toy: Backbone, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ValueError, match="no adapter in .*expected <target>/<adapter>/measures.json"):
        audit_all(toy, tmp_path, tmp_path / "kept.jsonl")
    adapter(tmp_path, "moustache", "naive", 0.5)
    assert cli.main(["agreement", str(tmp_path), str(tmp_path / "kept.jsonl")]) == 2
    assert "unknown target 'moustache'" in capsys.readouterr().err


def test_the_runs_of_a_recipe_are_one_entry(tmp_path: Path) -> None:
    def write(seed: int, method: str, **values: list[float | None]) -> None:
        folder = tmp_path / "beard" / f"{method}-{seed}"
        folder.mkdir(parents=True)
        named = {name.replace("_", "-"): of for name, of in values.items()}
        report = PollutionReport("beard", named, {}, {})
        (folder / ROW_FILE).write_text(Row(method, "beard", seed, report).to_json())

    write(0, "naive", pure=[0, 1], CLIP_I=[0.5, 0.7], CLIP_T=[0.1, 0.3], leakage=[None, None])
    write(1, "naive", pure=[1, 1], CLIP_I=[0.7, None], reconstruction=[0.2, 0.2])
    write(0, "spf", pure=[1, 1], CLIP_I=[0.9, 0.9])
    naive, spf = read_measured(tmp_path)
    assert (naive.target, naive.adapter, spf.adapter) == ("beard", "naive", "spf")
    assert naive.truth["pure"] == 0.75 and naive.measures == {"CLIP-I": pytest.approx(0.65)}, "what both runs have"
    assert spf.measures == {"CLIP-I": pytest.approx(0.9)} and spf.truth["pure"] == 1


def test_stored_rows_have_more_recipes_than_there_are_adapters() -> None:
    results = DATA_SAMPLES / "results"
    measured, audited = read_measured(results), read_audited(results / "agreement.jsonl")
    for target in ("sunglasses", "beard"):
        recipes, adapters = (sum(one.target == target for one in of) for of in (measured, audited))
        assert recipes > adapters
        assert agreement(measured, "CLIP-I", "flip rate", target) is not None
