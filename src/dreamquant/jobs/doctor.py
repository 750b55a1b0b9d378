"""What this machine has: versions, devices, optional parts."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
from typing import Any

import torch

from dreamquant.networks.zoo import one_line, zoo_versions

_CORE = ("dreamquant", "torch", "numpy", "safetensors", "accelerate", "tensorboard", "pillow")
_EXTRAS = {
    "export": ("onnx", "onnx_ir", "onnxscript", "onnxruntime"),
    "openvino": ("openvino",),
    "sweep": ("ray",),
    "report": ("matplotlib",),
    "train-demo": ("sklearn",),
}


def examine() -> dict[str, Any]:
    """What is there, as plain JSON values.

    Returns:
        ``core``: versions by name. ``devices``: ``cpu``, and ``cuda`` as a list. ``optional``: for
        every extra its parts, each with its version or the reason why it cannot be used.
        ``remedies``: for every extra that lacks something, how to get it.
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


def _gpus() -> list[str]:
    found = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    return [f"{gpu.name}, {gpu.total_memory / 2**30:.0f} GiB" for gpu in found]


def _version(part: str) -> str:
    # Really imported: a package may be installed and yet not load beside this PyTorch.
    try:
        return str(importlib.import_module(part).__version__)
    except Exception as error:  # another project's code may raise anything
        return f"{part} cannot be used: {one_line(error)}"
