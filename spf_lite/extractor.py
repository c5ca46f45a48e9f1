"""PureCC's frozen extractor (arXiv 2603.07561): what the model of stage 1 adds for the target alone."""

from __future__ import annotations

import torch
from torch import Tensor

from spf_lite.pipelines import Backbone, encode_text
from spf_lite.trainable import Trainable


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
        with self.trained.using(self.state):
            said, unsaid = (
                self.unet(noisy, timesteps, encoder_hidden_states=text.expand(len(noisy), -1, -1)).sample.float()
                for text in self.texts
            )
        return said - unsaid
