from dataclasses import replace

import pytest
import torch

from spf_lite.data.batch import Item
from spf_lite.data.prompts import encode_pair
from spf_lite.data.texts import encode_texts
from spf_lite.models.backbone import Backbone, load
from spf_lite.models.codec import encode_images, to_tensor
from spf_lite.pure_pairs import reading
from spf_lite.pure_pairs.reading import classification_margin, read_captions
from spf_lite.pure_pairs.vocabulary import Vocabulary
from spf_lite.tiny_world.portraits import ATTRIBUTES, Portrait, describe
from spf_lite.tiny_world.rendering import render

from ..method.conftest import item, train

UNSAID = ["background", "clothes", "clothes_color"]


@pytest.fixture(scope="module")
def shipped() -> Backbone:
    return load("tiny")


def pictured(backbone: Backbone, people: list[Portrait]) -> list[Item]:
    """Items of these people; their base texts do not name clothes and background."""
    latents = encode_images(backbone.pipe, to_tensor([render(person, 128) for person in people]))
    pairs = [encode_pair(backbone.pipe.tokenizer, describe(person, UNSAID), "sunglasses") for person in people]
    hidden = encode_texts(backbone, [pair.base_text for pair in pairs])
    nothing = torch.zeros(1)
    return [Item(x, p, h, h, nothing, nothing, nothing) for x, p, h in zip(latents, pairs, hidden, strict=True)]


@pytest.mark.parametrize("background", ["yellow", "purple"])
def test_the_shipped_model_reads_what_captions_do_not_say(
    shipped: Backbone, background: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "ROUNDS", 1)
    hair = ("bob", "short", "afro", "long")
    people = [Portrait(style, clothes="overalls", clothes_color="green", background=background) for style in hair]
    others = [Portrait(background=b, clothes_color=c) for b in ATTRIBUTES["background"] for c in ("blue", "red")]
    texts = [describe(person) for person in [*others, Portrait(clothes="overalls", clothes_color="green")]]
    generator = torch.Generator().manual_seed(0)
    found = read_captions(shipped, pictured(shipped, people), Vocabulary(texts), generator, draws=(6, 12))
    assert found == {4: "green overalls", 5: f"{background} background"}


def test_captions_that_say_everything_leave_nothing_to_read(toy: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_Errors", lambda *_: pytest.fail("nothing is open"))
    vocabulary = Vocabulary(["a person, red curly hair, blue hoodie", "a person, black bun hair, green sweater"])
    assert read_captions(toy, [item(toy)], vocabulary, torch.Generator()) == {}


def test_reading_is_that_of_the_untouched_model(toy: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "DRAWS", (4, 4))
    vocabulary = Vocabulary(
        [f"a person, red curly hair, blue hoodie, {word}" for word in ("smiling", "sad", "serious")]
    )
    portraits = [item(toy), replace(item(toy), latents=-item(toy).latents)]
    before = read_captions(toy, portraits, vocabulary, torch.Generator().manual_seed(0))
    train(toy)
    assert read_captions(toy, portraits, vocabulary, torch.Generator().manual_seed(0)) == before


def test_a_portrait_that_shows_something_else_is_misread(shipped: Backbone) -> None:
    yellow, purple = Portrait(background="yellow"), Portrait(background="purple")
    latents = encode_images(shipped.pipe, to_tensor([render(yellow, 128), render(purple, 128)]))
    asked, instead = [describe(yellow)] * 2, [describe(purple)] * 2
    as_asked, as_the_other = classification_margin(
        shipped, latents, asked, instead, torch.Generator().manual_seed(0)
    ).tolist()
    assert as_asked < 0 < as_the_other
