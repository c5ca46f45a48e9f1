import base64
import json
import re
from pathlib import Path
from typing import Any

import pytest
import traitlets
from PIL import Image

from spf_lite.config import TrainConfig
from spf_lite.widgets import TrainingScrubber, WeightExplorer
from spf_lite.widgets.content.image_encoding import decode

PEOPLE = ["Ada", "Ben"]
BASE = [Image.new("RGB", (8, 8), (0, 100 * p, 255)) for p in range(2)]


def sweep_of(label: str = "enhancement", weights: tuple[Any, ...] = (0, 1, 3), **changes: Any) -> dict[str, Any]:
    """A sweep whose pictures tell weight and person by their colour."""
    sweep = {
        "label": label,
        "weights": weights,
        "images": [[Image.new("RGB", (8, 8), (20 * k, 100 * p, 0)) for p in range(2)] for k in range(len(weights))],
        "measures": {"target found": [k / len(weights) for k in range(len(weights))]},
        "remarks": ["weak", *["right"] * (len(weights) - 2), "too much"],
        "changes": [[f"weight_{label}={weight}"] for weight in weights],
    }
    return {**sweep, **changes}


def bare(**changes: Any) -> dict[str, Any]:
    """A sweep with nothing but what it must have."""
    return {key: value for key, value in sweep_of(**changes).items() if key in ("label", "weights", "images")}


def test_starts_at_the_middle_weight_of_the_first_sweep() -> None:
    widget = WeightExplorer([sweep_of(weights=(0, 0.1, 0.3, 1, 3)), sweep_of("output")], PEOPLE)
    assert (widget.sweep, widget.choice, widget.weight, widget.people) == ("enhancement", 2, 0.3, PEOPLE)
    widget = WeightExplorer([sweep_of(weights=(0, 0.1, 0.3, 1, 3)), sweep_of("output")], PEOPLE, sweep="output")
    assert (widget.choice, widget.weight, widget.current()["label"]) == (1, 1.0, "output")
    assert WeightExplorer([sweep_of()], PEOPLE, choice=2).weight == 3
    assert WeightExplorer([bare(weights=(0.5,))], PEOPLE).weight == 0.5


def test_another_sweep_pulls_the_choice_back_to_its_last_weight() -> None:
    widget = WeightExplorer([sweep_of(weights=(0, 1, 3, 10)), sweep_of("output")], PEOPLE, choice=3)
    widget.sweep = "output"
    assert (widget.choice, widget.weight) == (2, 3)


def test_a_message_may_change_sweep_and_choice_together() -> None:
    widget = WeightExplorer([sweep_of(), sweep_of("output", (0, 1, 2, 3, 4))], PEOPLE)
    widget.set_state({"choice": 4, "sweep": "output"})
    assert (widget.sweep, widget.choice) == ("output", 4)


@pytest.mark.parametrize(("trait", "value"), [("sweep", "other"), ("choice", 3), ("choice", -1)])
def test_unknown_choices_are_refused(trait: str, value: Any) -> None:
    # The other sweep has a fourth weight: that does not make it a choice of this one.
    widget = WeightExplorer([sweep_of(), sweep_of("output", (0, 1, 3, 10))], PEOPLE)
    before = getattr(widget, trait)
    with pytest.raises(traitlets.TraitError):
        setattr(widget, trait, value)
    assert getattr(widget, trait) == before
    with pytest.raises(traitlets.TraitError):
        WeightExplorer([sweep_of()], PEOPLE, **{trait: value})


def test_apply_gives_the_configuration_of_the_weight() -> None:
    both = [["weight_enhancement=0"], ["weight_enhancement=1"], ["weight_enhancement=3", "control.threshold=0.2"]]
    widget = WeightExplorer([sweep_of(changes=both)], PEOPLE)
    plain = TrainConfig(seed=7)
    assert widget.apply(plain) == TrainConfig(seed=7, weight_enhancement=1.0)
    widget.choice = 2
    changed = widget.apply(plain)
    assert (changed.weight_enhancement, changed.control.threshold, changed.seed) == (3.0, 0.2, 7)
    widget.choice = 0
    assert widget.apply(plain) == plain


def test_apply_says_what_it_lacks() -> None:
    with pytest.raises(ValueError, match="sweep 'output' has no 'changes'"):
        WeightExplorer([bare(label="output")], PEOPLE).apply(TrainConfig())
    with pytest.raises(ValueError, match="cannot set 'weight_magic=1'"):
        WeightExplorer([sweep_of("magic")], PEOPLE).apply(TrainConfig())


def test_the_state_is_plain_and_complete() -> None:
    (full, short) = WeightExplorer(
        [sweep_of(measures={"found": [0, None, float("nan")], "kept": [1 / 3, 1 + 1e-9, 0]}), bare(label="output")],
        PEOPLE, BASE,
    ).sweeps  # fmt: skip
    assert full["measures"] == {"found": [0, None, None], "kept": [0.33333, 1, 0]}
    assert (full["weights"], full["remarks"]) == ([0, 1, 3], ["weak", "right", "too much"])
    assert full["changes"][2] == ["weight_enhancement=3"]
    assert (short["measures"], short["remarks"], short["changes"]) == ({}, [], [])
    json.dumps([full, short], allow_nan=False)
    assert WeightExplorer([bare()], PEOPLE).base == []


def test_pictures_keep_their_weight_and_person() -> None:
    widget = WeightExplorer([sweep_of()], PEOPLE, BASE, choice=2)
    assert decode(widget.sweeps[0]["images"][2][1]).getpixel((4, 4)) == pytest.approx((40, 100, 0), abs=8)
    assert decode(widget.base[1]).getpixel((4, 4)) == pytest.approx((0, 100, 255), abs=8)


def test_the_snapshot_is_the_base_row_over_the_row_of_the_weight() -> None:
    widget = WeightExplorer([sweep_of()], PEOPLE, BASE, choice=2)
    sheet = widget.snapshot()
    assert sheet.size == (20, 20)
    assert sheet.getpixel((16, 4)) == pytest.approx((0, 100, 255), abs=8)
    assert sheet.getpixel((16, 16)) == pytest.approx((40, 100, 0), abs=8)
    assert WeightExplorer([sweep_of()], PEOPLE).snapshot().size == (20, 8)
    bundle = widget._repr_mimebundle_()
    assert bundle is not None
    data, _ = bundle
    assert base64.b64decode(data["image/png"]).startswith(b"\x89PNG")


def test_repr_is_stable() -> None:
    widget = WeightExplorer([sweep_of(), sweep_of("output")], PEOPLE)
    assert repr(widget) == "WeightExplorer(2 sweeps, sweep='enhancement', weight=1)"


@pytest.mark.parametrize(
    ("sweeps", "people", "base", "message"),
    [
        ([], PEOPLE, None, "sweeps is empty"),
        (sweep_of(), PEOPLE, None, "sweeps must be a list, and is a dict"),
        ([sweep_of(), "output"], PEOPLE, None, r"sweeps\[1\] must be a dictionary, and is a str"),
        ([sweep_of()], [], None, "people is empty"),
        ([sweep_of()], "Ada", None, "people must be a list, and is a str"),
        ([{"label": "x"}], PEOPLE, None, r"sweeps\[0\] lacks images, weights"),
        ([sweep_of(remark=["weak"])], PEOPLE, None, r"sweeps\[0\] has remark; known are changes, images, label"),
        ([sweep_of(), sweep_of()], PEOPLE, None, r"sweeps\[1\] repeats the label 'enhancement'"),
        ([sweep_of(), bare(label="b", weights=())], PEOPLE, None, r"sweeps\[1\]: weights must increase, and are \[\]"),
        ([sweep_of(weights=(0, 3, 1))], PEOPLE, None, r"weights must increase, and are \[0, 3, 1\]"),
        ([sweep_of(weights=(0, 1, 1))], PEOPLE, None, r"weights must increase"),
        ([sweep_of(weights=(0, 1, float("inf")))], PEOPLE, None, "weights must increase, and are .*inf"),
        ([sweep_of(weights=(0, 1, "3"))], PEOPLE, None, r"sweeps\[0\]: weights: '3' is not a number"),
        ([{**bare(), "weights": 3}], PEOPLE, None, r"sweeps\[0\]: weights must be a list, and is a int"),
        ([sweep_of(images=[])], PEOPLE, None, "3 weights but images of 0"),
        ([sweep_of(images=[BASE, BASE, BASE[:1]])], PEOPLE, None, r"sweeps\[0\], weight 3: 1 pictures of 2 people"),
        ([sweep_of(images=[BASE, BASE, BASE[0]])], PEOPLE, None, "weight 3 must be a list, and is a Image"),
        ([sweep_of(images=[BASE, ["a", "b"], BASE])], PEOPLE, None, "weight 1: picture 0 is a str, not an image"),
        ([sweep_of()], PEOPLE, BASE[:1], "base: 1 pictures of 2 people"),
        ([sweep_of()], PEOPLE, [None, None], "base: picture 0 is a NoneType, not an image"),
        ([sweep_of(measures=[1, 2, 3])], PEOPLE, None, "measures must be a dictionary, and is a list"),
        ([sweep_of(measures={"found": [1.0]})], PEOPLE, None, "'found' has 1 values for 3 weights"),
        ([sweep_of(measures={"found": [0, "many", 1]})], PEOPLE, None, "'found': 'many' is not a number"),
        ([sweep_of(measures={"flips": [0, 1.5, 1]})], PEOPLE, None, "'flips' must hold shares from 0 to 1.* 1.5"),
        ([sweep_of(remarks=["weak"])], PEOPLE, None, r"sweeps\[0\]: remarks has 1 entries for 3 weights"),
        ([sweep_of(changes=[[]])], PEOPLE, None, "changes has 1 entries for 3 weights"),
        ([sweep_of(changes=["a=1", "a=2", "a=3"])], PEOPLE, None, "changes of weight 0 must be a list, and is a str"),
    ],
)
def test_bad_input_is_refused_with_its_place(sweeps: Any, people: Any, base: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WeightExplorer(sweeps, people, base)


def test_a_view_is_one_module_whose_every_input_is_made_by_the_shared_helper() -> None:
    for widget in (WeightExplorer, TrainingScrubber):
        code = str(widget._esm)
        assert code.count("export default") == 1
        assert '"data-lm-suppress-shortcuts": "true"' in code
        assert not re.search(r'make\(\s*"(input|select|textarea|button)"', code)
        functions = re.findall(r"^function (\w+)", code, flags=re.MULTILINE)
        assert len(functions) == len(set(functions)) > 8
    folder = Path(__file__).parents[2] / "spf_lite" / "widgets"
    for name in ("weight_explorer.js", "training_scrubber.js", "charts.js"):
        assert "function make(" not in (folder / name).read_text("utf-8"), f"{name}: shared in elements.js"
