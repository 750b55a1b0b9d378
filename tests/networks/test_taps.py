from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from dreamquant.networks.taps import batch_norm_inputs, execution_order


def reference(x):
    """Mean and biased variance per channel, in loops over float64."""
    array = x.detach().double().numpy()
    rows = [array[:, c].ravel() for c in range(array.shape[1])]
    means = [sum(row) / len(row) for row in rows]
    return means, [
        sum((v - mean) ** 2 for v in row) / len(row) for row, mean in zip(rows, means, strict=True)
    ]


def hook_counts(module):
    return [len(part._forward_pre_hooks) for part in module.modules()]


@pytest.mark.parametrize(
    ("norm", "shape"),
    [
        (nn.BatchNorm1d(3), (7, 3)),
        (nn.BatchNorm1d(3), (7, 3, 5)),
        (nn.BatchNorm2d(3), (4, 3, 5, 6)),
        (nn.BatchNorm3d(3), (2, 3, 2, 3, 4)),
        (nn.BatchNorm2d(3), (1, 3, 1, 1)),
    ],
    ids=lambda value: "" if isinstance(value, nn.Module) else "x".join(map(str, value)),
)
def test_statistics_are_mean_and_biased_variance_per_channel(norm, shape):
    torch.manual_seed(0)
    x = 3 * torch.randn(shape) + 5
    with batch_norm_inputs([norm]) as collected:
        norm.eval()(x)
    (found,) = collected
    mean, var = reference(x)
    np.testing.assert_allclose(found.mean.numpy(), mean, rtol=1e-5)
    np.testing.assert_allclose(found.var.numpy(), var, rtol=1e-5, atol=1e-6)


def test_statistics_come_in_the_order_executed_once_per_run():
    first, second, idle = nn.BatchNorm2d(2).eval(), nn.BatchNorm2d(2).eval(), nn.BatchNorm2d(2)
    x = torch.randn(4, 2, 3, 3)
    with batch_norm_inputs([second, idle, first]) as collected:
        first(second(first(x) + 1))
    wanted = [x, first(x) + 1, second(first(x) + 1)]
    assert len(collected) == 3
    for found, entered in zip(collected, wanted, strict=True):
        torch.testing.assert_close(found.mean, entered.mean((0, 2, 3)))


def test_statistics_pass_gradients_and_leave_the_norm_as_it_is():
    norm = nn.BatchNorm2d(2).eval()
    state = {name: tensor.clone() for name, tensor in norm.state_dict().items()}
    x = torch.randn(4, 2, 3, 3, dtype=torch.float64, requires_grad=True)

    with batch_norm_inputs([norm]) as collected:
        norm(x.float())
    gradient = torch.autograd.grad(collected[0].var.sum(), x)[0]
    centred = x - x.mean((0, 2, 3), keepdim=True)
    torch.testing.assert_close(gradient, 2 * centred / 36, rtol=1e-5, atol=1e-6)
    assert all(tensor.equal(state[name]) for name, tensor in norm.state_dict().items())


@pytest.mark.parametrize("shape", [(7, 3), (2, 3, 4), (2, 3, 2, 4), (2, 3, 2, 1, 2)], ids=str)
def test_gradients_of_statistics_agree_with_finite_differences(shape):
    torch.manual_seed(0)
    norm = nn.Identity()

    def statistics(x):
        with batch_norm_inputs([norm]) as collected:
            norm(x)
        return tuple(collected[0])

    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(statistics, (x,))


def test_half_precision_is_summed_in_full_precision():
    torch.manual_seed(0)
    x = (torch.randn(8, 2, 16, 16) + 10).bfloat16().requires_grad_()
    norm = nn.Identity()
    with batch_norm_inputs([norm]) as collected:
        norm(x)
    (found,) = collected
    mean, var = reference(x)
    assert found.mean.dtype == found.var.dtype == torch.float32
    np.testing.assert_allclose(found.mean.detach().numpy(), mean, rtol=1e-5)
    np.testing.assert_allclose(found.var.detach().numpy(), var, rtol=1e-4)
    assert torch.autograd.grad(found.var.sum(), x)[0].dtype == torch.bfloat16


@pytest.mark.parametrize("tap", [batch_norm_inputs, execution_order])
def test_hooks_are_gone_afterwards_even_after_an_error(tap):
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2)).eval()
    before = hook_counts(network)
    with tap([network[1]]):
        assert hook_counts(network) != before
        network(torch.zeros(1, 1, 2, 2))
    assert hook_counts(network) == before
    with pytest.raises(RuntimeError), tap([network[1]]):
        network(torch.zeros(1, 9, 2, 2))
    assert hook_counts(network) == before


def test_nothing_tapped_is_nothing_collected():
    with batch_norm_inputs([]) as statistics, execution_order([]) as order:
        nn.BatchNorm2d(2).eval()(torch.zeros(1, 2, 2, 2))
    assert statistics == order == []


def test_execution_order_names_modules_as_they_run():
    a, b, c = nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2)
    with execution_order([c, b, a]) as order:
        c(b(a(b(torch.zeros(1, 2)))))
    assert [id(module) for module in order] == [id(module) for module in (b, a, b, c)]
