r"""PureCC (arXiv 2603.07561): its alignment loss, and the frozen extractor that tells what the target adds.

In the book: :doc:`/09-baselines`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from spf_lite.models.backbone import Backbone
from spf_lite.models.codec import encode_text
from spf_lite.models.prefix_cache import shared_prefix
from spf_lite.models.trainable import Trainable


def purecc_loss(response: Tensor, base: Tensor, concept: Tensor) -> Tensor:
    r"""PureCC (arXiv 2603.07561): the response must be the base's prediction plus what the target adds, (B,).

    .. math::
        L = \| v_\mathrm{res} - (v_\mathrm{base} + \lambda R_\mathrm{target}) \|^2, \qquad
        \lambda = \frac{\langle v_\mathrm{res} - v_\mathrm{base}, R_\mathrm{target} \rangle}{\| R_\mathrm{target} \|^2}

    The goal, :math:`\lambda` included, is detached, as the paper's equations have it (its released code does not).

    Args:
        response: prediction for the complete text, (B, C, h, w).
        base: the untouched model's prediction for the base text; no gradient.
        concept: :math:`R_\mathrm{target} = v_1(\mathrm{target}) - v_1(\emptyset)` of the frozen extractor; no gradient.
    """
    moved, towards = (response - base).detach().flatten(1), concept.detach().flatten(1)
    share = (moved * towards).sum(dim=1) / towards.square().sum(dim=1).clamp(min=1e-12)
    goal = base.detach() + share[:, None, None, None] * concept.detach()
    return (response - goal).square().flatten(1).mean(dim=1)


class Extractor:
    r""":math:`v_1(\mathrm{target}) - v_1(\emptyset)`, where :math:`v_1` is the model as a saved state has it.

    Args:
        backbone: whose UNet it is.
        trained: what is trained on it.
        state: of ``trained``, at the end of stage 1.
        target_text: the target.
    """

    def __init__(self, backbone: Backbone, trained: Trainable, state: dict[str, Tensor], target_text: str) -> None:
        self.unet, self.trained, self.state = backbone.pipe.unet, trained, state
        tokenizer = backbone.pipe.tokenizer
        ids = tokenizer([target_text, ""], padding="max_length", truncation=True, return_tensors="pt").input_ids
        self.texts = encode_text(backbone.pipe, ids)

    @torch.no_grad()
    def __call__(self, noisy: Tensor, timesteps: Tensor) -> Tensor:
        """For z_t (B, C, h, w) and t (B,): a prediction's difference, (B, C, h, w)."""
        with shared_prefix(self.unet), self.trained.using(self.state):
            said, unsaid = (
                self.unet(noisy, timesteps, encoder_hidden_states=text.expand(len(noisy), -1, -1)).sample.float()
                for text in self.texts
            )
        return said - unsaid
