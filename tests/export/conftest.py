"""A small result, exported once."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from dreamquant.export.job import export_result
from dreamquant.methods import METHODS
from dreamquant.networks.load import load_network
from dreamquant.networks.spec import InputSpec
from dreamquant.quantization.convert import quantize_network
from dreamquant.quantization.scheme import Bits, Scheme
from dreamquant.results.describe import describe_network, describe_protocol
from dreamquant.results.manifest import SCHEMA
from dreamquant.results.result import Result

EIGHT = Bits(8, 8)
FILE = """
from torch import nn

class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.conv, self.head = nn.Conv2d(8, 8, 3, padding=1), nn.Linear(8, 5)

    def forward(self, x):
        x = self.norm(self.stem(x)).relu()
        return self.head((x + self.conv(x)).mean((2, 3)))
"""


@pytest.fixture(scope="session")
def saved(tmp_path_factory):
    """A result folder, not exported."""
    return make_result(tmp_path_factory.mktemp("saved"), FILE)


@pytest.fixture
def untraceable(tmp_path):
    """A result of a network that PyTorch runs and no exporter takes."""
    (tmp_path / "untraceable").mkdir()
    code = FILE.replace("return", "return 2 * self.head(x.mean((2, 3))) if x.sum() > 0 else")
    return make_result(tmp_path / "untraceable", code)


def make_result(folder, code):
    """A result folder below ``folder``, of the ``Network`` that the code defines."""
    path = folder / "nets.py"
    path.write_text(code)
    torch.manual_seed(0)
    namespace = {}
    exec(code, namespace)
    save_file(namespace["Network"]().state_dict(), folder / "weights.safetensors")
    network = load_network(
        f"{path}:Network",
        weights=folder / "weights.safetensors",
        shape=(3, 16, 16),
        mean=(0.5, 0.4, 0.3),
        std=(0.25, 0.2, 0.2),
    )
    scheme = Scheme(Bits(2, 4), "layer-input", first_last_bits=8, joins=8)
    images = torch.randn(8, 3, 16, 16)
    student, coverage = quantize_network(network.module, scheme, images)
    student.observe(True)
    with torch.no_grad():
        student(images)
    student.fix()
    manifest = {
        "schema": SCHEMA,
        "phases": [],
        "network": describe_network(network),
        "method": {"name": "adadfq"},
        "scheme": asdict(scheme),
        "protocol": describe_protocol(
            network, scheme, METHODS["adadfq"], seed=0, precision="32", accumulate=1
        ),
        "prepared": [],
        "coverage": asdict(coverage),
    }
    Result(student, json.loads(json.dumps(manifest))).save(folder / "out")
    return folder / "out"


@pytest.fixture(scope="session")
def exported(saved, tmp_path_factory):
    """The same result with its ONNX files."""
    pytest.importorskip("onnxruntime")
    folder = tmp_path_factory.mktemp("exported") / "out"
    shutil.copytree(saved, folder)
    export_result(folder)
    return folder


@pytest.fixture(scope="session")
def with_range():
    """Exports a small network, by default of 8 bits, its weights in the range that is given."""
    pytest.importorskip("onnxruntime")
    from dreamquant.export.onnx_file import onnx_file

    def export(weights_range, bits=EIGHT, joins=8):
        torch.manual_seed(0)
        network = nn.Sequential(
            *(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU()),
            *(nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU()),
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5)),
        )
        scheme = Scheme(bits, "layer-input", joins=joins, weights_range=weights_range)
        images = torch.randn(16, 3, 16, 16)
        network.train()(images)
        student, _ = quantize_network(network.eval(), scheme, images)
        student.observe(True)
        with torch.no_grad():
            student(images)
        student.fix()
        spec = InputSpec((3, 16, 16), (0.5,) * 3, (0.25,) * 3, 5)
        manifest = {"coverage": {"layers": []}, "method": {"name": "none"}, "protocol": {"seed": 0}}
        return onnx_file(student, manifest, spec, "int8box", layout=None, two_bit=False)

    return export
