"""A graphics card that is none: every tensor says where it lies, and what a real card would refuse is refused.

    with PretendGpu():
        torch.ones(3, device="cuda") + torch.ones(3)    # RuntimeError: Expected all tensors to be on the same device

All numbers are computed by the processor. A mark on a tensor's *storage* says that it lies on the card, so views,
parameters and whatever else shares the memory agree. Results lie where the arguments lie, or where ``device=`` says.
The rules are those of CUDA:

* tensors of several devices do not mix, except that a number of the processor's (0 dimensions) may join an operation of
  the card's; ``copy_`` and assignment to a slice carry values across;
* a tensor of the card's may be indexed with a tensor of the processor's, but not the other way round, unless the index
  is one whole number;
* NumPy and everything built on it refuses tensors of the card's, and ``.cpu()`` is a copy;
* a generator of the processor's draws nothing on the card.

Where it is not faithful:

* It sees what Python calls, each call as a whole. Inside of torch's own functions (``F.interpolate``, a backward pass)
  everything lies on the processor, and hooks in a backward pass are not watched.
* Which operations take a number of the processor's depends on each kernel. Here all do but :data:`_NO_NUMBERS`.
* ``torch.save`` forgets the mark: what is loaded lies on the processor, as with ``map_location="cpu"``. Reading a file
  straight onto the card, ``torch.Generator("cuda")``, streams, autocast and everything compiled is not pretended.
* There is one card, it never runs out of memory, and its random numbers are the processor's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

CARD = torch.device("cuda", 0)

#: What is asked about a card: name in ``torch.cuda`` and answer.
_ANSWERS: dict[str, Any] = {
    "is_available": True,
    "is_bf16_supported": True,
    "device_count": 1,
    "current_device": 0,
    "set_device": None,
    "synchronize": None,
    "empty_cache": None,
    "get_device_name": "a pretended card",
    "get_device_capability": (8, 0),
    "memory_allocated": 0,
    "max_memory_allocated": 0,
    "reset_peak_memory_stats": None,
}
#: They only look at shape or type of their other arguments, or take tensors from anywhere.
_ANYWHERE = {
    "copy_", "data.__set__", "expand_as", "view_as", "reshape_as", "resize_as_", "broadcast_tensors", "result_type",
    "is_same_size", "backward", "grad", "__deepcopy__", "__reduce_ex__", "_has_compatible_shallow_copy_type",
}  # fmt: skip
#: They refuse even a number of the processor's.
_NO_NUMBERS = {
    "stack", "cat", "concat", "concatenate", "hstack", "vstack", "embedding", "gather", "index_select", "take",
    "take_along_dim", "equal", "allclose", "scatter", "scatter_", "scatter_add", "scatter_add_", "index_add",
    "index_add_", "index_copy_",
}  # fmt: skip


class PretendGpu(TorchFunctionMode):
    """Within it there is a graphics card, ``cuda:0``."""

    def __enter__(self) -> PretendGpu:
        answers = {name: (lambda *_, _answer=answer, **__: _answer) for name, answer in _ANSWERS.items()}
        self.patches = patch.multiple(torch.cuda, **answers)
        self.patches.start()
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self.patches.stop()

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name, kwargs = _name(func), dict(kwargs or {})
        if special := _SPECIAL.get(name):
            return special(func, *args, **kwargs)
        if name not in _ANYWHERE:
            _refuse_mixing(name, args, kwargs)
        return _call(func, args, kwargs)


def on_card(tensor: Tensor) -> bool:
    """Whether a tensor lies on the card. To be called outside of the mode, or by it."""
    return getattr(tensor.untyped_storage(), "on_card", False)


def _put(tensor: Tensor) -> Tensor:
    tensor.untyped_storage().on_card = True  # type: ignore[attr-defined]
    return tensor


def _name(func: Callable[..., Any]) -> str:
    """``add``; ``device.__get__`` for attributes."""
    attribute = func.__name__ in ("__get__", "__set__")
    return f"{func.__self__.__name__}.{func.__name__}" if attribute else func.__name__  # type: ignore[attr-defined]


def _tensors(value: Any) -> Iterator[Tensor]:
    """All tensors in arguments or results."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))
    elif isinstance(value, (list, tuple)):
        for element in value:
            yield from _tensors(element)


def _is_card(device: Any) -> bool:
    return isinstance(device, int) or torch.device(device).type == "cuda"


def _call(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Let the processor do it; what is new lies where the arguments lie, or where it was asked for."""
    given = list(_tensors((args, kwargs)))
    card = any(map(on_card, given))
    if kwargs.get("device") is not None:
        card = _is_card(kwargs["device"])
        kwargs["device"] = "cpu" if card else kwargs["device"]
    if card and kwargs.get("generator") is not None:
        raise RuntimeError("Expected a 'cuda' device type for generator but found 'cpu'")
    result = func(*args, **kwargs)
    if card:
        known = {tensor.untyped_storage()._cdata for tensor in given}
        for tensor in _tensors(result):
            if tensor.untyped_storage()._cdata not in known:
                _put(tensor)
    return result


def _mixed(name: str) -> RuntimeError:
    return RuntimeError(
        f"Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu! (in {name})"
    )


def _refuse_mixing(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    given = [tensor for tensor in _tensors((args, kwargs)) if tensor.device.type == "cpu"]  # none without values
    if not any(map(on_card, given)):
        return
    changes = name.endswith("_") and not name.endswith("__")
    written = [*_tensors(args[:1] if changes or name.startswith("__i") else ()), *_tensors(kwargs.get("out"))]
    if not all(map(on_card, written)):
        raise _mixed(name)
    if any(not on_card(tensor) and (tensor.dim() or name in _NO_NUMBERS) for tensor in given):
        raise _mixed(name)


# -- what is not like the rest -----------------------------------------------------------------------------------------


def _move(tensor: Tensor, moved: Tensor, card: bool) -> Tensor:
    """``tensor``, perhaps converted to ``moved``, brought to the card or the processor."""
    if card != on_card(tensor) and moved.untyped_storage()._cdata == tensor.untyped_storage()._cdata:
        moved = moved.clone()
    return _put(moved) if card else moved


def _to(func: Callable[..., Any], tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    card = on_card(tensor)
    if "other" in kwargs:
        args = (kwargs.pop("other"), *args)
    first = args[0] if args else kwargs.get("device")
    if isinstance(first, Tensor):
        card, args = on_card(first), (first.dtype, *args[1:])
    elif isinstance(first, (str, int, torch.device)):
        card = _is_card(first)
        if card and args:
            args = ("cpu", *args[1:])
        elif card:
            kwargs["device"] = "cpu"
    return _move(tensor, func(tensor, *args, **kwargs), card)


def _made_of(func: Callable[..., Any], data: Any, *args: Any, **kwargs: Any) -> Tensor:
    """``torch.tensor`` and its kin: a list of tensors is read number by number, wherever these lie."""
    card = on_card(data) if isinstance(data, Tensor) else False
    if kwargs.get("device") is not None:
        card = _is_card(kwargs["device"])
        kwargs["device"] = "cpu" if card else kwargs["device"]
    made = func(data, *args, **kwargs)
    return _move(data, made, card) if isinstance(data, Tensor) else _put(made) if card else made


def _to_numpy(func: Callable[..., Any], tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
    if on_card(tensor) and not kwargs.get("force"):
        raise TypeError(
            "can't convert cuda:0 device type tensor to numpy. "
            "Use Tensor.cpu() to copy the tensor to host memory first."
        )
    return func(tensor, *args, **kwargs)


def _is_number(index: Tensor) -> bool:
    return not index.dim() and not (index.is_floating_point() or index.dtype == torch.bool)


def _check_index(tensor: Tensor, index: Any) -> None:
    if not on_card(tensor) and any(on_card(one) and not _is_number(one) for one in _tensors(index)):
        raise RuntimeError("indices should be either on cpu or on the same device as the indexed tensor (cpu)")


def _get_item(func: Callable[..., Any], tensor: Tensor, index: Any) -> Any:
    _check_index(tensor, index)
    found = func(tensor, index)
    return _put(found) if on_card(tensor) else found


def _set_item(func: Callable[..., Any], tensor: Tensor, index: Any, value: Any) -> None:
    _check_index(tensor, index)
    parts = index if isinstance(index, tuple) else (index,)
    by_places = any(isinstance(part, list) or (isinstance(part, Tensor) and not _is_number(part)) for part in parts)
    if by_places and isinstance(value, Tensor) and value.dim() and on_card(value) != on_card(tensor):
        raise _mixed("index_put_")
    func(tensor, index, value)


def _get_grad(func: Callable[..., Any], tensor: Tensor) -> Tensor | None:
    grad = func(tensor)
    return _put(grad) if grad is not None and on_card(tensor) else grad


def _set_grad(func: Callable[..., Any], tensor: Tensor, grad: Tensor | None) -> None:
    if grad is not None and on_card(grad) != on_card(tensor):
        raise RuntimeError("assigned grad has data located on a different device")
    func(tensor, grad)


_SPECIAL: dict[str, Callable[..., Any]] = {
    "device.__get__": lambda func, tensor: CARD if on_card(tensor) else func(tensor),
    "is_cuda.__get__": lambda func, tensor: on_card(tensor),
    "is_cpu.__get__": lambda func, tensor: not on_card(tensor) and func(tensor),
    "get_device": lambda func, tensor: 0 if on_card(tensor) else func(tensor),
    "grad.__get__": _get_grad,
    "grad.__set__": _set_grad,
    "to": _to,
    "cpu": lambda func, tensor, *_, **__: _move(tensor, tensor, False),
    "cuda": lambda func, tensor, *_, **__: _move(tensor, tensor, True),
    "type_as": lambda func, tensor, other: _move(tensor, func(tensor, other), on_card(other)),
    "tensor": _made_of,
    "as_tensor": _made_of,
    "asarray": _made_of,
    "numpy": _to_numpy,
    "__array__": _to_numpy,
    "__getitem__": _get_item,
    "__setitem__": _set_item,
}
