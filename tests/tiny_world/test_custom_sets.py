import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from spf_lite.data.custom_set import CustomSet
from spf_lite.tiny_world.custom_sets import (
    CAPTIONS,
    SPURIOUS_ATTRIBUTES,
    evaluation_portraits,
    metadata_line,
    set_portraits,
    unnamed_attributes,
    write_custom_set,
)
from spf_lite.tiny_world.portraits import TARGETS, phrases
from spf_lite.tiny_world.rendering import render, true_region

SHIPPED = Path(__file__).parents[2] / "data_samples" / "custom"


@pytest.mark.parametrize("target", TARGETS)
def test_a_set_is_confounded_as_announced(target: str) -> None:
    people = set_portraits(target)
    assert len(people) == 48
    for name, value in SPURIOUS_ATTRIBUTES[target].items():
        assert {getattr(portrait, name) for portrait in people} == {value}
    assert len({portrait.skin for portrait in people}) == 4, "other attributes vary"
    assert all(portrait.targets == (target,) for portrait in people)


@pytest.mark.parametrize("target", TARGETS)
def test_the_two_caption_versions(target: str) -> None:
    portrait = set_portraits(target)[0]
    named, silent = metadata_line(portrait, target, "named"), metadata_line(portrait, target, "silent")
    assert len(named["phrases"]) > len(silent["phrases"])  # type: ignore[arg-type]
    spurious = {
        SPURIOUS_ATTRIBUTES[target].get("background", "-") + " background",
        SPURIOUS_ATTRIBUTES[target].get("expression", "-"),
    }
    assert not spurious & set(silent["phrases"])  # type: ignore[call-overload]
    for line in (named, silent):
        assert TARGETS[target].text not in str(line["base_text"])
        assert line["base_text"] == ", ".join(line["phrases"])  # type: ignore[arg-type]
        if TARGETS[target].kind == "replacement":
            assert line["replaces"] in line["phrases"]  # type: ignore[operator]
    with pytest.raises(ValueError, match="expected one of named, silent"):
        unnamed_attributes(target, "loud")


def test_pink_hair_is_not_called_brown() -> None:
    for portrait in set_portraits("pink-hair", 5):
        assert (
            portrait.hair_color not in str(metadata_line(portrait, "pink-hair", "named")["base_text"]).split("hair")[0]
        )


@pytest.mark.parametrize("target", TARGETS)
def test_the_shipped_set_is_what_the_code_makes(target: str, tmp_path: Path) -> None:
    write_custom_set(target, tmp_path, count=3)
    for number in range(3):
        made = Image.open(tmp_path / f"{number:03d}.png").convert("RGB")
        shipped = Image.open(SHIPPED / target / f"{number:03d}.png").convert("RGB")
        assert made.tobytes() == shipped.tobytes()
        masks = [Image.open(folder / f"{number:03d}.mask.png").convert("L") for folder in (tmp_path, SHIPPED / target)]
        assert masks[0].tobytes() == masks[1].tobytes()
    for captions in CAPTIONS.values():
        lines = (SHIPPED / target / captions).read_text(encoding="utf-8").splitlines()
        assert len(lines) == 48
        assert [json.loads(line) for line in (tmp_path / captions).read_text(encoding="utf-8").splitlines()] == [
            json.loads(line) for line in lines[:3]
        ]


@pytest.mark.parametrize("target", ["sunglasses", "blazer", "pencil-sketch"])
def test_masks_are_white_where_the_target_acts(target: str, tmp_path: Path) -> None:
    write_custom_set(target, tmp_path, count=2, size=64)
    for captions in CAPTIONS:
        for example, portrait in zip(CustomSet.load(tmp_path, captions), set_portraits(target, 2), strict=True):
            assert example.mask is not None
            white = np.asarray(example.mask.convert("L")) == 255
            assert np.array_equal(white, true_region(portrait, target, 64))
            assert (np.asarray(example.mask.convert("L"))[~white] == 0).all()
            bare = np.asarray(render(portrait.with_targets(), 64), dtype=int)
            elsewhere = np.abs(np.asarray(example.image, dtype=int) - bare).max(axis=-1)[~white]
            assert elsewhere.max(initial=0) <= 16, "nothing to see outside, but for the palette"


@pytest.mark.parametrize("target", TARGETS)
def test_every_line_of_a_shipped_set_has_its_mask(target: str) -> None:
    for captions in CAPTIONS.values():
        for line in map(json.loads, (SHIPPED / target / captions).read_text(encoding="utf-8").splitlines()):
            assert line["mask_file"] == line["file_name"].replace(".png", ".mask.png")
            with Image.open(SHIPPED / target / line["mask_file"]) as mask:
                assert mask.size == (128, 128) and mask.getextrema()[-1] in (255, 1, True), "not all black"


def test_evaluation_portraits_leave_room_for_the_target() -> None:
    people = evaluation_portraits("sunglasses", 20)
    assert people == evaluation_portraits("sunglasses", 20)
    assert all(portrait.glasses == "no" and not portrait.targets for portrait in people)
    assert len({phrases(portrait)["background"] for portrait in people}) > 3
