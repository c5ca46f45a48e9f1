"""The key that executed chapters are cached under: a hash of the library and the weights.

jupyter-cache by itself only notices changes in the notebooks. The build of the book and the tests of the chapters share
this key, and with it what was executed.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
#: What the outputs of a chapter depend on, besides the chapter.
LIBRARY = (
    "spf_lite/**/*.py",
    "spf_lite/**/*.js",
    "spf_lite/**/*.css",
    "data_samples/**/*",
    "constraints.txt",
)


def digest(patterns: tuple[str, ...], root: Path = ROOT) -> str:
    """A short hash of the names and contents of all files that match."""
    found = hashlib.sha256()
    for path in sorted({path for pattern in patterns for path in root.glob(pattern)}):
        if path.is_file() and "__pycache__" not in path.parts:
            found.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return found.hexdigest()[:16]


def cache_folder(build: Path = ROOT / "_build") -> Path:
    """Where chapters are cached that were executed with the library and the weights as they are now."""
    return build / ".jupyter_cache" / digest(LIBRARY)
