from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune, spectral_norm, weight_norm

from dreamquant.networks.load import wrap_module
from dreamquant.networks.reparametrized import bake
from dreamquant.networks.spec import InputSpec

pytestmark = pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated")


class Doubling(nn.Module):
    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return 2 * weight


CHANGES: dict[str, Callable[[nn.Module], object]] = {
    "weight_norm": weight_norm,
    "spectral_norm": spectral_norm,
    "pruning": lambda conv: prune.random_unstructured(conv, "weight", 0.5),
    "weight_norm ": parametrizations.weight_norm,
    "spectral_norm ": parametrizations.spectral_norm,
    "Doubling": lambda conv: parametrize.register_parametrization(conv, "weight", Doubling()),
}


def changed(kind: str) -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5)
    )
    CHANGES[kind](net[0])
    CHANGES[kind](net[4])
    net(torch.randn(4, 3, 8, 8)).sum().backward()
    return net.eval()


@pytest.mark.parametrize("kind", CHANGES)
def test_computed_weights_become_parameters_and_the_given_network_stays(kind: str) -> None:
    net = changed(kind)
    x = torch.randn(2, 3, 8, 8)
    wanted, names = net(x), set(net.state_dict())
    network = wrap_module(net, InputSpec((3, 8, 8), (0.0,) * 3, (1.0,) * 3, 5))
    assert network.notes == (f"{kind.strip()} of 2 weights baked in",)
    assert set(dict(network.module.named_parameters())) >= {"0.weight", "4.weight"}
    assert torch.allclose(network.module(x), wanted, atol=1e-6)
    assert set(net.state_dict()) == names
    assert torch.equal(net(x), wanted)


def test_nothing_to_bake_is_nothing_to_say() -> None:
    assert bake(nn.Sequential(nn.Conv2d(3, 4, 3)).eval()) == ()


def test_buffers_with_a_graph_lose_it() -> None:
    net = nn.Linear(2, 2)
    net.register_buffer("seen", net.weight * 2)
    bake(net)
    assert net.seen.is_leaf
