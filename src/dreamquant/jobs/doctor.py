"""Versions, devices and optional packages of this machine."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
from typing import Any

import torch

from dreamquant import machine
from dreamquant.networks.zoo import one_line, zoo_versions
from dreamquant.training.devices import chosen_precision, has_bfloat16

_CORE = ("dreamquant", "torch", "numpy", "safetensors", "accelerate", "tensorboard", "pillow")
_EXTRAS = {
    "export": ("onnx", "onnx_ir", "onnxscript", "onnxruntime"),
    "openvino": ("openvino",),
    "sweep": ("ray",),
    "report": ("matplotlib",),
    "train-demo": ("sklearn",),
}


def examine() -> dict[str, Any]:
    """The findings, as plain JSON values.

    Returns:
        ``core``: versions by name. ``devices``: ``cpu``, and ``cuda`` as a list. ``processor``: its
            instruction sets, and the consequences for training, files and speed. ``optional``: for
            every extra its packages, each with its version or the reason why it cannot be used.
            ``remedies``: for every incomplete extra, how to install it.
    """
    optional = {
        "zoo": zoo_versions(),
        **{extra: {part: _version(part) for part in parts} for extra, parts in _EXTRAS.items()},
    }
    return {
        "core": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in _CORE},
        },
        "devices": {"cpu": _cpu(), "cuda": _gpus()},
        "processor": _processor(),
        "optional": optional,
        "remedies": {
            extra: f"pip install 'dreamquant[{extra}]'"
            for extra, parts in optional.items()
            if not all(found[0].isdecimal() for found in parts.values())
        },
    }


def _cpu() -> str:
    capability = torch.backends.cpu.get_cpu_capability()
    threads, cores = torch.get_num_threads(), os.cpu_count()
    return f"{platform.machine()}, {capability}, {threads} of {cores} cores used"


def _processor() -> dict[str, str]:
    """The processor's instruction sets and their consequences, in words."""
    sets = machine.instruction_sets()
    return {
        "name": machine.processor(),
        "instruction sets": ", ".join(sets) or "not known on this system",
        "training": _training(),
        **(_of_integers() if sets else {}),
    }


def _training() -> str:
    taken = {"32": "float32", "bf16": "bfloat16"}[chosen_precision("auto")]
    has = "has" if has_bfloat16("auto") else "has no"
    where = "the GPU" if torch.cuda.is_available() else "the processor"
    return f"--precision auto trains in {taken}: {where} {has} bfloat16 instructions"


def _of_integers() -> dict[str, str]:
    """Files and speed, on an x86 or Arm processor whose instruction sets are known."""
    if machine.has_vnni() or "asimddp" in machine.flags():
        return {
            "files": "8-bit files are exact here, also those of --weights-range full",
            "speed": "8-bit convolutions have instructions of their own: up to 3 times as fast as "
            "float32",
        }
    return {
        "files": "8-bit files of --weights-range safe, the default, are exact here; sums saturate "
        "in those of --weights-range full",
        "speed": "8-bit convolutions are hardly faster than float32 without VNNI",
    }


def _gpus() -> list[str]:
    found = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    return [f"{gpu.name}, {gpu.total_memory / 2**30:.0f} GiB" for gpu in found]


def _version(part: str) -> str:
    # It is imported, because an installed package may fail to load together with this PyTorch.
    try:
        return str(importlib.import_module(part).__version__)
    except Exception as error:  # other projects' code may raise any exception
        return f"{part} cannot be used: {one_line(error)}"
