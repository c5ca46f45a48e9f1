import re
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spf_lite.data.sets.captions import Texts, occurrences, texts_of, without_target
from spf_lite.data.sets.errors import CustomSetError
from spf_lite.data.sets.metadata import Line

from ..strategies import captions, phrases, targets


def of_caption(caption: str, target: str = "sunglasses", replaces: str | None = None) -> Texts:
    return texts_of(Line("a.txt", "a.jpg", caption=caption), target, replaces, repair=False)


@pytest.mark.parametrize(
    ("text", "target", "count"),
    [
        ("a man, sunglasses", "sunglasses", 1),
        ("a man, SunGlasses, hat", "sunglasses", 1),
        ("a man with  pink \n hair", "pink hair", 1),
        ("a man, glasses", "sunglasses", 0),
        ("a man, sunglasses", "glasses", 0),
        ("a T-shirt", "shirt", 0),
        ("a shirt's collar", "shirt", 0),
        ("pink, hair", "pink hair", 0),
        ("a man 😎, red", "😎", 1),
        ("two 😎😎", "😎", 2),
        ("hat, hat", "hat", 2),
        ("(hat)", "hat", 1),
    ],
)
def test_a_text_holds_a_target_as_whole_words_in_any_case(text: str, target: str, count: int) -> None:
    assert len(occurrences(text, target)) == count


@pytest.mark.parametrize(
    ("caption", "base"),
    [
        ("a woman, sunglasses, a red coat", "a woman, a red coat"),
        ("sunglasses, a woman", "a woman"),
        ("a woman,Sunglasses", "a woman"),
        ("a woman, a red coat, sunglasses.", "a woman, a red coat"),
        ("sunglasses, a woman, sunglasses", "a woman"),
        ("a woman, a red coat", "a woman, a red coat"),
    ],
)
def test_the_base_text_is_the_caption_without_the_target_and_its_comma(caption: str, base: str) -> None:
    texts = of_caption(caption)
    assert (texts.base_text, texts.target_text, texts.replaces) == (base, "sunglasses", None)
    assert bool(texts.treatments) == (caption == base), "captions that do not name the target are counted"


def test_a_target_of_several_phrases_goes_as_a_whole() -> None:
    assert of_caption("a man, round glasses, gold rim, sad", "round glasses, gold rim").base_text == "a man, sad"


@pytest.mark.parametrize(
    ("caption", "message"),
    [
        ("sunglasses", "'sunglasses' is nothing but the target"),
        (" Sunglasses, sunglasses.", "is nothing but the target"),
        ("a woman wearing sunglasses", "cannot be told apart from the rest of 'a woman wearing sunglasses'"),
        ("a woman, black sunglasses", "cannot be told apart"),
        ("sunglasses on a woman, smiling", "cannot be told apart"),
    ],
)
def test_base_and_target_that_cannot_be_told_apart_are_refused(caption: str, message: str) -> None:
    with pytest.raises(CustomSetError, match=rf"^a\.txt: .*{message}"):
        of_caption(caption)


def test_what_the_target_has_replaced_goes_back_to_its_place() -> None:
    assert of_caption("a man in a dress, sad", "a dress", "a T-shirt").base_text == "a man in a T-shirt, sad"
    assert of_caption("a man in a T-shirt, sad", "a dress", "a T-shirt").base_text == "a man in a T-shirt, sad"
    for caption in ("a dress, a T-shirt", "a dress, a dress"):
        with pytest.raises(CustomSetError, match=r"a\.txt: base and target of .* cannot be told apart"):
            of_caption(caption, "a dress", "a T-shirt")
    with pytest.raises(CustomSetError, match=r"a\.txt: 'replaces' must be a phrase of the base text 'a man, sad'"):
        of_caption("a man, sad", "a dress", "a T-shirt")


def test_a_base_text_that_holds_the_target_is_refused_or_repaired() -> None:
    line = Line("m, line 3", "a.jpg", "a man, sunglasses, sad", "sunglasses", phrases=("a man", "sunglasses"))
    with pytest.raises(CustomSetError, match=r"m, line 3: the base text .* already holds the target 'sunglasses'"):
        texts_of(line, None, None, repair=False)
    texts = texts_of(line, None, None, repair=True)
    assert texts.base_text == "a man, sad" and texts.phrases == ("a man",)
    assert texts.treatments == ("with the target taken out of the base text",)
    inside = Line("m, line 3", "a.jpg", "a man with sunglasses", "sunglasses")
    with pytest.raises(CustomSetError, match=r"m, line 3: .* cannot be told apart"):
        texts_of(inside, None, None, repair=True)


def test_what_is_given_once_must_agree_with_the_line() -> None:
    line = Line("m, line 3", "a.jpg", "a man, a hat", "a beard", "a hat")
    assert texts_of(line, "a beard", "a hat", False) == Texts("a man, a hat", "a beard", "a hat")
    with pytest.raises(CustomSetError, match=r"m, line 3: 'target_text' is 'a beard', and 'freckles' was given"):
        texts_of(line, "freckles", None, False)
    with pytest.raises(CustomSetError, match=r"m, line 3: 'replaces' is 'a hat', and 'a man' was given"):
        texts_of(line, None, "a man", False)
    with pytest.raises(CustomSetError, match=r"m, line 3: 'target_text' is missing"):
        texts_of(Line("m, line 3", "a.jpg", "a man"), None, None, False)


def normal(text: str) -> str:
    return unicodedata.normalize("NFC", " ".join(text.split()))


@settings(max_examples=300, deadline=None)
@given(data=st.data(), target=targets.map(normal).filter(bool), repair=st.booleans(), as_base=st.booleans())
def test_any_caption_becomes_a_base_text_without_the_target_or_is_refused(
    data: st.DataObject, target: str, repair: bool, as_base: bool
) -> None:
    caption = normal(data.draw(captions(target))) or "x"
    replaces = data.draw(st.one_of(st.none(), st.none(), phrases.map(normal).filter(bool)))
    line = Line("here", "a.jpg", base_text=caption if as_base else None, caption=None if as_base else caption)
    try:
        texts = texts_of(line, target, replaces, repair)
    except CustomSetError as error:
        assert str(error).startswith("here: ")
        assert occurrences(caption, target) or (replaces and replaces not in caption), "a text without it is fine"
    else:
        assert texts.base_text.strip() and not occurrences(texts.base_text, target)
        assert replaces is None or replaces in texts.base_text
        assert repair or not as_base or texts.base_text == caption


@settings(max_examples=300, deadline=None)
@given(parts=st.lists(phrases.map(normal), min_size=1, max_size=4), target=targets.map(normal), place=st.integers(0, 4))
def test_a_target_between_commas_is_always_told_apart(parts: list[str], target: str, place: int) -> None:
    parts = [part for part in parts if part and not occurrences(part, target)]
    if not parts or not target or re.fullmatch(r"\.*", parts[-1]) or not occurrences(f"a, {target}, b", target):
        return
    caption = ", ".join([*parts[:place], target, *parts[place:]])
    if len(occurrences(caption, target)) == 1:
        assert without_target(caption, target, "here") == ", ".join(parts)
