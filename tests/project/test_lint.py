"""What `make lint` runs: style, types and layers. Here each is a test: types are checked beside the rest."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
#: What the target runs, one command a line, in the environment of this interpreter, which needs no set-up.
_DRY_RUN = ["make", "--dry-run", "--silent", f"VENV={sys.prefix}", f"--old-file={sys.prefix}/.installed", "lint"]
LINT = subprocess.run(_DRY_RUN, cwd=ROOT, capture_output=True, text=True).stdout.splitlines()


@pytest.mark.parametrize("command", LINT, ids=[Path(line.split()[0]).name for line in LINT])
def test_lint(command: str) -> None:
    done = subprocess.run(command, shell=True, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_there_is_something_to_check() -> None:
    assert {Path(line.split()[0]).name for line in LINT} == {"ruff", "mypy", "lint-imports"}
