import numpy as np
import torch

from spf_lite.viz.arrays import as_array

from ..gpu.pretend_gpu import PretendGpu


def test_a_tensor_on_a_card_and_with_a_gradient_is_read() -> None:
    with PretendGpu():
        weight = torch.tensor([[1.0, -2.0]], device="cuda", requires_grad=True)
        found = as_array(weight)
    assert found.dtype == np.float64 and found.tolist() == [[1.0, -2.0]]


def test_sixteen_bits_are_read() -> None:
    assert as_array(torch.tensor([0.5], dtype=torch.float16)).tolist() == [0.5]


def test_whatever_numpy_takes_is_taken() -> None:
    assert as_array([1, 2]).tolist() == as_array(np.array([True, 2])).tolist() == [1.0, 2.0]
