"""The repository's own rules: what lies where, and that facts which must stand once stand once."""

import hashlib
import json
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
TEXT = {".py", ".md", ".toml", ".yml", ".yaml", ".txt", ".cff", ".js", ".css", ".ipynb", ".json", ".jsonl", ".bib", ""}
TOP_LEVEL = {
    ".ci", ".github", ".gitignore", "CITATION.cff", "LICENSE", "Makefile", "README.md", "_config.yml", "book",
    "constraints.txt", "data_samples", "environment.yml", "pyproject.toml", "spf_lite", "tests",
}  # fmt: skip


def _files() -> list[Path]:
    """Every file that is, or is about to be, committed."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    try:
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    return [path for name in listed.split("\0") if name and (path := ROOT / name).is_file()]


def _texts() -> dict[str, str]:
    """Our own text files by name; unchanged scripts of other projects are left out."""
    ours = [path for path in _files() if path.suffix in TEXT and "offline" not in path.parts]
    return {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in ours}


def test_the_top_level_holds_what_it_should_and_nothing_else() -> None:
    assert {path.relative_to(ROOT).parts[0] for path in _files()} == TOP_LEVEL


def test_wherever_the_project_says_where_it_lives_it_says_the_same() -> None:
    address = PYPROJECT["project"]["urls"]["Repository"]
    pattern = re.compile(r"https?://[\w.-]+/[\w-]+/spf[-_]lite\b", flags=re.IGNORECASE)
    said = {name: set(pattern.findall(text)) for name, text in _texts().items()}
    said = {name: addresses for name, addresses in said.items() if addresses}
    assert set().union(*said.values()) == {address}
    # Readers, Colab and citation tools have to be told; everything else reads it from pyproject.toml.
    told = {"README.md", "pyproject.toml", "CITATION.cff"}
    assert {name for name in said if not name.endswith(".ipynb")} == told


def test_exact_versions_stand_in_one_file() -> None:
    pinned = re.compile(r"^(?!#).*\b[A-Za-z][\w.-]*(\[[\w,]+\])?={2,3}\d", flags=re.MULTILINE)
    dependency_files = [name for name in _texts() if re.search(r"\.(toml|ya?ml|txt)$|^Makefile$|^\.ci/", name)]
    assert [name for name in dependency_files if pinned.search(_texts()[name])] == ["constraints.txt"]
    assert "constraints.txt" in (ROOT / "environment.yml").read_text(encoding="utf-8")
    assert "--constraint constraints.txt" in (ROOT / "Makefile").read_text(encoding="utf-8")


def _name(requirement: str) -> str:
    return re.split(r"[\[<>=!~; ]", requirement, maxsplit=1)[0].lower().replace("_", "-")


def test_every_direct_dependency_is_pinned() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = {_name(line) for line in lines if line.strip() and not line.startswith("#")}
    extras = PYPROJECT["project"]["optional-dependencies"].values()
    direct = {_name(line) for line in [*PYPROJECT["project"]["dependencies"], *(x for extra in extras for x in extra)]}
    assert not direct - pins


def test_the_library_itself_pins_nothing() -> None:
    for requirement in PYPROJECT["project"]["dependencies"]:
        assert re.fullmatch(r"[\w-]+>=[\d.]+", requirement), f"{requirement}: a lower bound only"


def test_scripts_of_others_are_unchanged_and_accounted_for() -> None:
    folder = ROOT / "book" / "_assets" / "offline"
    entries = json.loads((folder / "SOURCES.json").read_text(encoding="utf-8"))
    listed = {name: digest for entry in entries for name, digest in entry["files"].items()}
    for name, digest in listed.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest, f"{name} was changed"
    present = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    licences = {name for name in present if "LICENSE" in name}
    assert present - licences - set(listed) == {"SOURCES.json"}
    assert len(licences) >= len(entries)


def test_pages_ask_for_local_scripts_only() -> None:
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))["sphinx"]["config"]
    scripts = [*config["nb_ipywidgets_js"], config["mathjax_path"]]
    for script in scripts:
        assert (ROOT / "book" / "_assets" / script).is_file(), script
    assert not (ROOT / "book" / "_static").exists(), "Jupyter Book loads every script in there on every page"


def test_no_one_file_is_huge() -> None:
    large = [path for path in _files() if path.stat().st_size > 30_000_000]
    assert not large
