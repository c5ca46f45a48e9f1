"""Thousands of bad inputs end in success or in a named error: ``SPF_LITE_CASES=10000 pytest -s`` for a thorough run."""

import os
from collections import Counter
from pathlib import Path

import pytest
from transformers import CLIPTokenizer

from spf_lite.models.adapters.trainable import Lora

from ..conftest import load_toy
from .bad_inputs import KINDS, World, outcome

#: Over all kinds.
CASES = int(os.environ.get("SPF_LITE_CASES", "300"))


@pytest.fixture(scope="module")
def world(toy_folders: dict[str, Path], tokenizer: CLIPTokenizer, tmp_path_factory: pytest.TempPathFactory) -> World:
    unet = load_toy(toy_folders["v_prediction"]).pipe.unet
    return World(tmp_path_factory.mktemp("cases"), tokenizer, Lora(unet, rank=2, seed=0))


@pytest.mark.parametrize("kind", KINDS)
def test_a_bad_input_is_taken_or_refused_by_name(kind: str, world: World, capsys: pytest.CaptureFixture[str]) -> None:
    found, faults = Counter[str](), []
    cases = -(-CASES // len(KINDS))
    for seed in range(cases):
        try:
            found[outcome(kind, seed, world)] += 1
        except AssertionError as error:
            faults.append(str(error))
    counted = ", ".join(f"{number} {name}" for name, number in sorted(found.items()))
    with capsys.disabled():
        print(f"\n{kind}: {cases} cases: {counted}; {len(faults)} faults", end="")
    assert not faults, f"{len(faults)} of {cases}, such as:\n" + "\n".join(faults[:20])
    assert found["success"] and len(found) > 1, "neither are all inputs good, nor all bad"
