"""What the README says is true: its commands exist and its Python runs."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from spf_lite.cli.parser import build_parser

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)
COMMANDS = [line for language, block in BLOCKS if language == "sh" for line in block.splitlines() if line.strip()]
SNIPPETS = [block for language, block in BLOCKS if language == "python"]


def test_there_is_something_to_check() -> None:
    assert "make book" in COMMANDS
    assert "make test" in COMMANDS
    assert SNIPPETS


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_exist(command: str) -> None:
    words = shlex.split(command)
    if words[0] == ".venv/bin/spf-lite":
        build_parser().parse_args(words[1:])
        return
    assert words[0] == "make", f"no check for {words[0]}: add one"
    done = subprocess.run([*words, "--dry-run"], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("snippet", SNIPPETS, ids=range(len(SNIPPETS)))
def test_snippets_run(snippet: str, tmp_path: Path) -> None:
    (tmp_path / "data_samples").symlink_to(ROOT / "data_samples")
    done = subprocess.run([sys.executable, "-c", snippet], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def test_files_that_are_named_exist() -> None:
    # Made by the commands above, not kept in the repository.
    made = {".venv", "_build/html/index.html"}
    named = set(re.findall(r"`(?:bash )?([\w./-]+/[\w./-]*|[\w-]+\.\w+|\.\w+)`", README))
    assert {"book/", "constraints.txt", ".ci/run"} <= named
    assert not [name for name in named - made if not (ROOT / name).exists()]


def test_continuous_integration_gives_the_two_commands() -> None:
    lines = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if line.startswith("make ")] == ["make book", "make test"]
    assert "set -eu" in lines


def test_pictures_are_there_and_described() -> None:
    pictures = re.findall(r"!\[([^\]]*)\]\(([^)]*)\)", README)
    assert pictures
    for alt, name in pictures:
        assert len(alt) > 100
        with Image.open(ROOT / name) as picture:
            assert picture.width > 600
        assert any(name in command for command in COMMANDS), f"no command makes {name}"


def test_help_lists_every_target() -> None:
    shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True).stdout
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.search(r"^\.PHONY: (.*)$", makefile, flags=re.MULTILINE)
    assert targets is not None
    for target in targets[1].split():
        assert re.search(rf"^  make {target}\s", shown, flags=re.MULTILINE), f"make help is silent about {target}"
