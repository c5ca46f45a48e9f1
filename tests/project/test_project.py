"""The repository's own rules: what lies where, and that facts which must stand once stand once."""

import hashlib
import json
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

import spf_lite
from spf_lite.config import TrainConfig
from spf_lite.tiny_world.portraits import TARGETS
from spf_lite.training.recipes import recipe, slug

ROOT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
TEXT = {".py", ".md", ".toml", ".yml", ".yaml", ".txt", ".cff", ".js", ".css", ".ipynb", ".json", ".jsonl", ".bib", ""}


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


def test_nothing_that_is_made_is_committed() -> None:
    _files()  # skips outside a git checkout
    command = ["git", "ls-files", "--cached", "--ignored", "--exclude-standard"]
    assert subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout == ""


def test_no_folder_is_added_at_the_top() -> None:
    folders = {path.relative_to(ROOT).parts[0] for path in _files() if path.parent != ROOT}
    assert folders == {"book", "spf_lite", "data_samples", "tests", ".ci", ".github"}


def test_every_package_is_in_the_wheel() -> None:
    folders = {path.parent for path in (ROOT / "spf_lite").rglob("__init__.py")}
    packages = {".".join(folder.relative_to(ROOT).parts) for folder in folders}
    assert set(PYPROJECT["tool"]["setuptools"]["packages"]) == packages | {"spf_lite.data_samples"}


def test_the_wheel_brings_a_model_custom_sets_and_both_adapters_of_every_target_and_no_results() -> None:
    samples = ROOT / "data_samples"
    patterns = PYPROJECT["tool"]["setuptools"]["package-data"]["spf_lite.data_samples"]
    shipped = {path.relative_to(samples).as_posix() for pattern in patterns for path in samples.glob(pattern)}
    shipped = {name for name in shipped if (samples / name).is_file()}
    for target in TARGETS:
        assert f"custom/{target}/metadata.jsonl" in shipped
        for method in ("naive", "spf"):
            assert f"adapters/{target}/{method}/pytorch_lora_weights.safetensors" in shipped
    assert "tiny-portraits/model_index.json" in shipped
    assert not [name for name in shipped if name.startswith(("results/", "drawn-results/", "tiny-transformer/"))]
    assert sum((samples / name).stat().st_size for name in shipped) < 35_000_000


def test_every_folder_of_the_samples_is_a_slug() -> None:
    trained = [
        ROOT / "data_samples" / name
        for name in ("adapters", "results", "drawn-results", "transformer-results", "incremental")
    ]
    folders = {path.parent for path in _files() if any(folder in path.parents for folder in trained)}
    assert len(folders) > len(TARGETS)
    assert not [folder for folder in folders if slug(folder.name) != folder.name]


ADAPTERS = sorted((ROOT / "data_samples" / "adapters").glob("*/*"))


@pytest.mark.parametrize("folder", ADAPTERS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_an_adapter_says_which_recipe_it_is(folder: Path) -> None:
    config = TrainConfig.from_json((folder / "config.json").read_text(encoding="utf-8"))
    card = (folder / "README.md").read_text(encoding="utf-8")
    name = re.search(r"^- Recipe: `([^`]+)`", card, flags=re.MULTILINE)
    assert name is not None
    assert slug(name[1]) == folder.name
    assert recipe(name[1], seed=config.seed) == config


def test_files_of_code_that_any_text_names_exist() -> None:
    code = re.compile(r"\b(?:spf_lite|tests|book)/[\w/-]+\.(?:py|js|css)\b")
    named = {(name, path) for name, text in _texts().items() if name != "CHANGELOG.md" for path in code.findall(text)}
    assert ("CONTRIBUTING.md", "spf_lite/config.py") in named
    assert not [(name, path) for name, path in named if not (ROOT / path).exists()]


def test_library_and_citation_name_one_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == spf_lite.__version__
    assert citation["repository-code"] == PYPROJECT["project"]["urls"]["Repository"]
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## [{spf_lite.__version__}] - {citation['date-released']}" in changes


def test_wherever_the_project_says_where_it_lives_it_says_the_same() -> None:
    address = PYPROJECT["project"]["urls"]["Repository"]
    pattern = re.compile(r"https?://[\w.-]+/[\w-]+/spf[-_]lite\b", flags=re.IGNORECASE)
    on_colab = "https://colab.research.google.com/github/"
    texts = {name: text.replace(on_colab, "https://github.com/") for name, text in _texts().items()}
    said = {name: set(pattern.findall(text)) for name, text in texts.items()}
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
