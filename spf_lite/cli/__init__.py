"""The command line: thin, everything it does is a function of the library.

``spf-lite render | custom | pretrain | check | train | sample | compare | paint | measure | cost``
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence

from spf_lite.cli.parser import build_parser
from spf_lite.cli.threads import set_thread_policy


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status. Errors that a user can mend are one line, without a traceback."""
    options = build_parser().parse_args(arguments)
    set_thread_policy()  # before torch is imported
    # Before transformers is imported, or it remarks on every optional package that is not there.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for noisy in ("httpx", "matplotlib"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    try:
        return int(options.run(options))
    except (ValueError, FileNotFoundError, FloatingPointError, OSError) as error:
        message = " ".join(str(error).split())  # what other libraries say may run over several lines
        sys.stderr.write(f"spf-lite {options.command}: {message}\n")
        return 1
