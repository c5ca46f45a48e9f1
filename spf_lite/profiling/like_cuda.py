"""A graphics card's autocast and fused attention, for tensors without numbers.

The meta device has neither; :class:`LikeCuda` emulates both. Fake tensors (``FakeTensorMode``) with PyTorch's own
autocast were tried in its place. In 32 bits they count the same: 1519 MB for each portrait of a plain LoRA step of
Stable Diffusion 1.5. In 16 bits fake CPU tensors count 785 MB instead of 1026, because autocast on a CPU leaves
normalisation in 16 bits where CUDA returns to 32. Fake CUDA tensors need a PyTorch built for CUDA. Fake tensors also
took 1.5 to 4 times as long, and they cannot run the dual path, whose shared prefix compares values.

In the book: :doc:`/13-real-models`.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

# Operations that CUDA autocast computes in 16 bits, and in 32 ("CUDA Op-Specific Behavior" in the documentation of
# torch.amp), as far as our models use them.
_LOW = {F.linear, F.conv2d, torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.bmm, torch.baddbmm, torch.einsum}
_LOW |= {F.scaled_dot_product_attention}
HIGH = {F.layer_norm, F.group_norm, F.softmax, torch.softmax, Tensor.softmax, F.mse_loss, F.normalize, Tensor.pow}


class LikeCuda(TorchFunctionMode):
    """Treats meta tensors as CUDA treats real ones: fused attention, and autocast to ``dtype`` if there is one."""

    def __init__(self, dtype: torch.dtype | None, high: Collection[Any] = HIGH) -> None:
        super().__init__()
        self.dtype, self.high = dtype, high

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self.dtype is not None and func in _LOW:
            args, kwargs = _cast((args, kwargs), self.dtype)
        elif self.dtype is not None and func in self.high:
            args, kwargs = _cast((args, kwargs), torch.float32)
        return _fused_attention(*args, **kwargs) if func is F.scaled_dot_product_attention else func(*args, **kwargs)


def _cast(value: Any, dtype: torch.dtype) -> Any:
    """Cast every floating-point tensor in nested arguments."""
    if isinstance(value, Tensor):
        return value.to(dtype) if value.is_floating_point() else value
    if isinstance(value, (tuple, list)):
        return type(value)(_cast(each, dtype) for each in value)
    return {name: _cast(each, dtype) for name, each in value.items()} if isinstance(value, dict) else value


def _fused_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Flash attention. On "meta", PyTorch would choose plain attention, which saves all probabilities for backward."""
    flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    outputs: Tensor = flash(query, key, value, dropout_p, is_causal, attn_mask=attn_mask, scale=scale)[0]
    return outputs
