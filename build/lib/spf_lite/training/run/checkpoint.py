"""A run on disk. Whatever moment it is killed at, the folder can be taken up again.

* ``run.json``, what the run's result depends on, and ``config.json``, its configuration alone;
* ``log.jsonl``, one line per step;
* ``checkpoint.pt``, replaced as a whole, with the identity of its run and the log up to its step.

The checkpoint decides: the other files follow it. When a new run takes the place of an old one, everything old stays
until the new run's first checkpoint is whole.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from spf_lite.files import UNFINISHED, append_text, is_writable, read_text, replacing, write_file, write_files
from spf_lite.training.run.export import remove_adapter
from spf_lite.training.run.identity import RunIdentity

logger = logging.getLogger(__name__)

CHECKPOINT, LOG, RUN, CONFIG, LOCK = "checkpoint.pt", "log.jsonl", "run.json", "config.json", "run.lock"
#: The log of a run that is to take the place of an old one, until its first checkpoint.
NEW_LOG = "log.new.jsonl"
#: Where the command line exports a run's adapter to, inside its folder.
ADAPTER = "adapter"


class RunFolderError(ValueError):
    """A folder that a run cannot use as it was asked to; the message says why and what to do. Nothing was changed."""


def holds_run(path: Path) -> bool:
    """Whether a run was begun in a folder. Before its first checkpoint it has a log, and goes on at its first step."""
    return any((path / name).exists() for name in (CHECKPOINT, RUN, LOG))


def check_holds_run(path: Path) -> None:
    """Check that there is a run to go on with, before anything is loaded.

    Raises:
        RunFolderError: if no run was begun in the folder.
    """
    if not holds_run(path):
        state = "no run was begun in it" if path.exists() else "there is no such folder"
        raise RunFolderError(
            f"{path} holds nothing to go on with, {state}: look at the path (is the drive mounted?), or begin a run "
            "without --resume and --extend"
        )


class RunFolder:
    """The folder of one run. Making this object changes nothing on the disk.

    Args:
        path: made when the run begins, if it is not there.
        identity: of the run.
        size: of a checkpoint, in bytes, about.
        writes: False for all processes but the first: they only read.

    Attributes:
        replaces_old_run: the folder holds the files of an old run until this one's first checkpoint.

    Raises:
        OSError: if the folder cannot be written, or the disk has no room for two checkpoints.
    """

    def __init__(self, path: str | Path, identity: RunIdentity, size: int = 0, writes: bool = True) -> None:
        self.path, self.identity, self.writes = Path(path), identity, writes
        self.replaces_old_run = False
        if not writes:
            return
        if not is_writable(self.path):
            raise OSError(f"{self.path}: is no folder that can be written")
        existing = next(place for place in (self.path.absolute(), *self.path.absolute().parents) if place.exists())
        free = shutil.disk_usage(existing).free
        if free < 2 * size:
            raise OSError(
                f"{self.path}: {free / 1e6:.0f} MB are free, two checkpoints need {2 * size / 1e6:.0f} MB "
                "(one is kept until the next is whole)"
            )

    def check(self, resume: bool = False, overwrite: bool = False, extend: bool = False) -> None:
        """Whether the run may begin in this folder; only reads.

        Args:
            resume: whether it goes on from the checkpoint, if there is one.
            overwrite: whether it takes the place of another run.
            extend: whether it goes on from the checkpoint of a run that differs in nothing but fewer steps.

        Raises:
            RunFolderError: if it may not; the message names what differs.
        """
        if overwrite and (resume or extend):
            raise RunFolderError("overwrite=True begins anew, resume=True and extend=True go on: choose one")
        if overwrite or not self.holds_run():
            return
        if not resume and not extend:
            raise RunFolderError(
                f"{self.path} holds a run: go on with resume=True (--resume), begin anew with overwrite=True "
                "(--overwrite), or choose another folder"
            )
        held, step = self._held()
        if held == self.identity:
            return
        advice = "choose another folder, or begin anew with overwrite=True (--overwrite)"
        problem = held.extension_problem(self.identity, step)
        if not extend:
            if problem is None:
                advice = f"go on with extend=True (--extend), {advice}"
            differences = held.describe_differences(self.identity)
            raise RunFolderError(f"{self.path} belongs to another run, which differs in {differences}: {advice}")
        if problem is not None:
            raise RunFolderError(f"{self.path} holds a run that cannot be extended: {problem}; {advice}")

    def holds_run(self) -> bool:
        """Whether a run was begun in this folder."""
        return holds_run(self.path)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Keep other processes from training in this folder; a process that dies lets go of it.

        Raises:
            RunFolderError: if another one is at it.
        """
        if not self.writes:
            yield
            return
        self.path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.path / LOCK, timeout=0)
        try:
            lock.acquire()
        except Timeout:
            raise RunFolderError(f"{self.path}: another run is training in this folder; choose another") from None
        except NotImplementedError:  # some network folders know no locks
            logger.warning("%s: this file system has no locks; let no other run train here", self.path)
        try:
            yield
        finally:
            lock.release()

    def begin(self, overwrite: bool = False) -> None:
        """Call after :meth:`check`, inside :meth:`in_use`: name the run in a folder that holds none."""
        if not self.writes:
            return
        for name in (CHECKPOINT, LOG, RUN, CONFIG):  # half a file, left by a kill
            for unfinished in self.path.glob(f"{name}.*{UNFINISHED}"):
                unfinished.unlink()
        (self.path / NEW_LOG).unlink(missing_ok=True)
        self.replaces_old_run = overwrite and self.holds_run()
        if not self.holds_run():
            self._write_identity()

    def log(self, line: dict[str, Any]) -> None:
        """Append one step.

        Raises:
            OSError: if it cannot be written.
        """
        if self.writes:
            name = NEW_LOG if self.replaces_old_run else LOG
            append_text(self.path / name, json.dumps(line) + "\n")

    def save(self, state: dict[str, Any], history: list[dict[str, Any]]) -> None:
        """Replace the checkpoint.

        Args:
            state: tensors and plain values, with the number of steps that were made as ``step``.
            history: the lines of the log up to it.

        Raises:
            OSError: if it cannot be written whole; the one before is still there.
        """
        if not self.writes:
            return
        log = _lines(history)
        with replacing(self.path / CHECKPOINT) as file:
            torch.save({"state": state, "log": log, "identity": self.identity.to_json()}, file)
        self._settle(log)

    def load(self) -> tuple[dict[str, Any], list[dict[str, Any]]] | None:
        """The checkpoint's state and the log up to it; None if there is no checkpoint yet.

        Raises:
            ValueError: if it is no checkpoint.
        """
        if not (self.path / CHECKPOINT).exists():
            if self.writes:
                (self.path / LOG).unlink(missing_ok=True)
            return None
        identity, state, history = self._read()
        if self.writes:
            write_file(self.path / LOG, _lines(history))
            if identity == self.identity:
                self._settle(_lines(history))
        logger.info("resumed at step %d", state["step"])
        return state, history

    def _settle(self, log: str) -> None:
        """Bring the other files in line with this run's checkpoint. A kill on the way is made up for by the next."""
        former = self._identity_on_disk()
        if former != self.identity:
            # An extended run keeps the adapter of its first part until the next export.
            if former is None or former.extension_problem(self.identity, 0) is not None:
                remove_adapter(self.path / ADAPTER)
            self._write_identity()
        if self.replaces_old_run or not (self.path / LOG).exists() or (self.path / LOG).stat().st_size != len(log):
            write_file(self.path / LOG, log)
        (self.path / NEW_LOG).unlink(missing_ok=True)
        self.replaces_old_run = False

    def _write_identity(self) -> None:
        write_files({self.path / CONFIG: self.identity.config.to_json(), self.path / RUN: self.identity.to_json()})

    def _identity_on_disk(self) -> RunIdentity | None:
        try:
            return RunIdentity.from_json(read_text(self.path / RUN))
        except (OSError, ValueError):
            return None

    def _held(self) -> tuple[RunIdentity, int]:
        """Which run this folder holds, and how far it is."""
        if (self.path / CHECKPOINT).exists():
            identity, state, _ = self._read()
            return identity, state["step"]
        try:
            return RunIdentity.from_json(read_text(self.path / RUN)), 0
        except (OSError, ValueError) as error:
            raise RunFolderError(
                f"{self.path} holds a log, and no run that this version can go on with ({error}): "
                "choose another folder, or begin anew with overwrite=True (--overwrite)"
            ) from error

    def _read(self) -> tuple[RunIdentity, dict[str, Any], list[dict[str, Any]]]:
        path = self.path / CHECKPOINT
        try:
            content = torch.load(path, weights_only=True, map_location="cpu")
            identity, state = RunIdentity.from_json(content["identity"]), content["state"]
            history = [json.loads(line) for line in content["log"].splitlines()]
            if not isinstance(state["step"], int) or len(history) != state["step"]:
                raise ValueError("its log does not fit its step")
        except OSError:
            raise
        except Exception as error:  # whatever torch's reader says of bytes that are none of its own
            raise RunFolderError(
                f"{path} is incomplete or not a checkpoint of this version ({error}): choose another folder, or "
                "begin anew with overwrite=True (--overwrite)"
            ) from error
        return identity, state, history


def _lines(history: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(line) + "\n" for line in history)
