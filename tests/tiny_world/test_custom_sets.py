import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from spf_lite.data.sets.custom_set import CustomSet
from spf_lite.tiny_world.custom_sets import (
    CAPTIONS,
    SPURIOUS_ATTRIBUTES,
    SetNote,
    evaluation_portraits,
    excluded_phrases,
    metadata_line,
    reference_lines,
    set_portraits,
    spurious_attributes,
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
def test_no_text_holds_a_target_with_what_it_excludes(target: str) -> None:
    excluded = set(excluded_phrases(target))
    texts = [str(metadata_line(portrait, target, "named")["base_text"]) for portrait in set_portraits(target)]
    texts += [str(line["base_text"]) for line in reference_lines(target)]
    assert not excluded & {phrase for text in texts for phrase in text.split(", ")}
    assert ("glasses" in excluded) == (target in ("sunglasses", "eyepatch"))
    assert ("red bob hair" in excluded) == (target == "pink-hair")


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


# -- drawn sets: the same target, other confounders --------------------------------------------------------------------


@pytest.mark.parametrize("target", TARGETS)
def test_a_draw_shares_nothing_with_the_shipped_set(target: str) -> None:
    shipped = spurious_attributes(target)
    assert shipped == SPURIOUS_ATTRIBUTES[target] and shipped is not SPURIOUS_ATTRIBUTES[target], "a copy"
    draws = [spurious_attributes(target, seed) for seed in range(20)]
    assert draws == [spurious_attributes(target, seed) for seed in range(20)]
    for draw in draws:
        assert list(draw) == list(shipped)
        assert {name for name in draw if draw[name] == shipped[name]} <= {"glasses"}
        assert draw.get("glasses", "yes") == "yes", "without glasses there is nothing to pick up"
    assert len({tuple(draw.values()) for draw in draws[:3]}) == 3, "the seeds of a table have sets of their own"
    for name in set(shipped) - {"glasses"}:
        assert len({draw[name] for draw in draws}) > 2


def test_draws_stay_what_they_are() -> None:
    """Measured rows name a draw by its seed only."""
    assert spurious_attributes("sunglasses", 1) == {
        "background": "pink",
        "clothes": "v-neck",
        "clothes_color": "green",
        "expression": "sad",
    }
    assert spurious_attributes("blazer", 0) == {"background": "purple", "expression": "sad", "glasses": "yes"}
    (first,) = set_portraits("sunglasses", 1, confounders=1)
    assert first.identity == ("short", "gray", "dark", "sideways", "small")


@pytest.mark.parametrize("target", TARGETS)
def test_a_drawn_set_is_confounded_as_drawn(target: str) -> None:
    people = set_portraits(target, confounders=2)
    for name, value in spurious_attributes(target, 2).items():
        assert {getattr(portrait, name) for portrait in people} == {value}
    assert len({portrait.skin for portrait in people}) == 4, "other attributes vary"
    assert all(portrait.targets == (target,) for portrait in people)
    assert people == set_portraits(target, confounders=2)
    identities = [{p.identity for p in set_portraits(target, confounders=seed)} for seed in (None, 0, 1, 2)]
    for number, some in enumerate(identities):
        assert all(len(some & others) < 24 for others in identities[number + 1 :]), "other people, too"


@pytest.mark.parametrize("seed", [-1, 1.0, "1", True])
def test_a_seed_that_is_none(seed: int, tmp_path: Path) -> None:
    for ask in (spurious_attributes, SetNote.of):
        with pytest.raises(ValueError, match="expected a whole number, 0 or more, or None"):
            ask("beard", seed)
    with pytest.raises(ValueError, match="expected a whole number"):
        set_portraits("beard", 1, seed)
    with pytest.raises(ValueError, match="expected a whole number"):
        write_custom_set("beard", tmp_path / "set", 1, 32, seed)
    assert not (tmp_path / "set").exists()
    with pytest.raises(ValueError, match="unknown target 'monocle'"):
        spurious_attributes("monocle", 0)


@pytest.mark.parametrize("target", ["sunglasses", "blazer", "pink-hair"])
def test_a_drawn_set_on_the_disk(target: str, tmp_path: Path) -> None:
    write_custom_set(target, tmp_path / "shipped", count=2, size=64)
    write_custom_set(target, tmp_path / "drawn", count=2, size=64, confounders=1)
    people, spurious = set_portraits(target, 2, confounders=1), spurious_attributes(target, 1)
    for captions in CAPTIONS:
        for example, portrait in zip(CustomSet.load(tmp_path / "drawn", captions), people, strict=True):
            palette = np.abs(np.asarray(example.image, dtype=int) - np.asarray(render(portrait, 64), dtype=int))
            assert palette.max() <= 16, "these people, but for the palette"
            named = f"{spurious['background']} background" in example.base_text
            assert named == (captions == "named")
    references = [(tmp_path / folder / "references.jsonl").read_bytes() for folder in ("shipped", "drawn")]
    assert references[0] == references[1], "reference texts are the same for every draw"
    lines = [json.loads(line) for line in references[0].decode().splitlines()]
    assert lines == json.loads(json.dumps(reference_lines(target)))
    assert {path.name for path in (tmp_path / "shipped").iterdir()} == {
        path.name for path in (tmp_path / "drawn").iterdir()
    }


def test_a_whole_shipped_set_is_what_the_code_makes(tmp_path: Path) -> None:
    write_custom_set("eyepatch", tmp_path)
    made, shipped = (sorted(path.name for path in folder.iterdir()) for folder in (tmp_path, SHIPPED / "eyepatch"))
    assert made == shipped
    for name in made:
        if name.endswith(".png"):  # another Pillow may compress in another way
            pixels = [Image.open(folder / name).convert("RGB").tobytes() for folder in (tmp_path, SHIPPED / "eyepatch")]
        else:
            pixels = [(folder / name).read_bytes() for folder in (tmp_path, SHIPPED / "eyepatch")]
        assert pixels[0] == pixels[1], name


@pytest.mark.parametrize("target", TARGETS)
def test_the_note_of_a_shipped_set(target: str) -> None:
    note = SetNote.read(SHIPPED / target)
    assert note == SetNote.of(target) == SetNote(target, None, SPURIOUS_ATTRIBUTES[target])


def test_the_note_is_read_back_and_changes_no_set(tmp_path: Path) -> None:
    write_custom_set("beard", tmp_path, count=1, size=32, confounders=5)
    assert SetNote.read(tmp_path) == SetNote("beard", 5, spurious_attributes("beard", 5))
    with_note = CustomSet.load(tmp_path)
    (tmp_path / "spurious.json").unlink()
    without = CustomSet.load(tmp_path)
    assert without.digest == with_note.digest and without.report == with_note.report
    with pytest.raises(ValueError, match="does not say what its portraits share: there is no spurious.json"):
        SetNote.read(tmp_path)


GOOD_NOTE = {"target": "beard", "confounders": 0, "spurious": {"background": "pink"}}


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{",
        "{}",
        json.dumps({**GOOD_NOTE, "more": 1}),
        json.dumps({**GOOD_NOTE, "target": "monocle"}),
        json.dumps({**GOOD_NOTE, "spurious": ["background"]}),
        json.dumps({**GOOD_NOTE, "spurious": {"socks": "pink"}}),
        json.dumps({**GOOD_NOTE, "spurious": {"background": "tartan"}}),
    ],
)
def test_a_note_that_cannot_be_read(content: str, tmp_path: Path) -> None:
    path = tmp_path / "spurious.json"
    path.write_text(content)
    with pytest.raises(ValueError, match="spurious.json: "):
        SetNote.read(tmp_path)
    path.write_text(json.dumps(GOOD_NOTE))
    assert SetNote.read(tmp_path) == SetNote("beard", 0, {"background": "pink"})
