"""What the README says is true: its commands exist and its Python runs."""

import ast
import os
import re
import shlex
import subprocess
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

import spf_lite
from spf_lite.cli.parser import build_parser
from spf_lite.training.recipes import RECIPES

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)
COMMANDS = [line for language, block in BLOCKS if language == "sh" for line in block.splitlines() if line.strip()]
SNIPPETS = [block for language, block in BLOCKS if language == "python"]
#: The whole recipe takes minutes: where the tests run a snippet, it has a few steps and paints no portraits.
SHORT = replace(
    RECIPES["pure-pairs"],
    stage2_steps=2,
    reference_portraits=2,
    pure_pairs=0,
    rewrite_limit=0.0,
    fill_captions=False,
    map_source="none",
)


def test_there_is_something_to_check() -> None:
    assert "make book" in COMMANDS
    assert "make test" in COMMANDS
    assert SNIPPETS


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_exist(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = shlex.split(command)
    if words[0] == ".venv/bin/spf-lite":
        # What an earlier command of the page makes is there for a later one.
        for target in ("sunglasses", "beard"):
            (tmp_path / "runs" / target / "adapter").mkdir(parents=True)
        (tmp_path / "data_samples").symlink_to(ROOT / "data_samples")
        monkeypatch.chdir(tmp_path)
        build_parser().parse_args(words[1:])
        return
    assert words[0] == "make", f"no check for {words[0]}: add one"
    done = subprocess.run([*words, "--dry-run"], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("snippet", SNIPPETS, ids=range(len(SNIPPETS)))
def test_snippets_run(snippet: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data_samples").symlink_to(ROOT / "data_samples")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(RECIPES, "pure-pairs", SHORT)
    exec(compile(snippet, "README.md", "exec"), {"__name__": "__main__"})


def test_files_that_are_named_exist() -> None:
    # Made by the commands above, not kept in the repository.
    made = {".venv", "_build/html/index.html"}
    # What a reader's own custom set may hold.
    made |= {"metadata.jsonl", "metadata.csv", ".txt"}
    named = set(re.findall(r"`(?:bash )?([\w./-]+/[\w./-]*|[\w-]+\.\w+|\.\w+)`", README))
    assert {"book/", "constraints.txt", ".ci/run"} <= named
    assert not [name for name in named - made if not (ROOT / name).exists()]


def _statements(snippet: str) -> list[str]:
    """What a snippet does: its statements without comments, line breaks and imports."""
    parsed = ast.parse(textwrap.dedent(snippet)).body
    return [ast.unparse(line) for line in parsed if not isinstance(line, (ast.Import, ast.ImportFrom))]


def test_readme_library_page_and_package_open_with_the_same_five_lines() -> None:
    page = (ROOT / "book" / "library.md").read_text(encoding="utf-8")
    first = re.search(r"^```python\n(.*?)^```", page, flags=re.DOTALL | re.MULTILINE)
    assert first is not None and spf_lite.__doc__ is not None
    five = _statements(SNIPPETS[0])
    assert len(five) == 5
    assert _statements(first[1]) == five
    assert _statements(spf_lite.__doc__.split("::\n")[1]) == five


@pytest.mark.parametrize(
    ("failing", "given"), [("", ["install", "book", "test"]), ("book", ["install", "book"]), ("install", ["install"])]
)
def test_continuous_integration_renders_the_book_and_then_tests(failing: str, given: list[str], tmp_path: Path) -> None:
    """Run with programs that only note what they were asked for; what fails ends it."""
    for name in ("make", "chromium"):
        program = tmp_path / name
        program.write_text(f'#!/bin/sh\necho "$1" >> "{tmp_path}/{name}.log"\ntest "$1" != "{failing}"\n')
        program.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(["bash", str(ROOT / ".ci" / "run")], env=environment, capture_output=True, timeout=60)
    assert (tmp_path / "make.log").read_text().split() == given
    assert (done.returncode == 0) == (not failing)


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
