"""The optimizers equal those of PyTorch, except for rounding, and do not load its compiler."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from dreamquant.training.optimizers import Adam, NesterovSGD

RATES = (0.1, 0.05, 0.2, 0.01, 0.1)


@pytest.fixture
def networks() -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3))
    return network, copy.deepcopy(network)


def set_gradients(parameters: list[Tensor], step: int, *, idle: int = -1) -> None:
    random = torch.Generator().manual_seed(step)
    for i, parameter in enumerate(parameters):
        gradient = torch.randn(parameter.shape, generator=random)
        parameter.grad = None if i == idle else gradient


def assert_equal(ours: list[Tensor], theirs: list[Tensor]) -> None:
    assert all(a.equal(b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("idle", [-1, 0, 2])
def test_sgd_is_that_of_torch(networks, idle):
    ours, theirs = (list(network.parameters()) for network in networks)
    own = NesterovSGD(ours, momentum=0.9, weight_decay=1e-2)
    their = torch.optim.SGD(theirs, lr=1, momentum=0.9, weight_decay=1e-2, nesterov=True)
    for step, rate in enumerate(RATES):
        # One parameter has no gradient at first, as a step size outside the loss.
        for parameters in (ours, theirs):
            set_gradients(parameters, step, idle=idle if step < 2 else -1)
        their.param_groups[0]["lr"] = rate
        own.step(rate)
        their.step()
        assert own.rate == rate
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("idle", [-1, 0, 2])
def test_adam_is_that_of_torch(networks, idle):
    ours, theirs = (list(network.parameters()) for network in networks)
    own = Adam(ours, betas=(0.5, 0.999))
    their = torch.optim.Adam(theirs, lr=1, betas=(0.5, 0.999))
    for step, rate in enumerate(RATES):
        for parameters in (ours, theirs):
            set_gradients(parameters, step, idle=idle if step < 2 else -1)
        their.param_groups[0]["lr"] = rate
        own.step(rate)
        their.step()
        assert own.rate == rate
        torch.testing.assert_close(ours, theirs)


either = pytest.mark.parametrize(
    "make",
    [
        lambda parameters: NesterovSGD(parameters, momentum=0.9, weight_decay=1e-2),
        lambda parameters: Adam(parameters, betas=(0.5, 0.999)),
    ],
    ids=["sgd", "adam"],
)


@either
def test_how_a_gradient_lies_in_memory_does_not_matter(make):
    ours, others = torch.ones(8, 4, 3, 3), torch.ones(8, 4, 3, 3)
    gradient = torch.randn(8, 4, 3, 3)
    ours.grad, others.grad = gradient, gradient.to(memory_format=torch.channels_last)
    for parameter in (ours, others):
        make([parameter]).step(0.1)
    assert_equal([ours], [others])


@either
@pytest.mark.parametrize("saved_after", [0, 1, 3])
def test_a_restored_optimizer_goes_on_the_same(networks, make, saved_after):
    whole, parted = (list(network.parameters()) for network in networks)
    straight, first = make(whole), make(parted)
    for step, rate in enumerate(RATES):
        if step == saved_after:
            state = copy.deepcopy(first.state_dict())
            first = make(parted)
            first.load_state_dict(state)
        for parameters, optimizer in ((whole, straight), (parted, first)):
            set_gradients(parameters, step)
            optimizer.step(rate)
    assert_equal(whole, parted)
