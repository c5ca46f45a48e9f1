"""Parts that a training step does not need are in main memory meanwhile, and no number changes."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState
from diffusers import AutoencoderTiny
from torch import nn

from spf_lite.config import TrainConfig
from spf_lite.data.draws import Draw
from spf_lite.data.sets.custom_set import CustomSet
from spf_lite.models.backbone import Backbone, load
from spf_lite.models.running.resting import Resting, unneeded
from spf_lite.training import stage2
from spf_lite.training.passes import Passes
from spf_lite.training.trainer import DualPathTrainer

from ...gpu.pretend_gpu import CUDA, PretendGpu

CPU = torch.device("cpu")
CONFIG = TrainConfig(
    stage1_steps=1, stage2_steps=2, batch_size=2, rank=2, weight_output=1.0, weight_purecc=1.0, reference_portraits=2
)


@pytest.fixture
def cuda() -> Iterator[None]:
    AcceleratorState._reset_state(True)
    with PretendGpu():
        yield
    AcceleratorState._reset_state(True)


def devices(backbone: Backbone) -> dict[str, torch.device]:
    """Where each part of a model is; all of its tensors are at one place."""
    modules: dict[str, nn.Module] = {**backbone.architecture.modules(backbone.pipe), "clip": backbone.clip.model}
    found = {}
    for name, module in modules.items():
        (found[name],) = {tensor.device for tensor in (*module.parameters(), *module.buffers())}
    return found


@pytest.mark.parametrize("enhance", [False, True])
def test_parts_leave_the_card_for_the_steps_alone(
    enhance: bool, cuda: None, toy_folders: dict[str, Path], custom_set: CustomSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, torch.device]] = []
    run = Passes.run
    config = replace(CONFIG, weight_enhancement=1.0, trusted=1.0) if enhance else CONFIG
    few = replace(custom_set, examples=custom_set.examples[:3])

    def watched(self: Passes, part: Draw, in_stage2: bool, extractor: Any = None) -> Any:
        seen.append(devices(self.backbone))
        return run(self, part, in_stage2, extractor)

    monkeypatch.setattr(Passes, "run", watched)
    monkeypatch.setattr(stage2, "SCALE_BATCHES", 1)
    trainer = DualPathTrainer(load(str(toy_folders["epsilon"])), few, config)
    assert set(devices(trainer.backbone).values()) == {CUDA}
    history = trainer.fit(progress=False).history
    at_home = {"unet", "vae", "clip"} if enhance else {"unet"}
    assert len(seen) == 4, "three steps, and a batch that the loss terms are brought to one size with"
    for places in seen:
        assert places == {name: CUDA if name in at_home else CPU for name in places}
    assert set(devices(trainer.backbone).values()) == {CUDA}, "afterwards the model samples as before"
    seen.clear()
    other = DualPathTrainer(load(str(toy_folders["epsilon"])), few, config)
    watched_history = other.fit(progress=False, on_step=lambda *_: None).history
    assert all(set(places.values()) == {CUDA} for places in seen), "who looks at each step may sample"
    assert [line["loss"] for line in watched_history] == [line["loss"] for line in history]
    for name, value in trainer.trained.state().items():
        assert torch.equal(value, other.trained.state()[name]), name


def test_stage_2_is_prepared_with_the_parts_that_each_piece_of_work_needs(
    cuda: None, toy_folders: dict[str, Path], custom_set: CustomSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = {"with_averaged_maps", "term_scales"}
    seen: dict[str, set[torch.device]] = {}
    trainer = DualPathTrainer(
        load(str(toy_folders["epsilon"])),
        replace(custom_set, examples=custom_set.examples[:3]),
        replace(CONFIG, stage2_steps=1, map_source="averaged", map_draws=1, pure_pairs=2, rewrite_limit=0.0),
    )

    def watch(name: str) -> None:
        real = getattr(stage2, name)

        def watched(*arguments: Any) -> Any:
            places = devices(trainer.backbone)
            assert places["unet"] == CUDA
            seen.setdefault(name, set()).update(places[part] for part in trainer.resting.parts)
            return real(*arguments)

        monkeypatch.setattr(stage2, name, watched)

    for name in ("reference_latents", "reference_items", "with_pure_pairs", "Extractor", *away):
        watch(name)
    monkeypatch.setattr(stage2, "SCALE_BATCHES", 1)
    trainer.fit(progress=False)
    assert seen == {name: {CPU if name in away else CUDA} for name in seen} and len(seen) == 6


def test_parts_are_back_after_an_error(cuda: None, toy_folders: dict[str, Path]) -> None:
    backbone = load(str(toy_folders["epsilon"]))
    resting = Resting(unneeded(backbone, enhance=False), backbone.device)
    with pytest.raises(KeyError), resting.away():
        assert backbone.pipe.text_encoder.device == CPU == backbone.pipe.vae.device
        with pytest.raises(IndexError), resting.back():
            assert backbone.pipe.text_encoder.device == CUDA
            raise IndexError
        assert backbone.pipe.text_encoder.device == CPU and backbone.device == CUDA
        raise KeyError
    assert set(devices(backbone).values()) == {CUDA}


def test_away_and_back_may_stand_within_each_other(cuda: None, toy_folders: dict[str, Path]) -> None:
    backbone = load(str(toy_folders["epsilon"]))
    resting, encoder = Resting(unneeded(backbone, enhance=False), backbone.device), backbone.pipe.text_encoder
    with resting.back():
        assert encoder.device == CUDA, "they are there already"
        with resting.away():
            assert encoder.device == CPU
            with resting.away(), resting.back(), resting.back():
                assert encoder.device == CUDA
            assert encoder.device == CPU
        assert encoder.device == CUDA
    assert set(devices(backbone).values()) == {CUDA}


def test_on_a_cpu_nothing_is_moved(toy: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spf_lite.models.running.resting._move", pytest.fail)
    resting = Resting(unneeded(toy, enhance=False), toy.device)
    with resting.away(), resting.back():
        assert set(resting.parts) == {"text_encoder", "vae"}, "CLIP is not loaded yet"


def test_what_decodes_predictions_stays(toy: Backbone, tmp_path: Path) -> None:
    small = AutoencoderTiny(encoder_block_out_channels=(4,) * 4, decoder_block_out_channels=(4,) * 4)
    small.save_pretrained(tmp_path)
    assert toy.clip
    assert set(unneeded(toy, enhance=True)) == {"text_encoder"}
    assert set(unneeded(toy, enhance=False)) == {"text_encoder", "vae", "clip"}
    other = Backbone(toy.pipe, replace(toy.spec, preview=str(tmp_path)))
    assert other.preview is not None
    assert set(unneeded(other, enhance=True)) == {"text_encoder", "vae"}, "the small decoder does it"
    assert set(unneeded(other, enhance=False)) == {"text_encoder", "vae", "preview"}
