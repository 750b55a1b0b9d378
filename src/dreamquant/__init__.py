"""DreamQuant: a trained vision network on low-bit integers, without its training data.

The public names are imported when first used, so that ``import dreamquant`` and
``dreamquant --help`` stay instant.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dreamquant.errors import DreamQuantError as DreamQuantError
    from dreamquant.evaluation.evaluation import Evaluation as Evaluation
    from dreamquant.export.job import export_result as export_result
    from dreamquant.jobs.distill import distill as distill
    from dreamquant.jobs.dream import dream as dream
    from dreamquant.jobs.quantize import quantize as quantize
    from dreamquant.methods import METHODS as METHODS
    from dreamquant.methods.method import Method as Method
    from dreamquant.networks.load import Network as Network
    from dreamquant.networks.load import load_network as load_network
    from dreamquant.networks.spec import InputSpec as InputSpec
    from dreamquant.quantization.scheme import Scheme as Scheme
    from dreamquant.results.reopen import load as load
    from dreamquant.results.reopen import open_result as open_result
    from dreamquant.results.result import Result as Result

_HOMES = {
    "quantize": "dreamquant.jobs.quantize",
    "distill": "dreamquant.jobs.distill",
    "dream": "dreamquant.jobs.dream",
    "export_result": "dreamquant.export.job",
    "load": "dreamquant.results.reopen",
    "open_result": "dreamquant.results.reopen",
    "load_network": "dreamquant.networks.load",
    "InputSpec": "dreamquant.networks.spec",
    "Network": "dreamquant.networks.load",
    "Scheme": "dreamquant.quantization.scheme",
    "Method": "dreamquant.methods.method",
    "METHODS": "dreamquant.methods",
    "Result": "dreamquant.results.result",
    "Evaluation": "dreamquant.evaluation.metrics",
    "DreamQuantError": "dreamquant.errors",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'dreamquant' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(_HOMES)
