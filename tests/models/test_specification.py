from pathlib import Path

import pytest

import spf_lite
from spf_lite.models.backbone import load
from spf_lite.models.specification import GUIDANCE_SCALE, specification_of, tiny_folder


def test_facts_are_found_by_name(toy_folders: dict[str, Path]) -> None:
    assert specification_of("sd15").source.endswith("stable-diffusion-v1-5")
    assert specification_of(str(toy_folders["epsilon"])).clip == str(toy_folders["epsilon"] / "clip")
    assert spf_lite.load is load
    assert load(str(toy_folders["epsilon"])).spec.attention_resolution == 8, "no layer is larger than its latents"


def test_guidance_is_what_suits_the_model(toy_folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = str(toy_folders["epsilon"])
    assert specification_of("sd15").guidance_scale == specification_of(folder).guidance_scale == 7.5
    monkeypatch.setenv("SPF_LITE_TINY", folder)
    assert tiny_folder() == toy_folders["epsilon"]
    assert specification_of("tiny").source == folder
    assert specification_of("tiny").guidance_scale == specification_of(folder).guidance_scale == GUIDANCE_SCALE


def test_what_lies_beside_a_local_model_is_used(tmp_path: Path) -> None:
    alone = specification_of(str(tmp_path))
    assert alone.clip == specification_of("sd15").clip and alone.preview is None
    for name in ("clip", "preview"):
        (tmp_path / name).mkdir()
    beside = specification_of(str(tmp_path))
    assert (beside.clip, beside.preview) == (str(tmp_path / "clip"), str(tmp_path / "preview"))
