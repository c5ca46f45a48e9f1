import json
from typing import Any

import pytest
import traitlets
from PIL import Image

from spf_lite.widgets import TrainingScrubber
from spf_lite.widgets.content.image_encoding import decode

PEOPLE = ["Ada", "Ben"]


def run_of(label: str = "dual path", steps: tuple[int, ...] = (0, 10, 20), **changes: Any) -> dict[str, Any]:
    """A run whose pictures tell checkpoint and person by their colour."""
    images = [[Image.new("RGB", (8, 8), (20 * k, 100 * p, 0)) for p in range(2)] for k in range(len(steps))]
    run = {
        "label": label,
        "steps": steps,
        "images": images,
        "measures": {"target found": [k / len(steps) for k in range(len(steps))]},
        "losses": {"denoise": [(s, 1 / (s + 1)) for s in range(steps[-1])]},
        "stage2_from": 10,
    }
    return {**run, **changes}


def test_starts_at_the_first_run_and_its_first_checkpoint() -> None:
    widget = TrainingScrubber([run_of("naive"), run_of()], PEOPLE)
    assert (widget.run, widget.checkpoint, widget.people) == ("naive", 0, PEOPLE)
    assert TrainingScrubber([run_of("naive"), run_of()], PEOPLE, run="dual path", checkpoint=2).checkpoint == 2


def test_a_shorter_run_pulls_the_checkpoint_back() -> None:
    widget = TrainingScrubber([run_of("long"), run_of("short", (0, 10))], PEOPLE, checkpoint=2)
    widget.run = "short"
    assert widget.checkpoint == 1


@pytest.mark.parametrize(("trait", "value"), [("run", "other"), ("checkpoint", 3), ("checkpoint", -1)])
def test_unknown_choices_are_refused(trait: str, value: Any) -> None:
    widget = TrainingScrubber([run_of()], PEOPLE)
    before = getattr(widget, trait)
    with pytest.raises(traitlets.TraitError):
        setattr(widget, trait, value)
    assert getattr(widget, trait) == before


def test_the_snapshot_is_the_checkpoint() -> None:
    widget = TrainingScrubber([run_of()], PEOPLE, checkpoint=2)
    assert widget.snapshot().size == (20, 8)
    assert decode(widget.runs[0]["images"][2][1]).getpixel((4, 4)) == pytest.approx((40, 100, 0), abs=8)


def test_what_is_not_a_number_becomes_none() -> None:
    widget = TrainingScrubber(
        [run_of(measures={"flips": [float("nan"), None, 0.25]}, losses={"fine": [(0, float("inf"))]})], PEOPLE
    )
    assert widget.runs[0]["measures"] == {"flips": [None, None, 0.25]}
    assert widget.runs[0]["losses"] == {"fine": [[0, None]]}
    json.dumps(widget.runs, allow_nan=False)


@pytest.mark.parametrize(
    ("runs", "people", "message"),
    [
        ([], PEOPLE, "runs is empty"),
        ([run_of()], [], "people is empty"),
        ([{"label": "x"}], PEOPLE, r"runs\[0\] lacks images, steps"),
        ([run_of(), run_of()], PEOPLE, r"runs\[1\] repeats the label 'dual path'"),
        ([run_of(steps=(0, 20, 10))], PEOPLE, "steps must increase"),
        ([run_of(images=[])], PEOPLE, "3 steps but images of 0"),
        ([run_of()], ["Ada"], "step 0: 2 pictures of 1 people"),
        ([run_of(measures={"found": [1.0]})], PEOPLE, "'found' has 1 values for 3 steps"),
    ],
)
def test_bad_runs_are_refused_with_their_place(runs: list[Any], people: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainingScrubber(runs, people)


def test_runs_beside_each_other_are_all_shown() -> None:
    runs = [run_of("naive"), run_of(steps=(0, 50, 100))]
    widget = TrainingScrubber(runs, PEOPLE, beside=True, checkpoint=1)
    assert [run["label"] for run in widget.shown()] == ["naive", "dual path"]
    sheet = widget.snapshot()
    assert sheet.size == (20, 20)
    assert sheet.getpixel((16, 4)) == sheet.getpixel((16, 16)) == pytest.approx((20, 100, 0), abs=8)
    assert [run["label"] for run in TrainingScrubber(runs, PEOPLE).shown()] == ["naive"]


def test_runs_beside_each_other_need_equally_many_checkpoints() -> None:
    runs = [run_of("naive", (0, 10)), run_of()]
    with pytest.raises(ValueError, match="equally many checkpoints: 'naive' has 2, 'dual path' has 3"):
        TrainingScrubber(runs, PEOPLE, beside=True)
