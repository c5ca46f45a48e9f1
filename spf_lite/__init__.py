"""SPF-Lite: fine-tune a text-to-image model to a new portrait attribute without semantic pollution.

An open implementation of SPF-Portrait (arXiv 2504.00396). Start with :func:`spf_lite.load`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spf_lite.pipelines import load

__version__ = "0.1.0"
__all__ = ["__version__", "load"]


def __getattr__(name: str) -> Any:
    # Deferred: the artwork and the widgets are useful without the seconds that importing diffusers takes.
    if name == "load":
        return import_module("spf_lite.pipelines").load
    raise AttributeError(f"module 'spf_lite' has no attribute {name!r}")
