"""Counted peaks are those that a process has."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

#: How far measured peaks may lie from counted ones.
WITHIN = 0.15


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the high-water mark is Linux's")
def test_counted_peaks_of_a_medium_network_are_the_measured_ones() -> None:
    kinds = ("dual", "paint", "encode")
    driver = Path(__file__).with_name("peak_driver.py")
    settings = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(driver), *kinds], env=os.environ | settings, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = {
        kind: (int(counted), int(measured)) for kind, counted, measured in map(str.split, done.stdout.splitlines())
    }
    assert tuple(found) == kinds
    for kind, (counted, measured) in found.items():
        assert counted > 5e8, "weights alone are more"
        assert measured == pytest.approx(counted, rel=WITHIN), kind
