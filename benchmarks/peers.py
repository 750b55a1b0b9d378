"""Other tools beside this one, without data: same networks, images and runtime; W8A8.

    python benchmarks/peers.py [--limit SECONDS]

Each tool runs in an environment of its own, made on first use in ``out/peers``; those that need
PyTorch find this project's, after their own packages. What a person writes for a tool is a file of
``peer_tools``, whose lines are counted. All results are ONNX files and are measured in ONNX
Runtime. A cell is a network, a tool and its calibration images; it is put on record at once, a
failure too, and cells on record are not run again.
"""

from __future__ import annotations

import json
import os
import subprocess
import sysconfig
import time
import venv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn

from dreamquant import Network, quantize
from dreamquant.evaluation.data import EvaluationSet, open_images
from dreamquant.evaluation.metrics import evaluate
from dreamquant.export.job import export_result
from dreamquant.export.runtime import open_onnx
from dreamquant.results.describe import describe_machine
from grid import ROOT
from kit import CASES
from pages import RESULTS, cpu_seconds, grow, runs_on, write_page
from peers_page import OWN, page
from readme import write_first_table

PATH = RESULTS / "peers.json"
WORK = ROOT / "out" / "peers"
TOOLS = Path(__file__).with_name("peer_tools")
NETWORKS = {"ResNet-20 CIFAR-10": 2000, "MobileNetV1 0.75": 300, "EfficientNet-Lite0": 300}
CALIBRATED_ON = 64  # images
PATIENCE = 1800  # seconds that a tool may take


@dataclass(frozen=True)
class Peer:
    """Another tool.

    Attributes:
        packages: that its environment gets from the package index.
        script: in ``peer_tools``: what a person writes.
        module: whether it takes a module of PyTorch, and not a file.
        calibrations: kinds of images that it is run on, see :func:`calibration`.
    """

    packages: tuple[str, ...]
    script: str
    module: bool = False
    calibrations: tuple[str, ...] = ("noise", "randn", "real")


PEERS = {
    "ONNX Runtime": Peer(("onnxruntime", "onnx", "sympy"), "onnxruntime_static.py"),
    "NNCF": Peer(("nncf", "openvino", "onnx", "onnxruntime"), "nncf_ptq.py"),
    "Brevitas": Peer(("brevitas[export]",), "brevitas_ptq.py", module=True),
    "MCT": Peer(("model-compression-toolkit",), "mct_ptq.py", module=True),
    "AIMET": Peer(("aimet-torch",), "aimet_ptq.py", module=True),
    "MCT, data generation": Peer(
        ("model-compression-toolkit",), "mct_data_free.py", module=True, calibrations=("own",)
    ),
}


def calibration(kind: str, images: EvaluationSet, network: Network, measured: int) -> Tensor:
    """What a tool is calibrated on: (64, C, H, W), normalised.

    Args:
        kind: ``noise`` has pixels N(0.5, 0.25) cut to [0, 1]; ``randn`` is N(0, 1) as the network
            reads it; ``real`` are images that come after the measured ones; for ``own``, those that
            the tool makes, the shape alone is told.
        images: all there are.
        network: their reader.
        measured: how many are measured on.
    """
    shape = (CALIBRATED_ON, *network.input.shape)
    random = torch.Generator().manual_seed(0)
    if kind == "own":
        return torch.zeros(shape)
    if kind == "randn":
        return torch.randn(shape, generator=random)
    if kind == "noise":
        pixels = (0.5 + 0.25 * torch.randn(shape, generator=random)).clamp(0, 1)
        mean, std = (
            torch.tensor(v)[:, None, None] for v in (network.input.mean, network.input.std)
        )
        return (pixels - mean) / std
    rows = torch.cat([*images.first(measured + CALIBRATED_ON).batches(100)])
    return rows[measured:]


class InRuntime(nn.Module):
    """An ONNX file in ONNX Runtime, as a network."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, classes)."""
        (name,) = (each.name for each in self.session.get_inputs())
        return torch.from_numpy(self.session.run(None, {name: images.numpy()})[0])


def lines_of(script: Path) -> int:
    """Lines that a person writes: neither blank nor a comment, and no docstring of the file."""
    lines = (line.strip() for line in script.read_text().splitlines()[1:])
    return sum(bool(line) and not line.startswith("#") for line in lines)


def environment(name: str) -> Path:
    """The interpreter of a tool's environment, which is made if it does not exist yet."""
    peer = PEERS[name]
    folder = WORK / peer.packages[0].partition("[")[0]
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
        if peer.module:
            (own,) = folder.glob("lib/python*/site-packages")
            (own / "torch.pth").write_text(sysconfig.get_path("purelib") + "\n")
        subprocess.run([python, "-m", "pip", "install", "--quiet", *peer.packages], check=True)
    return python


def quantized_by(name: str, source: Path, images: Tensor, out: Path) -> dict[str, Any]:
    """Run a tool in its environment: seconds, lines, versions.

    Raises:
        CalledProcessError: the tool failed; its last words are in ``stderr``.
    """
    peer, python = PEERS[name], environment(name)
    script = TOOLS / peer.script
    calibrated = out.with_suffix(".npy")
    np.save(calibrated, images.numpy())
    one = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": ""}
    started, cpu = time.monotonic(), cpu_seconds()
    command = [str(each) for each in (python, script, source, calibrated, out)]
    subprocess.run(command, check=True, capture_output=True, text=True, env=one, timeout=PATIENCE)
    seconds, cpu = time.monotonic() - started, cpu_seconds() - cpu
    listing = [str(python), "-m", "pip", "list", "--format", "json"]
    found = json.loads(subprocess.run(listing, check=True, capture_output=True).stdout)
    named = {package.partition("[")[0] for package in peer.packages}
    named |= {"torch"} if peer.module else set()
    versions = {each["name"]: each["version"] for each in found if each["name"] in named}
    return {
        "seconds": seconds,
        "cpu_seconds": cpu,
        "lines": lines_of(script),
        "bytes": out.stat().st_size,
        "versions": versions,
    }


def exported(network: Network, path: Path) -> Path:
    """The network in float, as an ONNX file of any batch."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.onnx.export(
            network.module,
            (torch.zeros(2, *network.input.shape),),
            path,
            input_names=["images"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    return path


def traced(network: Network, path: Path) -> Path:
    """The network in float, as a module that no code of its own is needed for."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(torch.fx.symbolic_trace(network.module), path)
    return path


def measure(name: str, tool: str, calibrated: str) -> dict[str, Any]:
    """One cell."""
    network, data = CASES[name].load()
    count = NETWORKS[name]
    images = open_images(data, network.input)
    folder = WORK / "files" / name.replace(" ", "-")
    source = exported(network, folder / "float.onnx")
    out = folder / f"{tool}-{calibrated}.onnx".replace(" ", "-")
    cell = {"network": name, "tool": tool, "calibrated": calibrated, "images": count}
    float_top1 = top1(InRuntime(source), images.first(count))
    machine = describe_machine(torch.device("cpu"))
    try:
        if tool in PEERS:
            rows = calibration(calibrated, images, network, count)
            given = traced(network, folder / "float.pt") if PEERS[tool].module else source
            told = quantized_by(tool, given, rows, out)
            score = top1(InRuntime(out), images.first(count))
        else:
            told, score = own(network, tool, folder, images.first(count))
    except subprocess.CalledProcessError as error:
        told, score = {"failed": error.stderr.strip().splitlines()[-1]}, None
    except torch.fx.proxy.TraceError as error:
        told, score = {"failed": f"torch.fx cannot trace the network: {error}"}, None
    except subprocess.TimeoutExpired:
        told, score = {"failed": f"it was not over after {PATIENCE} seconds"}, None
    return {**cell, "float_top1": float_top1, "top1": score, **told, "machine": machine}


def top1(model: nn.Module, images: EvaluationSet) -> float:
    """In percent."""
    found = evaluate(model, images).main
    assert found is not None
    return float(found[1])


def own(
    network: Network, method: str, folder: Path, images: EvaluationSet
) -> tuple[dict[str, Any], float]:
    """This project's own file, by one command."""
    started, cpu = time.monotonic(), cpu_seconds()
    options: dict[str, Any] = {
        "scheme": "integer",
        "device": "cpu",
        "precision": "32",
        "quiet": True,
    }
    with TemporaryDirectory(dir=folder) as out:
        result = quantize(network, "w8a8", method, out=out, **options)
        (file,) = export_result(result, ("int8box",), to=out)
        seconds, cpu = time.monotonic() - started, cpu_seconds() - cpu
        score = top1(open_onnx(file.path, threads=1), images)
    told = {"seconds": seconds, "cpu_seconds": cpu, "lines": 1, "bytes": file.bytes}
    return {**told, "versions": {}}, score


def missing() -> Iterator[tuple[str, str, str]]:
    """Cells that are not on record."""
    done = {(run["network"], run["tool"], run["calibrated"]) for run in runs_on(PATH)}
    cells = [
        (n, tool, kind) for tool in PEERS for n in NETWORKS for kind in PEERS[tool].calibrations
    ]
    cells += [(name, method, "own") for method in OWN for name in NETWORKS]
    return (cell for cell in cells if cell not in done)


def write() -> None:
    """Write the page."""
    write_page(PATH, page(runs_on(PATH), list(missing())))


def main() -> None:
    """Run the cells that are missing."""
    torch.set_num_threads(1)
    grow(PATH, "Peers", missing, measure, write)
    write_first_table()


if __name__ == "__main__":
    main()
