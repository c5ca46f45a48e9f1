"""Loading without progress bars."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from diffusers.utils import logging as diffusers_logging
from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
from transformers.utils import logging as transformers_logging


@contextmanager
def no_loading_bars() -> Iterator[None]:
    """Switch off the progress bars of loading weights while the context lasts; the user's settings come back.

    Loading takes a second, and its bars stay in a rendered notebook or a script's output for good. Downloads, which
    take long, keep theirs.
    """
    libraries = [library for library in (diffusers_logging, transformers_logging) if library.is_progress_bar_enabled()]
    # transformers' switch also turns the bars of downloads off and on: set them right after each use of it.
    set_downloads = disable_progress_bars if are_progress_bars_disabled() else enable_progress_bars
    for library in libraries:
        library.disable_progress_bar()
    set_downloads()
    try:
        yield
    finally:
        for library in libraries:
            library.enable_progress_bar()
        set_downloads()
