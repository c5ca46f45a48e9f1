"""The pages of the library: every public module, and an index of equations that leads to functions and chapters."""

import ast
import importlib
import inspect
import io
import pkgutil
import re
from pathlib import Path

import pytest
import yaml
from api_pages import MARK, public_modules
from docutils.core import publish_doctree

import spf_lite
from spf_lite.method import control_map, losses, purecc

BOOK = Path(__file__).parents[2] / "book"
PAGES = sorted((BOOK / "api").glob("*.md"))
ROW = re.compile(
    r"^\| ([^|]+) \| [^|]+ \| \{py:\w+\}`[\w.]+ <([\w.]+)>` \| \[\d+\]\(([\w-]+\.ipynb)\) \|$", flags=re.MULTILINE
)
INDEX = (BOOK / "library.md").read_text(encoding="utf-8").split("## Index of equations")[1].split("\n## ")[0]
EQUATIONS = ROW.findall(INDEX)


def test_every_public_module_has_its_place_on_one_page() -> None:
    walked = pkgutil.walk_packages(spf_lite.__path__, "spf_lite.")
    packages = {name for page in PAGES for name in MARK.findall(page.read_text(encoding="utf-8"))}
    there = {module.name for module in walked if not module.ispkg and "._" not in module.name}
    listed = [module for package in packages for module in public_modules(package)]
    assert len(set(listed)) == len(listed)
    assert there - set(listed) == set()
    for module in listed:
        importlib.import_module(module)


def test_every_page_is_in_the_table_of_contents_and_on_the_library_page() -> None:
    toc = yaml.safe_load((BOOK / "_toc.yml").read_text(encoding="utf-8"))
    files = {chapter["file"] for part in toc["parts"] for chapter in part["chapters"]}
    library = (BOOK / "library.md").read_text(encoding="utf-8")
    for page in PAGES:
        assert f"api/{page.stem}" in files
        assert f"(api/{page.name})" in library


def test_the_index_has_no_row_that_is_not_understood() -> None:
    rows = [line for line in INDEX.splitlines() if line.startswith("| ")]
    assert len(EQUATIONS) == len(rows) - 1, "all but the head"


@pytest.mark.parametrize(("equation", "function", "chapter"), EQUATIONS, ids=[row[0] for row in EQUATIONS])
def test_an_equation_leads_to_a_function_and_to_a_chapter_that_names_it(
    equation: str, function: str, chapter: str
) -> None:
    parts = function.split(".")
    module = next(
        ".".join(parts[:length])
        for length in range(len(parts), 0, -1)
        if (BOOK.parent / Path(*parts[:length])).with_suffix(".py").is_file()
    )
    found: object = importlib.import_module(module)
    for name in parts[len(module.split(".")) :]:
        found = getattr(found, name)
    assert callable(found)
    text = (BOOK / chapter).read_text(encoding="utf-8")
    assert re.search(rf"\b{re.escape(parts[-1])}\b", text), f"{chapter} does not name {function}"


@pytest.mark.parametrize("module", [losses, purecc])
def test_every_loss_is_in_the_index(module: object) -> None:
    helpers = {"outside", "Term"}  # the map's size and a batch's bookkeeping
    members = [
        name
        for name, member in inspect.getmembers(module)
        if getattr(member, "__module__", None) == getattr(module, "__name__", "") and not name.startswith("_")
    ]
    listed = {function.rsplit(".", 1)[1] for _, function, _ in EQUATIONS}
    assert set(members) - helpers <= listed


def test_every_step_of_the_control_map_is_in_the_index() -> None:
    listed = {function for _, function, _ in EQUATIONS}
    for name in ("noise_difference", "phrase_attention_maps", "combine", "averaged_maps"):
        assert f"{control_map.__name__}.{name}" in listed


def _docstrings() -> list[tuple[str, str]]:
    """Every docstring that holds a table, with where it stands."""
    found = []
    for path in sorted((BOOK.parent / "spf_lite").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
                text = ast.get_docstring(node)
                if text and re.search(r"^=+  =", text, flags=re.MULTILINE):
                    found.append((f"{path.name}:{getattr(node, 'lineno', 1)}", text))
    return found


def test_tables_in_docstrings_are_well_formed() -> None:
    tables = dict(_docstrings())
    assert len(tables) > 3
    assert not _malformed("==  ==\na   b\n==  ==\nc   d\n==  ==")
    assert _malformed("==  ==\na   b\n==  ==\nccc d\n==  ==")
    assert [where for where, text in tables.items() if _malformed(text)] == []


def _malformed(text: str) -> bool:
    """Whether a text holds a table that Sphinx refuses."""
    said = io.StringIO()
    publish_doctree(text, settings_overrides={"report_level": 3, "warning_stream": said})
    return "Malformed table" in said.getvalue()
