"""What is trained, and how the untouched model stays within reach: three ways to change cross-attention.

Each keeps *one* UNet in memory. The reference path is that UNet with the change taken back for a moment
(:meth:`Trainable.reference`): an adapter is switched off, or the original cross-attention weights are swapped in.

In the book: :doc:`/04-lora`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property

import torch
from diffusers import UNet2DConditionModel
from peft import AdaLoraConfig
from peft.tuners.adalora.layer import RankAllocator
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from torch import Tensor, nn

from spf_lite.config import KINDS
from spf_lite.models.adapters import ADAPTER, CROSS_ATTENTION, add_lora, check_cross_attention, learned_parameters
from spf_lite.models.errors import BackboneError
from spf_lite.models.precision import forget_casts


class Trainable(ABC):
    """Something that changes a UNet and can be taken back.

    Attributes:
        parameters: what the optimiser moves.
    """

    parameters: list[nn.Parameter]

    @contextmanager
    def reference(self) -> Iterator[UNet2DConditionModel]:
        """Gives the untouched UNet, to the last bit; the change comes back on exit, whatever happens."""
        with self._untouched() as unet:
            forget_casts()
            try:
                yield unet
            finally:
                forget_casts()

    @abstractmethod
    def _untouched(self) -> AbstractContextManager[UNet2DConditionModel]:
        """What :meth:`reference` gives, without regard to mixed precision."""

    @abstractmethod
    def state(self) -> dict[str, Tensor]:
        """All that a checkpoint needs."""

    @abstractmethod
    def restore(self, state: dict[str, Tensor]) -> None:
        """Take up what :meth:`state` gave."""

    @abstractmethod
    def lora_layers(self) -> dict[str, Tensor]:
        """The change as an ordinary LoRA, in peft's names (``<module>.lora_A.weight`` and ``lora_B``), scale 1."""

    @contextmanager
    def using(self, state: dict[str, Tensor]) -> Iterator[None]:
        """Within it the UNet is changed as an earlier :meth:`state` says; no gradient may be awaited across it."""
        current = {name: value.detach().clone() for name, value in self.state().items()}
        try:
            self.restore(state)
            forget_casts()
            yield
        finally:
            self.restore(current)
            forget_casts()

    def penalty(self) -> Tensor | None:
        """A term that this way of training adds to the loss; None: nothing."""
        return None

    def after_backward(self, step: int) -> None:  # noqa: B027 (most have nothing to do here)
        """Called between the gradient and the next step's, with the number of the step."""


def make_trainable(kind: str, unet: UNet2DConditionModel, rank: int, seed: int, steps: int) -> Trainable:
    """Put one of :data:`KINDS` on a UNet.

    Args:
        kind: ``lora`` (Hu et al. 2021), ``adalora`` (Zhang et al. 2023) or ``weights`` (SPF-Portrait's own setting).
        unet: gets the change.
        rank: of the two thin matrices (for AdaLoRA: in the end, on average; ignored for weights).
        seed: of their start.
        steps: how long the run will be; AdaLoRA plans its ranks by it.

    Raises:
        ValueError: for another kind.
        BackboneError: if the UNet has no cross-attention, or an adapter already.
    """
    if kind == "lora":
        return Lora(unet, rank, seed)
    if kind == "adalora":
        return AdaLora(unet, rank, seed, steps)
    if kind == "weights":
        return Weights(unet)
    raise ValueError(f"trainable={kind!r}: expected one of {', '.join(KINDS)}")


class _Adapter(Trainable):
    """Something of peft's that can be switched off."""

    unet: UNet2DConditionModel

    @cached_property
    def layers(self) -> list[BaseTunerLayer]:
        """The layers that carry it. Looked up once: a step of training switches them off and on."""
        return [module for module in self.unet.modules() if isinstance(module, BaseTunerLayer)]

    @contextmanager
    def _untouched(self) -> Iterator[UNet2DConditionModel]:
        for layer in self.layers:
            layer.enable_adapters(False)
        try:
            yield self.unet
        finally:
            for layer in self.layers:
                layer.enable_adapters(True)


class Lora(_Adapter):
    """Two thin matrices beside every cross-attention projection."""

    def __init__(self, unet: UNet2DConditionModel, rank: int, seed: int) -> None:
        self.unet = unet
        self.parameters = add_lora(unet, rank, seed=seed)

    def state(self) -> dict[str, Tensor]:
        return dict(get_peft_model_state_dict(self.unet, adapter_name=ADAPTER))

    def restore(self, state: dict[str, Tensor]) -> None:
        set_peft_model_state_dict(self.unet, state, adapter_name=ADAPTER)

    def lora_layers(self) -> dict[str, Tensor]:
        return self.state()


class AdaLora(_Adapter):
    """LoRA as B diag(E) A, whose entries of E are pruned where they matter least.

    It starts with half as many more ranks as it ends with; an orthogonality penalty keeps the rows of A and the columns
    of B apart, so that an entry's size means something.
    """

    def __init__(self, unet: UNet2DConditionModel, rank: int, seed: int, steps: int) -> None:
        check_cross_attention(unet)
        if getattr(unet, "peft_config", None):
            raise BackboneError("the UNet already has an adapter: load the backbone anew, or delete the adapter first")
        self.unet = unet
        self.config = AdaLoraConfig(
            init_r=rank + max(1, rank // 2),  # more than in the end, also for rank 1
            target_r=rank,
            lora_alpha=rank,
            tinit=steps // 5,
            tfinal=steps // 3,
            deltaT=5,
            total_step=steps,
            orth_reg_weight=0.1,
            target_modules=list(CROSS_ATTENTION),
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            unet.add_adapter(self.config, adapter_name=ADAPTER)
        self.parameters = learned_parameters(unet)
        self.allocator = RankAllocator(unet, self.config, ADAPTER)

    def penalty(self) -> Tensor:
        deviations = []
        for name, parameter in self.unet.named_parameters():
            if f"lora_A.{ADAPTER}" in name or f"lora_B.{ADAPTER}" in name:
                product = parameter @ parameter.T if "lora_A" in name else parameter.T @ parameter
                deviations.append(torch.linalg.norm(product - torch.eye(len(product), device=product.device)))
        return self.config.orth_reg_weight * torch.stack(deviations).mean()

    def after_backward(self, step: int) -> None:
        final = self.config.total_step - self.config.tfinal
        if step < final:
            _, pattern = self.allocator.update_and_allocate(self.unet, step)
        elif step == final:
            _, pattern = self.allocator.update_and_allocate(self.unet, step, force_mask=True)
        else:
            self.allocator.mask_using_rank_pattern(self.unet, self.config.rank_pattern)
            pattern = None
        if pattern:
            self.config.rank_pattern = pattern

    def _own(self) -> dict[str, Tensor]:
        return {name: value for name, value in self.unet.state_dict().items() if f".{ADAPTER}" in name}

    def state(self) -> dict[str, Tensor]:
        """The matrices, and the running importances by which ranks are pruned."""
        found = {name: value.detach().clone() for name, value in self._own().items()}
        for prefix in ("ipt", "exp_avg_ipt", "exp_avg_unc"):
            found |= {f"{prefix}/{name}": value for name, value in getattr(self.allocator, prefix).items()}
        for name, kept in (self.config.rank_pattern or {}).items():
            found[f"pattern/{name}"] = torch.tensor(kept)
        return found

    def restore(self, state: dict[str, Tensor]) -> None:
        self.unet.load_state_dict({name: value for name, value in state.items() if "/" not in name}, strict=False)
        device = self.parameters[0].device
        for prefix in ("ipt", "exp_avg_ipt", "exp_avg_unc"):
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
        for name, module in self.unet.named_modules():
            if name.endswith(CROSS_ATTENTION) and hasattr(module, "lora_E"):
                scale = module.scaling[ADAPTER] / (module.ranknum[ADAPTER].item() + 1e-5)
                layers[f"{name}.lora_A.weight"] = (module.lora_A[ADAPTER] * module.lora_E[ADAPTER] * scale).detach()
                layers[f"{name}.lora_B.weight"] = module.lora_B[ADAPTER].detach()
        return layers


class Weights(Trainable):
    """The cross-attention projections themselves; a copy of these alone is kept for the reference."""

    def __init__(self, unet: UNet2DConditionModel) -> None:
        check_cross_attention(unet)
        if getattr(unet, "peft_config", None):
            raise BackboneError("the UNet already has an adapter: load the backbone anew, or delete the adapter first")
        if unet.dtype != torch.float32:
            raise BackboneError(f"the weights themselves learn in 32 bits, and are {unet.dtype}: load without dtype")
        self.unet = unet
        self.weights: dict[str, nn.Parameter] = {
            name: module.weight for name, module in unet.named_modules() if name.endswith(CROSS_ATTENTION)
        }
        self.parameters = list(self.weights.values())
        for weight in self.parameters:
            weight.requires_grad_(True)
        self.original = {name: weight.detach().clone() for name, weight in self.weights.items()}

    @contextmanager
    def _untouched(self) -> Iterator[UNet2DConditionModel]:
        tuned = {name: weight.data for name, weight in self.weights.items()}
        try:
            for name, weight in self.weights.items():
                weight.data = self.original[name]
            yield self.unet
        finally:
            for name, weight in self.weights.items():
                weight.data = tuned[name]

    def state(self) -> dict[str, Tensor]:
        return {name: weight.detach().clone() for name, weight in self.weights.items()}

    def restore(self, state: dict[str, Tensor]) -> None:
        with torch.no_grad():
            for name, weight in self.weights.items():
                weight.copy_(state[name])

    def lora_layers(self) -> dict[str, Tensor]:
        """The change of each matrix by its singular value decomposition, all ranks that carry anything."""
        layers = {}
        for name, weight in self.weights.items():
            left, sizes, right = torch.linalg.svd((weight.detach() - self.original[name]).double(), full_matrices=False)
            keep = max(1, int((sizes > 1e-7 * sizes.max()).sum()))
            root = sizes[:keep].sqrt()
            layers[f"{name}.lora_A.weight"] = (root[:, None] * right[:keep]).float().contiguous()
            layers[f"{name}.lora_B.weight"] = (left[:, :keep] * root).float().contiguous()
        return layers
