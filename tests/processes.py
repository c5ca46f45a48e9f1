"""Processes of their own that start in a fraction of a second.

What the library imports takes a new interpreter ten seconds. A fork server imports it once for all tests of a process;
each child is a fork of it, with its own memory, which a signal may kill.
"""

import multiprocessing
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path

from spf_lite.cli import main
from spf_lite.config import TrainConfig
from spf_lite.data.sets.custom_set import CustomSet
from spf_lite.models.backbone import load
from spf_lite.training.trainer import DualPathTrainer

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["spf_lite.training.trainer", "spf_lite.cli.commands", "spf_lite.pretrain.loop"])


def started(function: Callable[..., None], *arguments: object, output: Path) -> BaseProcess:
    """A child that calls a function of a module.

    Args:
        function: what ends normally has exit status 0.
        arguments: they are pickled.
        output: gets what the child writes on both standard streams.
    """
    process = _FORKS.Process(target=_redirected, args=(output, function, *arguments))
    process.start()
    return process


def command(arguments: Sequence[str], output: Path) -> BaseProcess:
    """A child that runs ``spf-lite`` with these arguments."""
    return started(_command, list(arguments), output=output)


def ended_well(process: BaseProcess, output: Path, timeout: float = 300.0) -> None:
    """Wait for a child, and fail with what it wrote if it failed. One that has not ended by then is killed."""
    process.join(timeout)
    status = process.exitcode
    process.kill()
    assert status == 0, f"exit status {status}: {output.read_text()[-3000:]}"


def killed_while_training(
    model: Path, custom_set: CustomSet, config: TrainConfig, folder: Path, after: int, output: Path
) -> None:
    """Train in a child that ``SIGKILL`` ends after a step, before the checkpoint of that step is written.

    Args:
        model: a model's folder.
        custom_set: to train on.
        config: of the run.
        folder: of the run.
        after: number of the last step that is made.
        output: gets what the child writes.
    """
    process = started(_train_and_die, model, custom_set, config, folder, after, output=output)
    process.join(300.0)
    status = process.exitcode
    process.kill()
    assert status == -signal.SIGKILL, f"exit status {status}: {output.read_text()[-3000:]}"


def _train_and_die(model: Path, custom_set: CustomSet, config: TrainConfig, folder: Path, after: int) -> None:
    def die(step: int, _: object) -> None:
        if step == after:
            os.kill(os.getpid(), signal.SIGKILL)

    DualPathTrainer(load(str(model)), custom_set, config, folder).fit(progress=False, on_step=die)


def ranks(function: Callable[..., None], *arguments: object, output: Path, count: int = 2) -> list[BaseProcess]:
    """Children that call a function as the processes of one run, as a launcher starts them.

    Args:
        function: what each calls.
        arguments: they are pickled.
        output: gets what all of them write.
        count: how many.
    """
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    return [started(_ranked, one_of(count, rank, port), function, arguments, output=output) for rank in range(count)]


def _ranked(environment: Mapping[str, str], function: Callable[..., None], arguments: Sequence[object]) -> None:
    os.environ.update(environment)
    function(*arguments)


def run_command(arguments: Sequence[str]) -> None:
    """Run ``spf-lite``; for :func:`ranks`."""
    if status := main(arguments):
        raise SystemExit(status)


def _command(arguments: Sequence[str]) -> None:
    sys.exit(main(arguments))


def _redirected(output: Path, function: Callable[..., None], *arguments: object) -> None:
    with output.open("a") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    function(*arguments)


def one_of(count: int, rank: int, port: int) -> Mapping[str, str]:
    """The environment that launchers give to one of several processes on this machine."""
    whole = {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count), "MASTER_ADDR": "localhost"}
    return {**whole, "MASTER_PORT": str(port), "RANK": str(rank), "LOCAL_RANK": str(rank)}
