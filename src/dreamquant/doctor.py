"""What this machine has: versions, devices, optional parts."""

from __future__ import annotations

import importlib
import importlib.metadata
import platform
from typing import Any

import torch

from dreamquant.networks.zoo import zoo_versions

_CORE = ("dreamquant", "torch", "numpy", "safetensors", "accelerate", "tensorboard", "pillow")
_EXTRAS = {
    "export": ("onnx", "onnx_ir", "onnxscript", "onnxruntime"),
    "sweep": ("ray",),
    "train-demo": ("sklearn",),
}


def examine() -> dict[str, Any]:
    """Versions of the core, devices, and every optional part: its version or how to get it."""
    return {
        "python": platform.python_version(),
        "core": {name: importlib.metadata.version(name) for name in _CORE},
        "devices": {
            "cpu": f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}, "
            f"{torch.get_num_threads()} threads",
            "cuda": [
                torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())
            ],
        },
        "optional": {
            "zoo": zoo_versions(),
            **{
                extra: {module: _version(module, extra) for module in modules}
                for extra, modules in _EXTRAS.items()
            },
        },
    }


def _version(module: str, extra: str) -> str:
    # Really imported: a package may be installed and yet not load beside this PyTorch.
    try:
        found = importlib.import_module(module)
    except (ImportError, RuntimeError, OSError) as error:
        reason = str(error).splitlines()[0]
        return f"missing ({reason}): pip install 'dreamquant[{extra}]'"
    return str(getattr(found, "__version__", "present"))
