"""Chapters are kept tidy: no stored outputs, real alt text, stable ids, nothing that ties them to one machine."""

import importlib
import re
import tomllib
from pathlib import Path
from types import ModuleType

import nbformat
import pytest
import yaml

import spf_lite

BOOK = Path(__file__).parents[2] / "book"
NOTEBOOKS = sorted(BOOK.glob("*.ipynb"))
#: Calls whose result a cell shows as a picture.
PICTURES = ("portrait_grid", "bars_with_intervals", "share_tables", "curves", "matrices", "stacks", "sheet")
LINK = re.compile(r"In the\s+book:\s+:doc:`/([\w-]+)`")
CHECKED = "nbval-check-output"


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request: pytest.FixtureRequest) -> nbformat.NotebookNode:
    read: nbformat.NotebookNode = nbformat.read(request.param, as_version=4)
    return read


def _code(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def _tags(cell: nbformat.NotebookNode) -> list[str]:
    return list(cell.metadata.get("tags", []))


def _shows_picture(cell: nbformat.NotebookNode) -> bool:
    last = re.split(r"\n(?=[^\s)\]}])", cell.source.strip())[-1]
    return last.startswith(PICTURES)


def test_the_table_of_contents_names_every_notebook() -> None:
    toc = yaml.safe_load((BOOK / "_toc.yml").read_text(encoding="utf-8"))
    pages = [toc["root"], *(chapter["file"] for part in toc["parts"] for chapter in part["chapters"])]
    assert len(set(pages)) == len(pages)
    assert {path.stem for path in NOTEBOOKS} <= set(pages)
    for page in pages:
        assert list(BOOK.glob(f"{page}.*")), f"{page} is in the table of contents but not in the book"


def _called(module: str) -> list[str]:
    """A module's own name, and the short names of what it is imported for."""
    packages = (spf_lite, importlib.import_module(module.rsplit(".", 1)[0]))
    given = [(package, name) for package in packages for name in getattr(package, "__all__", [])]
    short = [(package, name) for package, name in given if _home(package, name) == module]
    return [module, *(f"{package.__name__}.{name}" for package, name in short), *(f"{name}(" for _, name in short)]


def _home(package: ModuleType, name: str) -> str:
    return str(getattr(getattr(package, name), "__module__", ""))


def test_library_and_chapters_point_at_each_other() -> None:
    linked = set()
    for module in (BOOK.parent / "spf_lite").rglob("*.py"):
        dotted = ".".join(module.relative_to(BOOK.parent).with_suffix("").parts)
        for name in LINK.findall(module.read_text(encoding="utf-8")):
            chapter = next(iter(BOOK.glob(f"{name}.*")), BOOK / name)
            assert chapter.exists(), f"{dotted} points at {name}, which is not there"
            text = chapter.read_text(encoding="utf-8")
            assert any(called in text for called in _called(dotted)), f"{name} is silent about {dotted}"
            linked.add(name)
    chapters = {path.stem for path in NOTEBOOKS if re.match(r"\d\d-", path.stem)}
    assert chapters - linked <= {"10-ablations", "12-claims"}, "a chapter that no module points at"


def test_is_valid(notebook: nbformat.NotebookNode) -> None:
    nbformat.validate(notebook)


def test_outputs_are_stripped_unless_they_are_checked(notebook: nbformat.NotebookNode) -> None:
    for cell in _code(notebook):
        if CHECKED in _tags(cell):
            # nbval fails a stored output without a count, and pictures are never compared.
            assert cell.outputs and cell.execution_count == 1, f"{cell.id}: to be checked, but nothing is stored"
            assert {output.output_type for output in cell.outputs} == {"stream"}, f"{cell.id}: text only"
        else:
            assert not cell.outputs and cell.execution_count is None, f"{cell.id}: stored output"
    assert "widgets" not in notebook.metadata


def test_cell_ids_are_names(notebook: nbformat.NotebookNode) -> None:
    ids = [cell.id for cell in notebook.cells]
    assert len(set(ids)) == len(ids)
    for name in ids:
        assert re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name), f"{name}: give the cell a name that stays"
        assert not re.fullmatch(r"[0-9a-f]{8}", name)


def test_every_picture_has_alt_text_and_caption(notebook: nbformat.NotebookNode) -> None:
    for cell in filter(_shows_picture, _code(notebook)):
        mystnb = cell.metadata.get("mystnb", {})
        assert len(mystnb.get("image", {}).get("alt", "")) >= 40, f"{cell.id}: describe the picture"
        assert mystnb.get("figure", {}).get("caption"), f"{cell.id}: no caption"
        assert mystnb["figure"]["name"].startswith("fig-")
        # How it looks in the dark (book.css): portraits stand on the page, charts are inverted.
        on_nothing = re.search(r"\bportrait_grid\(|set_facecolor\(.none.\)", cell.source)
        expected = "spf-portraits" if on_nothing else "spf-chart"
        assert mystnb["image"].get("classes") == expected, f"{cell.id}: class of the picture"


def test_pictures_in_text_have_alt_text(notebook: nbformat.NotebookNode) -> None:
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            assert "![](" not in cell.source, f"{cell.id}: describe the picture"


def test_begins_with_a_title_and_one_hidden_set_up(notebook: nbformat.NotebookNode) -> None:
    assert notebook.cells[0].cell_type == "markdown"
    assert notebook.cells[0].source.startswith("# ")
    first = _code(notebook)[0]
    assert "google.colab" in first.source and "remove-cell" in _tags(first)
    # Colab gets the library, and the results that are not in the wheel, from where the project lives.
    project = tomllib.loads((BOOK.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    address = project["urls"]["Repository"]
    assert f'"{address}"' in first.source and "git clone --quiet --depth 1 {source}" in first.source
    assert f'sys.path.insert(0, "{address.rsplit("/", 1)[1]}")' in first.source
    hidden = [cell for cell in _code(notebook)[1:] if {"hide-cell", "remove-cell"} & set(_tags(cell))]
    assert len(hidden) <= 1


def test_nothing_ties_it_to_one_machine(notebook: nbformat.NotebookNode) -> None:
    text = "\n".join(cell.source for cell in notebook.cells)
    assert not re.search(r"(?<![\w.:/])/(home|root|Users|work|tmp|usr|content)/", text)
    assert not re.search(r"[A-Z]:\\", text)
    assert notebook.metadata.kernelspec.name == "python3"


def test_uses_no_widget_that_is_dead_on_a_page(notebook: nbformat.NotebookNode) -> None:
    text = "\n".join(cell.source for cell in _code(notebook))
    assert not re.search(r"\b(interact|interactive|Output)\(", text)
