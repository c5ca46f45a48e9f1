"""The command line. Everything it does is a function of the library.

``spf-lite render | custom | pretrain | check | train | sample | compare | incremental |
paint | combine | parts | export-onnx | measure | agreement | cost | memory``
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence

from spf_lite.cli.parser import build_parser
from spf_lite.cli.threads import set_thread_policy


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status.

    A failure that the user can correct is one line on standard error, without a traceback, and exit status 2. A fault
    of the program keeps its traceback.
    """
    options = build_parser().parse_args(arguments)
    set_thread_policy()  # before torch is imported
    # Before transformers is imported, or it remarks on every optional package that is not there.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    # Before torch is imported: what Apple's mps cannot compute, the CPU does, instead of an error.
    os.environ.setdefault("PYTORCH_ENABLE_MPS_FALLBACK", "1")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for noisy in ("httpx", "matplotlib"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    try:
        return int(options.run(options))
    except KeyboardInterrupt:
        sys.stderr.write(f"spf-lite {options.command}: interrupted\n")
        return 130
    except (ValueError, ArithmeticError, OSError, MemoryError, RuntimeError) as error:
        message = _correctable(error)
        if message is None:
            raise
        sys.stderr.write(f"spf-lite {options.command}: {message}\n")
        return 2


def _correctable(error: Exception) -> str | None:
    """One line for an error that the user can correct; None for one that is a fault of the program."""
    text = " ".join(str(error).split())  # what other libraries say may run over several lines
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return f"out of memory: try a smaller batch (--set gradient_accumulation=2) or --dtype float16 ({text[:120]})"
    # Other run-time errors come from within: only our own, which say what to do, are the user's.
    if isinstance(error, RuntimeError) and not type(error).__module__.startswith("spf_lite"):
        return None
    return text or type(error).__name__
