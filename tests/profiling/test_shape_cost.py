"""The second path's cost on networks of other classes."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from spf_lite.models.adapters.trainable import Lora
from spf_lite.models.backbone import Backbone
from spf_lite.paths import DATA_SAMPLES
from spf_lite.profiling import shape_cost
from spf_lite.profiling.shape_cost import give_random_weights, network_costs, shape_costs

VARIANTS = ["(a) plain LoRA", "(b) dual path", "forward pass", "forward pass, recorded"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_four_variants_of_one_network(dtype: torch.dtype, toy: Backbone) -> None:
    nn.Module.to(toy.network, dtype)
    toy.trainable, passes = Lora(toy.network, 4, seed=0), []
    toy.network.register_forward_hook(lambda *_: passes.append(1))
    costs = network_costs(toy, "toy", rounds=1, dtype=dtype)
    assert [line.variant for line in costs] == VARIANTS
    assert costs[0].ratio == costs[2].ratio == 1 and min(line.seconds for line in costs) > 0
    assert len(passes) == 4 * (1 + 2 + 1 + 1), "two for the dual path; each step twice, to warm up and timed"
    assert [line.peak is None for line in costs] == [False, False, True, True]


def test_a_shape_gets_weights_and_its_size(toy: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    def small(name: str, tokenizer_of: Backbone, dtype: torch.dtype) -> Backbone:
        toy.network.to("meta")
        toy.trainable = toy.trainable or Lora(toy.network, 4, seed=0)
        return toy

    measured: list[tuple[str, int]] = []

    def noted(backbone: Backbone, name: str, rounds: int, dtype: torch.dtype) -> list[object]:
        assert all(p.device.type == "cpu" and p.isfinite().all() for p in backbone.network.parameters())
        assert backbone.network.config.sample_size == 16 and backbone.spec.attention_resolution == 16
        measured.append((name, rounds))
        return []

    monkeypatch.setattr(shape_cost, "shape_on_meta", small)
    monkeypatch.setattr(shape_cost, "network_costs", noted)
    shape_costs("sdxl", pixels=128, rounds=2)
    assert measured == [("sdxl, 128 px", 2)]
    for pixels in (0, 100):
        with pytest.raises(ValueError, match=f"pixels={pixels}: expected a multiple of 16"):
            shape_costs("sdxl", pixels=pixels)
    with pytest.raises(ValueError, match="rounds=0"):
        shape_costs("sdxl", rounds=0)


def test_random_weights_are_the_same_each_time(toy: Backbone) -> None:
    found = []
    for _ in range(2):
        give_random_weights(toy, 8)
        found.append(torch.cat([parameter.flatten() for parameter in toy.network.parameters()]).clone())
    assert torch.equal(*found) and 0.01 < found[0].std() < 0.03


@pytest.mark.parametrize("path", sorted((DATA_SAMPLES / "results" / "cost").glob("*.json")), ids=lambda path: path.stem)
def test_the_second_path_costs_at_most_half_a_step_at_full_shape(path: Path) -> None:
    """More at 256 pixels of Stable Diffusion XL: reading its weights takes much of a pass over so few places."""
    rows = json.loads(path.read_text(encoding="utf-8"))
    seconds = {row["variant"]: row["seconds"] for row in rows}
    shape, pixels = path.stem.rsplit("-", 1)
    assert {row["model"] for row in rows} == {f"{shape}, {pixels} px"} and min(row["rounds"] for row in rows) >= 3
    most = 1.65 if path.stem == "sdxl-256" else 1.5
    assert seconds["(b) dual path"] <= most * seconds["(a) plain LoRA"]
    assert seconds["forward pass, recorded"] <= 1.15 * seconds["forward pass"]
