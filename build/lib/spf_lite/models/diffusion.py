r"""The forward process of diffusion, what a network predicts, and the one-step prediction that inverts it.

All processes mix clean latents and noise, :math:`z_t = a_t\, z_0 + s_t\, \epsilon`. The scheduler says how, and what
its network predicts:

================  =========================  =============================  ==============================
kind              :math:`a_t`                :math:`s_t`                    prediction
================  =========================  =============================  ==============================
``epsilon``       :math:`\sqrt{\bar\alpha}`  :math:`\sqrt{1 - \bar\alpha}`  :math:`\epsilon`
``v_prediction``  :math:`\sqrt{\bar\alpha}`  :math:`\sqrt{1 - \bar\alpha}`  :math:`a\,\epsilon - s\, z_0`
``flow``          :math:`1 - \sigma`         :math:`\sigma`                 :math:`\epsilon - z_0`
================  =========================  =============================  ==============================

Sources: noise, Ho et al. 2020; velocity, Salimans & Ho 2022; rectified flow, Liu et al. 2022 (arXiv 2209.03003).

Timesteps are whole numbers from 0 to ``num_train_timesteps`` - 1, from little noise to much, in every kind. Stable
Diffusion 1.5 predicts the noise, the tiny model the velocity. The factors are computed in float32.

In the book: :doc:`/02-diffusion`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import diffusers
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler, SchedulerMixin
from torch import Tensor

from spf_lite.models.source import Source

EPSILON, VELOCITY, FLOW = "epsilon", "v_prediction", "flow"
#: Options of a flow's scheduler that bend its noise levels in ways that training would have to know.
_FLOW_OPTIONS = (
    "use_dynamic_shifting",
    "shift_terminal",
    "invert_sigmas",
    "use_karras_sigmas",
    "use_exponential_sigmas",
    "use_beta_sigmas",
    "stochastic_sampling",
)


def prediction_type(scheduler: SchedulerMixin) -> str:
    """What the scheduler's network predicts: ``epsilon``, ``v_prediction`` or ``flow``.

    Raises:
        ValueError: for any other prediction type.
    """
    if isinstance(scheduler, FlowMatchEulerDiscreteScheduler):
        return FLOW
    kind = scheduler.config.get("prediction_type", EPSILON)
    if kind not in (EPSILON, VELOCITY):
        raise ValueError(f"prediction type {kind!r} is not supported: expected {EPSILON} or {VELOCITY}")
    return str(kind)


def scheduler_of(source: Source, index: Mapping[str, Any]) -> SchedulerMixin | None:
    """The scheduler of a pipeline on disk; None if it is of a library that is not there: loading will say so.

    Args:
        source: where it is stored.
        index: its ``model_index.json``.
    """
    kind = getattr(diffusers, (index.get("scheduler") or [None, ""])[1] or "", None)
    return None if kind is None else kind.from_pretrained(source.configs, subfolder="scheduler", **source.version)


def scheduler_faults(scheduler: SchedulerMixin | None, kinds: Sequence[str]) -> list[str]:
    """Whether a scheduler has a supported noise schedule and prediction type.

    Args:
        scheduler: None has no faults.
        kinds: the supported prediction types, :data:`FLOW` alone or some of the others.
    """
    if scheduler is None:
        return []
    name = type(scheduler).__name__
    if FLOW in kinds:
        if not isinstance(scheduler, FlowMatchEulerDiscreteScheduler):
            return [f"{name} is no rectified flow, supported: FlowMatchEulerDiscreteScheduler"]
        used = [option for option in _FLOW_OPTIONS if scheduler.config.get(option)]
        return [f"{name} has {', '.join(used)}, supported: a fixed shift"] if used else []
    alphas = getattr(scheduler, "alphas_cumprod", None)
    if alphas is None or scheduler.config.get("use_flow_sigmas", False):
        return [f"{name} has no noise schedule alphas_cumprod (flow matching?), supported: those like DDIMScheduler"]
    kind = scheduler.config.get("prediction_type", EPSILON)
    if kind not in kinds:
        return [f"{name} has the prediction type {kind!r}, supported: {' and '.join(kinds)}"]
    if kind == EPSILON and float(alphas[-1]) == 0:
        return [f"{name} ends without any signal (zero terminal SNR), where a prediction of the noise says nothing"]
    return []


def noise_schedule(scheduler: SchedulerMixin) -> Tensor:
    r"""What tells one schedule from another: :math:`\bar\alpha`, or :math:`\sigma` of a flow, for every timestep."""
    return _sigmas(scheduler) if prediction_type(scheduler) == FLOW else scheduler.alphas_cumprod


def network_times(scheduler: SchedulerMixin, timesteps: Tensor) -> Tensor:
    r"""Timesteps as the network takes them: as they are, or :math:`\sigma` times their number in a flow.

    Args:
        scheduler: gives the noise schedule.
        timesteps: t, (B,), whole numbers.
    """
    if prediction_type(scheduler) != FLOW:
        return timesteps
    sigmas = _sigmas(scheduler).to(timesteps.device)
    return sigmas[timesteps] * int(scheduler.config.num_train_timesteps)


def signal_and_noise(scheduler: SchedulerMixin, timesteps: Tensor) -> tuple[Tensor, Tensor]:
    r"""Factors of the clean latents and of the noise in z_t.

    Args:
        scheduler: gives the noise schedule.
        timesteps: t, (B,), whole numbers from 0 to ``num_train_timesteps`` - 1.

    Returns:
        :math:`a_t` and :math:`s_t`, each (B, 1, 1, 1), float32, on the device of ``timesteps``.
    """
    return _factors(scheduler, network_times(scheduler, timesteps))


def add_noise(scheduler: SchedulerMixin, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
    r"""Noisy latents (Ho et al. 2020, equation 4).

    .. math:: z_t = a_t\, z_0 + s_t\, \epsilon

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


def training_target(scheduler: SchedulerMixin, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
    """What the network is trained to predict: the noise, the velocity, or the velocity of a flow.

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
    kind = prediction_type(scheduler)
    if kind == EPSILON:
        return noise
    if kind == FLOW:
        return noise - latents
    signal, spread = signal_and_noise(scheduler, timesteps)
    return signal * noise - spread * latents


def predicted_latents(scheduler: SchedulerMixin, prediction: Tensor, noisy: Tensor, timesteps: Tensor) -> Tensor:
    r"""One-step prediction of the clean latents, :math:`\hat z_0` (decoded: :math:`\hat x_0`).

    .. math::
        \hat z_0 = \frac{z_t - s_t\, \hat\epsilon}{a_t}
        \quad\text{or}\quad
        \hat z_0 = a_t\, z_t - s_t\, \hat v
        \quad\text{or}\quad
        \hat z_0 = z_t - \sigma_t\, \hat v

    for a predicted noise (Ho et al. 2020, eq. 15), velocity (Salimans & Ho 2022), or velocity of a flow.

    Args:
        scheduler: gives the prediction type and the noise schedule.
        prediction: the network's output, (B, C, h, w).
        noisy: z_t, (B, C, h, w).
        timesteps: t, (B,).

    Returns:
        scaled latents, (B, C, h, w); the gradient flows to ``prediction``.

    Raises:
        ValueError: for any other prediction type.
    """
    kind = prediction_type(scheduler)
    signal, spread = signal_and_noise(scheduler, timesteps)
    if kind == EPSILON:
        return (noisy - spread * prediction) / signal
    if kind == FLOW:
        return noisy - spread * prediction
    return signal * noisy - spread * prediction


class Sampler:
    """Deterministic sampling from a guided prediction, step by step, by the process of a scheduler.

    Args:
        scheduler: gives the process; it is not changed.
        steps: denoising steps.
        device: of the latents.

    Attributes:
        times: of the steps, as the network takes them, from much noise to little.
    """

    def __init__(self, scheduler: SchedulerMixin, steps: int, device: torch.device) -> None:
        kind = FlowMatchEulerDiscreteScheduler if prediction_type(scheduler) == FLOW else DDIMScheduler
        self.scheduler = kind.from_config(scheduler.config)
        self.scheduler.set_timesteps(steps, device=device)
        self.times: Tensor = self.scheduler.timesteps

    def signal_and_noise(self, time: Tensor) -> tuple[Tensor, Tensor]:
        """Factors of the clean latents and of the noise at one of :attr:`times`, each (1, 1, 1, 1)."""
        return _factors(self.scheduler, time[None])

    def step(self, prediction: Tensor, time: Tensor, noisy: Tensor) -> Tensor:
        """The latents of the next time, (B, C, h, w)."""
        moved: Tensor = self.scheduler.step(prediction, time, noisy).prev_sample
        return moved


def _factors(scheduler: SchedulerMixin, times: Tensor) -> tuple[Tensor, Tensor]:
    """:math:`a_t` and :math:`s_t` at times as the network takes them."""
    if prediction_type(scheduler) == FLOW:
        sigmas = (times / int(scheduler.config.num_train_timesteps))[:, None, None, None].float()
        return 1 - sigmas, sigmas
    alphas = scheduler.alphas_cumprod.to(times.device)[times][:, None, None, None].float()
    return alphas.sqrt(), (1 - alphas).sqrt()


def _sigmas(scheduler: SchedulerMixin) -> Tensor:
    r"""Noise levels of a flow, shifted as the scheduler shifts them, by timestep.

    From its configuration: sampling overwrites the scheduler's own table.
    """
    count, shift = int(scheduler.config.num_train_timesteps), float(scheduler.config.shift)
    sigmas = torch.arange(1, count + 1, dtype=torch.float32) / count
    return shift * sigmas / (1 + (shift - 1) * sigmas)
