import json
from typing import Any

import pytest
import traitlets
from PIL import Image

from spf_lite.widgets import DriftExplorer
from spf_lite.widgets.content.image_encoding import decode

TEXTS = ["a person, sad", "a person, Smiling"] * 6
MOVED = [0.10, 0.30, 0.11, 0.31, 0.12, 0.32, 0.10, 0.30, 0.11, 0.31, 0.12, 0.32]
BEFORE = [Image.new("RGB", (8, 8), (0, 60 * p, 0)) for p in range(4)]


def model_of(label: str = "naive", moved: Any = MOVED, **changes: Any) -> dict[str, Any]:
    return {
        "label": label,
        "moved": moved,
        "images": [Image.new("RGB", (8, 8), (200, 60 * p, 0)) for p in range(4)],
    } | changes


def test_starts_at_the_word_that_drifted_most() -> None:
    widget = DriftExplorer([model_of(), model_of("ours", [0.1] * 12)], TEXTS, BEFORE)
    assert (widget.model, widget.word, widget.texts) == ("naive", "smiling", TEXTS[:4])
    first, last = widget.current()["words"]
    assert first == {"word": "smiling", "stands": True, "mean": 0.2, "low": first["low"], "high": first["high"]}
    assert first["low"] < 0.2 < first["high"] and last["word"] == "sad" and last["mean"] == -0.2
    widget.model = "ours"
    assert not any(entry["stands"] for entry in widget.current()["words"]), "nothing has moved"
    assert json.dumps(widget.models)


def test_runs_are_averaged_and_the_list_is_cut() -> None:
    runs = [[2 * value for value in MOVED], [0.0] * 12]
    widget = DriftExplorer([model_of(moved=runs)], TEXTS, BEFORE, most=1)
    assert [entry["word"] for entry in widget.current()["words"]] == ["smiling"]
    assert widget.current()["words"][0]["mean"] == pytest.approx(0.2)


def test_the_snapshot_shows_the_people_of_the_word() -> None:
    widget = DriftExplorer([model_of()], TEXTS, BEFORE)
    assert widget.people() == [1, 3]
    sheet = widget.snapshot()
    assert sheet.size == (8 + 4 + 8, 8 + 4 + 8)
    assert abs(sheet.getpixel((2, 2))[1] - 60) < 8 and sheet.getpixel((2, 14))[0] > 150  # type: ignore[index]
    assert decode(widget.current()["images"][0]).size == (8, 8)


@pytest.mark.parametrize(
    ("models", "texts", "before", "message"),
    [
        ([], TEXTS, BEFORE, "models is empty"),
        ([model_of(), model_of()], TEXTS, BEFORE, "same label"),
        ([model_of(extra=1)], TEXTS, BEFORE, r"models\[0\] must have images, label, moved"),
        ([model_of(moved=[0.1])], TEXTS, BEFORE, r"models\[0\]: movements of shape"),
        ([model_of(moved=[float("nan")] * 12)], TEXTS, BEFORE, "not finite"),
        ([model_of(images=BEFORE[:1])], TEXTS, BEFORE, r"models\[0\]: images"),
        ([model_of(moved=[0.1, 0.2], images=BEFORE[:2])], TEXTS[:2], BEFORE[:2], "no word stands in enough of the 2"),
        ([model_of()], TEXTS, [], "before has 0 pictures for 12 texts"),
    ],
)
def test_what_does_not_fit_is_refused(models: Any, texts: Any, before: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DriftExplorer(models, texts, before)


@pytest.mark.parametrize(("trait", "value"), [("model", "other"), ("word", "person"), ("word", "unheard")])
def test_unknown_choices_are_refused(trait: str, value: str) -> None:
    widget = DriftExplorer([model_of()], TEXTS, BEFORE)
    with pytest.raises(traitlets.TraitError, match=f"unknown {trait}"):
        setattr(widget, trait, value)


def test_another_model_without_the_word_shows_its_first() -> None:
    texts = ["a person, sad, red hair", "a person, smiling, red hair", "a person, smiling, gray hair"] * 4
    rising = [0.1, 0.3, 0.31] * 4
    hair = [0.3, 0.3, 0.1] * 4
    widget = DriftExplorer([model_of(moved=rising), model_of("hair", hair)], texts, BEFORE, most=1)
    assert widget.word == "smiling"
    widget.model = "hair"
    assert widget.word == "red"
