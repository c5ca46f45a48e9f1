"""Limits for continuous integration."""

from dataclasses import replace

import pytest

from spf_lite.audit.limits import LIMITED_ABOVE, LIMITED_BELOW, above, below, check_limits, read_limit

from .test_report import report


def test_a_limit_is_a_measure_and_a_number() -> None:
    assert read_limit("change outside=0.05") == ("change outside", 0.05)
    assert read_limit("Edge-change-at-base-text=1") == ("edge change at base text", 1.0)
    assert read_limit("lpips = 0.3") == ("LPIPS", 0.3)


@pytest.mark.parametrize("text", ["leakage", "=1", "magic=1", "CLIP-I=0.5", "CLIP-T gain=0"])
def test_other_measures_are_refused_with_the_list(text: str) -> None:
    with pytest.raises(ValueError, match=f"expected MEASURE=VALUE with one of {', '.join(LIMITED_ABOVE)}"):
        read_limit(text)


def test_a_lower_limit_is_for_measures_of_which_higher_is_better() -> None:
    assert read_limit("clip-i=0.9", LIMITED_BELOW) == ("CLIP-I", 0.9)
    assert read_limit("CLIP-T-gain=-0.5", LIMITED_BELOW) == ("CLIP-T gain", -0.5)
    with pytest.raises(ValueError, match=f"expected MEASURE=VALUE with one of {', '.join(LIMITED_BELOW)}"):
        read_limit("leakage=0.1", LIMITED_BELOW)
    assert not {*LIMITED_ABOVE} & {*LIMITED_BELOW}
    comparing = {"CLIP-T before", "change outside by words alone", "CLIP-I at complete text"}
    assert not comparing & {*LIMITED_ABOVE, *LIMITED_BELOW}, "they only serve to compare"


@pytest.mark.parametrize("value", ["", "low", "nan", "inf"])
def test_other_values_are_refused(value: str) -> None:
    with pytest.raises(ValueError, match="is no finite number"):
        read_limit(f"leakage={value}")


def test_only_what_will_be_measured_can_be_limited() -> None:
    check_limits(["leakage"], ["leakage", "CLIP-I"])
    with pytest.raises(ValueError, match="LPIPS: not measured with these options, there are leakage, CLIP-I$"):
        check_limits(["LPIPS", "leakage"], ["leakage", "CLIP-I"])


def test_the_lines_name_what_is_above_or_nowhere_defined() -> None:
    mean = report().estimates()["reconstruction"].mean
    assert above(report(), {"reconstruction": mean, "change outside": 1.0}) == []
    (line,) = above(report(), {"reconstruction": mean - 0.01, "change outside": 1.0})
    assert line.startswith("reconstruction 0.200 [") and line.endswith("] is above its limit 0.19")
    assert above(report(), {"LPIPS": 0.1}) == ["LPIPS is not defined on any of the portraits, its limit is 0.1"]


def test_the_lines_name_what_is_below() -> None:
    likeness: list[float | None] = [0.8, 0.6, None, 0.7]
    found = replace(report(), values={**report().values, "CLIP-I": likeness})
    assert below(found, {"CLIP-I": 0.69}) == []
    (line,) = below(found, {"CLIP-I": 0.71})
    assert line.startswith("CLIP-I 0.700 [") and line.endswith("] is below its limit 0.71")
    assert below(found, {"DINO": 0.1}) == ["DINO is not defined on any of the portraits, its limit is 0.1"]
