"""Where a pipeline is stored: a folder, a repository on the hub, or a single file.

A folder or repository holds a ``model_index.json``, and each part in a folder of its own. A single file
(``.safetensors`` or ``.ckpt``) holds the weights of all parts in the layout of the original code, and no configuration:
that comes from another folder or repository.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffusers import DiffusionPipeline
from huggingface_hub import list_repo_files

from spf_lite.models.errors import BackboneError

#: Endings of single files. ``.ckpt`` is a pickle.
SAFETENSORS, PICKLE = ".safetensors", ".ckpt"
_WEIGHTS = (SAFETENSORS, ".bin")


@dataclass(frozen=True)
class Source:
    """Where a pipeline is stored, and which of its versions is meant.

    Attributes:
        location: folder, hub id, or single file.
        revision: branch, tag or commit on the hub; None: the main branch.
        variant: of the weight files: ``fp16`` stands for ``diffusion_pytorch_model.fp16.safetensors``; None: the plain
            files.
        config: folder or hub id that the configuration of a single file comes from.

    Raises:
        BackboneError: if two of them make no sense together.
    """

    location: str
    revision: str | None = None
    variant: str | None = None
    config: str | None = None

    def __post_init__(self) -> None:
        if self.is_file and self.variant is not None:
            raise BackboneError(
                f"variant={self.variant!r} (--variant) chooses among the files of a folder, and {self.location} is a "
                "single file: name the file that is meant"
            )
        if self.config is not None and not self.is_file:
            raise BackboneError(
                f"config={self.config!r} (--config) is for a single file ({SAFETENSORS} or {PICKLE}), and "
                f"{self.location} has its own configuration"
            )
        if self.revision is not None and Path(self.configs).expanduser().exists():
            raise BackboneError(
                f"revision={self.revision!r} (--revision) is for a model of the hub, and {self.configs} is on this disk"
            )

    @property
    def is_file(self) -> bool:
        """Whether it is a single file, by the end of its name."""
        return self.location.endswith((SAFETENSORS, PICKLE))

    @property
    def configs(self) -> str:
        """Folder or hub id of the configurations; of a single file without ``config``, the file itself."""
        return self.location if self.config is None else self.config

    @property
    def version(self) -> dict[str, str]:
        """The revision, as an argument of readers; empty: none was asked for."""
        return {} if self.revision is None else {"revision": self.revision}

    def index(self) -> dict[str, Any]:
        """The pipeline's ``model_index.json``.

        Raises:
            OSError: if it cannot be read.
        """
        return dict(DiffusionPipeline.load_config(self.configs, **self.version))

    def part_config(self, kind: Any, part: str) -> Mapping[str, Any]:
        """The configuration of a part.

        Args:
            kind: diffusers' class of the part.
            part: its folder.

        Raises:
            OSError: if it cannot be read.
        """
        config: Mapping[str, Any] = kind.load_config(self.configs, subfolder=part, **self.version)
        return config

    def weight_files(self) -> list[str]:
        """Names of the weight files, with their folders; empty if the hub does not tell.

        Those of other models that lie beside the pipeline (``clip/``, ``preview/``, ``judge/``) do not count.
        """
        folder = Path(self.location)
        if folder.is_dir():
            names = [path.relative_to(folder).as_posix() for path in folder.glob("*/*") if path.is_file()]
        else:
            try:
                names = list(list_repo_files(self.location, **self.version))
            except Exception:  # whatever the network or the hub says: this list only completes another error
                return []
        own = {name for name, value in self.index().items() if isinstance(value, list | tuple) and value[0]}
        return sorted(name for name in names if name.endswith(_WEIGHTS) and name.partition("/")[0] in own)

    def variant_hint(self) -> str:
        """Which weight files there are, for the error after a variant was not found; empty if none was asked for."""
        if self.variant is None:
            return ""
        found = self.weight_files()
        listed = f": there are {', '.join(found)}" if found else ""
        return f" (variant {self.variant!r}, --variant{listed})"
