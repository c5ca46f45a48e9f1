import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0

from spf_lite.method.attention import mean_maps, record
from spf_lite.models.adapters.lora import add_lora
from spf_lite.models.backbone import Backbone
from spf_lite.models.backbones.recording import AttentionError

from ..conftest import deaf_unet


def inputs(batch: int = 2, height: int = 8, width: int = 8, tokens: int = 7) -> tuple[torch.Tensor, int, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return (
        torch.randn(batch, 4, height, width, generator=generator),
        10,
        torch.randn(batch, tokens, 32, generator=generator),
    )


def test_recording_does_not_change_the_prediction(toy: Backbone) -> None:
    unet = toy.pipe.unet
    plain = unet(*inputs()).sample
    with record(unet, (8, 8), 8) as layers:
        recorded = unet(*inputs()).sample
    assert torch.allclose(plain, recorded, atol=1e-5)
    assert len(layers) == 3, "one in the down block, two in the up block"
    for layer in layers.values():
        assert layer.size == (8, 8)
        assert layer.maps.shape == (2, 2, 64, 7)
        assert torch.allclose(layer.maps.sum(dim=-1), torch.ones(2, 2, 64), atol=1e-5)
        assert layer.inputs.shape == layer.queries.shape == layer.outputs.shape == (2, 64, 16)
    assert mean_maps(layers).shape == (2, 7, 8, 8)


def test_latents_need_not_be_square(toy: Backbone) -> None:
    unet = toy.pipe.unet
    with record(unet, (4, 8), 8) as layers:
        unet(*inputs(height=4))
    assert all(layer.size == (4, 8) for layer in layers.values())


@pytest.mark.parametrize("original", [AttnProcessor, AttnProcessor2_0])
def test_masked_tokens_are_masked_in_the_recording_too(
    toy: Backbone, original: type[AttnProcessor] | type[AttnProcessor2_0]
) -> None:
    """Each item of the batch masks other tokens; the layers have two heads."""
    unet = toy.pipe.unet
    unet.set_attn_processor(original())
    latents, timestep, text = inputs(batch=3)
    mask = torch.tensor([[1, 1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 1, 1, 1], [0, 0, 1, 1, 1, 0, 1]])
    with torch.no_grad():
        plain = unet(latents, timestep, text, encoder_attention_mask=mask).sample
        with record(unet, (8, 8), 8) as layers:
            recorded = unet(latents, timestep, text, encoder_attention_mask=mask).sample
        unmasked = unet(latents, timestep, text).sample
    assert torch.allclose(recorded, plain, atol=1e-5)
    assert not torch.allclose(unmasked, plain, atol=1e-3), "the mask does something"
    for layer in layers.values():
        assert layer.maps.shape == (3, 2, 64, 7)
        hidden = (mask == 0)[:, None, None].expand_as(layer.maps)
        assert layer.maps[hidden].max() == 0 and layer.maps[~hidden].min() > 0
        assert torch.allclose(layer.maps.sum(dim=-1), torch.ones(3, 2, 64), atol=1e-5)


def test_gradients_flow_through_what_is_recorded(toy: Backbone) -> None:
    parameters = add_lora(toy.pipe.unet, rank=2)
    with record(toy.pipe.unet, (8, 8), 8) as layers:
        toy.pipe.unet(*inputs())
    torch.stack([layer.maps.square().sum() + layer.outputs.sum() for layer in layers.values()]).sum().backward()
    assert any(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in parameters)


def test_processors_come_back_also_after_an_exception(toy: Backbone) -> None:
    unet = toy.pipe.unet
    before = dict(unet.attn_processors)
    with pytest.raises(KeyError), record(unet, (8, 8), 8):
        raise KeyError
    assert unet.attn_processors == before
    with record(unet, (8, 8), 8):
        unet(*inputs())
    assert unet.attn_processors == before


def test_it_fails_loudly_when_nothing_matches(toy: Backbone) -> None:
    unet = toy.pipe.unet
    with pytest.raises(AttentionError, match="no cross-attention layer of resolution 99"), record(unet, (8, 8), 99):
        unet(*inputs())
    with record(unet, (8, 8), 8):
        with pytest.raises(AttentionError, match="do not nest"), record(unet, (8, 8), 8):
            pass
        unet(*inputs())
    with pytest.raises(AttentionError, match="no cross-attention"), record(deaf_unet(), (8, 8), 8):
        pass
    with pytest.raises(AttentionError, match="no layer was recorded"):
        mean_maps({})
