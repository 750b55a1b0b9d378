from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from dreamquant.errors import NetworkError, WeightsError
from dreamquant.networks.load import build_module, load_network, wrap_module
from dreamquant.networks.spec import InputSpec
from dreamquant.networks.weights import state_sha256

GREY = {"shape": (1, 8, 8), "mean": (0.5,), "std": (0.25,)}
SPEC = InputSpec(shape=(1, 8, 8), mean=(0.5,), std=(0.25,), num_classes=5)

FILE = """
from __future__ import annotations
from dataclasses import dataclass
import torch
from torch import nn

@dataclass
class Sizes:
    width: int = 4

def network():
    torch.manual_seed(0)
    width = Sizes().width
    return nn.Sequential(
        nn.Conv2d(1, width, 3), nn.BatchNorm2d(width), nn.ReLU(), nn.Flatten(),
        nn.Linear(width * 36, 5),
    )

def broken():
    raise ValueError("no\\nluck")

def leaving():
    raise SystemExit(0)

def needy(width):
    return network()

def number():
    return 3

def pair():
    class Pair(nn.Module):
        def forward(self, x):
            return x.flatten(1), x
    return Pair()

def image():
    return nn.Conv2d(1, 2, 3)

def lazy():
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(5))

a_number = 3
"""


def tiny(seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5)
        )


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "nets.py"
    path.write_text(FILE)
    return path


def test_a_factory_in_a_file_gives_a_ready_network(file: Path) -> None:
    network = load_network(f"{file}:network", **GREY)
    assert network.name == f"{file}:network"
    assert network.input == SPEC
    assert network.input_source == "options"
    assert network.source_sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert network.weights_sha256 == state_sha256(network.module)
    assert not any(m.training for m in network.module.modules())
    assert not any(p.requires_grad for p in network.module.parameters())


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_weights_from_a_file(file: Path, tmp_path: Path, suffix: str) -> None:
    path, state = tmp_path / f"w.{suffix}", tiny(7).state_dict()
    save_file(state, path) if suffix == "safetensors" else torch.save(state, path)
    network = load_network(f"{file}:network", weights=path, **GREY)
    assert network.weights_sha256 == state_sha256(tiny(7))


def test_weights_of_another_network(file: Path, tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "w.pt")
    with pytest.raises(WeightsError, match="do not fit the network"):
        load_network(f"{file}:network", weights=tmp_path / "w.pt", **GREY)


def test_weights_that_are_not_finite(file: Path, tmp_path: Path) -> None:
    state = tiny().state_dict()
    state["4.bias"][0] = torch.nan
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(WeightsError, match=r"4\.bias: 1 NaN"):
        load_network(f"{file}:network", weights=tmp_path / "w.pt", **GREY)


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        ({}, "--input, --mean, --std missing"),
        ({"shape": (1, 8, 8)}, "--mean, --std missing"),
        ({"shape": (1, 8, 8), "mean": (0.5,)}, ": --std missing"),
    ],
)
def test_what_nobody_knows_is_asked_for(file: Path, given: dict[str, object], missing: str) -> None:
    with pytest.raises(NetworkError, match=missing):
        load_network(f"{file}:network", **given)  # type: ignore[arg-type]


def test_zero_mean_counts_as_given(file: Path) -> None:
    network = load_network(f"{file}:network", shape=(1, 8, 8), mean=(0,), std=(1,))
    assert network.input.mean == (0,)


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 9, 9), (1, 2, 2), (1, 8), (1, -8, 8)])
def test_an_input_the_network_cannot_take(file: Path, shape: tuple[int, int, int]) -> None:
    options = {"mean": (0.5,) * shape[0], "std": (0.5,) * shape[0]}
    with pytest.raises(NetworkError, match="does not run on an input of") as e:
        load_network(f"{file}:network", shape=shape, **options)
    assert "x".join(map(str, shape)) in e.value.what
    assert "\n" not in e.value.what


def test_mean_of_another_number_of_channels(file: Path) -> None:
    with pytest.raises(NetworkError, match="3 values for 1 input channels"):
        load_network(f"{file}:network", shape=(1, 8, 8), mean=(0.5,) * 3, std=(0.5,))


def test_class_count_is_measured_and_compared(file: Path) -> None:
    assert load_network(f"{file}:network", num_classes=5, **GREY).input.num_classes == 5
    with pytest.raises(NetworkError, match="has 5 classes, not 10"):
        load_network(f"{file}:network", num_classes=10, **GREY)


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("netwrk", r"has no 'netwrk'; nearest: network"),
        ("broken", r"broken\(\) failed: ValueError: no luck"),
        ("leaving", r"leaving\(\) failed: SystemExit: 0"),
        ("needy", r"needy\(\) failed: TypeError: .*missing 1 required"),
        ("a_number", r"a_number\(\) failed: TypeError"),
        ("number", r"number\(\) returns int, not a torch.nn.Module"),
        ("lazy", r"weights without values"),
    ],
)
def test_bad_factories(file: Path, factory: str, message: str) -> None:
    with pytest.raises(NetworkError, match=message):
        load_network(f"{file}:{factory}", **GREY)


def test_a_failing_factory_is_pointed_at(file: Path) -> None:
    with pytest.raises(NetworkError) as e:
        load_network(f"{file}:broken", **GREY)
    line = 1 + FILE.splitlines().index('    raise ValueError("no\\nluck")')
    assert e.value.where == f"{file}:{line}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def f(:", "cannot be imported: SyntaxError"),
        ("import nosuchmodule_", "cannot be imported: ModuleNotFoundError"),
        ("1 / 0", "cannot be imported: ZeroDivisionError"),
        ("raise SystemExit(3)", "cannot be imported: SystemExit"),
    ],
)
def test_files_that_cannot_be_imported(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "bad.py").write_text(text)
    with pytest.raises(NetworkError, match=message):
        load_network(f"{tmp_path / 'bad.py'}:f", **GREY)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(NetworkError, match="cannot be read: No such file"):
        load_network(f"{tmp_path / 'none.py'}:f", **GREY)


@pytest.mark.parametrize(
    "name", ["resnet18", "keras:resnet18", "nets.py", "nets.py:", "", ":", "a:b:c"]
)
def test_names_of_no_known_form(name: str) -> None:
    with pytest.raises(NetworkError) as e:
        load_network(name)
    for form in ("torchvision:NAME", "timm:NAME", "pytorchcv:NAME", "FILE.py:FACTORY"):
        assert form in e.value.remedy


def test_a_changed_file_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "nets.py"
    text = "from torch import nn\ndef f(): return nn.Sequential(nn.Flatten(), nn.Linear(64, 5))\n"
    path.write_text(text)
    time = path.stat().st_mtime_ns
    first = load_network(f"{path}:f", **GREY)
    path.write_text(text.replace("5", "6"))
    os.utime(path, ns=(time, time))
    second = load_network(f"{path}:f", **GREY)
    assert (first.input.num_classes, second.input.num_classes) == (5, 6)
    assert not (tmp_path / "__pycache__").exists()


def test_wrapping_leaves_the_given_module_alone() -> None:
    module = tiny().double().train()
    network = wrap_module(module, SPEC)
    assert network.name == "Sequential"
    assert network.input == SPEC
    assert network.source_sha256 is None
    assert network.weights_sha256 == state_sha256(tiny())
    assert not network.module.training
    assert module.training
    assert module[0].weight.dtype == torch.float64
    assert all(p.requires_grad for p in module.parameters())


def test_wrapping_checks_the_same_things() -> None:
    with pytest.raises(NetworkError, match="has 5 classes, not 7"):
        wrap_module(tiny(), InputSpec((1, 8, 8), (0.5,), (0.5,), 7))
    with pytest.raises(NetworkError, match="does not run on an input of 3x8x8"):
        wrap_module(tiny(), InputSpec((3, 8, 8), (0.5,) * 3, (0.5,) * 3, 5))
    with pytest.raises(NetworkError, match="weights without values"):
        wrap_module(nn.Linear(2, 2, device="meta"), SPEC)
    broken = tiny()
    broken.state_dict()["4.weight"][0, 0] = torch.inf
    with pytest.raises(WeightsError, match=r"4\.weight: 0 NaN, 1 infinite"):
        wrap_module(broken, SPEC)


def test_rebuilding_from_the_same_file(file: Path) -> None:
    network = load_network(f"{file}:network", **GREY)
    module = build_module(network.name, SPEC, network.source_sha256)
    assert {k: v.shape for k, v in module.state_dict().items()} == {
        k: v.shape for k, v in network.module.state_dict().items()
    }
    assert not module.training


def test_rebuilding_refuses_a_changed_file_before_running_it(tmp_path: Path) -> None:
    path, proof = tmp_path / "nets.py", tmp_path / "proof"
    path.write_text(f"import pathlib\npathlib.Path({str(proof)!r}).touch()\n")
    for recorded in ("0" * 64, None):
        with pytest.raises(NetworkError, match="not the file that this network was built from"):
            build_module(f"{path}:network", SPEC, recorded)
    assert not proof.exists()


def test_rebuilding_a_module_given_in_memory_is_refused() -> None:
    with pytest.raises(NetworkError, match="'Sequential' does not name a network"):
        build_module("Sequential", SPEC)
