"""AdaLoRA (Zhang et al. 2023): a low-rank adapter that moves its ranks to the layers that need them."""

from __future__ import annotations

import torch
from diffusers import ModelMixin
from peft import AdaLoraConfig
from peft.tuners.adalora.layer import RankAllocator
from torch import Tensor

from spf_lite.models.adapters.base import PeftAdapter
from spf_lite.models.adapters.lora import ADAPTER, check_no_adapter, learned_parameters
from spf_lite.models.adapters.peft_layers import put_on
from spf_lite.models.backbones.registry import architecture_of_network
from spf_lite.models.loading.compatibility import check_network

#: What peft's allocator keeps of each entry: its importance, and the running means of importance and uncertainty
#: (section 3.2).
_IMPORTANCES = ("ipt", "exp_avg_ipt", "exp_avg_unc")


class AdaLora(PeftAdapter):
    r"""The change of a projection as :math:`B\,\mathrm{diag}(E)\,A`; entries of E are pruned where they matter least.

    It starts with half as many more ranks as it ends with. A fifth of the steps passes before the first is pruned, and
    the last third keeps the ranks as they are. Source: Zhang et al. 2023 (arXiv 2303.10512), section 3.

    Args:
        network: gets the adapter.
        rank: average over the layers in the end.
        seed: of the factors' start.
        steps: of the whole run, which the pruning is planned by.

    Raises:
        BackboneError: if the network is of an unsupported kind, or has an adapter already.
    """

    def __init__(self, network: ModelMixin, rank: int, seed: int, steps: int) -> None:
        check_network(network)
        check_no_adapter(network)
        self.ends = architecture_of_network(network).trained_layers("cross-attention")
        self.network = network
        self.config = AdaLoraConfig(
            init_r=rank + max(1, rank // 2),  # more than in the end, also for rank 1
            target_r=rank,
            lora_alpha=rank,
            tinit=steps // 5,
            tfinal=steps // 3,
            deltaT=5,
            total_step=steps,
            orth_reg_weight=0.1,
            target_modules=list(self.ends),
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            put_on(network, self.config, ADAPTER)
        self.parameters = learned_parameters(network)
        self.allocator = RankAllocator(network, self.config, ADAPTER)

    def penalty(self) -> Tensor:
        r"""Keeps the rows of A and the columns of B orthogonal, so that the size of an entry of E means something.

        :math:`\lambda \, \mathrm{mean}\left( \|A A^\top - I\|_F, \|B^\top B - I\|_F \right)` over all layers, a scalar:
        the regulariser of section 3.1, in peft's form without the square.
        """
        deviations = []
        for name, parameter in self.network.named_parameters():
            if f"lora_A.{ADAPTER}" in name or f"lora_B.{ADAPTER}" in name:
                product = parameter @ parameter.T if "lora_A" in name else parameter.T @ parameter
                deviations.append(torch.linalg.norm(product - torch.eye(len(product), device=product.device)))
        return float(self.config.orth_reg_weight) * torch.stack(deviations).mean()

    def after_backward(self, step: int) -> None:
        """Update the importances from the gradient and prune, as peft's allocator plans it."""
        final = self.config.total_step - self.config.tfinal
        if step < final:
            _, pattern = self.allocator.update_and_allocate(self.network, step)
        elif step == final:
            _, pattern = self.allocator.update_and_allocate(self.network, step, force_mask=True)
        else:
            self.allocator.mask_using_rank_pattern(self.network, self.config.rank_pattern)
            pattern = None
        if pattern:
            self.config.rank_pattern = pattern

    def _own(self) -> dict[str, Tensor]:
        return {name: value for name, value in self.network.state_dict().items() if f".{ADAPTER}" in name}

    def state(self) -> dict[str, Tensor]:
        """A, E and B, the running importances by which ranks are pruned, and which are pruned already."""
        found = {name: value.detach().clone() for name, value in self._own().items()}
        for prefix in _IMPORTANCES:
            found |= {f"{prefix}/{name}": value for name, value in getattr(self.allocator, prefix).items()}
        for name, kept in (self.config.rank_pattern or {}).items():
            found[f"pattern/{name}"] = torch.tensor(kept)
        return found

    def restore(self, state: dict[str, Tensor]) -> None:
        self.network.load_state_dict({name: value for name, value in state.items() if "/" not in name}, strict=False)
        device = self.parameters[0].device
        for prefix in _IMPORTANCES:
            start = f"{prefix}/"
            # A checkpoint is read into main memory, and the allocator goes on from these as they are.
            kept = {name.removeprefix(start): v.to(device) for name, v in state.items() if name.startswith(start)}
            setattr(self.allocator, prefix, kept)
        pattern = {
            name.removeprefix("pattern/"): v.tolist() for name, v in state.items() if name.startswith("pattern/")
        }
        self.config.rank_pattern = pattern or None

    def lora_layers(self) -> dict[str, Tensor]:
        layers = {}
        for name, module in self.network.named_modules():
            if name.endswith(self.ends) and hasattr(module, "lora_E"):
                scale = module.scaling[ADAPTER] / (module.ranknum[ADAPTER].item() + 1e-5)
                layers[f"{name}.lora_A.weight"] = (module.lora_A[ADAPTER] * module.lora_E[ADAPTER] * scale).detach()
                layers[f"{name}.lora_B.weight"] = module.lora_B[ADAPTER].detach()
        return layers
