"""Start training from a LoRA that exists: its low-rank factors are where the new ones begin.

The reference path stays the base model without any adapter.
"""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from spf_lite.models.adapters import ADAPTER_FILE
from spf_lite.models.errors import BackboneError
from spf_lite.models.trainable import Lora, Trainable

PREFIX = "unet."


def read_low_rank_factors(path: str | Path) -> dict[str, Tensor]:
    """The low-rank factors of a diffusers LoRA file of the UNet, in peft's names.

    Diffusers calls them ``<module>.lora.down.weight`` and ``lora.up``, peft ``<module>.lora_A.weight`` and ``lora_B``;
    a file may have either.

    Args:
        path: the file, or a folder with ``pytorch_lora_weights.safetensors``.

    Raises:
        BackboneError: if there is no such file, it is corrupt, or it holds something else.
    """
    path = Path(path).expanduser()
    file = path / ADAPTER_FILE if path.is_dir() else path
    if not file.is_file():
        raise BackboneError(f"no adapter in {path}: there is no {file}")
    try:
        tensors = load_file(file)
    except (SafetensorError, OSError) as error:
        raise BackboneError(f"{file} is no safetensors file: {error}") from error
    found, foreign = {}, []
    for name, value in tensors.items():
        peft_name = name.replace(".lora.down.weight", ".lora_A.weight").replace(".lora.up.weight", ".lora_B.weight")
        if name.startswith(PREFIX) and peft_name.endswith((".lora_A.weight", ".lora_B.weight")):
            found[peft_name.removeprefix(PREFIX)] = value
        else:
            foreign.append(name)
    if foreign or not found:
        raise BackboneError(
            f"{file} is not an adapter of the UNet in diffusers' format: expected unet.<module>.lora.down.weight and "
            f"lora.up.weight, found {_some(sorted(foreign)) or 'nothing'}"
        )
    return found


def start_from(trained: Trainable, path: str | Path) -> dict[str, Tensor]:
    """Put an adapter's low-rank factors in the place of freshly initialised ones; returns them.

    Args:
        trained: a LoRA that has not learned anything yet.
        path: see :func:`read_low_rank_factors`.

    Raises:
        BackboneError: if something else than a LoRA is trained, or the adapter has other layers or another rank.
    """
    if not isinstance(trained, Lora):
        raise BackboneError(f"{path}: only trainable=lora can start from an adapter")
    factors = read_low_rank_factors(path)
    own = trained.state()
    missing, unknown = sorted(own.keys() - factors.keys()), sorted(factors.keys() - own.keys())
    if missing or unknown:
        raise BackboneError(
            f"the adapter in {path} is on other layers than the cross-attention of this model: "
            f"it lacks {_some(missing) or 'nothing'}, and has {_some(unknown) or 'nothing'} besides"
        )
    for name, value in own.items():
        shape, wanted = tuple(factors[name].shape), tuple(value.shape)
        side = 0 if "lora_A" in name else 1  # which side of the factor is the rank
        if len(shape) == len(wanted) and shape[side] != wanted[side]:
            raise BackboneError(
                f"the adapter in {path} has rank {shape[side]}, the configuration says rank={wanted[side]}"
            )
        if shape != wanted:
            raise BackboneError(
                f"the adapter in {path} is for a layer of another size: {name} is {shape}, not {wanted}"
            )
        if not factors[name].is_floating_point() or not bool(factors[name].isfinite().all()):
            raise BackboneError(f"the adapter in {path} is not finite, or of no floating-point type ({name})")
    trained.restore({name: factors[name].to(value) for name, value in own.items()})
    return factors


def _some(names: list[str]) -> str:
    return ", ".join(names[:2]) + (f" and {len(names) - 2} more" if len(names) > 2 else "")
