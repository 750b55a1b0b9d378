"""The doctor lists installed and missing packages with a way to get them, and never fails."""

from __future__ import annotations

import json
import sys
from types import ModuleType

import pytest
import torch
from rich.console import Console

from dreamquant import machine
from dreamquant.cli import main as cli
from dreamquant.cli import tables as printing
from dreamquant.jobs import doctor

EXTRAS = ["zoo", "export", "openvino", "sweep", "report", "train-demo"]


@pytest.fixture(autouse=True)
def parts(monkeypatch):
    """Stand-ins for the optional parts, whose real import takes many seconds."""
    monkeypatch.setattr(doctor, "zoo_versions", lambda: {"torchvision": "0.29.2", "timm": "1.0"})
    for name in (part for extra in doctor._EXTRAS.values() for part in extra):
        module = ModuleType(name)
        module.__version__ = "1.2.3"
        monkeypatch.setitem(sys.modules, name, module)


def printed(capsys, *arguments: str) -> str:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["doctor", *arguments])
    assert not stopped.value.code
    return capsys.readouterr().out


def test_everything_is_there():
    findings = doctor.examine()
    assert findings["core"]["torch"] == torch.__version__.partition("+")[0]
    assert list(findings["optional"]) == EXTRAS
    assert findings["optional"]["sweep"] == {"ray": "1.2.3"}
    assert findings["remedies"] == {}
    assert len(findings["devices"]["cuda"]) == torch.cuda.device_count()


@pytest.mark.parametrize(
    "failure",
    [
        ImportError("No module named 'ray'"),
        RuntimeError("operator torchvision::nms does not exist\nand more"),
        AttributeError(),
        OSError("libcudart.so.13: cannot open shared object file"),
    ],
    ids=lambda failure: type(failure).__name__,
)
def test_a_part_that_does_not_load_is_named_with_its_remedy(monkeypatch, failure):
    find = doctor.importlib.import_module

    def load(name: str) -> ModuleType:
        if name == "ray":
            raise failure
        return find(name)

    monkeypatch.setattr(doctor.importlib, "import_module", load)
    findings = doctor.examine()
    problem = findings["optional"]["sweep"]["ray"]
    reason = " ".join(str(failure).split()) or type(failure).__name__
    assert problem == f"ray cannot be used: {reason}"
    assert findings["remedies"] == {"sweep": "pip install 'dreamquant[sweep]'"}


def test_a_zoo_that_does_not_load_is_named_with_its_remedy(monkeypatch):
    versions = {"torchvision": "0.29.2", "timm": "timm cannot be used: no module named timm"}
    monkeypatch.setattr(doctor, "zoo_versions", lambda: versions)
    assert doctor.examine()["remedies"] == {"zoo": "pip install 'dreamquant[zoo]'"}


def test_gpus_are_listed_with_their_memory(monkeypatch):
    gpu = type("Properties", (), {"name": "NVIDIA H200", "total_memory": 140 * 2**30})
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: gpu)
    assert doctor.examine()["devices"]["cuda"] == ["NVIDIA H200, 140 GiB"] * 2


def on(monkeypatch, *sets):
    """What the doctor says of a processor with those instruction sets."""
    monkeypatch.setattr(machine, "flags", lambda: frozenset(sets))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    return doctor.examine()["processor"]


def test_what_follows_from_the_instruction_sets(monkeypatch):
    found = on(monkeypatch, "fpu", "avx2", "avx512_vnni", "avx512_bf16")
    assert found["instruction sets"] == "avx2, avx512_bf16, avx512_vnni"
    assert "bfloat16: the processor has bfloat16 instructions" in found["training"]
    assert "also those of --weights-range full" in found["files"]
    assert "3 times" in found["speed"]


def test_what_follows_from_avx2_alone(monkeypatch):
    found = on(monkeypatch, "fpu", "avx2")
    assert "trains in float32: the processor has no bfloat16 instructions" in found["training"]
    assert "saturate in those of --weights-range full" in found["files"]
    assert "hardly faster" in found["speed"]


def test_of_a_processor_that_is_not_known_nothing_is_claimed(monkeypatch):
    found = on(monkeypatch)
    assert list(found) == ["name", "instruction sets", "training"]
    assert found["instruction sets"] == "not known on this system"


def test_json_is_one_object(capsys):
    text = printed(capsys, "--json")
    assert text.count("\n") == 1
    assert list(json.loads(text)) == ["core", "devices", "processor", "optional", "remedies"]


@pytest.mark.parametrize("width", [80, 120])
def test_the_table_says_what_is_missing_and_how_to_get_it(capsys, monkeypatch, width):
    monkeypatch.setattr(printing, "_console", Console(width=width, highlight=False))
    problem = "timm cannot be used: " + "operator torchvision::nms does not exist " * 4
    monkeypatch.setattr(doctor, "zoo_versions", lambda: {"timm": problem})
    text = printed(capsys)
    lines = [line.rstrip() for line in text.splitlines()]
    assert all(len(line) <= width for line in lines)
    assert [line for line in lines if not line.startswith(" ")] == [
        "core",
        "devices",
        "processor",
        *(f"extra {extra}" for extra in EXTRAS),
    ]
    assert "  to get it  pip install 'dreamquant[zoo]'" in lines
    assert problem.strip() in " ".join(text.split())
    assert "  ray  1.2.3" in lines
