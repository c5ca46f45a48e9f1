import base64
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import traitlets
from PIL import Image

from spf_lite.tiny_world.portraits import Portrait
from spf_lite.tiny_world.rendering import render
from spf_lite.widgets import BeforeAfter
from spf_lite.widgets.content.image_encoding import data_uri, decode, side_by_side


def _item(target: str = "sunglasses", seed: int = 0, **changes: object) -> dict[str, Any]:
    item: dict[str, Any] = {
        "target": target,
        "seed": seed,
        "prompt": f"a person, {target}",
        "images": {name: Image.new("RGB", (32, 32), name_color) for name, name_color in _COLORS.items()},
        "changes": {"naive": ["background gray → yellow"], "spf": []},
    }
    return {**item, **changes}


_COLORS = {"base": "gray", "naive": "yellow", "spf": "white"}


def test_starts_at_the_first_item_and_first_method() -> None:
    widget = BeforeAfter([_item("a beard", 4), _item("a beard", 5), _item("a blazer", 5)])
    assert (widget.target, widget.seed, widget.method, widget.position) == ("a beard", 4, "naive", 50.0)
    assert widget.labels == {"base": "base model", "naive": "naive fine-tuning", "spf": "dual path"}
    assert widget.methods == ["naive", "spf"]


def test_labels_and_starting_values_can_be_given() -> None:
    widget = BeforeAfter(
        [_item(), _item(seed=1)], labels={"naive": "plain"}, before="before", seed=1, method="spf", position=20
    )
    assert widget.labels == {"base": "before", "naive": "plain", "spf": "dual path"}
    assert (widget.seed, widget.method, widget.position) == (1, "spf", 20.0)


def test_setting_a_target_moves_to_a_seed_that_it_has() -> None:
    widget = BeforeAfter([_item("a beard", 1), _item("a blazer", 2), _item("a blazer", 1)])
    widget.target = "a blazer"
    assert widget.seed == 1
    widget.seed = 2
    widget.target = "a beard"
    assert widget.seed == 1
    assert widget.current()["target"] == "a beard"


@pytest.mark.parametrize(("trait", "value"), [("target", "wings"), ("seed", 99), ("method", "magic")])
def test_unknown_choices_are_refused_and_those_there_are_named(trait: str, value: Any) -> None:
    widget = BeforeAfter([_item()])
    before = getattr(widget, trait)
    with pytest.raises(traitlets.TraitError, match=f"unknown {trait} {value!r}: expected one of .*{before}"):
        setattr(widget, trait, value)
    assert getattr(widget, trait) == before


@pytest.mark.parametrize("position", [-1, 101])
def test_the_divider_stays_in_the_picture(position: float) -> None:
    widget = BeforeAfter([_item()])
    widget.position = min(max(position, 0), 100)
    with pytest.raises(traitlets.TraitError):
        widget.position = position


def _image(size: int) -> Image.Image:
    return Image.new("RGB", (size, size))


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([], "items is empty"),
        ([{"target": "x", "seed": 0}], r"items\[0\] lacks images, prompt"),
        ([_item(images={"base": _image(8)})], "at least one method, and has base"),
        ([_item(images={"naive": _image(8), "spf": _image(8)})], "needs 'base'"),
        ([_item(images={})], "has nothing"),
        (
            [_item(), _item(seed=1, images={"base": _image(8), "naive": _image(8)})],
            r"items\[1\] has images base, naive",
        ),
        ([_item(images={"base": _image(8), "naive": _image(8), "spf": _image(9)})], "pictures must have one size"),
        ([_item(changes={"lora": []})], "changes names lora"),
        ([_item(shows={"lora": True})], "shows names lora"),
        ([_item(), _item()], "repeats target 'sunglasses' with seed 0"),
    ],
)
def test_bad_items_are_refused_with_their_place(items: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BeforeAfter(items)


def test_whether_the_target_is_there_is_sent_where_it_is_known() -> None:
    items = BeforeAfter([_item(shows={"spf": np.bool_(False)}), _item(seed=1)]).items
    assert [item["shows"] for item in items] == [{"spf": False}, {}]


def test_unknown_changes_are_kept_apart_from_none() -> None:
    (item,) = BeforeAfter([_item(changes={"spf": []})]).items
    assert item["changes"] == {"spf": []}
    (item,) = BeforeAfter([{key: value for key, value in _item().items() if key != "changes"}]).items
    assert item["changes"] == {}


def test_state_is_plain_and_small() -> None:
    person = Portrait()
    pictures = {"base": render(person), "naive": render(person), "spf": render(person)}
    widget = BeforeAfter([_item(f"target {t}", s, images=pictures) for t in range(7) for s in range(4)])
    state = json.dumps({name: widget.get_state()[name] for name in ("items", "labels", "target", "_esm", "_css")})
    assert len(state) < 1_000_000


def test_methods_keep_their_order_in_the_file_of_a_notebook() -> None:
    """There, dictionaries stand sorted by their keys."""
    image = render(Portrait())
    widget = BeforeAfter([_item(images={name: image for name in ("base", "spf", "naive", "adalora")}, changes={})])
    state = json.loads(json.dumps(widget.get_state(["methods", "labels"]), sort_keys=True))
    assert state["methods"] == ["spf", "naive", "adalora"] == widget.methods
    assert list(state["labels"]) != ["base", *widget.methods]


def test_pictures_survive_the_packing() -> None:
    drawn = render(Portrait())
    packed = decode(data_uri(drawn))
    assert packed.size == drawn.size
    difference = [abs(a - b) for a, b in zip(packed.tobytes(), drawn.tobytes(), strict=True)]
    assert sum(difference) / len(difference) < 4


def test_viewers_without_javascript_get_a_picture() -> None:
    widget = BeforeAfter([_item()])
    bundle = widget._repr_mimebundle_()
    assert bundle is not None
    data, _ = bundle
    assert "application/vnd.jupyter.widget-view+json" in data
    assert base64.b64decode(data["image/png"]).startswith(b"\x89PNG")
    assert widget.snapshot().size == (3 * 32 + 2 * 4, 32)


def test_repr_is_stable() -> None:
    assert repr(BeforeAfter([_item()])) == "BeforeAfter(1 items, target='sunglasses', seed=0, method='naive')"


def test_side_by_side_keeps_order() -> None:
    strip = side_by_side([Image.new("RGB", (2, 2), "red"), Image.new("RGB", (3, 2), "blue")], gap=1)
    assert strip.size == (6, 2)
    assert [strip.getpixel((x, 0)) for x in (0, 2, 5)] == [(255, 0, 0), (255, 255, 255), (0, 0, 255)]


def test_every_input_keeps_its_keys_from_jupyterlab() -> None:
    """Inputs are made by ``input()``, which adds the attribute, and by nothing else."""
    folder = Path(__file__).parents[2] / "spf_lite" / "widgets"
    maker = (folder / "elements.js").read_text(encoding="utf-8")
    assert re.search(r'function input\([^)]*\) \{\s*return make\(tag, \{ "data-lm-suppress-shortcuts": "true"', maker)
    for module in folder.glob("*.js"):
        code = module.read_text(encoding="utf-8")
        assert module.name == "elements.js" or "function input" not in code
        assert not re.search(r'make\(\s*"(input|select|textarea|button)"', code), f"{module.name} makes a bare input"


def _two_texts(seed: int = 0, **changes: Any) -> dict[str, Any]:
    """An item whose methods were also asked for the base text."""
    images = {name: Image.new("RGB", (32, 32), "blue") for name in ("naive", "spf")}
    unasked = {"prompt": "a person", "images": images, "changes": {"spf": []}, "shows": {"naive": True}, **changes}
    return _item(seed=seed, base_text=unasked)


def test_the_text_can_be_switched_where_all_items_have_both() -> None:
    widget = BeforeAfter([_two_texts(), _two_texts(1)])
    assert widget.text == "complete text" and widget.current()["base_text"]["prompt"] == "a person"
    first = widget.snapshot()
    widget.text = "base text"
    second = widget.snapshot()
    assert first.getpixel((2, 2)) == second.getpixel((2, 2)), "the base model's portrait stays"
    assert first.getpixel((40, 2)) != second.getpixel((40, 2))
    assert widget.current()["base_text"]["shows"] == {"naive": True}
    with pytest.raises(traitlets.TraitError, match="unknown text 'other': expected one of complete text, base text"):
        widget.text = "other"
    with pytest.raises(traitlets.TraitError, match="unknown text 'base text': expected one of complete text$"):
        BeforeAfter([_item()]).text = "base text"


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([_two_texts(), _item(seed=1)], r"items\[1\]: all items have a base_text, or none has"),
        ([_two_texts(images={})], r"items\[0\]: base_text has no picture of naive, spf"),
        ([_item(base_text={"prompt": "a person"})], r"items\[0\]: base_text lacks images"),
        ([_two_texts(images=dict.fromkeys(("naive", "spf"), _image(8)))], "one size"),
        ([_two_texts(shows={"magic": True})], r"items\[0\]: base_text: shows names magic"),
    ],
)
def test_a_second_text_that_does_not_fit_is_refused(items: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BeforeAfter(items)
