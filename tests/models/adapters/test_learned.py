"""What a LoRA file says of its target."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from spf_lite.models.adapters.combined_file import parts_of, write_combined
from spf_lite.models.adapters.learned import PARTS, TARGET, LearnedTarget, targets_of
from spf_lite.models.adapters.lora_file import ADAPTER_FILE, read_lora
from spf_lite.models.backbone import Backbone
from spf_lite.models.errors import BackboneError

from ..conftest import factors_for

PINK = LearnedTarget.of("pink hair", ["red hair", None, "black hair", "red hair"])


def written(folder: Path, toy: Backbone, metadata: dict[str, str]) -> Path:
    folder.mkdir(parents=True)
    state = {f"unet.{key}": value for key, value in factors_for(toy.pipe.unet, ("attn2.to_k",), 2, 0).items()}
    save_file(state, folder / ADAPTER_FILE, metadata={"format": "pt", **metadata})
    return folder


def test_a_file_names_its_target_or_none(toy: Backbone, tmp_path: Path) -> None:
    assert LearnedTarget("pink hair", ("black hair", "red hair")) == PINK
    pink = written(tmp_path / "pink", toy, {TARGET: PINK.to_json()})
    foreign = written(tmp_path / "foreign", toy, {})
    assert targets_of(pink) == targets_of(pink / ADAPTER_FILE) == [PINK]
    assert targets_of(foreign) == [None]


def test_phrases_that_it_excludes_and_its_texts_are_named_as_well(toy: Backbone, tmp_path: Path) -> None:
    dark = LearnedTarget.of("sunglasses", [None], ["glasses"], ["a person, red hair"])
    assert targets_of(written(tmp_path / "dark", toy, {TARGET: dark.to_json()})) == [dark]
    older = '{"text": "sunglasses", "replaces": []}'
    assert targets_of(written(tmp_path / "older", toy, {TARGET: older})) == [LearnedTarget("sunglasses")]


def test_a_combined_file_keeps_the_targets_of_its_parts(toy: Backbone, tmp_path: Path) -> None:
    paths = [written(tmp_path / "pink", toy, {TARGET: PINK.to_json()}), written(tmp_path / "foreign", toy, {})]
    parts = write_combined(tmp_path / "both", paths, toy.pipe.unet)
    assert [part.target for part in parts] == targets_of(tmp_path / "both") == [PINK, None]
    assert parts_of(tmp_path / "both", read_lora(tmp_path / "both", toy.pipe.unet)) == parts
    write_combined(tmp_path / "left", [tmp_path / "both"], toy.pipe.unet, without=["foreign"])
    assert targets_of(tmp_path / "left") == [PINK]


def test_parts_that_were_written_before_targets_were_known(toy: Backbone, tmp_path: Path) -> None:
    rows = [{"name": "old", "strength": 1.0, "ranks": [2]}]
    assert targets_of(written(tmp_path / "old", toy, {PARTS: json.dumps(rows)})) == [None]


@pytest.mark.parametrize(
    "said",
    [
        "{",
        "[]",
        '"pink hair"',
        '{"text": "pink hair"}',
        '{"text": "", "replaces": []}',
        '{"text": "a", "replaces": [1]}',
        '{"text": "a", "replaces": [], "excludes": "b"}',
        '{"text": "a", "replaces": [], "excludes": [2]}',
    ],
)
def test_a_target_that_cannot_be_read_is_refused(said: str, toy: Backbone, tmp_path: Path) -> None:
    folder = written(tmp_path / "broken", toy, {TARGET: said})
    with pytest.raises(BackboneError, match="broken.* says nothing readable about its target"):
        targets_of(folder)


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match="no adapter in"):
        targets_of(tmp_path)
    (tmp_path / ADAPTER_FILE).write_bytes(torch.zeros(4).numpy().tobytes())
    with pytest.raises(BackboneError, match="cannot be read"):
        targets_of(tmp_path)
