"""A run on disk: configuration, log, checkpoint. Whatever moment it is killed at, the folder can be taken up again.

* ``config.json``, the run's configuration;
* ``log.jsonl``, one line per step, cut back to the checkpoint when the run is resumed;
* ``checkpoint.pt``, replaced as a whole: written beside, forced to the disk, renamed.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from pathlib import Path
from typing import Any

import torch

from spf_lite.config import TrainConfig

logger = logging.getLogger(__name__)


class RunFolder:
    """The folder of one run.

    Args:
        path: made if it is not there.
        config: the run.
        size: of a checkpoint, in bytes, about.
        writes: False for all processes but the first: they only read.

    Raises:
        OSError: if the folder cannot be written, or the disk has no room for two checkpoints: before any training.
    """

    def __init__(self, path: str | Path, config: TrainConfig, size: int = 0, writes: bool = True) -> None:
        self.path, self.config, self.writes = Path(path), config, writes
        if not writes:
            return
        self.path.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self.path).free
        if free < 2 * size:
            raise OSError(
                f"{self.path}: {free / 1e6:.0f} MB are free, two checkpoints need {2 * size / 1e6:.0f} MB "
                "(one is kept until the next is whole)"
            )
        self._replace(self.path / "config.json", config.to_json().encode())

    @staticmethod
    def _replace(path: Path, content: bytes) -> None:
        temporary = path.with_suffix(".tmp")
        temporary.write_bytes(content)
        temporary.replace(path)

    def clear(self) -> None:
        """Drop a former run's log and checkpoint."""
        if self.writes:
            for name in ("log.jsonl", "checkpoint.pt"):
                (self.path / name).unlink(missing_ok=True)

    def log(self, line: dict[str, Any]) -> None:
        """Append one step."""
        if not self.writes:
            return
        with (self.path / "log.jsonl").open("a") as log:
            log.write(json.dumps(line) + "\n")

    def save(self, state: dict[str, Any]) -> None:
        """Replace the checkpoint.

        Raises:
            OSError: if it cannot be written whole; the one before is still there.
        """
        if not self.writes:
            return
        temporary = self.path / "checkpoint.tmp"
        try:
            with temporary.open("wb") as file:
                torch.save({**state, "config": self.config.to_json()}, file)
                file.flush()
                os.fsync(file.fileno())
        except (OSError, RuntimeError) as error:  # torch's writer reports a full disk as a RuntimeError
            temporary.unlink(missing_ok=True)
            raise OSError(f"{temporary}: the checkpoint cannot be written, the last one is kept ({error})") from error
        temporary.replace(self.path / "checkpoint.pt")

    def load(self) -> tuple[dict[str, Any], list[dict[str, Any]]] | None:
        """The checkpoint and the log up to it; None if there is no checkpoint yet.

        Raises:
            ValueError: if it belongs to another configuration, or is no checkpoint.
        """
        path, log = self.path / "checkpoint.pt", self.path / "log.jsonl"
        if not path.exists():
            return None
        try:
            state = torch.load(path, weights_only=True, map_location="cpu")
            config = TrainConfig.from_json(state["config"])
        except Exception as error:
            raise ValueError(f"{path} is not a checkpoint of this version: {error}") from error
        if config != self.config:
            raise ValueError(f"{path} belongs to a run with another configuration: choose another output folder")
        # Only what the checkpoint knows of: a line that the kill has torn comes after it.
        lines = log.read_text().splitlines()[: state["step"]] if log.exists() else []
        if self.writes:
            self._replace(log, "".join(line + "\n" for line in lines).encode())
        logger.info("resumed at step %d", state["step"])
        return state, [json.loads(line) for line in lines]
