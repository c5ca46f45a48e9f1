"""The same seed without and with the adapter, a few portraits at a time."""

from dataclasses import replace
from pathlib import Path

import pytest

from spf_lite.audit import sampling
from spf_lite.audit.sampling import Sampler
from spf_lite.models.adapters.lora import load_adapter
from spf_lite.models.backbone import Backbone
from spf_lite.models.running.sampling import sample

from .conftest import PROMPTS, bytes_of


def test_portraits_before_are_those_of_the_untouched_model(toy: Backbone, diffusers_lora: Path) -> None:
    texts = [prompt.base_text for prompt in PROMPTS]
    untouched = sample(toy, texts, seeds=[5, 6, 7], steps=2)
    load_adapter(toy, diffusers_lora)
    found = Sampler(toy, steps=2).portraits(PROMPTS, [5, 6, 7])
    assert bytes_of(found.base) == bytes_of(untouched) != bytes_of(found.at_base)
    assert found.at_complete == found.by_words == []
    complete = [replace(prompt, complete_text=prompt.base_text) for prompt in PROMPTS]
    again = Sampler(toy, steps=2).portraits(complete, [5, 6, 7], found.base)
    assert again.base is found.base and bytes_of(again.at_complete) == bytes_of(found.at_base)
    assert bytes_of(again.by_words) == bytes_of(untouched), "the same text by the same model"
    third = Sampler(toy, steps=2).portraits(complete, [5, 6, 7], found.base, again.by_words)
    assert third.by_words is again.by_words


def test_a_large_model_samples_few_portraits_at_a_time(toy: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Sampler(toy).at_a_time == 16, "64 pixels a side"
    monkeypatch.setattr(sampling, "model_buckets", lambda backbone: [(64, 64)])
    assert Sampler(toy).at_a_time == 4, "512 pixels a side"
    monkeypatch.setattr(sampling, "model_buckets", lambda backbone: [(128, 128)])
    assert Sampler(toy).at_a_time == 1, "never none"
