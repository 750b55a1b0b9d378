from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from dreamquant.errors import NetworkError
from dreamquant.networks.forms import plain_form
from dreamquant.networks.load import load_network, wrap_module
from dreamquant.networks.probe import batch_norms
from dreamquant.networks.spec import InputSpec
from dreamquant.networks.weights import state_sha256

SPEC = InputSpec((3, 8, 8), (0.0,) * 3, (1.0,) * 3, 4)


def tiny() -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        norm = nn.BatchNorm2d(5)
        norm.running_mean = torch.randn(5)
        norm.running_var = torch.rand(5) + 0.5
        return nn.Sequential(
            nn.Conv2d(3, 5, 3), norm, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
            nn.Linear(5, 4),
        ).eval()  # fmt: skip


def parallel(net: nn.Sequential) -> nn.Module:
    return nn.DataParallel(net)


def compiled(net: nn.Sequential) -> nn.Module:
    return torch.compile(net)


def averaged(net: nn.Sequential) -> nn.Module:
    return AveragedModel(net)


def twice(net: nn.Sequential) -> nn.Module:
    return nn.DataParallel(torch.compile(net))


def inside(net: nn.Sequential) -> nn.Module:
    net[0] = nn.DataParallel(net[0])
    return net


@pytest.mark.parametrize("wrap", [parallel, compiled, averaged, twice, inside])
def test_wrappers_are_taken_off_on_record(wrap: Callable[[nn.Sequential], nn.Module]) -> None:
    network = wrap_module(wrap(tiny()), SPEC)
    assert network.weights_sha256 == state_sha256(tiny())
    assert any("taken out of" in note for note in network.notes)
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(network.module(x), tiny()(x))


def test_compilation_in_place_is_taken_off() -> None:
    net = tiny()
    net.compile()
    assert plain_form(net, "net").notes == ("taken out of torch.compile",)
    assert plain_form(net, "net").notes == ()


class Frozen(nn.Module):
    """What detection networks hold in place of a batch norm."""

    def __init__(self, norm: nn.BatchNorm2d, shift: float = 0.0) -> None:
        super().__init__()
        for name in ("weight", "bias", "running_mean", "running_var"):
            self.register_buffer(name, getattr(norm, name).detach().clone())
        self.eps, self.shift = norm.eps, shift

    def forward(self, x: Tensor) -> Tensor:
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        bias = self.bias - self.running_mean * scale
        return x * scale.view(1, -1, 1, 1) + bias.view(1, -1, 1, 1) + self.shift


def frozen(shift: float = 0.0) -> nn.Sequential:
    net = tiny()
    net[1] = Frozen(net[1], shift)
    return net


def test_frozen_batch_norms_are_batch_norms_on_record() -> None:
    network = wrap_module(frozen(), SPEC)
    assert [name for name, _ in batch_norms(network.module)] == ["1"]
    assert "1 frozen batch norms used as batch norms" in network.notes
    x = torch.randn(2, 3, 8, 8)
    assert torch.allclose(network.module(x), frozen()(x), atol=1e-5)


def test_what_computes_something_else_stays_what_it_is() -> None:
    module = plain_form(frozen(shift=1.0), "net").module
    assert isinstance(module[1], Frozen)  # type: ignore[index]


def test_torchvision_s_frozen_batch_norm() -> None:
    ops = pytest.importorskip("torchvision.ops", exc_type=RuntimeError)
    net = tiny()
    norm = ops.FrozenBatchNorm2d(5)
    norm.load_state_dict({k: v for k, v in net[1].state_dict().items() if v.dim()})
    net[1] = norm
    assert len(batch_norms(wrap_module(net, SPEC).module)) == 1


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize(
    "script", [torch.jit.script, lambda net: torch.jit.trace(net, torch.zeros(2, 3, 8, 8))]
)
def test_torchscript_is_refused_and_the_remedy_works(
    script: Callable[[nn.Module], nn.Module], tmp_path
) -> None:
    scripted = script(tiny())
    with pytest.raises(NetworkError, match="is TorchScript") as e:
        wrap_module(scripted, SPEC)
    assert "torch.save(scripted.state_dict(), FILE), then --weights FILE" in e.value.remedy
    torch.save(scripted.state_dict(), tmp_path / "w.pt")
    _require_weights_of_tiny(tmp_path)


def test_exported_programs_are_refused_and_the_remedy_works(tmp_path) -> None:
    program = torch.export.export(tiny(), (torch.zeros(2, 3, 8, 8),))
    with pytest.raises(NetworkError, match=r"is a torch\.export program") as e:
        wrap_module(program.module(), SPEC)
    assert "torch.save(dict(program.state_dict), FILE)" in e.value.remedy
    torch.save(dict(program.state_dict), tmp_path / "w.pt")
    _require_weights_of_tiny(tmp_path)


def _require_weights_of_tiny(folder) -> None:
    (folder / "net.py").write_text(
        "from torch import nn\n"
        "INPUT, MEAN, STD = (3, 8, 8), [0] * 3, [1] * 3\n"
        "def net():\n"
        "    return nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.ReLU(),\n"
        "                         nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 4))\n"
    )
    network = load_network(f"{folder}/net.py:net", weights=folder / "w.pt")
    assert network.weights_sha256 == state_sha256(tiny())


def test_a_module_used_twice_is_replaced_at_both_places() -> None:
    net = tiny()
    shared = nn.DataParallel(nn.ReLU())
    net[2] = shared
    net.append(shared)
    module = plain_form(copy.deepcopy(net), "net").module
    assert module[2] is module[6]  # type: ignore[index]
    assert isinstance(module[2], nn.ReLU)  # type: ignore[index]
