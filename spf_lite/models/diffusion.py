r"""The forward process: mixing noise into latents, and what a prediction says about both.

:math:`z_t = \sqrt{\bar\alpha_t}\, z_0 + \sqrt{1 - \bar\alpha_t}\, \epsilon` with the scheduler's :math:`\bar\alpha_t`
(Ho et al. 2020). A UNet predicts the noise :math:`\epsilon` (Stable Diffusion 1.5) or the velocity
:math:`v = \sqrt{\bar\alpha_t}\, \epsilon - \sqrt{1 - \bar\alpha_t}\, z_0` (Salimans & Ho 2022; the tiny model).
Everything is computed in 32 bits, whatever the latents come in.

In the book: :doc:`/02-diffusion`.
"""

from __future__ import annotations

from diffusers import DDIMScheduler
from torch import Tensor


def signal_and_noise(scheduler: DDIMScheduler, timesteps: Tensor) -> tuple[Tensor, Tensor]:
    """The factors of x0 and of the noise in z_t, each (B, 1, 1, 1), where ``timesteps`` are."""
    alphas = scheduler.alphas_cumprod.to(timesteps.device)[timesteps][:, None, None, None].float()
    return alphas.sqrt(), (1 - alphas).sqrt()


def add_noise(scheduler: DDIMScheduler, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
    """z_t, (B, C, h, w)."""
    signal, spread = signal_and_noise(scheduler, timesteps)
    return signal * latents + spread * noise


def training_target(scheduler: DDIMScheduler, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
    """What the UNet should have predicted: the noise, or the velocity, (B, C, h, w).

    Raises:
        ValueError: for any other prediction type.
    """
    kind = scheduler.config.prediction_type
    if kind == "epsilon":
        return noise
    if kind == "v_prediction":
        signal, spread = signal_and_noise(scheduler, timesteps)
        return signal * noise - spread * latents
    raise ValueError(f"prediction type {kind!r} is not supported: expected epsilon or v_prediction")


def predicted_latents(scheduler: DDIMScheduler, prediction: Tensor, noisy: Tensor, timesteps: Tensor) -> Tensor:
    """One-step prediction of x0 from z_t, (B, C, h, w)."""
    signal, spread = signal_and_noise(scheduler, timesteps)
    if scheduler.config.prediction_type == "epsilon":
        return (noisy - spread * prediction) / signal
    return signal * noisy - spread * prediction
