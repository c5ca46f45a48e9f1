import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from diffusers import StableDiffusionPipeline

from spf_lite.config import TrainConfig
from spf_lite.data.batch import collate
from spf_lite.data.sets.custom_set import CustomSet, CustomSetError
from spf_lite.method.dual_path import dual_path_step
from spf_lite.models.adapters.lora import load_adapter
from spf_lite.models.backbone import Backbone, load
from spf_lite.models.running.sampling import sample
from spf_lite.models.tokenizer import TargetTruncatedError
from spf_lite.training.loss_meter import TrainingDivergedError
from spf_lite.training.trainer import DualPathTrainer

from ..conftest import load_toy

SHORT = TrainConfig(stage1_steps=3, stage2_steps=3, batch_size=4, rank=2, checkpoint_every=2)
FULL = replace(
    SHORT,
    weight_text=1.0,
    weight_fine=1.0,
    weight_enhancement=1.0,
    weight_output=1.0,
    weight_reconstruction=1.0,
    reference_portraits=3,
    reconstruction_share=0.5,
)


def losses_of(history: list[dict[str, float]]) -> list[float]:
    return [line["loss"] for line in history]


def test_both_stages_run_and_every_term_is_logged(backbone: Backbone, custom_set: CustomSet, tmp_path: Path) -> None:
    trainer = DualPathTrainer(backbone, custom_set, FULL, tmp_path)
    result = trainer.fit(progress=False)
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert log == result.history
    assert [line["stage"] for line in log] == [1, 1, 1, 2, 2, 2]
    assert {"denoise", "text", "fine", "output", "reconstruction", "enhancement"} <= set(log[-1])
    assert "text" not in log[0], "stage 1 has one term"
    assert len(log[-1]["by_timestep"]["denoise"]) == 4
    assert TrainConfig.from_json((tmp_path / "config.json").read_text()) == FULL


def test_training_lowers_the_loss_on_one_batch(toy: Backbone, custom_set: CustomSet) -> None:
    one = CustomSet(custom_set.folder, custom_set.examples[:1], custom_set.digest)
    config = TrainConfig(stage1_steps=60, stage2_steps=0, batch_size=16, rank=4, learning_rate=1e-2)
    history = losses_of(DualPathTrainer(toy, one, config).fit(progress=False).history)
    assert np.mean(history[-15:]) < np.mean(history[:15])


def test_both_paths_see_the_same_latents_and_timestep(toy: Backbone, custom_set: CustomSet) -> None:
    trainer = DualPathTrainer(toy, custom_set, replace(FULL, stage1_steps=0, stage2_steps=1))
    seen: list[tuple[torch.Tensor, torch.Tensor, bool]] = []

    def listen(module: torch.nn.Module, args: tuple[torch.Tensor, ...], kwargs: dict[str, torch.Tensor]) -> None:
        seen.append((args[0], args[1], torch.is_grad_enabled()))

    trainer._begin_stage_two()
    toy.pipe.unet.register_forward_pre_hook(listen, with_kwargs=True)
    trainer.fit(progress=False)
    (reference, response) = seen
    assert torch.equal(reference[0], response[0]) and torch.equal(reference[1], response[1])
    assert not reference[2] and response[2], "no gradient on the reference path"


def test_stage_two_changes_nothing_but_the_adapter(toy: Backbone, custom_set: CustomSet) -> None:
    before = {name: value.clone() for name, value in toy.pipe.unet.state_dict().items()}
    DualPathTrainer(toy, custom_set, FULL).fit(progress=False)
    after = toy.pipe.unet.state_dict()
    for name, value in before.items():
        kept = (
            after[name]
            if name in after
            else after[name.replace(".weight", ".base_layer.weight").replace(".bias", ".base_layer.bias")]
        )
        assert torch.equal(kept, value), name


@pytest.mark.parametrize("features", ["inputs", "queries", "outputs"])
def test_identical_paths_have_nothing_to_align(toy: Backbone, custom_set: CustomSet, features: str) -> None:
    trainer = DualPathTrainer(toy, custom_set, replace(FULL, fine_features=features))
    batch = collate(trainer.custom[:2], [True, True])
    noise, timesteps = torch.randn(2, 4, 8, 8), torch.tensor([100, 900])
    with dual_path_step(toy, batch, noise, timesteps, trainer.config) as step:
        assert step.terms["reconstruction"].mean() < 1e-10, "base text on both paths, adapter at zero"
        assert step.terms["fine"].values.max() < 1e-10
        assert step.terms["denoise"].values.mean() > 0
        assert not step.terms["denoise"].applies.any(), "anchors: the target is not learned from them"


@pytest.mark.parametrize(
    "config",
    [
        SHORT,
        FULL,
        replace(SHORT, weight_purecc=1.0),
        replace(SHORT, weight_prior=1.0, reference_portraits=3, reconstruction_share=1.0),
        replace(FULL, trainable="weights", map_source="token"),
        replace(SHORT, trainable="adalora", weight_output=1.0, map_source="none"),
        replace(FULL, map_source="averaged", schedule="cosine", warmup_steps=2, denoise_outside=0.0),
    ],
    ids=["short", "full", "purecc", "prior", "weights", "adalora", "averaged"],
)
def test_a_resumed_run_has_the_same_losses_to_the_last_digit(
    toy_folders: dict[str, Path], custom_set: CustomSet, tmp_path: Path, config: TrainConfig
) -> None:
    def trainer(folder: Path) -> DualPathTrainer:
        return DualPathTrainer(load_toy(toy_folders["v_prediction"]), custom_set, config, folder)

    whole = trainer(tmp_path / "whole").fit(progress=False)

    class Killed(Exception):
        pass

    def die(step: int, control: object) -> None:
        if step == 4:
            raise Killed

    with pytest.raises(Killed):
        trainer(tmp_path / "parts").fit(on_step=die, progress=False)
    resumed = trainer(tmp_path / "parts")
    assert losses_of(resumed.fit(resume=True, progress=False).history) == losses_of(whole.history)
    lines = (tmp_path / "parts" / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(6))
    other = DualPathTrainer(
        load_toy(toy_folders["v_prediction"]), custom_set, replace(config, learning_rate=0.5), tmp_path / "parts"
    )
    with pytest.raises(ValueError, match=r"differs in learning_rate \(0.0015 there, 0.5 here\)"):
        other.fit(resume=True)


def test_a_loss_that_is_not_finite_names_step_term_and_timesteps(
    toy: Backbone, custom_set: CustomSet, tmp_path: Path
) -> None:
    trainer = DualPathTrainer(toy, custom_set, replace(SHORT, stage1_steps=5), tmp_path)

    def poison(step: int, control: object) -> None:
        if step == 2:
            with torch.no_grad():
                trainer.parameters[0].fill_(float("nan"))

    with pytest.raises(TrainingDivergedError, match=r"step 3: denoise is nan at t = \["):
        trainer.fit(on_step=poison, progress=False)
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["state"]["step"] == 2, "the last good one"


def test_the_export_is_an_ordinary_diffusers_adapter(
    toy_folders: dict[str, Path], custom_set: CustomSet, tmp_path: Path
) -> None:
    backbone = load_toy(toy_folders["v_prediction"])
    trainer = DualPathTrainer(backbone, custom_set, replace(SHORT, learning_rate=0.05))
    before = sample(backbone, ["sunglasses"], seeds=[1], steps=3)[0]
    trainer.fit(progress=False)
    own = sample(backbone, ["sunglasses"], seeds=[1], steps=3)[0]
    trainer.export(tmp_path)
    assert (tmp_path / "pytorch_lora_weights.safetensors").is_file()
    plain = StableDiffusionPipeline.from_pretrained(toy_folders["v_prediction"], safety_checker=None)
    plain.load_lora_weights(tmp_path)
    theirs = sample(Backbone(plain, backbone.spec), ["sunglasses"], seeds=[1], steps=3)[0]
    assert np.abs(np.asarray(own, dtype=int) - np.asarray(theirs, dtype=int)).max() <= 1
    assert np.abs(np.asarray(own, dtype=int) - np.asarray(before, dtype=int)).max() > 1


def test_bad_configurations_and_texts_are_refused(toy: Backbone, custom_set: CustomSet) -> None:
    for bad, message in (
        ({"stage1_steps": 0, "stage2_steps": 0}, "at least one is needed"),
        ({"rank": 0}, "rank=0"),
        ({"fine_features": "values"}, "expected one of inputs, queries, outputs"),
        ({"weight_reconstruction": 1.0}, "needs reference_portraits"),
    ):
        with pytest.raises(ValueError, match=message):
            TrainConfig(**bad)
    long = replace(custom_set.examples[0], base_text=" ".join(["hair"] * 29))
    with pytest.raises(TargetTruncatedError, match="would be truncated"):
        DualPathTrainer(toy, CustomSet(custom_set.folder, (long,), ""), SHORT)


def test_parts_and_recomputed_layers_change_nothing(toy_folders: dict[str, Path], custom_set: CustomSet) -> None:
    def run(**options: object) -> tuple[list[float], dict[str, torch.Tensor]]:
        config = replace(FULL, **options)  # type: ignore[arg-type]
        trainer = DualPathTrainer(load_toy(toy_folders["v_prediction"]), custom_set, config)
        return losses_of(trainer.fit(progress=False).history), trainer.trained.state()

    whole, weights = run()
    for options in ({"gradient_accumulation": 2}, {"gradient_accumulation": 4}, {"gradient_checkpointing": True}):
        losses, others = run(**options)
        assert losses == pytest.approx(whole, abs=1e-5), options
        for name, value in weights.items():
            assert torch.allclose(others[name], value, atol=1e-4), (options, name)
    with pytest.raises(ValueError, match="batch_size=4 cannot be shared out evenly"):
        run(gradient_accumulation=3)


def test_sixteen_bits_learn_about_the_same(
    toy_folders: dict[str, Path], custom_set: CustomSet, fresh_accelerate: None
) -> None:
    def run(precision: str) -> list[float]:
        AcceleratorState._reset_state(True)  # accelerate knows one precision per process
        config = replace(FULL, mixed_precision=precision)
        trainer = DualPathTrainer(load_toy(toy_folders["v_prediction"]), custom_set, config)
        history = trainer.fit(progress=False).history
        assert all(parameter.dtype == torch.float32 for parameter in trainer.parameters)
        return [line["denoise"] for line in history]

    full, half = run("no"), run("bf16")
    assert half != full
    assert half == pytest.approx(full, rel=0.05)
    with pytest.raises(ValueError, match="precision"):
        DualPathTrainer(load_toy(toy_folders["v_prediction"]), custom_set, replace(SHORT, mixed_precision="fp16"))


def test_both_stages_compute_in_sixteen_bits_when_asked_to(
    toy: Backbone, custom_set: CustomSet, fresh_accelerate: None
) -> None:
    seen: list[torch.dtype] = []
    trainer = DualPathTrainer(toy, custom_set, replace(FULL, mixed_precision="bf16"))
    layer = toy.pipe.unet.conv_out
    layer.register_forward_hook(lambda module, args, output: seen.append(output.dtype) if trainer.history else None)
    trainer.fit(progress=False)
    sampled = seen.count(torch.float32)  # reference portraits are sampled in 32 bits
    assert set(seen[-4:]) == {torch.bfloat16}, "both paths of the last steps"
    assert seen.count(torch.bfloat16) >= 2 + 2 * 3 and sampled < len(seen)


@pytest.mark.parametrize("kind", ["lora", "adalora"])
def test_frozen_weights_may_have_sixteen_bits(
    kind: str, toy_folders: dict[str, Path], custom_set: CustomSet, tmp_path: Path, fresh_accelerate: None
) -> None:
    backbone = load(str(toy_folders["v_prediction"]), dtype=torch.bfloat16)
    latents, text = torch.randn(2, 4, 8, 8), torch.randn(2, 32, 32)

    def predict() -> torch.Tensor:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            prediction: torch.Tensor = backbone.pipe.unet(latents, 500, text).sample
            return prediction

    untouched = predict()
    config = replace(FULL, mixed_precision="bf16", map_source="averaged", trainable=kind, learning_rate=1e-2)
    trainer = DualPathTrainer(backbone, custom_set, config)
    history = trainer.fit(progress=False).history
    assert len(history) == config.steps and np.isfinite(losses_of(history)).all()
    assert {parameter.dtype for parameter in trainer.parameters} == {torch.float32}
    assert not torch.equal(predict(), untouched), "something was learned"
    with backbone.reference():
        assert torch.equal(predict(), untouched)
    trainer.export(tmp_path / "adapter")
    load_adapter(load_toy(toy_folders["v_prediction"]).pipe, tmp_path / "adapter")


def test_sixteen_bit_weights_want_mixed_precision(toy_folders: dict[str, Path], custom_set: CustomSet) -> None:
    with pytest.raises(ValueError, match="weights of torch.bfloat16 want mixed_precision=fp16 or bf16"):
        DualPathTrainer(load(str(toy_folders["v_prediction"]), dtype=torch.bfloat16), custom_set, SHORT)


def test_the_learning_rate_follows_its_schedule(toy: Backbone, custom_set: CustomSet) -> None:
    config = replace(SHORT, stage1_steps=9, stage2_steps=0, schedule="cosine", warmup_steps=2)
    rates = [line["learning_rate"] for line in DualPathTrainer(toy, custom_set, config).fit(progress=False).history]
    peak = config.learning_rate
    assert rates[0] == pytest.approx(peak / 3) and max(rates) == rates[2] <= peak
    assert all(a > b for a, b in zip(rates[2:], rates[3:], strict=False)) and 0 < rates[-1] < 0.1 * peak


def test_masks_are_asked_for_before_training(toy: Backbone, custom_set: CustomSet) -> None:
    with pytest.raises(CustomSetError, match="needs a mask_file in every line"):
        DualPathTrainer(toy, custom_set, replace(SHORT, map_source="given"))


def test_an_output_folder_that_cannot_be_written_is_reported_before_training(
    toy: Backbone, custom_set: CustomSet, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="file"):
        DualPathTrainer(toy, custom_set, SHORT, tmp_path / "file")
