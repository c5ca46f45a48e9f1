"""Where a model is stored: options that make no sense together are refused, and a revision reaches every reader."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from spf_lite.models import source as sources
from spf_lite.models.backbone import load
from spf_lite.models.errors import BackboneError
from spf_lite.models.source import Source

WEIGHTS = "diffusion_pytorch_model.safetensors"
#: A process of its own: where the hub's cache lies is read when the libraries are imported.
READ = """
import json, sys, torch, spf_lite
found = {}
for revision in (None, "other"):
    backbone = spf_lite.load("someone/portraits", revision=revision, device="cpu")
    found[str(revision)] = [float(backbone.network.conv_in.bias[0]), backbone.pipe.scheduler.config.prediction_type]
try:
    spf_lite.load("someone/portraits", revision="nowhere", device="cpu")
except ValueError as error:
    found["nowhere"] = str(error)
print(json.dumps(found))
"""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"location": "a.safetensors", "variant": "fp16"}, "variant='fp16' .*single file: name the file that is meant"),
        ({"location": "someone/model", "config": "other"}, r"config='other' \(--config\) is for a single file"),
        ({"location": ".", "revision": "v1"}, r"revision='v1' \(--revision\) is for a model of the hub, and \. is on"),
        ({"location": "a.ckpt", "config": ".", "revision": "v1"}, "revision='v1' .*is on this disk"),
    ],
)
def test_options_that_make_no_sense_together_are_refused(options: dict[str, str], message: str) -> None:
    with pytest.raises(BackboneError, match=message):
        Source(**options)
    with pytest.raises(BackboneError, match=message):
        load(
            options["location"],
            revision=options.get("revision"),
            variant=options.get("variant"),
            config=options.get("config"),
        )


def test_a_revision_reaches_the_configuration_of_a_file_on_the_hub() -> None:
    source = Source("a.safetensors", revision="v1", config="someone/model")
    assert source.configs == "someone/model" and source.version == {"revision": "v1"}
    assert Source("someone/model").version == {} and Source("a.safetensors").configs == "a.safetensors"


def test_a_variant_is_read_and_a_missing_one_says_which_files_there_are(
    toy_folders: dict[str, Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(toy_folders["epsilon"], tmp_path / "model")
    other = load_file(folder / "unet" / WEIGHTS)
    other["conv_in.bias"] += 1
    save_file(other, folder / "unet" / "diffusion_pytorch_model.ema.safetensors")
    plain, ema = load(str(folder)), load(str(folder), variant="ema")
    assert torch.equal(ema.network.conv_in.bias, plain.network.conv_in.bias + 1)
    assert torch.equal(ema.pipe.vae.quant_conv.bias, plain.pipe.vae.quant_conv.bias), "it has no such variant"
    with pytest.raises(BackboneError, match=r"variant 'fp16', --variant: there are text_encoder/.*") as refusal:
        load(str(folder), variant="fp16")
    assert f"unet/{WEIGHTS}" in str(refusal.value) and "unet/diffusion_pytorch_model.ema" in str(refusal.value)
    assert "clip/" not in str(refusal.value), "it is no part of the pipeline"


def test_the_files_of_the_hub_are_listed_if_it_answers(
    toy_folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    index = json.loads((toy_folders["epsilon"] / "model_index.json").read_text())
    monkeypatch.setattr(Source, "index", lambda _: index)
    asked: list[object] = []

    def answer(name: str, **options: str) -> list[str]:
        asked.append((name, options))
        return ["README.md", "unet/config.json", f"unet/{WEIGHTS}", "safety_checker/model.safetensors"]

    source = Source("someone/portraits", revision="v2", variant="fp16")
    monkeypatch.setattr(sources, "list_repo_files", answer)
    assert source.weight_files() == [f"unet/{WEIGHTS}"]
    assert asked[0] == ("someone/portraits", {"revision": "v2"})

    def silent(*_: object, **__: object) -> list[str]:
        raise OSError("offline")

    monkeypatch.setattr(sources, "list_repo_files", silent)
    assert source.weight_files() == [] and source.variant_hint() == " (variant 'fp16', --variant)"


def test_every_file_is_of_the_revision_that_was_asked_for(toy_folders: dict[str, Path], tmp_path: Path) -> None:
    """The hub's cache on disk holds two revisions of a model, and there is no network."""
    repository = tmp_path / "models--someone--portraits"
    for revision, kind, commit in (("main", "epsilon", "a" * 40), ("other", "v_prediction", "b" * 40)):
        snapshot = repository / "snapshots" / commit
        shutil.copytree(toy_folders[kind], snapshot)
        (repository / "refs").mkdir(exist_ok=True)
        (repository / "refs" / revision).write_text(commit)
    weights = repository / "snapshots" / ("b" * 40) / "unet" / WEIGHTS
    changed = load_file(weights)
    changed["conv_in.bias"][0] = 7.0
    save_file(changed, weights)
    settings = {"HF_HUB_CACHE": str(tmp_path), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        [sys.executable, "-c", READ], env={**os.environ, **settings}, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout.splitlines()[-1])
    assert found["None"][0] != 7.0 and found["None"][1] == "epsilon"
    assert found["other"] == [7.0, "v_prediction"]
    assert "someone/portraits" in found["nowhere"]
