from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from dreamquant.networks.endings import as_given, ending_of, logits_of, with_ending
from dreamquant.networks.fit import fit

X = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))


def net(classes: int, *ends: nn.Module) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(3, 7), nn.ReLU(), nn.Linear(7, classes), *ends).eval()


class ByHand(nn.Module):
    """A softmax that calls none."""

    def forward(self, x: Tensor) -> Tensor:
        return x.exp() / x.exp().sum(1, keepdim=True)


class Squeezed(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.squeeze(1)


@pytest.mark.parametrize("end", [nn.Softmax(1), ByHand()])
def test_a_softmax_is_found_and_undone(end: nn.Module) -> None:
    module = net(4, end)
    assert fit(module, (3,)) == ("ends in a softmax: losses and metrics use the logits before it",)
    assert torch.allclose(module(X), net(4)(X).log_softmax(1), atol=1e-5)
    assert torch.equal(as_given(module)(X), net(4, end)(X))
    assert torch.equal(logits_of(as_given(module)(X)), module(X))


def test_a_sigmoid_per_class_is_found_and_undone() -> None:
    module = net(4, nn.Sigmoid())
    (note,) = fit(module, (3,))
    assert "ends in a sigmoid" in note
    assert torch.allclose(module(X), net(4)(X), atol=1e-5)
    assert torch.equal(as_given(module)(X), net(4, nn.Sigmoid())(X))


@pytest.mark.parametrize("ends", [(), (Squeezed(),), (nn.Sigmoid(),), (nn.Sigmoid(), Squeezed())])
def test_one_logit_becomes_two_whose_softmax_is_its_sigmoid(ends: tuple[nn.Module, ...]) -> None:
    module = net(1, *ends)
    assert any("one logit" in note for note in fit(module, (3,)))
    assert torch.equal(as_given(module)(X), net(1, *ends)(X))
    restored = with_ending(as_given(module)(X), ending_of(module))
    assert torch.equal(restored, module(X))
    for one in (module, copy.deepcopy(module)):
        assert one(X).shape == (5, 2)
        assert torch.allclose(one(X).softmax(1)[:, 1], net(1)(X).sigmoid()[:, 0], atol=1e-6)


@pytest.mark.parametrize("ends", [(), (nn.LogSoftmax(1),), (nn.ReLU(),)])
def test_other_ends_stay(ends: tuple[nn.Module, ...]) -> None:
    module = net(4, *ends)
    assert fit(module, (3,)) == ()
    assert torch.equal(module(X), net(4, *ends)(X))
    assert as_given(module) is module


def test_logits_between_0_and_1_are_no_sigmoids() -> None:
    module = net(2)
    with torch.no_grad():
        module[2].weight.mul_(0.01)  # type: ignore[operator]
        module[2].bias.fill_(0.5)  # type: ignore[operator]
    assert fit(module, (3,)) == ()


def test_a_sigmoid_inside_is_no_end() -> None:
    assert fit(nn.Sequential(nn.Sigmoid(), *net(4)).eval(), (3,)) == ()


def test_fitting_twice_changes_nothing() -> None:
    module = net(1, nn.Sigmoid())
    fit(module, (3,))
    before = module(X)
    assert fit(module, (3,)) == ()
    assert torch.equal(module(X), before)


def test_confident_probabilities_give_finite_logits_and_gradients() -> None:
    module = net(4, nn.Softmax(1))
    fit(module, (3,))
    x = (1e4 * X).requires_grad_()
    logits = module(x)
    logits.sum().backward()
    assert logits.isfinite().all()
    assert x.grad is not None
    assert x.grad.isfinite().all()
