import json
from pathlib import Path

import pytest
from PIL import Image

from spf_lite.custom_sets import (
    ACCIDENTS,
    CAPTIONS,
    evaluation_portraits,
    record,
    set_portraits,
    silent_about,
    write_custom_set,
)
from spf_lite.portraits import TARGETS, phrases

SHIPPED = Path(__file__).parent.parent / "data_samples" / "custom"


@pytest.mark.parametrize("target", TARGETS)
def test_a_set_is_confounded_as_announced(target: str) -> None:
    people = set_portraits(target)
    assert len(people) == 48
    for name, value in ACCIDENTS[target].items():
        assert {getattr(portrait, name) for portrait in people} == {value}
    assert len({portrait.skin for portrait in people}) == 4, "what is not an accident varies"
    assert all(portrait.targets == (target,) for portrait in people)


@pytest.mark.parametrize("target", TARGETS)
def test_the_two_caption_versions(target: str) -> None:
    portrait = set_portraits(target)[0]
    named, silent = record(portrait, target, "named"), record(portrait, target, "silent")
    assert len(named["phrases"]) > len(silent["phrases"])  # type: ignore[arg-type]
    accidental = {ACCIDENTS[target].get("background", "-") + " background", ACCIDENTS[target].get("expression", "-")}
    assert not accidental & set(silent["phrases"])  # type: ignore[call-overload]
    for line in (named, silent):
        assert TARGETS[target].text not in str(line["base_text"])
        assert line["base_text"] == ", ".join(line["phrases"])  # type: ignore[arg-type]
        if TARGETS[target].kind == "replacement":
            assert line["replaces"] in line["phrases"]  # type: ignore[operator]
    with pytest.raises(ValueError, match="expected one of named, silent"):
        silent_about(target, "loud")


def test_pink_hair_is_not_called_brown() -> None:
    for portrait in set_portraits("pink-hair", 5):
        assert portrait.hair_color not in str(record(portrait, "pink-hair", "named")["base_text"]).split("hair")[0]


@pytest.mark.parametrize("target", TARGETS)
def test_the_shipped_set_is_what_the_code_makes(target: str, tmp_path: Path) -> None:
    write_custom_set(target, tmp_path, count=3)
    for number in range(3):
        made = Image.open(tmp_path / f"{number:03d}.png").convert("RGB")
        shipped = Image.open(SHIPPED / target / f"{number:03d}.png").convert("RGB")
        assert made.tobytes() == shipped.tobytes()
    for captions in CAPTIONS.values():
        lines = (SHIPPED / target / captions).read_text().splitlines()
        assert len(lines) == 48
        assert [json.loads(line) for line in (tmp_path / captions).read_text().splitlines()] == [
            json.loads(line) for line in lines[:3]
        ]


def test_evaluation_portraits_leave_room_for_the_target() -> None:
    people = evaluation_portraits("sunglasses", 20)
    assert people == evaluation_portraits("sunglasses", 20)
    assert all(portrait.glasses == "no" and not portrait.targets for portrait in people)
    assert len({phrases(portrait)["background"] for portrait in people}) > 3
