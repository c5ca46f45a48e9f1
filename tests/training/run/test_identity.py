import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from spf_lite.config import TrainConfig
from spf_lite.data.sets.custom_set import CustomSet, Example
from spf_lite.options import ControlMapOptions
from spf_lite.training.run.identity import RunIdentity, captions_digest, portraits_digest

CONFIG = TrainConfig(stage1_steps=3, stage2_steps=3)
RUN = RunIdentity(CONFIG, "sunglasses", "1" * 64, "2" * 64, "3" * 64, "4" * 64, None, "float32")


def test_an_identity_survives_json() -> None:
    changed = replace(RUN, config=replace(CONFIG, control=ControlMapOptions(threshold=0.5)), initial_adapter="7" * 64)
    assert RunIdentity.from_json(changed.to_json()) == changed != RUN


@pytest.mark.parametrize("text", ["", "[]", "null", "{}", '{"config": 3}', RUN.to_json()[:-5], '{"config": {}}'])
def test_what_is_no_identity_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError):
        RunIdentity.from_json(text)
    with pytest.raises(ValueError, match="a value is not a text"):
        RunIdentity.from_json(json.dumps({**json.loads(RUN.to_json()), "dtype": 32}))


def test_every_difference_is_named_with_both_values() -> None:
    other = replace(
        RUN,
        config=replace(CONFIG, rank=4, control=ControlMapOptions(smoothing=5)),
        dtype="bfloat16",
        version="9.9",
        base_model="8" * 64,
    )
    assert RUN.differences(other) == {
        "base_model": ("4" * 64, "8" * 64),
        "dtype": ("float32", "bfloat16"),
        "version": (RUN.version, "9.9"),
        "rank": (16, 4),
        "control.smoothing": (3, 5),
    }
    assert RUN.describe_differences(replace(RUN, captions="9" * 64, dtype="float16")) == (
        "captions (222222222222 there, 999999999999 here), dtype (float32 there, float16 here)"
    )
    assert RUN.differences(RUN) == {}


@pytest.mark.parametrize(
    ("old", "new", "step", "problem"),
    [
        ({}, {"stage2_steps": 9}, 6, None),
        ({}, {"stage2_steps": 9}, 1, None),
        ({}, {"stage1_steps": 9}, 2, None),
        ({"stage2_steps": 0}, {"stage1_steps": 9, "stage2_steps": 0}, 3, None),
        ({"stage2_steps": 0}, {"stage2_steps": 4}, 3, None),
        ({}, {"stage1_steps": 9}, 3, "stage 1 is over at step 3"),
        ({}, {"stage1_steps": 9}, 5, "stage 1 is over at step 5"),
        ({}, {}, 6, "3 \\+ 3 steps are not more"),
        ({}, {"stage1_steps": 1, "stage2_steps": 50}, 0, "1 \\+ 50 steps are not more than its 3 \\+ 3"),
        ({}, {"stage2_steps": 9, "rank": 3}, 6, "more differs: rank \\(16 there, 3 here\\)"),
        ({"schedule": "cosine"}, {"schedule": "cosine", "stage2_steps": 9}, 6, "cosine was planned for 6 steps"),
        ({"trainable": "adalora"}, {"trainable": "adalora", "stage2_steps": 9}, 6, "adalora was planned for 6"),
    ],
)
def test_only_what_ends_like_a_longer_run_is_an_extension(
    old: dict[str, object], new: dict[str, object], step: int, problem: str | None
) -> None:
    run = replace(RUN, config=replace(CONFIG, **old))  # type: ignore[arg-type]
    longer = replace(RUN, config=replace(CONFIG, **new))  # type: ignore[arg-type]
    found = run.extension_problem(longer, step)
    if problem is None:
        assert found is None
    else:
        with pytest.raises(ValueError, match=problem):
            raise ValueError(found)


def test_pixels_masks_and_every_text_count_and_the_folder_does_not(custom_set: CustomSet) -> None:
    def digests(example: Example) -> tuple[str, str]:
        changed = replace(custom_set, examples=(example, *custom_set.examples[1:]), folder=Path("elsewhere"))
        return portraits_digest(changed), captions_digest(changed)

    first = custom_set.examples[0]
    portraits, captions = digests(first)
    assert (portraits, captions) == (portraits_digest(custom_set), captions_digest(custom_set))
    touched = first.image.copy()
    touched.putpixel((0, 0), (1, 2, 3))
    for changed in (replace(first, image=touched), replace(first, mask=Image.new("RGB", first.image.size))):
        assert digests(changed)[0] != portraits and digests(changed)[1] == captions
    for changed in (
        replace(first, base_text="a cat"),
        replace(first, target_text="a hat"),
        replace(first, replaces="a person"),
        replace(first, phrases=("a person",)),
    ):
        assert digests(changed)[0] == portraits and digests(changed)[1] != captions


def test_it_is_made_of_what_training_gets(custom_set: CustomSet) -> None:
    made = RunIdentity.of(CONFIG, custom_set, [("a person", None)], "m", None, torch.bfloat16)
    assert (made.target_text, made.dtype, made.base_model) == ("sunglasses", "bfloat16", "m")
    other = RunIdentity.of(CONFIG, custom_set, [("a person", "a person")], "m", None, torch.bfloat16)
    assert set(made.differences(other)) == {"reference_texts"}
