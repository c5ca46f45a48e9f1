"""Chapters are executed once, for the book; nbval looks at that execution, and executes what is not in the cache."""

import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import nbformat
import pytest
from chapters import execute_missing
from jupyter_cache import get_cache
from sphinx.errors import ExtensionError

BOOK = Path(__file__).parents[2] / "book"
CHECKED = {"tags": ["nbval-check-output"]}


class Project:
    """A book of small chapters in a folder, with this project's own test set-up. Chapters note that they were run."""

    def __init__(self, root: Path) -> None:
        self.root, self.book = root, root / "book"
        shutil.copytree(BOOK / "_ext", self.book / "_ext", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copyfile(BOOK / "conftest.py", self.book / "conftest.py")
        (root / "spf_lite").mkdir()
        self.change_library("first")
        (root / "pytest.ini").write_text("[pytest]\npythonpath = book/_ext\naddopts = --import-mode=importlib\n")

    def change_library(self, text: str) -> None:
        (self.root / "spf_lite" / "module.py").write_text(f"# {text}\n")

    def write(self, name: str, source: str, stored: str) -> None:
        """One chapter: a cell that leaves a mark, and one whose output is to be ``stored``."""
        mark = nbformat.v4.new_code_cell("open('runs.txt', 'a').write('x');")
        output = nbformat.v4.new_output("stream", name="stdout", text=stored)
        cell = nbformat.v4.new_code_cell(source, metadata=CHECKED, outputs=[output], execution_count=1)
        kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
        nbformat.write(nbformat.v4.new_notebook(cells=[mark, cell], metadata=kernel), self.book / f"{name}.ipynb")

    @property
    def runs(self) -> int:
        marks = self.book / "runs.txt"
        return len(marks.read_text()) if marks.exists() else 0

    def key(self) -> str:
        code = "from execution_key import cache_folder; print(cache_folder())"
        command = [sys.executable, "-c", code]
        return subprocess.run(
            command, cwd=self.book / "_ext", capture_output=True, text=True, check=True
        ).stdout.strip()

    def build(self, *first: str) -> None:
        """What the build of the book does before it renders."""
        settings = {"nb_execution_cache_path": self.key(), "nb_execution_timeout": 60, "execute_first": first}
        app = SimpleNamespace(config=SimpleNamespace(**settings))
        env = SimpleNamespace(doc2path=lambda name: str(self.book / f"{name}.ipynb"))
        execute_missing(cast(Any, app), cast(Any, env), [path.stem for path in self.book.glob("*.ipynb")])

    def test(self) -> subprocess.CompletedProcess[str]:
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-p",
            "no:cacheprovider",
            "--nbval-lax",
            "--nbval-current-env",
            "book",
        ]
        return subprocess.run(command, cwd=self.root, capture_output=True, text=True, timeout=120)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def test_the_longest_chapters_start_first(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKERS", "1")
    for name in "abc":
        project.write(name, f"open('order.txt', 'a').write('{name}')", "1")
    project.build("c", "b")
    assert (project.book / "order.txt").read_text() == "cba"


def test_nbval_executes_a_chapter_that_the_book_did_not(project: Project) -> None:
    project.write("chapter", "print(1 + 1)", "2\n")
    done = project.test()
    assert done.returncode == 0, done.stdout
    assert project.runs == 1
    assert "to execute: chapter" in done.stdout


def test_a_chapter_that_the_book_executed_is_compared_and_not_executed_again(project: Project) -> None:
    project.write("chapter", "print(1 + 1)", "2\n")
    project.build()
    assert project.runs == 1
    done = project.test()
    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout
    project.build()
    assert project.runs == 1


def test_an_output_that_differs_from_what_the_book_shows_fails(project: Project) -> None:
    project.write("chapter", "print(1 + 1)", "3\n")
    project.build()
    done = project.test()
    assert done.returncode == 1
    assert "Cell outputs differ" in done.stdout
    assert project.runs == 1


def test_a_changed_library_makes_nbval_execute_again(project: Project) -> None:
    project.write("chapter", "print(1 + 1)", "2\n")
    project.build()
    project.change_library("second")
    assert project.test().returncode == 0
    assert project.runs == 2


def test_a_changed_chapter_is_executed_again(project: Project) -> None:
    project.write("chapter", "print(1 + 1)", "2\n")
    project.build()
    project.write("chapter", "print(1 + 2)", "2\n")
    assert project.test().returncode == 1
    assert project.runs == 2


def test_a_chapter_that_fails_stops_the_book_and_fails_in_nbval(project: Project) -> None:
    project.write("good", "print(1 + 1)", "2\n")
    project.write("wrong", "print(1 / 0)", "2\n")
    with pytest.raises(ExtensionError, match="wrong.ipynb failed:(.|\n)*ZeroDivisionError"):
        project.build()
    kept = [Path(record.uri).stem for record in get_cache(project.key()).list_cache_records()]
    assert "wrong" not in kept
    done = project.test()
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stdout
