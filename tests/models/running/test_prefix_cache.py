from collections.abc import Callable
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from diffusers import UNet2DConditionModel

from spf_lite.data.batch import collate
from spf_lite.method import paths
from spf_lite.method.dual_path import dual_path_step
from spf_lite.models.adapters.lora import add_lora
from spf_lite.models.backbone import Backbone
from spf_lite.models.backbones.unet import before_cross_attention
from spf_lite.models.running.prefix_cache import shared_prefix

from ...method.conftest import ALL, item


def late_unet() -> UNet2DConditionModel:
    """A frozen UNet whose first block has no cross-attention."""
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 8),
        norm_num_groups=4,
        cross_attention_dim=6,
        attention_head_dim=2,
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    )
    return unet.requires_grad_(False).eval()


def inputs(seed: int = 0, width: int = 6) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "sample": torch.randn(2, 4, 8, 8, generator=generator),
        "timestep": torch.tensor([10, 500]),
        "encoder_hidden_states": torch.randn(2, 5, width, generator=generator),
    }


def counted(unet: UNet2DConditionModel) -> dict[str, int]:
    """How often each module before the first cross-attention is really computed, by name; counting goes on."""
    counts: dict[str, int] = {}
    names = {module: name for name, module in unet.named_modules()}

    def counting(name: str, own: Callable[..., object]) -> Callable[..., object]:
        def forward(*arguments: object, **options: object) -> object:
            counts[name] = counts.get(name, 0) + 1
            return own(*arguments, **options)

        return forward

    for module in before_cross_attention(unet):
        module.forward = counting(names[module], module.forward)
    return counts


@pytest.mark.parametrize("late", [False, True])
def test_the_shared_modules_end_at_the_first_cross_attention(toy: Backbone, late: bool) -> None:
    unet = late_unet() if late else toy.pipe.unet
    order: list[torch.nn.Module] = []
    for module in unet.modules():
        module.register_forward_hook(lambda module, *_: order.append(module))
    with torch.no_grad():
        unet(**inputs(width=unet.config.cross_attention_dim))
    before = order[: next(i for i, module in enumerate(order) if getattr(module, "is_cross_attention", False))]
    shared = before_cross_attention(unet)
    assert [module for module in before if module in shared] == shared
    inside = {module for top in shared for module in top.modules()}
    # What else has run is the timestep's sinusoids and the beginning of the cross-attention itself.
    assert {type(module).__name__ for module in before if module not in inside} <= {
        "Timesteps", "Linear", "LayerNorm", "Dropout", "ModuleList",
    }  # fmt: skip


@pytest.mark.parametrize("training", [False, True])
def test_every_term_and_gradient_is_the_same_to_the_last_bit(
    backbone: Backbone, training: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    parameters = add_lora(backbone.pipe.unet, rank=2)
    for number, parameter in enumerate(parameters):
        torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(number))
    backbone.pipe.unet.train(training)
    batch = collate([item(backbone), item(backbone)], [False, True])
    noise = torch.randn(batch.latents.shape, generator=torch.Generator().manual_seed(1))

    def run() -> dict[str, torch.Tensor]:
        with dual_path_step(backbone, batch, noise, torch.tensor([300, 300]), ALL) as step:
            total = torch.stack([term.mean() for term in step.terms.values()]).sum()
            gradients = torch.autograd.grad(total, parameters)
        return {name: term.values for name, term in step.terms.items()} | {str(i): g for i, g in enumerate(gradients)}

    shared = run()
    monkeypatch.setattr(paths, "shared_prefix", nullcontext)
    apart = run()
    assert shared.keys() == apart.keys() and len(shared) > len(parameters)
    for name, value in apart.items():
        assert torch.equal(value, shared[name]), name


def test_equal_inputs_are_computed_once_and_others_anew() -> None:
    unet = late_unet()
    counts = counted(unet)
    one, other, text = inputs(0), inputs(1), inputs(2)["encoder_hidden_states"]
    with torch.no_grad(), shared_prefix(unet):
        unet(**one)
        unet(**{**one, "encoder_hidden_states": text})
        assert set(counts.values()) == {1} and len(counts) == len(before_cross_attention(unet))
        expected = unet(**other).sample
        assert counts["conv_in"] == 2 and counts["time_embedding"] == 1
        unet(**{**other, "timestep": torch.tensor([10, 501])})
        assert counts["conv_in"] == 2 and counts["time_embedding"] == 2
    assert torch.equal(unet(**other).sample, expected)


def test_the_modules_are_as_they_were_even_after_an_error() -> None:
    unet = late_unet()
    own = unet.conv_in.forward
    unet.time_embedding.forward = earlier = unet.time_embedding.forward
    with pytest.raises(KeyboardInterrupt), shared_prefix(unet):
        assert unet.conv_in.forward != own
        raise KeyboardInterrupt
    assert unet.conv_in.forward == own and "forward" not in vars(unet.conv_in)
    assert vars(unet.time_embedding)["forward"] is earlier


def test_trained_modules_are_never_cached() -> None:
    unet = late_unet()
    unet.conv_in.requires_grad_(True)
    counts = counted(unet)
    with shared_prefix(unet):
        with torch.no_grad():
            unet(**inputs())
        unet(**inputs()).sample.sum().backward()
    assert counts["conv_in"] == 2 and counts["time_embedding"] == 1
    assert unet.conv_in.weight.grad is not None and unet.conv_in.weight.grad.abs().sum() > 0


def test_without_cross_attention_all_down_blocks_are_shared() -> None:
    blocks = [torch.nn.Identity(), torch.nn.Identity()]
    unet = SimpleNamespace(conv_in="in", time_embedding="time", down_blocks=blocks)
    assert before_cross_attention(unet) == ["time", "in", *blocks]
