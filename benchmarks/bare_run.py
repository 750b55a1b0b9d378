"""Runs an ONNX file in a runtime without importing PyTorch, which takes an emulator minutes.

    python benchmarks/bare_run.py RUNTIME FILE.onnx FEED.npz ANSWERS.npz

``FEED.npz`` holds one array for each input. Every array of the feed has the images first, and
they are run one batch of 4 after another. ``ANSWERS.npz`` gets one array for each output.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

_BATCH = 4
Arrays = dict[str, Any]


def opened(runtime: str, path: str) -> Callable[[Mapping[str, Any]], Arrays]:
    """A file in a runtime, on one thread and in float32: outputs by name of inputs by name."""
    if runtime == "onnxruntime":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        return lambda feed: dict(zip(names, session.run(names, dict(feed)), strict=True))
    import openvino

    numbers = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(path), "CPU", numbers)
    outputs = [output.any_name for output in compiled.outputs]

    def run(feed: Mapping[str, Any]) -> Arrays:
        found = compiled(dict(feed))
        return {name: np.array(found[name]) for name in outputs}

    return run


def main(runtime: str, path: str, feed: str, answers: str) -> None:
    """Run the file and write what it answers."""
    run, given = opened(runtime, path), dict(np.load(feed))
    count = len(next(iter(given.values())))
    parts = [
        run({name: values[start : start + _BATCH] for name, values in given.items()})
        for start in range(0, count, _BATCH)
    ]
    joined: dict[str, Any] = {n: np.concatenate([part[n] for part in parts]) for n in parts[0]}
    np.savez(Path(answers), **joined)


if __name__ == "__main__":
    main(*sys.argv[1:])
