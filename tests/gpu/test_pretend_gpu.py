"""The simulated device accepts what CUDA accepts, and refuses what CUDA refuses."""

import copy
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .pretend_gpu import CUDA, PretendGpu

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def cuda() -> Iterator[None]:
    before = torch.cuda.is_available()
    with PretendGpu():
        yield
    assert torch.cuda.is_available() == before


def here(*shape: int) -> Tensor:
    return torch.ones(*shape)


def there(*shape: int) -> Tensor:
    return torch.ones(*shape, device="cuda")


@pytest.mark.filterwarnings("ignore:To copy construct")
@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.zeros(2, device="cuda"),
        lambda: torch.zeros(2, device=0),
        lambda: torch.full((2,), 7, device=CUDA),
        lambda: torch.tensor([1, 2], device="cuda:0"),
        lambda: torch.as_tensor(here(2), device="cuda"),
        lambda: torch.randn(2, device="cuda"),
        lambda: torch.randn(2, generator=torch.Generator()).to(CUDA),
        lambda: here(2).to("cuda"),
        lambda: here(2).to("cuda", torch.float64),
        lambda: here(2).to(device="cuda", dtype=torch.float64),
        lambda: here(2).to(there(1)),
        lambda: here(2).cuda(),
        lambda: there(2).to(torch.float64),
        lambda: there(2).half(),
        lambda: torch.zeros_like(there(2)),
        lambda: torch.randn_like(there(2)),
        lambda: there(2).new_zeros(3),
        lambda: torch.tensor(there(2)),
        lambda: there(2)[1:],
        lambda: there(2, 2).T.flatten(),
        lambda: there(2).expand(3, 2).data,
        lambda: there(2).split(1)[1],
        lambda: there(3).max(dim=0).indices,
        lambda: torch.from_numpy(np.ones(2)).cuda() * 2,
        lambda: nn.Parameter(there(2)),
        lambda: copy.deepcopy(there(2)),
        lambda: F.interpolate(there(1, 1, 2, 2), size=4),
    ],
)
def test_the_result_is_on_the_device(make: Callable[[], Tensor]) -> None:
    made = make()
    assert made.device == CUDA and made.is_cuda and not made.is_cpu and made.get_device() == 0


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.zeros(2),
        lambda: there(2).cpu(),
        lambda: there(2).to("cpu"),
        lambda: there(2).to(here(1)),
        lambda: there(2).to(device="cpu", dtype=torch.float64),
        lambda: torch.zeros_like(there(2), device="cpu"),
        lambda: torch.tensor([there(1)[0], there(1)[0]]),  # scalars are read one by one
        lambda: torch.tensor(there(2).tolist()),
        lambda: here(2).copy_(there(2)),
        lambda: here(2).to("cuda").cpu().detach(),
    ],
)
def test_the_result_is_on_the_cpu(make: Callable[[], Tensor]) -> None:
    made = make()
    assert made.device == CPU and not made.is_cuda and made.is_cpu and made.get_device() == -1
    made.numpy()


@pytest.mark.parametrize(
    "mix",
    [
        lambda: there(2) + here(2),
        lambda: here(2) * there(2),
        lambda: here(2) * there(1)[0],  # a CUDA scalar may not enter a CPU operation
        lambda: here(2).add_(there(1)[0]),
        lambda: here(1)[0].mul_(there(2).sum()),
        lambda: there(2).add_(here(2)),
        lambda: there(2, 2) @ here(2),
        lambda: torch.where(here(2) > 0, there(2), 0.0),
        lambda: torch.stack([there(1)[0], here(1)[0]]),
        lambda: torch.cat([there(2), here(2)]),
        lambda: torch.einsum("i,i->", there(2), here(2)),
        lambda: torch.equal(there(2), here(2)),
        lambda: F.linear(here(2), there(3, 2)),
        lambda: F.conv2d(here(1, 1, 3, 3), there(1, 1, 3, 3)),
        lambda: F.mse_loss(there(2), here(2)),
        lambda: F.embedding(torch.tensor([0]), there(3, 2)),
        lambda: there(3).gather(0, torch.tensor([1])),
        lambda: there(3).index_select(0, torch.tensor([1])),
        lambda: there(3).masked_fill(here(3) > 0, 0.0),
        lambda: there(3).masked_scatter(there(3) > 0, here(3)),
        lambda: torch.add(there(2), there(2), out=here(2)),
        lambda: there(3).__setitem__(there(3) > 0, here(3)),
        lambda: here(3).__setitem__([0, 1, 2], there(3)),
    ],
)
def test_tensors_on_different_devices_do_not_mix(mix: Callable[[], object]) -> None:
    with pytest.raises(RuntimeError, match="Expected all tensors to be on the same device"):
        mix()


def test_a_cpu_scalar_may_enter_a_cuda_operation() -> None:
    number = torch.tensor(2.0)
    for found in (there(2) * number, number - there(2), there(2).mul_(number), torch.where(there(2) > 0, number, 0.0)):
        assert found.device == CUDA
    assert there(2).masked_fill(there(2) > 0, number).tolist() == [2.0, 2.0]


def test_cpu_indices_work_on_cuda_tensors_but_not_the_other_way_round() -> None:
    assert there(3)[torch.tensor([0, 2])].device == CUDA
    assert there(3)[here(3) > 0].device == CUDA
    assert here(3)[torch.tensor(1, device="cuda")].device == CPU, "one integer is read"
    for index in (torch.tensor([0, 2], device="cuda"), there(3) > 0):
        with pytest.raises(RuntimeError, match="indices should be either on cpu or on the same device"):
            here(3)[index]
        with pytest.raises(RuntimeError, match="indices should be either on cpu or on the same device"):
            here(3)[index] = 0.0


def test_assignment_to_a_slice_copies_between_devices() -> None:
    mine, its = here(3), there(3)
    mine[1:], its[:2] = 2 * there(2), 3 * here(2)
    its[its > 2] = torch.tensor(5.0)
    assert (mine.tolist(), mine.device) == ([1.0, 2.0, 2.0], CPU)
    assert (its.tolist(), its.device) == ([5.0, 5.0, 1.0], CUDA)


@pytest.mark.parametrize(
    "read", [Tensor.numpy, np.asarray, lambda tensor: np.array([tensor, tensor]), lambda tensor: np.add(1, tensor)]
)
def test_numpy_refuses_cuda_tensors(read: Callable[[Tensor], object]) -> None:
    with pytest.raises(TypeError, match="can't convert cuda:0 device type tensor to numpy"):
        read(there(2))


def test_scalars_are_read_from_any_device() -> None:
    assert (there(1).item(), float(there(1)), int(there(1)), bool(there(1)), there(2).tolist()) == (
        1,
        1,
        1,
        True,
        [1, 1],
    )
    assert f"{there(1)[0]:.2f}" == "1.00" and [7, 8][torch.tensor(1, device="cuda")] == 8
    assert there(2).numpy(force=True).tolist() == [1.0, 1.0]


def test_a_cpu_generator_makes_no_cuda_tensors() -> None:
    generator = torch.Generator()
    for make in (
        lambda: torch.randn(2, generator=generator, device="cuda"),
        lambda: there(2).normal_(generator=generator),
        lambda: torch.multinomial(there(2), 1, generator=generator),
    ):
        with pytest.raises(RuntimeError, match="Expected a 'cuda' device type for generator but found 'cpu'"):
            make()


def test_to_the_same_device_is_the_same_tensor_and_to_another_a_copy() -> None:
    tensor = there(2)
    assert tensor.to("cuda") is tensor and tensor.cuda() is tensor
    moved = tensor.cpu()
    moved.zero_()
    assert tensor.tolist() == [1.0, 1.0]


def test_modules_move_with_buffers_and_gradients() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    net(here(3, 2)).sum().backward()
    assert net.to("cuda") is net
    assert {tensor.device for tensor in (*net.parameters(), *net.buffers())} == {CUDA}
    assert {parameter.grad.device for parameter in net.parameters() if parameter.grad is not None} == {CUDA}
    with pytest.raises(RuntimeError, match="same device"):
        net(here(3, 2))
    assert net(there(3, 2)).device == CUDA
    assert {tensor.device for tensor in net.cpu().state_dict().values()} == {CPU}


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_training_step_stays_on_the_device(checkpointing: bool) -> None:
    net = nn.Linear(2, 2, device="cuda")
    optimizer = torch.optim.AdamW(net.parameters())
    answer = checkpoint(net, there(3, 2), use_reentrant=False) if checkpointing else net(there(3, 2))
    assert isinstance(answer, Tensor)
    answer.square().sum().backward()
    assert net.weight.grad is not None and net.weight.grad.device == CUDA
    assert nn.utils.clip_grad_norm_(net.parameters(), 1.0).device == CUDA
    optimizer.step()
    assert net.weight.device == CUDA == optimizer.state[net.weight]["exp_avg"].device


def test_gradients_are_on_the_device_of_their_leaf() -> None:
    leaf = here(2).requires_grad_()
    (leaf.to("cuda") * there(2)).sum().backward()
    assert leaf.grad is not None and leaf.grad.device == CPU
    with pytest.raises(RuntimeError, match="different device"):
        leaf.grad = there(2)


def test_the_data_of_a_parameter_may_move_to_the_device() -> None:
    weight = nn.Parameter(here(2))
    weight.data = there(2)
    assert weight.device == CUDA and weight.detach().device == CUDA


def test_values_are_computed_by_the_cpu() -> None:
    assert torch.equal((there(2, 3) @ there(3, 2)).cpu(), here(2, 3) @ here(3, 2))


def test_torch_reports_a_cuda_device_within_the_context() -> None:
    assert torch.cuda.is_available() and torch.cuda.device_count() == 1
    with torch.device("cuda"):
        assert here(2).device == CUDA
