r"""PureCC: its alignment loss, and the frozen extractor of what the target adds to a prediction.

Source: PureCC (Liao, Xian et al. 2026, arXiv 2603.07561).

In the book: :doc:`/09-baselines`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from spf_lite.data.texts import empty_text, encode_texts
from spf_lite.models.adapters.base import Trainable
from spf_lite.models.backbone import Backbone
from spf_lite.models.diffusion import network_times
from spf_lite.models.running.prefix_cache import shared_prefix


def purecc_loss(response: Tensor, base: Tensor, concept: Tensor) -> Tensor:
    r"""PureCC's alignment: the response must be the reference's prediction plus what the target adds, (B,).

    .. math::
        L = \| v_\mathrm{res} - (v_\mathrm{base} + \lambda R_\mathrm{target}) \|^2, \qquad
        \lambda = \frac{\langle v_\mathrm{res} - v_\mathrm{base}, R_\mathrm{target} \rangle}{\| R_\mathrm{target} \|^2}

    The loss is the mean of the squares. What the response is aligned with, :math:`\lambda` included, is detached, as
    in the paper's equations (its released code does not detach).

    Args:
        response: :math:`v_\mathrm{res}`, prediction of the response path, (B, C, h, w).
        base: :math:`v_\mathrm{base}`, prediction of the reference path, (B, C, h, w); no gradient.
        concept: :math:`R_\mathrm{target}` from :class:`Extractor`, (B, C, h, w); no gradient.
    """
    change, direction = (response - base).detach().flatten(1), concept.detach().flatten(1)
    lam = (change * direction).sum(dim=1) / direction.square().sum(dim=1).clamp(min=1e-12)
    aligned = base.detach() + lam[:, None, None, None] * concept.detach()
    return (response - aligned).square().flatten(1).mean(dim=1)


class Extractor:
    r"""What the target adds to a prediction, by the model as it was at the end of stage 1.

    .. math:: R_\mathrm{target} = v_1(z_t, t, E_\mathrm{target}) - v_1(z_t, t, E_\emptyset)

    :math:`v_1` is the network with the trained state of stage 1; no second model is kept in memory.

    Args:
        backbone: its network carries ``trained``.
        trained: what is trained.
        state: its state at the end of stage 1 (:meth:`spf_lite.models.adapters.base.Trainable.state`).
        target_text: the target alone, such as "sunglasses".

    Raises:
        PromptTooLongError: if the target has more tokens than the text encoder takes.
    """

    def __init__(self, backbone: Backbone, trained: Trainable, state: dict[str, Tensor], target_text: str) -> None:
        self.backbone, self.trained, self.state = backbone, trained, state
        texts = torch.stack([encode_texts(backbone, [target_text])[0], empty_text(backbone)])
        self.texts = texts.to(backbone.device)

    @torch.no_grad()
    def __call__(self, noisy: Tensor, timesteps: Tensor) -> Tensor:
        r""":math:`R_\mathrm{target}`, (B, C, h, w), float32, without gradient.

        The state in training is back on return. Call it before a forward pass whose gradient is still to come.

        Args:
            noisy: z_t, (B, C, h, w).
            timesteps: t, (B,).
        """
        network, times = self.backbone.network, network_times(self.backbone.pipe.scheduler, timesteps)
        with shared_prefix(network), self.trained.using(self.state):
            target, empty = (
                self.backbone.predict(network, noisy, times, text.expand(len(noisy), -1, -1)) for text in self.texts
            )
        difference: Tensor = target - empty
        return difference
