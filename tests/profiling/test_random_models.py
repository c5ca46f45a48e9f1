import torch

from spf_lite.method.attention import record
from spf_lite.models.backbone import Backbone
from spf_lite.profiling.random_models import random_batch, random_sd15


def test_a_random_batch_has_the_shapes_that_the_unet_takes(toy: Backbone) -> None:
    batch = random_batch(toy, 3)
    assert len(batch) == 3 and batch.latents.shape == (3, 4, 8, 8)
    with record(toy.pipe.unet, (8, 8), 8) as layers:
        prediction = toy.pipe.unet(batch.latents, 100, encoder_hidden_states=batch.complete).sample
    assert prediction.shape == batch.latents.shape and len(layers) > 0
    assert batch.phrases.shape == (3, 5, 32) == (3, *batch.phrases.shape[1:]) and batch.region.min() == 1
    assert batch.portrait_features.shape == (3, 24)


def test_sizes_are_those_of_stable_diffusion(toy: Backbone) -> None:
    with torch.device("meta"):  # shapes without memory
        made = random_sd15(toy)
    pipe = made.pipe
    assert made.preview is not None
    # As counted in the published checkpoints of Stable Diffusion 1.5, CLIP ViT-L/14 and TAESD.
    for module, count in (
        (pipe.unet, 859_520_964),
        (pipe.vae, 83_653_863),
        (pipe.text_encoder, 123_060_480),
        (made.clip.model, 427_616_513),
        (made.preview, 2_445_063),
    ):
        assert sum(parameter.numel() for parameter in module.parameters()) == count
    assert not any(parameter.requires_grad for parameter in pipe.unet.parameters())
