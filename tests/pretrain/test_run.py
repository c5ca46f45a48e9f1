"""All of pretraining on a world of a few portraits, two steps a part: the order, resuming, shipping."""

import json
from pathlib import Path
from random import Random

import pytest
import torch
from accelerate.state import AcceleratorState
from diffusers import AutoencoderKL, PixArtSigmaPipeline, StableDiffusionPipeline

from spf_lite.evaluation.judge import Judge
from spf_lite.pretrain import clip, dataset, decoders, judge, run, transformer, unet
from spf_lite.tiny_world.portraits import Portrait, random_portrait


def one_person(rng: Random) -> Portrait:
    """Always the same person, differently dressed: the judge needs pairs."""
    return random_portrait(rng, hair_style="bun", hair_color="red", skin="tan", eyes="round", nose="small")


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where two steps of every part have been made."""
    folder = tmp_path_factory.mktemp("pretrain")
    with pytest.MonkeyPatch.context() as patch:
        shrink(patch)
        for split, count in dataset.SPLITS.items():
            for chunk in range(count):
                (folder / "portraits").mkdir(exist_ok=True)
                dataset._render_chunk((split, chunk), folder / "portraits", 128)
        AcceleratorState._reset_state(True)  # it knows one precision per process
        run.pretrain("all", folder, steps=2)
        AcceleratorState._reset_state(True)
    return folder


def shrink(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(dataset, "CHUNK", 1)
    patch.setattr(dataset, "SPLITS", {"base": 12, "mixed": 12, "held-out": 1})
    patch.setattr(dataset, "random_portrait", one_person)
    for part, size in ((clip, 4), (unet, 2), (decoders, 2), (judge, 8), (transformer, 2)):
        patch.setattr(part, "BATCH", size)
    patch.setattr(decoders, "PREVIEW_BATCH", 2)


def test_every_part_is_kept_with_its_log(work: Path) -> None:
    assert {path.name for path in (work / "parts").iterdir()} == set(run.PARTS)
    for part in run.PARTS:
        steps = [json.loads(line)["step"] for line in (work / f"{part}.jsonl").read_text().splitlines()]
        assert steps == [0, 1]
        assert (work / f"{part}.pt").is_file()


def test_the_decoder_was_polished_and_the_encoder_left_alone(work: Path) -> None:
    before, after = (AutoencoderKL.from_pretrained(work / "parts" / part) for part in ("autoencoder", "decoder"))
    same = {
        name: torch.equal(value, after.state_dict()[name])
        for name, value in before.state_dict().items()
        if name.startswith(("encoder", "quant_conv", "decoder", "post_quant_conv"))
    }
    frozen = [equal for name, equal in same.items() if name.startswith(("encoder", "quant_conv"))]
    polished = [equal for name, equal in same.items() if name.startswith(("decoder", "post_quant_conv"))]
    assert all(frozen) and not any(polished)
    assert before.config["scaling_factor"] == after.config["scaling_factor"] == 1.0


def test_what_is_finished_is_not_trained_again_but_the_unet_can_go_on(
    work: Path, monkeypatch: pytest.MonkeyPatch, fresh_accelerate: None
) -> None:
    shrink(monkeypatch)
    logs = {part: (work / f"{part}.jsonl").read_text() for part in run.PARTS}
    run.pretrain("all", work)
    assert {part: (work / f"{part}.jsonl").read_text() for part in run.PARTS} == logs
    run.pretrain("unet", work, steps=3)
    assert (work / "unet.jsonl").read_text().splitlines()[:-1] == logs["unet"].splitlines()
    assert json.loads((work / "unet.jsonl").read_text().splitlines()[-1])["step"] == 2


def test_an_unknown_part_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown part 'soul': expected all, autoencoder, clip, unet, decoder, judge"):
        run.pretrain("soul", tmp_path)
    assert not list(tmp_path.iterdir()), "before anything is rendered"


def test_the_parts_are_shipped_as_one_model(work: Path, tmp_path: Path) -> None:
    run.ship_all(work, tmp_path)
    pipe = StableDiffusionPipeline.from_pretrained(tmp_path)
    pipe.set_progress_bar_config(disable=True)
    assert pipe("a person", num_inference_steps=1).images[0].size == (128, 128)
    assert isinstance(Judge.load(tmp_path / "judge"), Judge)
    parts = [json.loads(line)["part"] for line in (tmp_path / "training-log.jsonl").read_text().splitlines()]
    assert set(parts) == set(run.PARTS)
    polished = AutoencoderKL.from_pretrained(work / "parts" / "decoder").decoder.conv_in.weight
    assert torch.allclose(pipe.vae.decoder.conv_in.weight, polished, atol=1e-3), "the polished decoder, in 16 bits"


def test_a_transformer_is_trained_beside_the_parts_of_a_shipped_model(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fresh_accelerate: None
) -> None:
    shrink(monkeypatch)
    shipped, other, folder = tmp_path / "shipped", tmp_path / "work", tmp_path / "transformer"
    run.ship_all(work, shipped)
    run.take_parts(shipped, other)
    (other / "portraits").symlink_to(work / "portraits")
    run.pretrain("transformer", other, steps=1)
    assert not [other / f"{part}.pt" for part in run.PARTS if (other / f"{part}.pt").exists()], "all of them are taken"
    run.pretrain("transformer", other, steps=2)
    steps = [json.loads(line)["step"] for line in (other / "transformer.jsonl").read_text().splitlines()]
    assert steps == [0, 1], "it went on"
    run.ship_transformer(other, folder)
    pipe = PixArtSigmaPipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    options = {"num_inference_steps": 1, "use_resolution_binning": False, "clean_caption": False}
    assert pipe("a person", **options).images[0].size == (128, 128)
    assert {parameter.dtype for parameter in pipe.transformer.parameters()} == {torch.float32}
    assert isinstance(Judge.load(folder / "judge"), Judge)
    lines = (folder / "training-log.jsonl").read_text().splitlines()
    assert {json.loads(line)["part"] for line in lines} == {"transformer"}


def test_parts_are_not_taken_from_another_folder(tmp_path: Path) -> None:
    (tmp_path / "unet").mkdir()
    with pytest.raises(ValueError, match="holds no model of the tiny world: it lacks clip, judge, preview, vae"):
        run.take_parts(tmp_path, tmp_path / "work")
    assert not (tmp_path / "work").exists()
