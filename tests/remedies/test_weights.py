"""Remedies of errors about weights and ONNX files, each done as it says."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from dreamquant.networks import onnx_module
from dreamquant.networks.load import load_network
from dreamquant.networks.onnx_file import network_in, read_onnx
from onnx_files import with_weights_beside
from remedies import Trial, advises

KNOWN: dict[str, Any] = {"shape": (3, 8, 8), "mean": (0.0,) * 3, "std": (1.0,) * 3}
FILE = """
from torch import nn

def make(classes=5, width=4):
    return nn.Sequential(
        nn.Conv2d(3, width, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(width, classes),
    )
"""


AUXILIARY = """
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.aux1, self.head = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1), nn.Linear(4, 5)

    def forward(self, x):
        return self.head(self.aux1(self.conv(x).relu()).mean((2, 3)))

class Without(Net):
    def __init__(self):
        super().__init__()
        del self.aux1

    def forward(self, x):
        return self.head(self.conv(x).relu().mean((2, 3)))
"""


def network(classes: int = 5, width: int = 4) -> nn.Module:
    """What the file makes."""
    namespace: dict[str, Any] = {}
    exec(FILE, namespace)
    made: nn.Module = namespace["make"](classes, width).eval()
    return made


def loads(content: object, choice: str = "", call: str = "make") -> Callable[[Path], None]:
    """Loads what ``torch.save`` wrote."""

    def go(folder: Path) -> None:
        torch.save(content, folder / "weights.pt")
        read(folder, f"weights.pt{choice}", call)

    return go


def read(folder: Path, name: str, call: str = "make") -> None:
    """Loads a weights file."""
    (folder / "net.py").write_text(FILE)
    load_network(f"{folder / 'net.py'}:{call}", weights=folder / name, **KNOWN)


def state(**changed: Any) -> dict[str, Any]:
    """Weights of the network."""
    return {**network().state_dict(), **changed}


def pickled(folder: Path) -> None:
    """A whole module, as ``torch.save(model)`` leaves it."""
    torch.save(nn.Sequential(nn.Flatten()), folder / "weights.pt")
    read(folder, "weights.pt")


def script(folder: Path) -> None:
    """A TorchScript archive."""
    torch.jit.trace(network(), torch.zeros(1, 3, 8, 8)).save(folder / "script.pt")  # type: ignore[no-untyped-call]
    read(folder, "script.pt")


def rewritten(folder: Path) -> None:
    """Its weights, as the remedy says."""
    torch.save(dict(torch.jit.load(folder / "script.pt").state_dict()), folder / "new.pt")  # type: ignore[no-untyped-call]
    read(folder, "new.pt")


def onnx_weights(folder: Path) -> None:
    """An ONNX file given as weights."""
    read(folder, written(folder, network()).name)


def without_norm(folder: Path) -> None:
    """A file without the weights of a part that runs."""
    text = AUXILIARY
    (folder / "aux.py").write_text(text)
    namespace: dict[str, Any] = {}
    exec(text, namespace)
    whole = namespace["Net"]().state_dict()
    torch.save({n: v for n, v in whole.items() if "aux" not in n}, folder / "part.pt")
    torch.save(whole, folder / "whole.pt")
    load_network(f"{folder / 'aux.py'}:Net", weights=folder / "part.pt", **KNOWN)


TRIALS = [
    Trial(
        "networks/weights.py:read_groups: the weights file does not exist",
        lambda f: read(f, "absent.pt"),
        "check the path",
        loads(state()),
    ),
    Trial(
        "networks/weights.py:read_groups: the file contains entries that are not tensors:",
        loads(state(note="best of five")),
        "torch.save(model.state_dict(), FILE)",
        loads(state()),
    ),
    Trial(
        "networks/weights.py:read_groups: , not a state dict",
        loads([1, 2]),
        "torch.save(model.state_dict(), FILE)",
        loads(state()),
    ),
    Trial(
        "networks/weights.py:_unreadable",
        pickled,
        "torch.save(model.state_dict(), FILE)",
        loads(state()),
    ),
    Trial(
        "networks/weights.py:require_finite",
        loads(state(**{"4.bias": torch.full((5,), torch.nan)})),
        "use a checkpoint from before the training diverged",
        loads(state()),
    ),
    Trial(
        "networks/weights.py:_require_no_other_form: not a state dict",
        script,
        "if you trust the file: torch.save(dict(",
        rewritten,
    ),
    Trial(
        "networks/checkpoints.py:_best",
        loads({"generator": network().state_dict(), "student": network().state_dict()}),
        "#generator",
        loads(
            {"generator": network().state_dict(), "student": network().state_dict()}, "#generator"
        ),
    ),
    Trial(
        "networks/checkpoints.py:_chosen",
        loads({"ema": state()}, "#student"),
        "choose one of ema",
        loads({"ema": state()}, "#ema"),
    ),
    Trial(
        "networks/checkpoints.py:_chosen",
        loads(state(), "#student"),
        "without a name: it contains one state dict",
        loads(state()),
    ),
    Trial(
        "networks/checkpoints.py:_mismatch",
        loads(network(7).state_dict()),
        "give the architecture that the weights were trained in",
        loads(network(7).state_dict(), call="make(classes=7)"),
    ),
    Trial(
        "networks/load.py:_require_idle",
        without_norm,
        "give the weights of the whole network, or build it without that part",
        lambda f: (
            load_network(f"{f / 'aux.py'}:Net", weights=f / "whole.pt", **KNOWN),
            load_network(f"{f / 'aux.py'}:Without", weights=f / "part.pt", **KNOWN),
        ),
    ),
]


@pytest.mark.parametrize("trial", TRIALS, ids=lambda trial: trial.site)
def test_what_a_remedy_advises_works(trial: Trial, tmp_path: Path) -> None:
    trial.run(tmp_path)


# ------------------------------------------------------------------------------------ ONNX


def written(
    folder: Path, net: nn.Module, shape: tuple[int, ...] = (1, 3, 8, 8), **options: Any
) -> Path:
    """The file of a network."""
    pytest.importorskip("onnxscript")
    buffer = io.BytesIO()
    given = {"input_names": ["x"], "opset_version": 17, "dynamo": False} | options
    torch.onnx.export(net, (torch.zeros(shape),), buffer, **given)
    path = folder / f"net{len(list(folder.iterdir()))}.onnx"
    path.write_bytes(buffer.getvalue())
    return path


def opens(path: Path, shape: tuple[int, ...] | None = None) -> None:
    """A file as network."""
    assert network_in(read_onnx(str(path)), shape).shape


def graph(folder: Path, op: str, kind: int = 1, shape: tuple[int, ...] = (1, 2, 4, 4)) -> Path:
    """A file of one node."""
    import onnx

    helper = onnx.helper
    inputs = [helper.make_tensor_value_info("x", kind, shape)]
    constants = []
    if op == "ConstantOfShape":
        constants = [onnx.numpy_helper.from_array(np.array([2**20, 2**20], np.int64), "n")]
    model = helper.make_model(
        helper.make_graph(
            [helper.make_node(op, ["n" if constants else "x"], ["y"], name="odd")],
            "g",
            inputs,
            [helper.make_tensor_value_info("y", 1, list("abcd"))],
            constants,
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    path = folder / f"graph{len(list(folder.iterdir()))}.onnx"
    onnx.save(model, path)
    return path


class Two(nn.Module):
    """A network of two inputs."""

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Their sum."""
        return x + y


FREE = {"dynamic_axes": {"x": {0: "n", 2: "h", 3: "w"}}}


def two_inputs(folder: Path) -> None:
    """A file of two inputs."""
    buffer = io.BytesIO()
    torch.onnx.export(Two(), (torch.zeros(1, 3, 8, 8),) * 2, buffer, dynamo=False)
    (folder / "two.onnx").write_bytes(buffer.getvalue())
    opens(folder / "two.onnx")


def cut(folder: Path) -> None:
    """A file of which half is there."""
    path = written(folder, network())
    path.write_bytes(path.read_bytes()[:300])
    opens(path)


def fresh(folder: Path) -> None:
    """A file that is exported again, and the network by its factory."""
    opens(written(folder, network()))
    (folder / "net.py").write_text(FILE)
    load_network(f"{folder / 'net.py'}:make", **KNOWN)


def large(folder: Path) -> None:
    """A tensor of 2**40 values."""
    opens(graph(folder, "Relu", shape=(1, 2**16, 2**12, 2**12)))


def beside(folder: Path, location: str = "w.bin") -> Path:
    """A file whose weights lie in another."""
    import onnx

    model = onnx.load(written(folder, network()))
    return with_weights_beside(model, folder / "outside.onnx", location)


def short(folder: Path) -> None:
    """The other file is cut off."""
    path = beside(folder)
    (folder / "w.bin").write_bytes((folder / "w.bin").read_bytes()[:10])
    opens(path)


def missing(folder: Path) -> None:
    """The other file is elsewhere."""
    path = beside(folder)
    (folder / "w.bin").rename(folder / "kept")
    opens(path)


def in_one_piece(folder: Path) -> None:
    """Saved as the remedy says, where the file was whole."""
    import onnx

    onnx.save(onnx.load(beside(folder)), folder / "whole.onnx")
    opens(folder / "whole.onnx")


ONNX = [
    Trial(
        "networks/weights.py:_require_no_other_form: ONNX file",
        onnx_weights,
        "give the file as the network: dreamquant quantize ",
        lambda f: load_network(str(next(f.glob("*.onnx"))), mean=(0.0,) * 3, std=(1.0,) * 3),
    ),
    Trial(
        "networks/onnx_file.py:read_onnx",
        lambda f: opens(f / "absent.onnx"),
        "check the path",
        lambda f: opens(written(f, network())),
    ),
    Trial(
        "networks/onnx_file.py:network_in",
        lambda f: opens(written(f, network(), **FREE)),
        "give --input, such as 3x224x224",
        lambda f: opens(written(f, network(), **FREE), (3, 224, 224)),
    ),
    Trial(
        "networks/onnx_file.py:_require_small",
        large,
        "give a network whose tensors have at most",
        lambda f: opens(graph(f, "Relu")),
    ),
    Trial(
        "networks/onnx_file.py:_damaged",
        cut,
        "export it again from its source, or give the network as FILE.py:FACTORY",
        fresh,
    ),
    Trial(
        "networks/onnx_file.py:_only_input",
        two_inputs,
        "only networks with one input can be quantized",
        fresh,
    ),
    Trial(
        "networks/onnx_file.py:_size: the file does not take a batch of one",
        lambda f: opens(written(f, network(), (2, 3, 8, 8))),
        "export it with a batch of one, or with a free batch size",
        lambda f: (
            opens(written(f, network())),
            opens(written(f, network(), (2, 3, 8, 8), dynamic_axes={"x": {0: "n"}})),
        ),
    ),
    Trial(
        "networks/onnx_file.py:_size: does not take an input of",
        lambda f: opens(written(f, network()), (1, 8, 8)),
        "leave the option out: the file takes 3x8x8",
        lambda f: opens(written(f, network())),
    ),
    Trial(
        "networks/onnx_file.py:_size: does not take an input of",
        lambda f: opens(written(f, network(), **FREE), (1, 8, 8)),
        "the file takes 3xNxN: give numbers for N",
        lambda f: opens(written(f, network(), **FREE), (3, 8, 8)),
    ),
    Trial(
        "networks/onnx_file.py:_kind",
        lambda f: opens(graph(f, "Relu", 7)),
        "give a file that takes float or uint8",
        lambda f: opens(graph(f, "Relu")),
    ),
    Trial(
        "networks/onnx_file.py:_unsupported",
        lambda f: opens(graph(f, "NonZero")),
        "or give the network as FILE.py:FACTORY",
        fresh,
    ),
    Trial(
        "networks/onnx_weights.py:whole",
        short,
        "save it in one piece: onnx.save(onnx.load(FILE), NEW)",
        in_one_piece,
    ),
    Trial(
        "networks/onnx_weights.py:_beside: outside",
        lambda f: opens(beside(f, "sub/w.bin")),
        "save it in one piece: onnx.save(onnx.load(FILE), NEW)",
        in_one_piece,
    ),
    Trial(
        "networks/onnx_weights.py:_beside: missing",
        missing,
        "put w.bin beside outside.onnx, as it was saved",
        lambda f: ((f / "kept").rename(f / "w.bin"), opens(f / "outside.onnx")),
    ),
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("trial", ONNX, ids=lambda trial: trial.site)
def test_what_a_remedy_for_onnx_advises_works(trial: Trial, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    trial.run(tmp_path)


@pytest.mark.filterwarnings("ignore")
def test_a_conversion_that_computes_something_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path, network())
    with monkeypatch.context() as patch:
        patch.setattr(nn.ReLU, "forward", lambda self, x: x)
        patch.setattr(torch, "relu", lambda x: x)
        patch.setattr(torch.nn.functional, "relu", lambda x, inplace=False: x)
        with advises("networks/onnx_file.py:_not_the_same", "or give the network as FILE.py"):
            opens(path)
    fresh(tmp_path)


def test_what_onnx_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnx")
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "onnx", None)
        with advises("networks/onnx_module.py:part", "pip install 'dreamquant[export]'"):
            onnx_module.part("onnx")
    onnx_module.part("onnx")  # it is installed


def test_a_file_that_was_changed(tmp_path: Path) -> None:
    from dreamquant.networks.origins import find_again

    (tmp_path / "net.py").write_text(FILE)
    made = load_network(f"{tmp_path / 'net.py'}:make", **KNOWN)
    (tmp_path / "net.py").write_text(FILE + "\n")
    with advises("networks/origins.py:_require_same_file", "restore the file as it was") as errors:
        find_again(made.name, made.input, made.source_sha256, pretrained=False)
    (told,) = re.findall(r"sha256 (\w{64})", errors[0].remedy)
    assert told == made.source_sha256
    (tmp_path / "net.py").write_text(FILE)
    find_again(made.name, made.input, made.source_sha256, pretrained=False)
