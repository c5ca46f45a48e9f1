r"""The forward process of diffusion, and the one-step prediction that inverts it.

:math:`z_t = \sqrt{\bar\alpha_t}\, z_0 + \sqrt{1 - \bar\alpha_t}\, \epsilon` with the scheduler's :math:`\bar\alpha_t`
(Ho et al. 2020). A UNet predicts the noise :math:`\epsilon` (Stable Diffusion 1.5) or the velocity
:math:`v = \sqrt{\bar\alpha_t}\, \epsilon - \sqrt{1 - \bar\alpha_t}\, z_0` (Salimans & Ho 2022; the tiny model).
The factors are computed in float32.

In the book: :doc:`/02-diffusion`.
"""

from __future__ import annotations

from diffusers import DDIMScheduler
from torch import Tensor

from spf_lite.models.compatibility import PREDICTION_TYPES


def signal_and_noise(scheduler: DDIMScheduler, timesteps: Tensor) -> tuple[Tensor, Tensor]:
    r"""Factors of the clean latents and of the noise in z_t.

    Args:
        scheduler: gives :math:`\bar\alpha`.
        timesteps: t, (B,), whole numbers from 0 to ``num_train_timesteps`` - 1.

    Returns:
        :math:`\sqrt{\bar\alpha_t}` and :math:`\sqrt{1 - \bar\alpha_t}`, each (B, 1, 1, 1), float32, on the device of
        ``timesteps``.
    """
    alphas = scheduler.alphas_cumprod.to(timesteps.device)[timesteps][:, None, None, None].float()
    return alphas.sqrt(), (1 - alphas).sqrt()


def add_noise(scheduler: DDIMScheduler, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
    r"""Noisy latents (Ho et al. 2020, equation 4).

    .. math:: z_t = \sqrt{\bar\alpha_t}\, z_0 + \sqrt{1 - \bar\alpha_t}\, \epsilon

    Args:
        scheduler: gives the noise schedule.
        latents: scaled clean latents z_0, (B, C, h, w).
        noise: standard normal, (B, C, h, w).
        timesteps: t, (B,).

    Returns:
        z_t, (B, C, h, w).
    """
    signal, spread = signal_and_noise(scheduler, timesteps)
    return signal * latents + spread * noise


def training_target(scheduler: DDIMScheduler, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
    """What the UNet is trained to predict: the noise, or the velocity.

    Args:
        scheduler: gives the prediction type and the noise schedule.
        latents: scaled clean latents z_0, (B, C, h, w).
        noise: that was mixed in, (B, C, h, w).
        timesteps: t, (B,).

    Returns:
        (B, C, h, w).

    Raises:
        ValueError: for any other prediction type.
    """
    if _predicts_noise(scheduler):
        return noise
    signal, spread = signal_and_noise(scheduler, timesteps)
    return signal * noise - spread * latents


def predicted_latents(scheduler: DDIMScheduler, prediction: Tensor, noisy: Tensor, timesteps: Tensor) -> Tensor:
    r"""One-step prediction of the clean latents, :math:`\hat z_0` (decoded: :math:`\hat x_0`).

    .. math::
        \hat z_0 = \frac{z_t - \sqrt{1 - \bar\alpha_t}\, \hat\epsilon}{\sqrt{\bar\alpha_t}}
        \quad\text{or}\quad
        \hat z_0 = \sqrt{\bar\alpha_t}\, z_t - \sqrt{1 - \bar\alpha_t}\, \hat v

    for a predicted noise (Ho et al. 2020, eq. 15) or velocity (Salimans & Ho 2022).

    Args:
        scheduler: gives the prediction type and the noise schedule.
        prediction: the UNet's output, noise or velocity, (B, C, h, w).
        noisy: z_t, (B, C, h, w).
        timesteps: t, (B,).

    Returns:
        scaled latents, (B, C, h, w); the gradient flows to ``prediction``.

    Raises:
        ValueError: for any other prediction type.
    """
    signal, spread = signal_and_noise(scheduler, timesteps)
    if _predicts_noise(scheduler):
        return (noisy - spread * prediction) / signal
    return signal * noisy - spread * prediction


def _predicts_noise(scheduler: DDIMScheduler) -> bool:
    kind = scheduler.config.prediction_type
    if kind not in PREDICTION_TYPES:
        raise ValueError(f"prediction type {kind!r} is not supported: expected {' or '.join(PREDICTION_TYPES)}")
    return bool(kind == "epsilon")
