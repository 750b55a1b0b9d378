"""Measures the speed of an exported file, compared with the same network in float32."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dreamquant import machine
from dreamquant.errors import ExportError
from dreamquant.export import metadata
from dreamquant.export.metadata import POWERS, RATIO, Description
from dreamquant.export.parts import part, require
from dreamquant.export.runtime import (
    RUNTIMES,
    Array,
    Session,
    as_taken,
    kernels,
    properties_of,
    read_whole,
    running,
)
from dreamquant.export.saturation import warn_of_saturation

_WARM_UP = 3


@dataclass(frozen=True)
class Timing:
    """Latencies of one network.

    Attributes:
        p50: median time of a run, in milliseconds.
        p90: 90th percentile of the time of a run, in milliseconds.
        images_per_second: throughput at the median.
    """

    p50: float
    p90: float
    images_per_second: float


@dataclass(frozen=True)
class Benchmark:
    """Latencies of an exported file and of the same network in float32.

    Attributes:
        runtime: the runtime that ran both.
        threads: number of its threads.
        batch: number of images per run.
        runs: number of runs of each network; the networks alternate.
        quantized: latencies of the file.
        float32: latencies of the same network without quantizers.
        warnings: reasons why the file is slower, or wrong on this processor, if it is.
    """

    runtime: str
    threads: int
    batch: int
    runs: int
    quantized: Timing
    float32: Timing
    warnings: tuple[str, ...]

    @property
    def speedup(self) -> float:
        """Median time of float32 divided by the median time of the file."""
        return self.float32.p50 / self.quantized.p50

    def as_json(self) -> dict[str, Any]:
        """The attributes and the speedup as plain JSON values."""
        return asdict(self) | {"warnings": list(self.warnings), "speedup": self.speedup}


def benchmark(path: Path, *, runtime: str, threads: int | None, batch: int, runs: int) -> Benchmark:
    """Time an exported file and its float32 version alternately, under the same conditions.

    Args:
        path: path of the file.
        runtime: ``onnxruntime`` or ``openvino``.
        threads: number of threads of the runtime; ``None`` for PyTorch's number.
        batch: number of images per run.
        runs: number of timed runs of each network, after a warm-up.

    Raises:
        ExportError: the file is damaged or was not exported by DreamQuant, the runtime is
                missing or cannot run it, or ``batch`` or ``runs`` is below 1.
    """
    for value, option in ((batch, "--batch"), (runs, "--runs"), (threads, "--threads")):
        if value is not None and value < 1:
            raise ExportError(f"{option} is {value}", where=option, remedy="give 1 or more")
    require("onnx", runtime)
    threads = threads or torch.get_num_threads()
    data = read_whole(path)
    description = metadata.read(properties_of(data, path), str(path))
    feed = {description.input.entry: _images(description, batch)}
    with running(runtime, path):
        sessions = [RUNTIMES[runtime](model, threads=threads) for model in (data, float_twin(data))]
        times = _in_turns(sessions, feed, description.input.outputs, runs)
    quantized, float32 = (_timing(row, batch) for row in times)
    slower = quantized.p50 > float32.p50
    reasons = _reasons(data, description, threads) if slower else ()
    wrong = warn_of_saturation(part("onnx").load_model_from_string(data), runtime)
    warnings = (*reasons, *([wrong] if wrong else []))
    return Benchmark(runtime, threads, batch, runs, quantized, float32, warnings)


def float_twin(data: bytes) -> bytes:
    """The network of an exported file without quantizers and with float32 weights.

    A quantizer that clips negative values becomes a ReLU.
    """
    onnx = part("onnx")
    model = onnx.load_model_from_string(data)
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    producers = {out: node for node in graph.node for out in node.output}
    kept = []
    for node in graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in constants:
            values = _dequantized([constants.get(name) for name in node.input], node)
            graph.initializer.append(onnx.numpy_helper.from_array(values, node.output[0]))
        elif node.op_type == "DequantizeLinear":
            kept.extend(_in_float(node, producers, constants))
        elif node.name.endswith(POWERS):
            source = producers[node.name.replace(POWERS, RATIO)].input[1]
            kept.append(onnx.helper.make_node("Identity", [source], node.output, name=node.name))
        elif not _is_integer(node, producers):
            kept.append(node)
    kept = _needed(kept, [value.name for value in graph.output])
    del graph.node[:]
    graph.node.extend(kept)
    del graph.value_info[:]
    used = {name for node in kept for name in node.input}
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in used]:
        graph.initializer.remove(tensor)
    return bytes(model.SerializeToString())


def _needed(nodes: Sequence[Any], outputs: Sequence[str]) -> list[Any]:
    """The nodes, in order, that outputs depend on."""
    names, needed = set(outputs), []
    for node in reversed(nodes):
        if names & set(node.output):
            needed.append(node)
            names.update(node.input)
    return needed[::-1]


def _is_integer(node: Any, producers: dict[str, Any]) -> bool:
    """Whether a node is part of a quantizer."""
    while node is not None and node.op_type in ("Clip", "Pad"):
        node = producers.get(node.input[0])
    return node is not None and node.op_type == "QuantizeLinear"


def _in_float(node: Any, producers: dict[str, Any], constants: dict[str, Any]) -> list[Any]:
    """The float nodes that replace a quantizer with last node ``node``: ReLU, padding or none."""
    onnx = part("onnx")
    before = {"DequantizeLinear": node}
    while "QuantizeLinear" not in before:
        node = producers[node.input[0]]
        before[node.op_type] = node
    last, clip, pad = before["DequantizeLinear"], before.get("Clip"), before.get("Pad")
    to_array = onnx.numpy_helper.to_array
    lowest = to_array(constants[clip.input[1]]) if clip is not None else 0
    kind = "Relu" if to_array(constants[last.input[2]]) <= lowest else "Identity"
    result = f"{last.name}.float" if pad is not None else last.output[0]
    nodes = [onnx.helper.make_node(kind, [node.input[0]], [result], name=last.name)]
    if pad is not None:
        inputs = [result, pad.input[1]]
        nodes.append(onnx.helper.make_node("Pad", inputs, [last.output[0]], name=pad.name))
    return nodes


def _dequantized(tensors: list[Any], node: Any) -> NDArray[np.float32]:
    to_array = part("onnx").numpy_helper.to_array
    codes = to_array(tensors[0]).astype(np.float32)
    axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
    wide = [-1 if d == axis else 1 for d in range(codes.ndim)]
    scale = to_array(tensors[1]).reshape(wide)
    zero_point = to_array(tensors[2]).astype(np.float32).reshape(wide) if tensors[2:] else 0
    values: NDArray[np.float32] = (codes - zero_point) * scale
    return values


def _images(description: Description, batch: int) -> Array:
    random = np.random.default_rng(0)
    if description.layout is None:
        images = torch.from_numpy(
            random.standard_normal((batch, *description.input.shape), np.float32)
        )
        return as_taken(images, description.input, None)
    channels, height, width = description.input.image
    nhwc = description.layout == "nhwc"
    size = (height, width, channels) if nhwc else (channels, height, width)
    return random.integers(0, 256, (batch, *size), np.uint8)


def _in_turns(
    sessions: list[Any], feed: dict[str, Array], outputs: Sequence[str], runs: int
) -> NDArray[np.float64]:
    """The time of each run in seconds, (sessions, runs)."""
    rounds = range(_WARM_UP + runs)
    times = np.array([[_timed(s, feed, outputs) for s in sessions] for _ in rounds])
    return times[_WARM_UP:].T


def _timed(session: Session, feed: dict[str, Array], outputs: Sequence[str]) -> float:
    start = time.perf_counter()
    session.run(feed, outputs)
    return time.perf_counter() - start


def _timing(seconds: NDArray[np.float64], batch: int) -> Timing:
    p50, p90 = (float(np.quantile(seconds, share)) for share in (0.5, 0.9))
    return Timing(1000 * p50, 1000 * p90, batch / p50)


def _reasons(data: bytes, description: Description, threads: int) -> tuple[str, ...]:
    """Reasons why a file may be slower than float32."""
    reasons = []
    integer, in_float = kernels(data, threads=threads)[:2]
    if description.target == "int4":
        reasons.append("an int4 file is made for small size: its weights are unpacked in every run")
    elif in_float:
        reasons.append(
            f"{in_float} of {integer + in_float} convolutions run in float (the manifest gives "
            f"reasons); "
            "with --placement layer-input --elementwise 8 all of them run on integers"
        )
    if not _has_integer_dot_products():
        reasons.append("this processor has no integer dot products (VNNI)")
    return (
        "the file is slower than float32",
        *(reasons or ["the network is so small that quantizers take most of the time"]),
    )


def _has_integer_dot_products() -> bool:
    known = machine.flags()
    # If the processor's features are unknown, they are not given as a reason.
    return not known or machine.has_vnni() or "asimddp" in known
