"""A simulated CUDA device: finds device mismatches on a machine without a graphics card.

    with PretendGpu():
        torch.ones(3, device="cuda") + torch.ones(3)    # RuntimeError: Expected all tensors to be on the same device

The CPU computes everything. A mark on a tensor's *storage* says that it is a CUDA tensor, so views and parameters that
share the storage agree. Results are on the device of the arguments, or on the one that ``device=`` names. The rules are
those of CUDA:

* tensors on different devices do not mix, except that a CPU scalar (0 dimensions) may enter a CUDA operation; ``copy_``
  and assignment to a slice copy between devices;
* a CUDA tensor may be indexed with a CPU tensor; a CPU tensor may not be indexed with a CUDA tensor, unless it is one
  integer;
* NumPy refuses CUDA tensors, and ``.cpu()`` makes a copy;
* a CPU generator makes no random CUDA tensors.

Limits:

* Only calls from Python are checked, each as a whole: not the inside of torch's own functions (``F.interpolate``, a
  backward pass), and not hooks in a backward pass.
* Which operations take a CPU scalar depends on the kernel. Here all do, except those in :data:`_NO_SCALARS`.
* ``torch.save`` forgets the mark: what is loaded is on the CPU, as with ``map_location="cpu"``. Loading straight onto
  the device, ``torch.Generator("cuda")``, streams, CUDA autocast and compiled code are not simulated.
* There is one device with unlimited memory, and its random numbers are those of the CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any
from unittest.mock import Mock, patch

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

CUDA = torch.device("cuda", 0)

#: Functions of ``torch.cuda`` and what they return.
_ANSWERS: dict[str, Any] = {
    "is_available": True,
    "is_bf16_supported": True,
    "device_count": 1,
    "current_device": 0,
    "set_device": None,
    "synchronize": None,
    "empty_cache": None,
    "get_device_name": "simulated device",
    "get_device_capability": (8, 0),
    "memory_allocated": 0,
    "max_memory_allocated": 0,
    "reset_peak_memory_stats": None,
}
#: Operations that take tensors on any device, or look only at shape or type of their other arguments.
_ANYWHERE = {
    "copy_", "data.__set__", "expand_as", "view_as", "reshape_as", "resize_as_", "broadcast_tensors", "result_type",
    "is_same_size", "backward", "grad", "__deepcopy__", "__reduce_ex__", "_has_compatible_shallow_copy_type",
}  # fmt: skip
#: Operations that refuse even a CPU scalar.
_NO_SCALARS = {
    "stack", "cat", "concat", "concatenate", "hstack", "vstack", "embedding", "gather", "index_select", "take",
    "take_along_dim", "equal", "allclose", "scatter", "scatter_", "scatter_add", "scatter_add_", "index_add",
    "index_add_", "index_copy_",
}  # fmt: skip


class PretendGpu(TorchFunctionMode):
    """Within this context there is a CUDA device, ``cuda:0``."""

    def __enter__(self) -> PretendGpu:
        self.patches = ExitStack()
        for name, answer in _ANSWERS.items():
            self.patches.enter_context(patch.object(torch.cuda, name, Mock(return_value=answer)))
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self.patches.close()

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name, kwargs = _name(func), dict(kwargs or {})
        if special := _SPECIAL.get(name):
            return special(func, *args, **kwargs)
        if name not in _ANYWHERE:
            _refuse_mixing(name, args, kwargs)
        return _call(func, args, kwargs)


def is_on_cuda(tensor: Tensor) -> bool:
    """Whether a tensor is on the device. For code outside the mode, or within its own handler."""
    return bool(getattr(tensor.untyped_storage(), "is_on_cuda", False))


def _put(tensor: Tensor) -> Tensor:
    tensor.untyped_storage().is_on_cuda = True  # type: ignore[attr-defined]
    return tensor


def _name(func: Callable[..., Any]) -> str:
    """Name of a torch function, such as ``add``; ``device.__get__`` for an attribute."""
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


def _names_cuda(device: Any) -> bool:
    return isinstance(device, int) or torch.device(device).type == "cuda"


def _call(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run a function on the CPU; new tensors are on the device of the arguments, or on the one asked for."""
    given = list(_tensors((args, kwargs)))
    cuda = any(map(is_on_cuda, given))
    if kwargs.get("device") is not None:
        cuda = _names_cuda(kwargs["device"])
        kwargs["device"] = "cpu" if cuda else kwargs["device"]
    if cuda and kwargs.get("generator") is not None:
        raise RuntimeError("Expected a 'cuda' device type for generator but found 'cpu'")
    result = func(*args, **kwargs)
    if cuda:
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
    given = [tensor for tensor in _tensors((args, kwargs)) if tensor.device.type == "cpu"]  # no meta tensors
    if not any(map(is_on_cuda, given)):
        return
    changes = name.endswith("_") and not name.endswith("__")
    written = [*_tensors(args[:1] if changes or name.startswith("__i") else ()), *_tensors(kwargs.get("out"))]
    if not all(map(is_on_cuda, written)):
        raise _mixed(name)
    if any(not is_on_cuda(tensor) and (tensor.dim() or name in _NO_SCALARS) for tensor in given):
        raise _mixed(name)


# -- special cases -----------------------------------------------------------------------------------------------------


def _move(tensor: Tensor, moved: Tensor, cuda: bool) -> Tensor:
    """``moved``, made of ``tensor`` by a conversion, put on the device or on the CPU; a copy if the device changes."""
    if cuda != is_on_cuda(tensor) and moved.untyped_storage()._cdata == tensor.untyped_storage()._cdata:
        moved = moved.clone()
    return _put(moved) if cuda else moved


def _to(func: Callable[..., Any], tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    cuda = is_on_cuda(tensor)
    if "other" in kwargs:
        args = (kwargs.pop("other"), *args)
    first = args[0] if args else kwargs.get("device")
    if isinstance(first, Tensor):
        cuda, args = is_on_cuda(first), (first.dtype, *args[1:])
    elif isinstance(first, (str, int, torch.device)):
        cuda = _names_cuda(first)
        if cuda and args:
            args = ("cpu", *args[1:])
        elif cuda:
            kwargs["device"] = "cpu"
    return _move(tensor, func(tensor, *args, **kwargs), cuda)


def _made_of(func: Callable[..., Any], data: Any, *args: Any, **kwargs: Any) -> Tensor:
    """``torch.tensor`` and similar: a list of scalars is read one by one, whatever their devices."""
    cuda = is_on_cuda(data) if isinstance(data, Tensor) else False
    if kwargs.get("device") is not None:
        cuda = _names_cuda(kwargs["device"])
        kwargs["device"] = "cpu" if cuda else kwargs["device"]
    made = func(data, *args, **kwargs)
    return _move(data, made, cuda) if isinstance(data, Tensor) else _put(made) if cuda else made


def _to_numpy(func: Callable[..., Any], tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
    if is_on_cuda(tensor) and not kwargs.get("force"):
        raise TypeError(
            "can't convert cuda:0 device type tensor to numpy. "
            "Use Tensor.cpu() to copy the tensor to host memory first."
        )
    return func(tensor, *args, **kwargs)


def _is_integer(index: Tensor) -> bool:
    return not index.dim() and not (index.is_floating_point() or index.dtype == torch.bool)


def _check_index(tensor: Tensor, index: Any) -> None:
    if not is_on_cuda(tensor) and any(is_on_cuda(one) and not _is_integer(one) for one in _tensors(index)):
        raise RuntimeError("indices should be either on cpu or on the same device as the indexed tensor (cpu)")


def _get_item(func: Callable[..., Any], tensor: Tensor, index: Any) -> Any:
    _check_index(tensor, index)
    found = func(tensor, index)
    return _put(found) if is_on_cuda(tensor) else found


def _set_item(func: Callable[..., Any], tensor: Tensor, index: Any, value: Any) -> None:
    _check_index(tensor, index)
    parts = index if isinstance(index, tuple) else (index,)
    advanced = any(isinstance(part, list) or (isinstance(part, Tensor) and not _is_integer(part)) for part in parts)
    if advanced and isinstance(value, Tensor) and value.dim() and is_on_cuda(value) != is_on_cuda(tensor):
        raise _mixed("index_put_")
    func(tensor, index, value)


def _get_grad(func: Callable[..., Any], tensor: Tensor) -> Tensor | None:
    grad = func(tensor)
    return _put(grad) if grad is not None and is_on_cuda(tensor) else grad


def _set_grad(func: Callable[..., Any], tensor: Tensor, grad: Tensor | None) -> None:
    if grad is not None and is_on_cuda(grad) != is_on_cuda(tensor):
        raise RuntimeError("assigned grad has data located on a different device")
    func(tensor, grad)


_SPECIAL: dict[str, Callable[..., Any]] = {
    "device.__get__": lambda func, tensor: CUDA if is_on_cuda(tensor) else func(tensor),
    "is_cuda.__get__": lambda func, tensor: is_on_cuda(tensor),
    "is_cpu.__get__": lambda func, tensor: not is_on_cuda(tensor) and func(tensor),
    "get_device": lambda func, tensor: 0 if is_on_cuda(tensor) else func(tensor),
    "grad.__get__": _get_grad,
    "grad.__set__": _set_grad,
    "to": _to,
    "cpu": lambda func, tensor, *_, **__: _move(tensor, tensor, False),
    "cuda": lambda func, tensor, *_, **__: _move(tensor, tensor, True),
    "type_as": lambda func, tensor, other: _move(tensor, func(tensor, other), is_on_cuda(other)),
    "tensor": _made_of,
    "as_tensor": _made_of,
    "asarray": _made_of,
    "numpy": _to_numpy,
    "__array__": _to_numpy,
    "__getitem__": _get_item,
    "__setitem__": _set_item,
}
