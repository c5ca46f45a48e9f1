"""Which model a command works with: the same options for all commands."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from spf_lite.models.backbone import Backbone


def add_model_options(parser: argparse.ArgumentParser, what: str = "") -> None:
    """Add ``--model`` and what says which of its files are meant.

    Args:
        parser: of a command.
        what: the model is for, in the help.
    """
    group = parser.add_argument_group("model", what or None)
    group.add_argument(
        "--model",
        default="tiny",
        help="tiny (default), tiny-transformer, sd15, a folder, a hub id, or a single .safetensors or .ckpt file",
    )
    group.add_argument("--revision", help="branch, tag or commit of a model of the hub")
    group.add_argument("--variant", help="of its weight files, such as fp16; not for a single file")
    group.add_argument(
        "--config",
        metavar="FOLDER_OR_ID",
        help="where the configuration of a single file comes from; default: the repository that diffusers guesses",
    )


def load_model(options: argparse.Namespace, device: str | None = None, dtype: torch.dtype | None = None) -> Backbone:
    """The model that the options of :func:`add_model_options` name.

    Args:
        options: of the command line.
        device: as in :func:`spf_lite.models.backbone.load`.
        dtype: likewise.

    Raises:
        BackboneError: if it cannot be loaded, or options make no sense together.
    """
    import spf_lite

    named = {"revision": options.revision, "variant": options.variant, "config": options.config}
    return spf_lite.load(options.model, device, dtype, **named)
