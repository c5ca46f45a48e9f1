"""A sharded network trains as a whole one does, and each process keeps a share of it."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import PartialState
from safetensors.torch import load_file
from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from spf_lite.choices import KINDS
from spf_lite.config import TrainConfig
from spf_lite.data.sets.custom_set import CustomSet
from spf_lite.models.adapters.lora import ADAPTER_FILE
from spf_lite.models.adapters.original import OriginalWeights
from spf_lite.models.backbone import Backbone, load
from spf_lite.models.running.sharding import shard_frozen
from spf_lite.training.trainer import DualPathTrainer
from tests.processes import ended_well, ranks

CONFIG = TrainConfig(
    stage1_steps=1,
    stage2_steps=2,
    batch_size=2,
    rank=2,
    weight_text=1.0,
    weight_output=1.0,
    weight_reconstruction=1.0,
    weight_purecc=1.0,
    reference_portraits=3,
    gradient_checkpointing=True,
)


def is_sharded(network: nn.Module) -> bool:
    return isinstance(network, FSDPModule)


def kept_weights(network: nn.Module) -> int:
    """How many weights of a network this process keeps."""
    whole = (weight.to_local() if isinstance(weight, DTensor) else weight for weight in network.parameters())
    return sum(weight.numel() for weight in whole)


def trainer(toy: Path, custom: Path, kind: str, output: Path, **options: Any) -> DualPathTrainer:
    custom_set = CustomSet.load(custom)
    few = CustomSet(custom_set.folder, custom_set.examples[:3], custom_set.digest)
    config = CONFIG.changed([f"trainable={kind}"])
    return DualPathTrainer(load(str(toy), "cpu"), few, config, output, **options)


def sharded(toy: Path, custom: Path, work: Path) -> None:
    """One of two processes: every kind of training, and what it kept."""
    kept = {}
    for kind in KINDS:
        run = trainer(toy, custom, kind, work / f"two-{kind}", shard=True)
        network = run.backbone.network
        trained = sum(weight.numel() for weight in run.parameters)
        frozen = sum(weight.numel() for weight in network.parameters()) - trained
        kept[kind] = (kept_weights(network) - trained) / frozen
        assert is_sharded(network)
        run.fit(progress=False)
        run.export(work / f"two-{kind}" / "adapter")
        rank = run.accelerator.process_index
        run.accelerator.wait_for_everyone()
    (work / f"kept-{rank}.json").write_text(json.dumps(kept))


def test_every_kind_is_trained_as_on_a_whole_network_and_half_is_kept(
    toy_folders: dict[str, Path], custom_folder: Path, tmp_path: Path
) -> None:
    toy = toy_folders["v_prediction"]
    children = ranks(sharded, toy, custom_folder, tmp_path, output=tmp_path / "said")
    for kind in KINDS:
        run = trainer(toy, custom_folder, kind, tmp_path / f"one-{kind}")
        assert kept_weights(run.backbone.network) == sum(w.numel() for w in run.backbone.network.parameters())
        assert not is_sharded(run.backbone.network)
        run.fit(progress=False)
        run.export(tmp_path / f"one-{kind}" / "adapter")
    for child in children:
        ended_well(child, tmp_path / "said")
    for kind in KINDS:
        one, two = (load_file(tmp_path / f"{count}-{kind}" / "adapter" / ADAPTER_FILE) for count in ("one", "two"))
        assert one.keys() == two.keys()
        for name, tensor in one.items():
            assert torch.allclose(two[name], tensor, atol=2e-4), (kind, name)
    for rank in (0, 1):
        kept = json.loads((tmp_path / f"kept-{rank}.json").read_text())
        assert all(0.4 < share < 0.6 for share in kept.values()), kept


def test_one_process_has_nobody_to_share_with(toy: Backbone) -> None:
    with pytest.raises(ValueError, match="sharded between several processes, and there is one"):
        shard_frozen(toy, torch.device("cpu"))


def refused(folder: Path, work: Path) -> None:
    """One of two processes: a model whose weights without earlier adapters are needed."""
    state = PartialState(cpu=True)
    backbone = load(str(folder), "cpu")
    backbone.original = OriginalWeights(backbone.network, {})
    try:
        shard_frozen(backbone, torch.device("cpu"))
    except ValueError as error:
        (work / str(state.process_index)).write_text(f"{error}; sharded: {is_sharded(backbone.network)}")


def test_weights_without_earlier_adapters_are_refused(toy_folders: dict[str, Path], tmp_path: Path) -> None:
    for child in ranks(refused, toy_folders["epsilon"], tmp_path, output=tmp_path / "said"):
        ended_well(child, tmp_path / "said")
    for rank in (0, 1):
        assert (tmp_path / str(rank)).read_text().endswith("set original_reference=false; sharded: False")
