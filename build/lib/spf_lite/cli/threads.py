"""The thread policy of every program of this project: the command line, the chapters' kernels, the tests.

PyTorch's threads meet at a barrier after every operation. By OpenMP's default they wait there by spinning. As soon as
another process wants a core, one thread spins away the time that the other needs to arrive, and a training step of half
a second takes ten. ``OMP_WAIT_POLICY=passive`` lets waiting threads sleep.

The library itself sets nothing: how many cores there are to use is for the program to say.
"""

from __future__ import annotations

import os


def set_thread_policy(threads: int | None = None) -> None:
    """Set OpenMP's environment variables, for this process and the processes that it starts.

    OpenMP reads them once, when ``torch`` is first imported: call this before. What the user has set stays.

    Args:
        threads: of each process; ``None`` leaves the choice to PyTorch, which takes all cores. Give 1 where several
            processes run side by side.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    if threads is not None:
        os.environ.setdefault("OMP_NUM_THREADS", str(threads))
