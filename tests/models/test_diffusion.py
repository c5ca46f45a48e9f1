import pytest
import torch
from diffusers import DDIMScheduler

from spf_lite.models.backbone import Backbone
from spf_lite.models.diffusion import add_noise, predicted_latents, training_target


def test_prediction_types_agree_on_what_is_true(backbone: Backbone) -> None:
    scheduler = backbone.pipe.scheduler
    generator = torch.Generator().manual_seed(0)
    latents, noise = torch.randn(2, 4, 8, 8, generator=generator), torch.randn(2, 4, 8, 8, generator=generator)
    timesteps = torch.tensor([10, 700])
    noisy = add_noise(scheduler, latents, noise, timesteps)
    truth = training_target(scheduler, latents, noise, timesteps)
    assert torch.allclose(predicted_latents(scheduler, truth, noisy, timesteps), latents, atol=1e-3)
    assert torch.allclose(noisy, scheduler.add_noise(latents, noise, timesteps), atol=1e-6)


def test_other_prediction_types_are_refused() -> None:
    scheduler = DDIMScheduler(prediction_type="sample")
    with pytest.raises(ValueError, match="'sample' is not supported: expected epsilon or v_prediction"):
        training_target(scheduler, torch.zeros(1, 4, 8, 8), torch.zeros(1, 4, 8, 8), torch.tensor([0]))
