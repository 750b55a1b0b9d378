"""ONNX files in forms that people have."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def with_weights_beside(model: Any, path: Path, location: str = "w.bin") -> Path:
    """Write a model to ``path``, its weights to ``w.bin`` beside it.

    Args:
        model: of ``onnx``.
        path: of the file.
        location: where the file says that its weights are.
    """
    import onnx

    (path.parent / "w.bin").unlink(missing_ok=True)
    onnx.save(model, path, save_as_external_data=True, location="w.bin", size_threshold=0)
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        tensor.external_data[0].value = location
    path.write_bytes(model.SerializeToString())
    return path
