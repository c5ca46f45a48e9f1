from random import Random
from typing import Any

import numpy as np
import pytest

from spf_lite.tiny_world.portraits import ATTRIBUTES, FINAL_TARGETS, TARGETS, TRAITS, Portrait, random_portrait
from spf_lite.tiny_world.rendering import BACKGROUND_COLORS, PARTS, counterfactual, part_mask, render, true_region


def pixels(portrait: Portrait, size: int = 64) -> np.ndarray:
    return np.asarray(render(portrait, size), dtype=np.int16)


def test_rendering_is_deterministic_at_any_size() -> None:
    for size in (16, 100, 128):
        assert render(Portrait(), size).size == (size, size)
    assert np.array_equal(pixels(Portrait()), pixels(Portrait()))
    with pytest.raises(ValueError, match="at least 8 pixels"):
        render(Portrait(), 4)


@pytest.mark.parametrize("name", [*ATTRIBUTES, *TRAITS])
def test_every_value_of_every_attribute_looks_different(name: str) -> None:
    values = {**ATTRIBUTES, **TRAITS}[name]
    attributes: list[dict[str, Any]] = [{name: value} for value in values]
    drawn = [pixels(Portrait(**values)) for values in attributes]
    for i, one in enumerate(drawn):
        for other in drawn[i + 1 :]:
            assert np.abs(one - other).max() > 16


def test_the_background_has_the_colour_it_says() -> None:
    for name, color in BACKGROUND_COLORS.items():
        corner = pixels(Portrait(background=name))[0, 0]
        assert np.abs(corner - [int(color[i : i + 2], 16) for i in (1, 3, 5)]).max() <= 1


@pytest.mark.parametrize("target", [name for name in TARGETS if name != "pencil-sketch"])
def test_a_counterfactual_pair_differs_only_near_the_target(target: str) -> None:
    portrait = random_portrait(Random(target), glasses="no")
    without, with_target = (np.asarray(image, dtype=np.int16) for image in counterfactual(portrait, target))
    region = true_region(portrait, target)
    assert 0.002 < region.mean() < 0.5
    assert np.array_equal(np.abs(with_target - without).max(axis=-1) > 8, region)
    assert not region[:8, :8].any(), "no target of this world reaches the corner"


def test_a_style_changes_the_whole_picture() -> None:
    sketch = np.asarray(render(Portrait(targets=("pencil-sketch",))), dtype=np.int16)
    assert np.ptp(sketch, axis=-1).max() == 0, "graphite has no colour"
    assert true_region(Portrait(), "pencil-sketch").mean() > 0.8


def test_part_masks_partition_the_picture() -> None:
    portrait = Portrait(glasses="yes", hair_style="bob")
    mask = part_mask(portrait)
    assert mask.shape == (128, 128)
    assert set(np.unique(mask)) == set(range(len(PARTS)))
    assert PARTS[mask[0, 0]] == "background"
    assert PARTS[mask[60, 64]] in {"skin", "face"}
    assert PARTS[mask[-1, 64]] == "clothes"


def test_part_masks_do_not_depend_on_colours() -> None:
    one = Portrait(hair_color="brown", skin="brown", background="blue", clothes_color="blue")
    other = Portrait(hair_color="gray", skin="pale", background="white", clothes_color="white")
    assert np.array_equal(part_mask(one), part_mask(other))


def test_the_region_of_sunglasses_is_their_part() -> None:
    portrait = Portrait(hair_style="short")
    accessory = part_mask(portrait.with_targets("sunglasses")) == PARTS.index("accessory")
    region = true_region(portrait, "sunglasses")
    assert (accessory & region).sum() / (accessory | region).sum() > 0.7


@pytest.mark.parametrize("target", FINAL_TARGETS)
def test_targets_of_the_last_test_look_like_no_other_and_change_what_they_say(target: str) -> None:
    plain = Portrait()
    shown = {
        name: render(plain.with_targets(name)).tobytes() for name in ("beard", "winter-hat", "blazer", *FINAL_TARGETS)
    }
    assert len({*shown.values(), render(plain).tobytes()}) == len(shown) + 1
    region = true_region(plain, target)
    where = {"whiskers": slice(60, 90), "chef-hat": slice(0, 70), "spacesuit": slice(85, 128)}[target]
    assert region[where].any() and not np.delete(region, np.r_[where], axis=0).any()
    parts = {PARTS[k] for k in np.unique(part_mask(plain.with_targets(target))[region])}
    assert parts & {"whiskers": {"hair"}, "chef-hat": {"accessory"}, "spacesuit": {"clothes"}}[target]


def test_one_place_holds_one_target() -> None:
    for names in (("beard", "whiskers"), ("winter-hat", "chef-hat"), ("blazer", "spacesuit")):
        with pytest.raises(ValueError, match=f"{names[0]} or {names[1]}: the artwork has one place"):
            Portrait(targets=names)
