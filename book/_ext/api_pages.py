"""The pages of the library list every public module there is: the list is read from the package, not kept by hand.

A page holds a line ``<!-- modules of spf_lite.method -->``. It becomes one section for each public module of that
package, with all its documented members. The line of ``spf_lite`` itself stands for the package and its own modules
without the packages in it, which have pages of their own.
"""

from __future__ import annotations

import re
from pathlib import Path

from sphinx.application import Sphinx

from execution_key import ROOT

MARK = re.compile(r"<!-- modules of ([\w.]+) -->")


def public_modules(package: str, root: Path = ROOT) -> list[str]:
    """The package, if it has members of its own, and the modules in it and in packages within it.

    Names that begin with an underscore are private. The packages within ``spf_lite`` itself have pages of their own.
    """
    folder = root.joinpath(*package.split("."))
    names = [
        ".".join([package, *path.relative_to(folder).with_suffix("").parts])
        for path in sorted(folder.rglob("*.py"))
        if not path.stem.startswith("_") and (package != "spf_lite" or path.parent == folder)
    ]
    own = (folder / "__init__.py").read_text(encoding="utf-8")
    return [package, *names] if re.search(r"^(def|class|from|import) ", own, flags=re.MULTILINE) else names


def handed_on(package: str, root: Path = ROOT) -> list[str]:
    """What a package gives under its own name: it is described there, and not once more where it is defined."""
    own = (root.joinpath(*package.split(".")) / "__init__.py").read_text(encoding="utf-8")
    names = re.search(r"^__all__ = \[(.*?)\]", own, flags=re.MULTILINE | re.DOTALL)
    return re.findall(r'"(\w+)"', names[1]) if names else []


def section(module: str, package: str) -> str:
    """One module's part of a page."""
    # What a class of PyTorch or Matplotlib overrides is described there.
    leave_out = ["forward", "training", "set", *(handed_on(package) if module != package else [])]
    options = f"   :members:\n   :exclude-members: {', '.join(leave_out)}\n"
    if module == "spf_lite":  # what it gives is described where it is defined
        options = ""
    return f"## `{module}`\n\n```{{eval-rst}}\n.. automodule:: {module}\n{options}```\n"


def expand(app: Sphinx, docname: str, source: list[str]) -> None:
    """Put the sections in the place of the line."""
    if docname.startswith("api/"):
        source[0] = MARK.sub(
            lambda found: "\n".join(section(module, found[1]) for module in public_modules(found[1])), source[0]
        )
