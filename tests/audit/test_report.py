"""The report: means with intervals, the worst portraits, drift, and the way to a file and back."""

from dataclasses import replace

import pytest

from spf_lite.audit.report import MEASURES, AuditReport, SweepPoint, swept

BASE_TEXTS = [f"a {'tall' if i % 2 else 'short'} person, {'red' if i < 4 else 'black'} hair" for i in range(8)]
MOVED: list[float | None] = [0.1, 0.3, 0.1, 0.3, 0.1, 0.3, 0.1, 0.3]


def report() -> AuditReport:
    faces: list[float | None] = [None, 0.2, 0.4, None, None, None, None, 0.3]
    outside: list[float | None] = [0.0, 0.2, 0.5, 0.1, None, 0.0, 0.3, 0.0]
    values = {
        "reconstruction": MOVED,
        "change outside": outside,
        "identity distance": faces,
        "LPIPS": list[float | None]([None] * 8),
        "unrelated prompts": list[float | None]([0.0, 0.4]),
    }
    sweep = [SweepPoint(strength, {"reconstruction": [strength / 10, strength / 5]}) for strength in (0.0, 1.0)]
    complete = [f"{text}, a hat" for text in BASE_TEXTS]
    settings = {"model": "a model", "adapter": "loras/hat"}
    return AuditReport("a hat", BASE_TEXTS, complete, ["a lake", "a sea"], list(range(8)), values, sweep, settings)


def test_means_leave_out_what_is_not_defined() -> None:
    found = report().estimates()
    assert list(found) == ["reconstruction", "unrelated prompts", "change outside", "identity distance"]
    assert found["identity distance"].mean == pytest.approx(0.3) and found["identity distance"].count == 3
    assert found["change outside"].count == 7 and found["unrelated prompts"].count == 2
    assert all(0 <= estimate.low <= estimate.mean <= estimate.high for estimate in found.values())


def test_a_file_gives_the_report_back() -> None:
    assert AuditReport.from_json(report().to_json()) == report()


def test_a_file_from_before_a_measure_existed_is_read() -> None:
    assert "CLIP-T gain over words" in MEASURES and "CLIP-T gain over words" not in report().values
    assert AuditReport.from_json(report().to_json()).estimates().keys() == report().estimates().keys()


def test_the_worst_portraits_come_first() -> None:
    assert report().ranked_by() == "change outside" and report().worst(3) == [2, 6, 1]
    plain = replace(report(), values={"reconstruction": MOVED})
    assert plain.ranked_by() == "reconstruction" and set(plain.worst(4)) == {1, 3, 5, 7}


def test_the_planted_word_drifts() -> None:
    word, estimate = next(iter(report().drift().items()))
    assert word == "tall" and estimate.mean == pytest.approx(0.2)


def test_the_text_has_every_measure_the_drift_and_the_sweep() -> None:
    text = str(report())
    assert text.startswith("target 'a hat', 8 prompts\n")
    for name in report().estimates():
        assert MEASURES[name].says.split(". ")[0] in text
    assert "words whose portraits moved most at base text: tall +0.200 *" in text
    assert text.endswith("strength 0: reconstruction 0.000\nstrength 1: reconstruction 0.150")
    assert swept(report().sweep) == ["reconstruction"]
    assert str(replace(report(), target_text=None)).startswith("no target text, 8 prompts")
