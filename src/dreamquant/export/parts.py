"""Imports the optional packages for export; only this file does, and only when needed."""

from __future__ import annotations

import importlib
from types import ModuleType

from dreamquant.errors import ExportError
from dreamquant.networks.zoo import one_line

_EXTRAS = {"openvino": "openvino"}


def require(*names: str) -> None:
    """Check that packages can be imported.

    Raises:
        ExportError: a package is missing or does not load.
    """
    for name in names:
        part(name)


def require_export() -> None:
    """Check that all packages for export can be imported.

    Raises:
        ExportError: a package is missing or does not load.
    """
    require("onnx", "onnx_ir", "onnxscript", "onnxruntime")


def part(name: str) -> ModuleType:
    """Import the package ``name``.

    Raises:
        ExportError: the package is missing or does not load.
    """
    try:
        return importlib.import_module(name)
    except Exception as error:  # code of another project may raise anything
        raise ExportError(
            f"{name} cannot be used: {one_line(error)}",
            where="an exported file",
            remedy=f"pip install 'dreamquant[{_EXTRAS.get(name, 'export')}]'",
        ) from error


def is_there(name: str) -> bool:
    """Whether the package ``name`` can be imported."""
    try:
        part(name)
    except ExportError:
        return False
    return True
