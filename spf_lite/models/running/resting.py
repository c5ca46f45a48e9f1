"""Parts of a model that training steps do not need leave the card.

A training step runs the network. Text encoders, autoencoder and CLIP have done their work by then: texts and portraits
are encoded once. Of Stable Diffusion 3 the text encoder T5 alone is larger than the network. Moving weights between the
card and main memory changes no number.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

import torch
from torch import nn

from spf_lite.models.backbone import Backbone


def unneeded(backbone: Backbone, enhance: bool) -> dict[str, nn.Module]:
    """The parts that a training step does not run, by name.

    Args:
        backbone: whose CLIP model and small decoder count if they are loaded already.
        enhance: whether the step decodes one-step predictions for CLIP.
    """
    parts = backbone.architecture.modules(backbone.pipe)
    del parts[backbone.architecture.part]
    if enhance and backbone.spec.preview is None:
        del parts["vae"]  # it decodes them
    if not enhance:
        loaded = vars(backbone)  # cached properties
        parts |= {"clip": loaded["clip"].model} if "clip" in loaded else {}
        parts |= {"preview": loaded["preview"]} if loaded.get("preview") is not None else {}
    return parts


class Resting:
    """Keeps parts of a model in main memory, and brings them back.

    Args:
        parts: modules by name; at first they are on the device.
        device: where they compute; if that is the CPU, nothing is ever moved.
    """

    def __init__(self, parts: Mapping[str, nn.Module], device: torch.device) -> None:
        self.parts, self.device = dict(parts), device
        self._are_away = False

    @contextmanager
    def away(self) -> Iterator[None]:
        """Within it the parts are in main memory, but for :meth:`back` within."""
        with self._placed(away=True):
            yield

    @contextmanager
    def back(self) -> Iterator[None]:
        """Within it the parts are on the device, but for :meth:`away` within."""
        with self._placed(away=False):
            yield

    @contextmanager
    def _placed(self, away: bool) -> Iterator[None]:
        if self.device.type == "cpu" or self._are_away == away:
            yield
            return
        cpu = torch.device("cpu")
        place, home = (cpu, self.device) if away else (self.device, cpu)
        with ExitStack() as stack:
            stack.callback(setattr, self, "_are_away", not away)
            self._are_away = away
            for part in self.parts.values():
                stack.callback(_move, part, home)  # also if moving another one fails
                _move(part, place)
            yield


def _move(part: nn.Module, device: torch.device) -> None:
    nn.Module.to(part, device)  # diffusers' own method warns of 16 bits on a CPU, where nothing is computed
