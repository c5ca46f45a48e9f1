"""A slider over the checkpoints of a training run: portraits, loss terms and measures move along.

All of it is in the widget's state, so the view works on a static page too, without Python and without a network.

In the book: :doc:`/09-baselines`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import isfinite
from pathlib import Path
from typing import Any

import traitlets
from PIL import Image

from spf_lite.widgets.base import PicturedWidget, among
from spf_lite.widgets.encoding import data_uri, decode, side_by_side

_FOLDER = Path(__file__).parent
_KEYS = {"label", "steps", "images"}


class TrainingScrubber(PicturedWidget):
    """Go through training runs, checkpoint by checkpoint.

    Args:
        runs: one dictionary for each run, with ``label``, ``steps`` (K rising step numbers), ``images`` (for each of
            the K checkpoints one picture of each person) and, where known, ``measures`` (name to K numbers; None where
            it was not measured), ``losses`` (name to pairs of step and value) and ``stage2_from`` (the first step of
            stage 2).
        people: what is asked for, one text for each person.

    Attributes:
        run: label of the run shown.
        checkpoint: which of its checkpoints is shown, from 0.

    Raises:
        ValueError: if there are no runs or people, or a run lacks a key or does not fit its own steps.
    """

    _esm = (_FOLDER / "charts.js").read_text("utf-8") + (_FOLDER / "training_scrubber.js").read_text("utf-8")

    runs = traitlets.List(traitlets.Dict()).tag(sync=True)
    people = traitlets.List(traitlets.Unicode()).tag(sync=True)
    run = traitlets.Unicode().tag(sync=True)
    checkpoint = traitlets.Int(0, min=0).tag(sync=True)

    def __init__(self, runs: Sequence[Mapping[str, Any]], people: Sequence[str], **traits: Any) -> None:
        _check(runs, people)
        super().__init__(
            runs=[_packed(run) for run in runs], people=[str(person) for person in people],
            **{"run": str(runs[0]["label"]), **traits},
        )  # fmt: skip

    def current(self) -> dict[str, Any]:
        """The run that is shown."""
        return next(run for run in self.runs if run["label"] == self.run)

    @traitlets.validate("run")
    def _known_run(self, proposal: dict[str, Any]) -> Any:
        return among(proposal["value"], [run["label"] for run in self.runs], "run")

    @traitlets.validate("checkpoint")
    def _known_checkpoint(self, proposal: dict[str, Any]) -> Any:
        # The run may change in the same message, later: a checkpoint of any run will do here.
        return among(proposal["value"], range(max(len(run["steps"]) for run in self.runs)), "checkpoint")

    @traitlets.observe("run")
    def _keep_checkpoint_possible(self, change: dict[str, Any]) -> None:
        self.checkpoint = min(self.checkpoint, len(self.current()["steps"]) - 1)

    def snapshot(self) -> Image.Image:
        """The portraits of the checkpoint in a row."""
        run = self.current()
        return side_by_side([decode(uri) for uri in run["images"][min(self.checkpoint, len(run["steps"]) - 1)]])

    def __repr__(self) -> str:
        return f"TrainingScrubber({len(self.runs)} runs, run={self.run!r}, checkpoint={self.checkpoint})"


def _check(runs: Sequence[Mapping[str, Any]], people: Sequence[str]) -> None:
    if not runs:
        raise ValueError("nothing to go through: runs is empty")
    if not people:
        raise ValueError("nobody to look at: people is empty")
    labels: set[str] = set()
    for number, run in enumerate(runs):
        where = f"runs[{number}]"
        if missing := sorted(_KEYS - set(run)):
            raise ValueError(f"{where} lacks {', '.join(missing)}")
        if str(run["label"]) in labels:
            raise ValueError(f"{where} repeats the label {run['label']!r}")
        labels.add(str(run["label"]))
        steps = list(run["steps"])
        if not steps or any(a >= b for a, b in pairwise(steps)):
            raise ValueError(f"{where}: steps must rise, and are {steps}")
        if len(run["images"]) != len(steps):
            raise ValueError(f"{where} has {len(steps)} steps and pictures of {len(run['images'])}")
        for step, row in zip(steps, run["images"], strict=True):
            if len(row) != len(people):
                raise ValueError(f"{where}, step {step}: {len(row)} pictures of {len(people)} people")
        for name, values in run.get("measures", {}).items():
            if len(values) != len(steps):
                raise ValueError(f"{where}: {name!r} has {len(values)} values for {len(steps)} steps")


def _plain(value: float | None) -> float | None:
    """A number that JSON knows, to five digits; None for what is not one."""
    return None if value is None or not isfinite(value) else float(f"{value:.5g}")


def _packed(run: Mapping[str, Any]) -> dict[str, Any]:
    stage2_from = run.get("stage2_from")
    return {
        "label": str(run["label"]),
        "steps": [int(step) for step in run["steps"]],
        "images": [[data_uri(image) for image in row] for row in run["images"]],
        "measures": {name: [_plain(v) for v in values] for name, values in run.get("measures", {}).items()},
        "losses": {
            name: [[int(step), _plain(value)] for step, value in points]
            for name, points in run.get("losses", {}).items()
        },
        "stage2_from": None if stage2_from is None else int(stage2_from),
    }
