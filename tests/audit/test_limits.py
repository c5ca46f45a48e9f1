"""Limits for continuous integration."""

import pytest

from spf_lite.audit.limits import LIMITABLE, above, check_limits, read_limit

from .test_report import report


def test_a_limit_is_a_measure_and_a_number() -> None:
    assert read_limit("change outside=0.05") == ("change outside", 0.05)
    assert read_limit("Edge-change-at-base-text=1") == ("edge change at base text", 1.0)
    assert read_limit("lpips = 0.3") == ("LPIPS", 0.3)


@pytest.mark.parametrize("text", ["leakage", "=1", "magic=1", "CLIP-I=0.5", "CLIP-T gain=0"])
def test_other_measures_are_refused_with_the_list(text: str) -> None:
    with pytest.raises(ValueError, match=f"expected MEASURE=VALUE with one of {', '.join(LIMITABLE)}"):
        read_limit(text)


@pytest.mark.parametrize("value", ["", "low", "nan", "inf"])
def test_other_values_are_refused(value: str) -> None:
    with pytest.raises(ValueError, match="is no finite number"):
        read_limit(f"leakage={value}")


def test_only_what_will_be_measured_can_be_limited() -> None:
    check_limits(["leakage"], ["leakage", "CLIP-I"])
    with pytest.raises(ValueError, match="LPIPS: not measured with these options, there are leakage$"):
        check_limits(["LPIPS", "leakage"], ["leakage", "CLIP-I"])


def test_the_lines_name_what_is_above_or_nowhere_defined() -> None:
    mean = report().estimates()["reconstruction"].mean
    assert above(report(), {"reconstruction": mean, "change outside": 1.0}) == []
    (line,) = above(report(), {"reconstruction": mean - 0.01, "change outside": 1.0})
    assert line.startswith("reconstruction 0.200 [") and line.endswith("] is above its limit 0.19")
    assert above(report(), {"LPIPS": 0.1}) == ["LPIPS is not defined on any of the portraits, its limit is 0.1"]
