"""Reports: what is left out, what is written, and how they read."""

import json
from dataclasses import replace
from importlib import import_module

import numpy as np
import pytest

from spf_lite.evaluation.report import MEASURES, SHORT, PollutionReport, bounds_of, estimates, joined, measures_of

TARGET = "sunglasses"


def means(found: PollutionReport) -> dict[str, float]:
    return {name: estimate.mean for name, estimate in found.estimates().items()}


def made_up(found: list[float | None], flip: list[float | None] | None = None) -> PollutionReport:
    values = {"target found": found, "flip rate": flip or [0.0] * len(found)}
    return PollutionReport(TARGET, values, {"background": 0.5, "skin": 0.0}, {"background": 0.25})


def test_undefined_values_are_left_out() -> None:
    one = made_up([1.0, 0.0, 1.0, 1.0], [None, 0.5, None, 0.1])
    assert means(one) == pytest.approx({"target found": 0.75, "flip rate": 0.3})
    assert one.estimates()["flip rate"].count == 2
    other = made_up([0.0] * 4, [0.2, 0.3, 0.4, None])
    assert estimates([one, other])["flip rate"].mean == pytest.approx(0.4), "the one prompt that both runs have"
    assert estimates([one, other])["target found"].count == 8
    assert "flip rate" not in estimates([one, made_up([1.0] * 4, [0.5, None, 0.5, None])])


def test_runs_that_differ_make_the_interval_wider() -> None:
    rng = np.random.default_rng(0)
    alike = [made_up([*(rng.random(30) < 0.5).astype(float)]) for _ in range(3)]
    apart = [made_up([*(rng.random(30) < share).astype(float)]) for share in (0.05, 0.5, 0.95)]
    near, far = (estimates(runs)["target found"] for runs in (alike, apart))
    assert far.high - far.low > 1.5 * (near.high - near.low)


def test_json_brings_a_report_back() -> None:
    one = made_up([1.0, 0.0], [None, 0.125])
    again = PollutionReport.from_json(one.to_json())
    at_base = replace(one, per_attribute_at_base={"skin": 0.25})
    assert PollutionReport.from_json(at_base.to_json()) == at_base
    assert again == one and again.estimates() == one.estimates()
    assert json.loads(one.to_json())["values"]["flip rate"] == [None, 0.125], "ordinary JSON, without NaN"


def test_a_report_reads_as_a_list_of_all_that_is_defined() -> None:
    one = made_up([1.0, 0.0], [None, None])
    lines = str(one).splitlines()
    assert lines[0] == "sunglasses, 2 prompts"
    assert lines[1].startswith("target found 0.500 [") and lines[1].endswith("higher is better: " + SAYS)
    assert lines[2:] == ["flips: background 0.50", "picked up: background +0.25"], "what is zero or undefined is not"
    assert "lower is better" in str(made_up([1.0]))


def test_what_was_asked_for_is_read_first() -> None:
    values: dict[str, list[float | None]] = {
        "CLIP-T": [0.5],
        "mine": [1.0],
        "false-positive rate": [0.0],
        "pure": [1.0],
    }
    one = PollutionReport(TARGET, values, {"skin": 0.5}, {}, {"skin": 0.0, "clothes": 0.25, "background": 0.5})
    assert list(MEASURES)[:2] == ["pure", "false-positive rate"]
    assert list(one.estimates()) == ["pure", "false-positive rate", "CLIP-T", "mine"]
    del values["mine"]
    lines = str(one).splitlines()
    assert [line.split("  ")[0] for line in lines[1:4]] == [
        "pure",
        "false-positive rate 0.000 [0.000, 0.975]",
        "CLIP-T",
    ]
    assert lines[4:6] == ["flips: skin 0.50", "flips at base text: background 0.50, clothes 0.25"], "worst first"


def test_a_measure_that_was_not_taken_is_left_out() -> None:
    old, new = made_up([1.0, 0.0]), made_up([1.0, 1.0])
    new.values["pure"] = [1.0, 0.0]
    assert means(new)["pure"] == 0.5 and "pure" not in means(old)
    for runs in ([old, new], [new, old]):
        assert estimates(runs)["pure"].mean == 0.5 and estimates(runs)["pure"].count == 2, "by the run that has it"
        assert estimates(runs)["target found"].mean == 0.75 and estimates(runs)["target found"].count == 4
    assert old.prompts == 2 and str(PollutionReport(TARGET, {"pure": [1.0] * 3}, {}, {})).startswith(f"{TARGET}, 3")


def test_reports_of_both_text_forms_are_joined() -> None:
    full = PollutionReport(TARGET, {"CLIP-T": [0.5], "pure": [1.0]}, {"skin": 0.5}, {"background": 0.5}, {"skin": 0.1})
    short = PollutionReport(TARGET, {"pure" + SHORT: [0.0]}, {"skin": 1.0}, {"background": 1.0}, {"skin": 1.0})
    both = joined([full, short])
    assert both == replace(full, values={"pure": [1.0], "pure (short)": [0.0], "CLIP-T": [0.5]})
    assert list(both.values) == ["pure", "pure (short)", "CLIP-T"], "in the order of the measures"
    assert joined([short]) == short
    with pytest.raises(ValueError, match="not of beard, sunglasses"):
        joined([full, replace(short, target="beard")])
    with pytest.raises(ValueError, match="not of none"):
        joined([])


def test_every_measure_that_counts_attributes_is_there_for_both_forms() -> None:
    short, full = measures_of("short"), measures_of("full")
    assert {*short, *full} == set(MEASURES) and not set(short) & set(full)
    assert [name.removesuffix(" (short)") for name in short] == full[: len(short)]
    assert {"pure", "false-positive rate", "flip rate", "flip rate at base text"} <= set(full[: len(short)])
    assert "CLIP-T" in full[len(short) :]
    for name in short:
        long = MEASURES[name.removesuffix(SHORT)]
        assert replace(MEASURES[name], says=long.says) == long and MEASURES[name].says == f"{long.says}, short texts"


SAYS = MEASURES["target found"].says


def test_every_measure_names_the_function_that_computes_it() -> None:
    assert {entry.better for entry in MEASURES.values()} == {1, -1}
    for name, entry in MEASURES.items():
        *packages, last = entry.source.split(".")
        owner = import_module(".".join(["spf_lite.evaluation", *packages]))
        assert callable(getattr(owner, last, None)) or import_module(f"{owner.__name__}.{last}"), name


def test_intervals_stay_within_the_bounds_of_their_measure() -> None:
    nearly = made_up([*[1.0] * 15, 0.0], [*[0.0] * 15, 1 / 9]).estimates()
    assert nearly["target found"].high < 1 and nearly["flip rate"].low == 0
    never = made_up([0.0] * 64, [0.0] * 64).estimates()
    for name in ("target found", "flip rate"):
        assert (never[name].low, never[name].high) == pytest.approx((0, 1 - 0.025 ** (1 / 64))), "0 of 64 is not never"
    assert bounds_of("CLIP-T") == (-1, 1) and bounds_of("my own measure") is None
