"""Kill -9 at random moments of each stage: the resumed run ends with the same weights, log and card."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

#: Ten in a thorough run: SPF_LITE_KILLS=10.
KILLS = int(os.environ.get("SPF_LITE_KILLS", "2"))


STAGES = ("stage1", "sampling", "maps", "export", "card")


@pytest.fixture(scope="module")
def driven(
    toy_folders: dict[str, Path], custom_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> subprocess.CompletedProcess[str]:
    """The driver's end: one program for all stages."""
    driver = [sys.executable, str(Path(__file__).with_name("kill_driver.py"))]
    work = tmp_path_factory.mktemp("kills")
    arguments = [str(toy_folders["v_prediction"]), str(custom_folder), str(work), str(KILLS)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run([*driver, *arguments], env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("stage", STAGES)
def test_killed_at_random_moments_of_a_stage_the_run_ends_the_same(
    stage: str, driven: subprocess.CompletedProcess[str]
) -> None:
    print(driven.stdout.strip())  # how many kills there were
    found = re.search(rf"^{stage}: (\d+) kills in \d+ calls, weights equal$", driven.stdout, flags=re.MULTILINE)
    assert found and int(found[1]) >= 1, driven.stdout + driven.stderr[-3000:]


def test_the_driver_says_that_all_is_well(driven: subprocess.CompletedProcess[str]) -> None:
    assert driven.returncode == 0 and len(driven.stdout.splitlines()) == len(STAGES)
