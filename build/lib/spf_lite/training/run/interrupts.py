"""Keyboard interrupts between steps, not within them: an update that is cut in half cannot be resumed."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def interrupt_afterwards() -> Iterator[None]:
    """Hold back a keyboard interrupt (Ctrl-C, or a notebook's stop button) until the block has ended.

    A second one is not held back. Outside the main thread, which signals do not reach, this does nothing.
    """
    former = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or former is signal.SIG_IGN:
        yield
        return
    held = False

    def hold(number: int, frame: FrameType | None) -> None:
        nonlocal held
        if held:
            raise KeyboardInterrupt
        held = True

    signal.signal(signal.SIGINT, hold)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, former if former is not None else signal.default_int_handler)
    if held:
        raise KeyboardInterrupt
