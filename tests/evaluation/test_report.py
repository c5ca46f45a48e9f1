"""Reports: what is left out, what is written, and how they read."""

import json
from importlib import import_module

import numpy as np
import pytest

from spf_lite.evaluation.report import MEASURES, PollutionReport, bounds_of, estimates

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
    assert again == one and again.estimates() == one.estimates()
    assert json.loads(one.to_json())["values"]["flip rate"] == [None, 0.125], "ordinary JSON, without NaN"


def test_a_report_reads_as_a_list_of_all_that_is_defined() -> None:
    one = made_up([1.0, 0.0], [None, None])
    lines = str(one).splitlines()
    assert lines[0] == "sunglasses, 2 prompts"
    assert lines[1].startswith("target found         0.500 [") and lines[1].endswith("higher is better: " + SAYS)
    assert lines[2:] == ["flips: background 0.50", "picked up: background +0.25"], "what is zero or undefined is not"
    assert "lower is better" in str(made_up([1.0]))


SAYS = MEASURES["target found"].says


def test_every_measure_names_the_function_that_computes_it() -> None:
    assert {entry.better for entry in MEASURES.values()} == {1, -1}
    for name, entry in MEASURES.items():
        module, _, function = entry.source.partition(".")
        owner = import_module(f"spf_lite.evaluation.{module}")
        assert not function or callable(getattr(owner, function)), name


def test_intervals_stay_within_the_bounds_of_their_measure() -> None:
    nearly = made_up([*[1.0] * 15, 0.0], [*[0.0] * 15, 1 / 9]).estimates()
    assert nearly["target found"].high < 1 and nearly["flip rate"].low == 0
    never = made_up([0.0] * 64, [0.0] * 64).estimates()
    for name in ("target found", "flip rate"):
        assert (never[name].low, never[name].high) == pytest.approx((0, 1 - 0.025 ** (1 / 64))), "0 of 64 is not never"
    assert bounds_of("CLIP-T") == (-1, 1) and bounds_of("my own measure") is None
