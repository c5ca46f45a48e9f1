from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from spf_lite.models.adapters import adapters_off, add_lora, load_adapter
from spf_lite.models.backbone import Backbone, load
from spf_lite.models.errors import BackboneError


def predict(backbone: Backbone) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    latents, text = torch.randn(2, 4, 8, 8, generator=generator), torch.randn(2, 32, 32, generator=generator)
    with torch.no_grad():
        prediction: torch.Tensor = backbone.pipe.unet(latents, 500, text).sample
    return prediction


def test_the_reference_is_the_untouched_model_to_the_bit(toy: Backbone) -> None:
    untouched = predict(toy)
    parameters = add_lora(toy.pipe.unet, rank=4)
    assert all(parameter.requires_grad for parameter in parameters)
    with torch.no_grad():
        for parameter in parameters:
            parameter += 0.3
    tuned = predict(toy)
    assert not torch.equal(tuned, untouched)
    with adapters_off(toy.pipe.unet):
        assert torch.equal(predict(toy), untouched)
    assert torch.equal(predict(toy), tuned), "the adapter is back"
    with pytest.raises(KeyError), adapters_off(toy.pipe.unet):
        raise KeyError
    assert torch.equal(predict(toy), tuned), "also after an exception"


def test_a_new_adapter_changes_nothing_and_sits_on_cross_attention_only(toy: Backbone) -> None:
    untouched = predict(toy)
    state = torch.get_rng_state()
    add_lora(toy.pipe.unet, rank=4, seed=3)
    assert torch.equal(torch.get_rng_state(), state), "the global random state is nobody's business"
    assert torch.allclose(predict(toy), untouched, atol=1e-6)
    trainable = [name for name, parameter in toy.pipe.unet.named_parameters() if parameter.requires_grad]
    assert trainable and all(".attn2." in name for name in trainable)
    with pytest.raises(BackboneError, match="already has an adapter"):
        add_lora(toy.pipe.unet, rank=4)


def test_the_seed_of_an_adapter_is_its_seed_and_nothing_else(toy_folders: dict[str, Path]) -> None:
    starts, scales = [], set()
    for seed in (1, 1, 2):
        unet = load(str(toy_folders["epsilon"])).pipe.unet
        starts.append(add_lora(unet, 4, seed)[0].detach().clone())
        scales |= {scale for module in unet.modules() for scale in getattr(module, "scaling", {}).values()}
    assert torch.equal(starts[0], starts[1]) and not torch.equal(starts[0], starts[2])
    assert scales == {1.0}, "an exported adapter has no alpha: other tools would scale it differently"


def test_an_adapter_that_cannot_be_loaded_is_refused(toy: Backbone, tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match="no adapter in .*nowhere: there is no pytorch_lora_weights.safetensors"):
        load_adapter(toy.pipe, tmp_path / "nowhere")
    (tmp_path / "pytorch_lora_weights.safetensors").write_bytes(b"no weights")
    with pytest.raises(BackboneError, match="does not fit this model"):
        load_adapter(toy.pipe, tmp_path)
    wide = {"unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_q.lora_A.weight": torch.ones(2, 99)}
    wide |= {"unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_q.lora_B.weight": torch.ones(99, 2)}
    save_file(wide, tmp_path / "pytorch_lora_weights.safetensors")
    with pytest.raises(BackboneError, match=r"does not fit this model: (.|\n)*size mismatch"):
        load_adapter(toy.pipe, tmp_path)
