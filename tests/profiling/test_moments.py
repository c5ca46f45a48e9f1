import pytest
import torch

from spf_lite.models.backbone import Backbone
from spf_lite.models.errors import BackboneError
from spf_lite.profiling.memory import losses_memory, model_bytes
from spf_lite.profiling.moments import PAINTING, Pass, passes, run_moments, run_on_meta
from spf_lite.training.recipes import recipe


def test_a_run_is_its_models_its_step_and_its_passes(shapes: Backbone) -> None:
    config = recipe("pure-pairs").changed(["layers=cross-attention", "batch_size=8", "gradient_accumulation=4"])
    moments = {moment.name: moment for moment in run_moments(shapes, config, 64)}
    assert list(moments) == ["encode the set", "paint for stage 2", "training step", "use the adapter"]
    between, models = passes(shapes, 64), model_bytes(shapes)
    for name, each in between.items():
        assert moments[name].together == each.together
        assert moments[name].parts["intermediate results"] == each.peak > 0
    learned = models["adapter, gradient, AdamW"]
    assert moments[PAINTING].total == sum(models.values()) + between[PAINTING].peak
    assert moments["use the adapter"].parts["adapter"] == learned // 4, "neither gradients nor an optimiser"

    step = moments["training step"]
    assert step.together == 2, "a part of the batch"
    parts = losses_memory(shapes, config, 64).parts(2)
    away = {"text encoder, autoencoder", "CLIP"}
    assert step.parts == {cause: size for cause, size in parts.items() if cause not in away}
    assert away < set(parts)


def test_what_a_recipe_does_not_do_is_not_counted(shapes: Backbone) -> None:
    naive = {moment.name: moment for moment in run_moments(shapes, recipe("naive"), 64)}
    assert list(naive) == ["encode the set", "training step", "use the adapter"], "nothing is painted"
    enhanced = {moment.name: moment for moment in run_moments(shapes, recipe("spf"), 64)}
    assert "CLIP" in enhanced["training step"].parts and "CLIP" not in naive["training step"].parts
    assert enhanced["training step"].parts["enhancement"] > 0


def test_large_portraits_pass_one_at_a_time(shapes: Backbone) -> None:
    assert passes(shapes, 64)["encode the set"].together == 8
    large = passes(shapes, 1024)
    assert {each.together for each in large.values()} == {1}
    assert isinstance(large["use the adapter"], Pass)


@pytest.mark.slow
def test_a_shape_gets_what_the_recipe_trains(toy: Backbone) -> None:
    half = ["mixed_precision=fp16"]
    few, many = (
        run_on_meta("sd15", toy, recipe("pure-pairs").changed([*half, f"layers={layers}"]))
        for layers in ("cross-attention", "resnets")
    )
    assert few.network.device.type == "meta" and few.network.dtype == torch.float16
    sizes = [model_bytes(each)["adapter, gradient, AdamW"] for each in (few, many)]
    assert sizes[1] > 2 * sizes[0], "convolutions have factors, too"
    with pytest.raises(ValueError, match="weights of torch.float16 want mixed_precision=fp16 or bf16"):
        run_on_meta("sd15", toy, recipe("pure-pairs"))
    with pytest.raises(ValueError, match="shape 'sd9': expected one of sd15"):
        run_on_meta("sd9", toy, recipe("naive").changed(half))
    with pytest.raises(BackboneError, match="the weights themselves learn in 32 bits"):
        run_on_meta("sd15", toy, recipe("paper-weights").changed(half))
