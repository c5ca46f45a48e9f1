"""From a tensor to NumPy, wherever the tensor lies."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor


def as_array(values: Any) -> NDArray[np.float64]:
    """Numbers in 64 bits.

    Args:
        values: a tensor, also one on a GPU or with a gradient, both of which NumPy itself refuses; or
            whatever NumPy takes.
    """
    return np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values, dtype=np.float64)
