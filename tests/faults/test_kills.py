"""Kill -9 at random moments of each stage: the resumed run ends with the same weights, log and card."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

#: Ten in a thorough run: SPF_LITE_KILLS=10.
KILLS = int(os.environ.get("SPF_LITE_KILLS", "2"))


@pytest.mark.parametrize("stage", ["stage1", "sampling", "maps", "export", "card"])
def test_killed_at_random_moments_of_a_stage_the_run_ends_the_same(
    stage: str, toy_folders: dict[str, Path], custom_folder: Path, tmp_path: Path
) -> None:
    driver = [sys.executable, str(Path(__file__).with_name("kill_driver.py"))]
    arguments = [str(toy_folders["v_prediction"]), str(custom_folder), str(tmp_path), stage, str(KILLS)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*driver, *arguments], env=environment, capture_output=True, text=True)
    print(done.stdout.strip())  # how many kills there were
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    found = re.search(r": (\d+) kills in \d+ calls, weights equal$", done.stdout.strip())
    assert found and int(found[1]) >= 1
