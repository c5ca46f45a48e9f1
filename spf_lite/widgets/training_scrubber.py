"""The portraits, loss terms and measures of training runs, with a slider over their checkpoints.

All data are in the widget's state, so it works on a static page, without Python and without a network.

In the book: :doc:`/09-baselines`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import traitlets
from PIL import Image

from spf_lite.widgets.base import PicturedWidget, among, es_module, labels
from spf_lite.widgets.content.image_encoding import beneath, decode, side_by_side
from spf_lite.widgets.content.series import listed, packed_numbers, packed_people, packed_series


class TrainingScrubber(PicturedWidget):
    """Compare the checkpoints of training runs.

    Args:
        runs: one dictionary for each run, with ``label``, ``steps`` (K increasing step numbers), ``images`` (for each
            of the K checkpoints one picture of each person) and, where known, ``measures`` (name to K numbers; None
            where it was not measured), ``losses`` (name to pairs of step and value) and ``stage2_from`` (the first step
            of stage 2).
        people: the prompts of the people, one text for each.
        beside: show all runs beneath each other, each at the same share of its checkpoints, instead of one to choose.

    Attributes:
        run: label of the run shown, unless all are.
        checkpoint: index of the checkpoint shown, from 0.

    Raises:
        ValueError: if there are no runs or people, a run lacks a key or does not fit its own steps, or runs that are
            to be shown beside each other have different numbers of checkpoints.
    """

    _esm = es_module("elements.js", "charts.js", "training_scrubber.js")

    runs = traitlets.List(traitlets.Dict()).tag(sync=True)
    people = traitlets.List(traitlets.Unicode()).tag(sync=True)
    run = traitlets.Unicode().tag(sync=True)
    checkpoint = traitlets.Int(0, min=0).tag(sync=True)
    beside = traitlets.Bool(False).tag(sync=True)

    def __init__(
        self, runs: Sequence[Mapping[str, Any]], people: Sequence[str], *, beside: bool = False, **traits: Any
    ) -> None:
        texts = packed_people(people)
        packed = _packed(runs, len(texts))
        counts = {run["label"]: len(run["steps"]) for run in packed}
        if beside and len(set(counts.values())) > 1:
            found = ", ".join(f"{label!r} has {count}" for label, count in counts.items())
            raise ValueError(f"beside=True needs runs with equally many checkpoints: {found}")
        super().__init__(runs=packed, people=texts, beside=beside, **{"run": packed[0]["label"], **traits})

    def shown(self) -> list[dict[str, Any]]:
        """The runs that are shown."""
        return list(self.runs) if self.beside else [self.current()]

    def current(self) -> dict[str, Any]:
        """The run that is shown."""
        run: dict[str, Any] = next(run for run in self.runs if run["label"] == self.run)
        return run

    @traitlets.validate("run")
    def _known_run(self, proposal: dict[str, Any]) -> str:
        return among(proposal["value"], labels(self.runs), "run")

    @traitlets.validate("checkpoint")
    def _known_checkpoint(self, proposal: dict[str, Any]) -> int:
        # The run may change later in the same message, so a checkpoint of any run is accepted.
        return among(proposal["value"], range(max(len(run["steps"]) for run in self.runs)), "checkpoint")

    @traitlets.observe("run")
    def _keep_checkpoint_possible(self, change: dict[str, Any]) -> None:
        self.checkpoint = min(self.checkpoint, len(self.current()["steps"]) - 1)

    def snapshot(self) -> Image.Image:
        """The portraits of the checkpoint in a row, one row for each run that is shown."""
        return beneath(
            [
                side_by_side([decode(uri) for uri in run["images"][min(self.checkpoint, len(run["steps"]) - 1)]])
                for run in self.shown()
            ]
        )

    def __repr__(self) -> str:
        return f"TrainingScrubber({len(self.runs)} runs, run={self.run!r}, checkpoint={self.checkpoint})"


def _packed(runs: Sequence[Mapping[str, Any]], people: int) -> list[dict[str, Any]]:
    listed_runs = listed(runs, "runs")
    packed = packed_series(listed_runs, "runs", "steps", people)
    for number, (given, run) in enumerate(zip(listed_runs, packed, strict=True)):
        stage2_from = given.get("stage2_from")
        run["steps"] = [int(step) for step in run["steps"]]
        run["stage2_from"] = None if stage2_from is None else int(stage2_from)
        run["losses"] = {}
        for name, points in given.get("losses", {}).items():
            values = packed_numbers([value for _, value in points], f"runs[{number}]: {name!r}")
            run["losses"][name] = [[int(step), value] for (step, _), value in zip(points, values, strict=True)]
        run["order"] = list(dict.fromkeys([*run["losses"], *run["order"]]))
    return packed
