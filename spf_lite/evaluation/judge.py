"""The judge of the tiny world: which attributes does a picture show, which part is where, and who is it?

One small convolutional network with three outputs: a class per attribute (:data:`HEADS`), a part per pixel
(:data:`~spf_lite.tiny_world.rendering.PARTS`), and an identity embedding that ignores clothes, background, expression
and targets. It judges generated pictures, so it was trained on renders with blur, noise and autoencoder reconstructions
(:mod:`spf_lite.pretrain.judge`). It knows only the tiny world: for any picture it answers in that world's classes.

In the book: :doc:`/01-semantic-pollution`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file, save
from torch import Tensor, nn

from spf_lite.files import write_files
from spf_lite.tiny_world.portraits import ATTRIBUTES, FINAL_TARGETS, get_target
from spf_lite.tiny_world.rendering import PARTS

if TYPE_CHECKING:
    from spf_lite.models.backbone import Backbone

#: Classes of each attribute. A target is a further class of the attribute that it changes, or an attribute of its own.
HEADS: dict[str, tuple[str, ...]] = {
    **ATTRIBUTES,
    "hair_color": (*ATTRIBUTES["hair_color"], "pink-hair"),
    "clothes": (*ATTRIBUTES["clothes"], "blazer"),
    "glasses": (*ATTRIBUTES["glasses"], "sunglasses", "eyepatch"),
    "beard": ("no", "beard"),
    "winter-hat": ("no", "winter-hat"),
    "pencil-sketch": ("no", "pencil-sketch"),
}
#: The same with :data:`~spf_lite.tiny_world.portraits.FINAL_TARGETS`, for the judge of the last test.
FINAL_HEADS: dict[str, tuple[str, ...]] = {
    **HEADS,
    "clothes": (*HEADS["clothes"], "spacesuit"),
    "beard": (*HEADS["beard"], "whiskers"),
    "winter-hat": (*HEADS["winter-hat"], "chef-hat"),
}

INPUT_SIZE = 64
#: Folders beside a model's weights: the judge, and that of the last test.
JUDGE, FINAL_JUDGE = "judge", "judge-final"


def head_of(target: str) -> str:
    """The attribute that has a target among its classes; that class bears the target's name.

    Raises:
        ValueError: for an unknown target.
    """
    get_target(target)
    return next(head for head, values in FINAL_HEADS.items() if target in values)


class JudgeNet(nn.Module):
    """Four stages of convolutions, from 64 to 8 pixels. Classes come from the last stage, parts from all of them.

    Args:
        width: channels of the first stage; the others have 2, 3 and 4 times as many.
        identity_width: length of the identity embedding.
        final: whether it knows the targets of the last test, too.

    Attributes:
        answers: the classes of each attribute.
    """

    def __init__(self, width: int = 24, identity_width: int = 64, final: bool = False) -> None:
        super().__init__()
        self.config = {"width": width, "identity_width": identity_width, **({"final": True} if final else {})}
        self.answers = FINAL_HEADS if final else HEADS
        widths = [3, width, 2 * width, 3 * width, 4 * width]
        self.stages = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(before, after, 3, stride=1 if i == 0 else 2, padding=1),
                nn.GroupNorm(8, after),
                nn.SiLU(),
                nn.Conv2d(after, after, 3, padding=1),
                nn.GroupNorm(8, after),
                nn.SiLU(),
            )
            for i, (before, after) in enumerate(zip(widths, widths[1:], strict=False))
        )
        # Classes need the whole 8x8 grid, not only its mean: the place of a colour tells what has that colour.
        features = 256
        self.squeeze = nn.Conv2d(widths[4], 32, 1)
        self.trunk = nn.Sequential(nn.Linear(32 * 64 + widths[4], features), nn.SiLU())
        self.heads = nn.ModuleDict({name: nn.Linear(features, len(values)) for name, values in self.answers.items()})
        self.identity = nn.Linear(features, identity_width)
        self.lateral = nn.ModuleList(nn.Conv2d(w, 2 * width, 1) for w in widths[2:])
        self.parts = nn.Sequential(nn.Conv2d(2 * width, 2 * width, 3, padding=1), nn.SiLU())
        self.parts_out = nn.Conv2d(2 * width + widths[1], len(PARTS), 3, padding=1)

    def forward(self, images: Tensor) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """Judge a batch.

        Args:
            images: (B, 3, 64, 64) in [-1, 1].

        Returns:
            logits per head, {name: (B, values)}; identity embeddings of length 1, (B, identity_width); part logits
            (B, parts, 64, 64).
        """
        maps = []
        x = images
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        hidden = self.trunk(torch.cat([self.squeeze(x).flatten(1), x.mean(dim=(2, 3))], dim=1))
        logits = {name: head(hidden) for name, head in self.heads.items()}
        up = self.lateral[2](maps[3])
        for lateral, finer in ((self.lateral[1], maps[2]), (self.lateral[0], maps[1])):
            up = F.interpolate(up, scale_factor=2, mode="nearest") + lateral(finer)
        up = F.interpolate(self.parts(up), scale_factor=2, mode="bilinear", align_corners=False)
        parts = self.parts_out(torch.cat([up, maps[0]], dim=1))
        return logits, F.normalize(self.identity(hidden), dim=-1), parts


@dataclass(frozen=True)
class Verdict:
    """Judgement of N pictures.

    Attributes:
        attributes: N dictionaries, attribute to value, with one entry per head.
        confidence: N dictionaries, attribute to the probability of that value.
        identity: (N, 64) embeddings of length 1; the dot product of two is their identity similarity.
        parts: (N, 64, 64) indices into :data:`~spf_lite.tiny_world.rendering.PARTS`.
    """

    attributes: list[dict[str, str]]
    confidence: list[dict[str, float]]
    identity: NDArray[np.float32]
    parts: NDArray[np.uint8]

    def shows(self, target: str) -> NDArray[np.bool_]:
        """Whether each picture shows a target, (N,)."""
        head = head_of(target)
        return np.array([answer[head] == target for answer in self.attributes])


class Judge:
    """A trained :class:`JudgeNet` that takes PIL images of any size."""

    def __init__(self, net: JudgeNet) -> None:
        self.net = net.eval()

    @classmethod
    def load(cls, folder: str | Path) -> Judge:
        """Load a judge from the ``config.json`` and ``model.safetensors`` of a folder.

        Raises:
            FileNotFoundError: if the folder holds no judge.
            ValueError: if its attributes are not those of this version of the tiny world.
        """
        folder = Path(folder)
        if not (folder / "config.json").is_file() or not (folder / "model.safetensors").is_file():
            raise FileNotFoundError(f"no judge in {folder}: expected config.json and model.safetensors there")
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        net = JudgeNet(**config["net"])
        if {name: tuple(values) for name, values in config["heads"].items()} != net.answers:
            raise ValueError(f"the judge in {folder} was trained on other attributes than those of this version")
        net.load_state_dict({key: value.float() for key, value in load_file(folder / "model.safetensors").items()})
        return cls(net)

    def save(self, folder: str | Path) -> None:
        """Write ``config.json`` and ``model.safetensors`` into a folder, which is made if it is not there."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        config = json.dumps({"net": self.net.config, "heads": self.net.answers}, indent=2) + "\n"
        write_files({folder / "config.json": config, folder / "model.safetensors": save(self.net.state_dict())})

    @torch.no_grad()
    def __call__(self, images: Sequence[Image.Image], batch_size: int = 64) -> Verdict:
        """Judge N pictures of any size, ``batch_size`` at a time."""
        attributes: list[dict[str, str]] = []
        confidence: list[dict[str, float]] = []
        identity: list[NDArray[np.float32]] = []
        parts: list[NDArray[np.uint8]] = []
        for start in range(0, len(images), batch_size):
            logits, embedding, segments = self.net(prepare(images[start : start + batch_size]))
            best = {name: answer.softmax(dim=-1).max(dim=-1) for name, answer in logits.items()}
            for row in range(len(embedding)):
                attributes.append({name: self.net.answers[name][int(top.indices[row])] for name, top in best.items()})
                confidence.append({name: float(top.values[row]) for name, top in best.items()})
            identity.append(embedding.numpy())
            parts.append(segments.argmax(dim=1).to(torch.uint8).numpy())
        empty = not attributes
        return Verdict(
            attributes,
            confidence,
            np.zeros((0, 64), np.float32) if empty else np.concatenate(identity),
            np.zeros((0, INPUT_SIZE, INPUT_SIZE), np.uint8) if empty else np.concatenate(parts),
        )

    def attributes(self, images: Sequence[Image.Image]) -> list[dict[str, str]]:
        """Only the attributes of N pictures: N dictionaries, attribute to value."""
        return self(images).attributes


def prepare(images: Sequence[Image.Image]) -> Tensor:
    """N pictures as a tensor (N, 3, 64, 64) in [-1, 1]; larger ones are shrunk by averaging."""
    shrunk = [image.convert("RGB").resize((INPUT_SIZE, INPUT_SIZE), Image.Resampling.BOX) for image in images]
    pixels = torch.from_numpy(np.stack([np.asarray(image) for image in shrunk]))
    return pixels.permute(0, 3, 1, 2).float().div(127.5).sub(1)


def load_judge(backbone: Backbone, *targets: str) -> Judge:
    """The judge that lies beside a model's weights, in ``judge/``; that of the last test in ``judge-final/``.

    Args:
        backbone: the model.
        targets: that it has to know; those of the last test have a judge of their own.

    Raises:
        FileNotFoundError: if there is none: only the tiny world can be judged.
    """
    return Judge.load(Path(backbone.spec.source) / (FINAL_JUDGE if set(targets) & set(FINAL_TARGETS) else JUDGE))
