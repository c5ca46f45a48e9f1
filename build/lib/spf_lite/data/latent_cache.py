"""Encoded portraits on disk: a custom set passes through the autoencoder once, and not in every run.

An entry holds the latents of the portraits that were encoded together: the last bits of a result depend on the batch.
So a run that finds its entries has the numbers of one that finds none. The name of an entry is a digest of everything
that its content depends on: pixels, sizes, the autoencoder's weights and scaling, the type that it computes in, and the
kind of device. Entries are never out of date, and the folder may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from diffusers import DiffusionPipeline
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from spf_lite.files import write_file
from spf_lite.models.digests import digest_of

logger = logging.getLogger(__name__)

#: Part of every entry's name. A change of how pictures are encoded changes it.
VERSION = "1"
_LATENTS, _DIGEST = "latents", "sha256"


def autoencoder_digest(pipe: DiffusionPipeline) -> str:
    """SHA-256 of all that the latents of a picture depend on besides its pixels."""
    config, parameter = pipe.vae.config, next(pipe.vae.parameters())
    numbers = [float(config.scaling_factor), float(config.get("shift_factor") or 0.0)]
    named = [*pipe.vae.state_dict().items(), ("scaling and shift", torch.tensor(numbers, dtype=torch.float64))]
    return hashlib.sha256(f"{digest_of(named)} {parameter.dtype} {parameter.device.type}".encode()).hexdigest()


class LatentCache:
    """Latents of custom sets on disk.

    Args:
        folder: made when something is written.
        pipe: whose autoencoder encodes.
    """

    def __init__(self, folder: str | Path, pipe: DiffusionPipeline) -> None:
        self.folder = Path(folder).expanduser()
        self.autoencoder = autoencoder_digest(pipe)

    def path(self, pictures: Sequence[Image.Image]) -> Path:
        """The file of the entry for these pictures, encoded together."""
        digest = hashlib.sha256(f"{VERSION} {self.autoencoder}\n".encode())
        for picture in pictures:
            digest.update(f"{picture.mode} {picture.size}\n".encode() + picture.tobytes())
        return self.folder / f"{digest.hexdigest()}.safetensors"

    def latents(self, pictures: Sequence[Image.Image], encode: Callable[[], Tensor]) -> Tensor:
        """The latents of pictures: from the disk, or else encoded and written.

        An entry that is damaged is written anew, with a line of this module's logger. A folder that cannot be written
        is no error: that is logged, too.

        Args:
            pictures: N, as they enter the autoencoder.
            encode: gives their latents, (N, C, h, w), on the CPU.
        """
        path = self.path(pictures)
        if path.exists():
            try:
                return _read(path, len(pictures))
            except (SafetensorError, OSError, ValueError) as error:
                logger.warning("%s is damaged and is made anew: %s", path, error)
        found = encode().contiguous()
        content = save({_LATENTS: found}, metadata={_DIGEST: digest_of([(_LATENTS, found)])})
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_file(path, content)
        except OSError as error:
            logger.warning("the latents are not kept: %s", error)
        return found


def _read(path: Path, count: int) -> Tensor:
    with safe_open(path, framework="pt") as content:
        wanted = (content.metadata() or {}).get(_DIGEST)
        if list(content.keys()) != [_LATENTS]:
            raise ValueError("it holds something else")
        found: Tensor = content.get_tensor(_LATENTS)
    if len(found) != count or digest_of([(_LATENTS, found)]) != wanted:
        raise ValueError("its content is not what was written")
    return found
