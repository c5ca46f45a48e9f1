"""Shipped and given prompts: what is taken, what is refused, and with which words."""

import re
from collections import Counter
from pathlib import Path

import pytest

from spf_lite.audit.prompts import Prompt, completed, default_prompts, read_prompts
from spf_lite.audit.texts import PORTRAITS, UNRELATED
from spf_lite.evaluation.drift import FEWEST, words_of
from spf_lite.models.backbone import Backbone
from spf_lite.models.tokenizer import PromptError, PromptTooLongError, TargetTruncatedError
from spf_lite.tiny_world.custom_sets import evaluation_portraits
from spf_lite.tiny_world.portraits import complete, describe

from .conftest import PROMPTS


def test_shipped_texts_are_many_varied_and_short() -> None:
    assert len(set(PORTRAITS)) == 48 and len(set(UNRELATED)) == 12
    assert all(len(re.findall(r"\w+", text)) < 40 for text in (*PORTRAITS, *UNRELATED)), "no encoder truncates them"
    counts = Counter(word for text in PORTRAITS for word in words_of(text))
    assert min(counts.values()) >= FEWEST, "drift can be credited to every word"
    people = {word: counts[word] for word in ("woman", "man", "girl", "boy")}
    assert min(people.values()) >= 5 and abs(people["woman"] - people["man"]) <= 3
    assert not {"woman", "man", "girl", "boy", "person", "portrait"} & words_of(" ".join(UNRELATED))


def test_lines_and_json_lines_are_read(tmp_path: Path) -> None:
    plain = tmp_path / "texts.txt"
    plain.write_text("\n  a woman, smiling \n\na man\r\n", encoding="utf-8")
    assert read_prompts(plain) == [
        Prompt("a woman, smiling", where=f"{plain}, line 2"),
        Prompt("a man", where=f"{plain}, line 4"),
    ]
    lines = tmp_path / "texts.jsonl"
    lines.write_text(
        '{"base_text": "a woman, a coat", "replaces": "a coat"}\n'
        '{"base_text": "a man", "complete_text": "a man with sunglasses"}\n'
    )
    first, second = read_prompts(lines)
    assert (first.base_text, first.complete_text, first.replaces) == ("a woman, a coat", None, "a coat")
    assert (second.complete_text, second.where) == ("a man with sunglasses", f"{lines}, line 2")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("\n \n", "there is no text in it"),
        ('{"base_text": "a man"}\n{"base_text": \n', "line 2: not valid JSON"),
        ('{"base_text": "a man"}\n["a man"]', "line 2: expected a JSON object, found list"),
        ('{"base_text": " "}', "line 1: 'base_text' is missing, empty or not a text"),
        ('{"complete_text": "a man"}', "line 1: 'base_text' is missing, empty or not a text"),
        ('{"base_text": "a man", "complete_text": 3}', "line 1: 'complete_text' is missing, empty or not a text"),
        ('{"base_text": "a man", "complete": "b"}', "line 1: unknown 'complete': expected base_text, complete_text"),
    ],
)
def test_files_that_make_no_sense_are_refused(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "texts"
    path.write_text(content)
    with pytest.raises(PromptError, match=re.escape(message)):
        read_prompts(path)


def test_other_bytes_than_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "texts").write_bytes(b"\xff\x00\xfe")
    with pytest.raises(ValueError, match="cannot be read as UTF-8"):
        read_prompts(tmp_path / "texts")


def test_the_target_is_put_in_as_in_custom_sets(toy: Backbone) -> None:
    added = completed(toy, PROMPTS[:1], " sunglasses ")
    assert added[0].complete_text == "a person, red short hair, smiling, sunglasses"
    replaced = completed(toy, PROMPTS[:1], "pink hair", "red short hair")
    assert replaced[0].complete_text == "a person, pink hair, smiling"
    own = Prompt("a person, sad", complete_text="a sad person wearing sunglasses")
    assert completed(toy, [own], "sunglasses")[0].complete_text == own.complete_text
    assert completed(toy, [own])[0] == own, "without a target text it is taken as it is"
    assert completed(toy, PROMPTS) == PROMPTS, "without a target there is nothing to complete"


@pytest.mark.parametrize(
    ("prompts", "options", "error", "message"),
    [
        ([], {}, ValueError, "there are no prompts"),
        (PROMPTS, {"target_text": " "}, PromptError, "the target text is empty"),
        (PROMPTS, {"replaces": "smiling"}, ValueError, "give the target text, too"),
        (PROMPTS, {"target_text": "sad"}, PromptError, "already holds the target 'sad'"),
        (
            [Prompt("a", "b", where="f, line 7")],
            {"target_text": "hat"},
            PromptError,
            "f, line 7: the complete text 'b'",
        ),
        (PROMPTS, {"target_text": "hat", "replaces": "smiling"}, PromptError, "'smiling' does not stand in"),
        ([Prompt("x" * 40, where="line 3")], {}, PromptTooLongError, "line 3: 'xxx"),
        ([Prompt("a, " * 14 + "a")], {"target_text": "sunglasses"}, TargetTruncatedError, "would be truncated"),
        ([*PROMPTS, Prompt("a", "b")], {}, PromptError, "there is no complete text, but others have one"),
    ],
)
def test_prompts_that_cannot_be_used_are_refused(
    toy: Backbone, prompts: list[Prompt], options: dict[str, str], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=re.escape(message)):
        completed(toy, prompts, **options)


def test_a_model_of_few_words_gets_texts_of_the_tiny_world(toy: Backbone) -> None:
    prompts, unrelated = default_prompts(toy, "a blazer")
    people = evaluation_portraits("blazer", len(prompts))
    assert [prompt.base_text for prompt in prompts] == [describe(person) for person in people]
    assert [prompt.complete_text for prompt in completed(toy, prompts, "a blazer")] == [
        complete(person.with_targets("blazer")) for person in people
    ]
    assert "blue background" in unrelated
    others, _ = default_prompts(toy)
    assert not any(prompt.replaces for prompt in others) and len(completed(toy, others)) == len(prompts)


def test_any_other_model_gets_the_shipped_texts(toy: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spf_lite.audit.prompts.SMALL_VOCABULARY", 1)
    prompts, unrelated = default_prompts(toy)
    assert [prompt.base_text for prompt in prompts] == list(PORTRAITS) and unrelated == list(UNRELATED)
    assert prompts[2].where == "shipped text 3"
