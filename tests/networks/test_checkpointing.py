from __future__ import annotations

import copy

import pytest
import torch
import torch.utils.checkpoint
from torch import Tensor, nn

from dreamquant.networks.checkpointing import keeping_activations, switch_off
from dreamquant.networks.fit import fit


class Net(nn.Module):
    def __init__(self, reentrant: bool, *, fails: bool = False) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(3, 5), nn.Linear(5, 2)
        self.reentrant, self.fails, self.runs = reentrant, fails, 0

    def first(self, x: Tensor) -> Tensor:
        self.runs += 1
        return self.a(x).relu()

    def forward(self, x: Tensor) -> Tensor:
        y = torch.utils.checkpoint.checkpoint(self.first, x, use_reentrant=self.reentrant)
        if self.fails:
            raise ZeroDivisionError
        return self.b(y)


@pytest.mark.parametrize("reentrant", [True, False])
def test_nothing_is_computed_again_and_gradients_are_equal(reentrant: bool) -> None:
    x = torch.randn(4, 3, requires_grad=True)
    module = Net(reentrant).eval()
    if reentrant:  # which gives no gradient to images by autograd.grad
        wanted = torch.autograd.grad(module.b(module.first(x)).sum(), x)[0]
    else:
        wanted = torch.autograd.grad(module(x).sum(), x)[0]
    assert fit(module, (3,)) == ("activation checkpointing of 1 parts is switched off",)
    for one in (module, copy.deepcopy(module)):
        one.runs = 0
        (found,) = torch.autograd.grad(one(x).sum(), x)
        assert one.runs == 1
        assert torch.equal(found, wanted)
    assert fit(module, (3,)) == ()


def test_other_networks_checkpoint_as_before_even_after_an_error() -> None:
    failing, other = Net(False, fails=True), Net(False)
    switch_off(failing)
    with pytest.raises(ZeroDivisionError):
        failing(torch.zeros(1, 3))
    other(torch.zeros(1, 3, requires_grad=True)).sum().backward()
    assert other.runs == 2


def test_no_checkpoint_is_nothing_to_tell() -> None:
    with keeping_activations() as met:
        nn.Linear(3, 2)(torch.zeros(1, 3))
    assert met == []
