import os
import signal
import threading

import pytest

from spf_lite.training.run.interrupts import interrupt_afterwards


def test_an_interrupt_waits_for_the_end_of_the_block() -> None:
    done: list[str] = []
    with pytest.raises(KeyboardInterrupt), interrupt_afterwards():
        os.kill(os.getpid(), signal.SIGINT)
        done.append("the rest of the block")
    assert done and signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_second_one_does_not_wait() -> None:
    done: list[str] = []
    with pytest.raises(KeyboardInterrupt), interrupt_afterwards():
        os.kill(os.getpid(), signal.SIGINT)
        done.append("after the first")
        os.kill(os.getpid(), signal.SIGINT)
        done.append("after the second")
    assert done == ["after the first"] and signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_error_within_the_block_gives_the_handler_back() -> None:
    with pytest.raises(ValueError), interrupt_afterwards():
        raise ValueError
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_other_threads_and_ignored_interrupts_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []

    def work() -> None:
        with interrupt_afterwards():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [signal.default_int_handler]
    former = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        work()
    finally:
        signal.signal(signal.SIGINT, former)
    assert seen[1] is signal.SIG_IGN
