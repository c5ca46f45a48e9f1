"""The shapes of large models, on the meta device."""

import pytest
import torch

from spf_lite.models.backbone import Backbone
from spf_lite.profiling.memory import step_memory
from spf_lite.profiling.shapes import SHAPES, shape_on_meta


@pytest.mark.parametrize(
    ("name", "millions", "resolution"),
    [("sd15", 860, 16), ("sdxl", 2567, 32), ("sd3", 2028, 64), ("pixart-sigma", 611, 64)],
)
def test_a_shape_has_the_size_of_the_published_network(
    name: str, millions: int, resolution: int, toy: Backbone
) -> None:
    backbone = shape_on_meta(name, toy, torch.bfloat16)
    learned = sum(parameter.numel() for parameter in backbone.trainable.parameters) if backbone.trainable else 0
    weights = sum(parameter.numel() for parameter in backbone.network.parameters()) - learned
    assert round(weights / 1e6) == millions and learned > 0
    assert backbone.spec.attention_resolution == resolution
    backbone.architecture.check_network(backbone.network)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sdxl", "sd3", "pixart-sigma"])
def test_a_dual_path_step_is_counted_by_cause(name: str, toy: Backbone) -> None:
    backbone = shape_on_meta(name, toy, torch.bfloat16)
    counted = step_memory(backbone, "dual path", pixels=1024, compute=torch.bfloat16)
    network = counted.fixed[backbone.architecture.network_name]
    assert network == 2 * sum(p.numel() for p in backbone.network.parameters() if not p.requires_grad)
    assert counted.per_portrait["activations"] > 1e9 > counted.fixed["16-bit copies of weights"]
    assert counted.per_portrait["comparing the paths"] > 0


def test_other_shapes_are_refused(toy: Backbone) -> None:
    assert set(SHAPES) == {"sd15", "sdxl", "sd3", "pixart-sigma"}
    with pytest.raises(ValueError, match="shape 'flux': expected one of sd15, sdxl"):
        shape_on_meta("flux", toy)
