"""The frozen weights of a network, spread over the processes of a run, for a network that does not fit one card.

Each process keeps its share of the frozen weights. Before a block computes, the processes gather the block's weights;
afterwards they let go of them. What is trained is small, stays whole in every process, and is trained as without
sharding. So the losses are the same.

Every pass through the network is a joint one: all processes must make the same number of passes.

Source: fully sharded data parallelism (Zhao et al. 2023, arXiv 2304.11277), by PyTorch's ``fully_shard``.

In the book: :doc:`/13-real-models`.
"""

from __future__ import annotations

import torch
from diffusers import ModelMixin
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from spf_lite.models.backbone import Backbone
from spf_lite.models.running.resting import unneeded


def shard_frozen(backbone: Backbone, device: torch.device) -> None:
    """Spread the frozen weights of a backbone's network over all processes.

    Blocks go to the device one after the other, and only a share of each stays there. So the network, loaded into main
    memory, may be larger than the device's memory. The other parts of the model move to the device as a whole.

    Args:
        backbone: loaded, with what is trained already on its network.
        device: of this process, where it computes.

    Raises:
        ValueError: if there is one process only, or the weights without earlier adapters are needed as well: they
            would take the place of weights of which no process has all.
    """
    if not (distributed.is_available() and distributed.is_initialized()) or distributed.get_world_size() == 1:
        raise ValueError(
            "a network is sharded between several processes, and there is one: start two by "
            "`accelerate launch --multi_gpu --num_processes 2 -m spf_lite.cli train`, the same options behind it"
        )
    if backbone.original is not None:
        raise ValueError("a sharded network has no weights without earlier adapters: set original_reference=false")
    network = backbone.network
    mesh = init_device_mesh(device.type, (distributed.get_world_size(),))
    trained = {weight for weight in network.parameters() if weight.requires_grad}
    for block in _blocks(network):
        fully_shard(block, mesh=mesh, ignored_params=trained)
    fully_shard(network, mesh=mesh, ignored_params=trained)
    for weight in trained:
        weight.data = weight.data.to(device)
    for part in unneeded(backbone, enhance=False).values():  # all but the network
        nn.Module.to(part, device)


def _blocks(network: ModelMixin) -> list[nn.Module]:
    """The outermost modules of the classes that diffusers never splits between devices."""
    names, found = set(network._no_split_modules or ()), list[nn.Module]()
    inside: set[nn.Module] = set()
    for module in network.modules():
        if module not in inside and type(module).__name__ in names:
            found.append(module)
            inside.update(module.modules())
    return found
