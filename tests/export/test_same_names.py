"""A file exported from an ONNX file has its inputs and outputs, with the same names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import dreamquant
from dreamquant.evaluation.data import open_images
from dreamquant.export.benchmark import benchmark
from dreamquant.export.job import export_result
from dreamquant.export.predict import predict, read_pictures
from dreamquant.export.runtime import open_onnx
from dreamquant.networks.load import load_network

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
FLOAT, PIXELS = onnx.TensorProto.FLOAT, onnx.TensorProto.UINT8


def written(folder: Path, *, kind: int, last: bool, outputs: tuple[str, ...]) -> Path:
    """Conv, ReLU, mean and a linear layer, behind what pixels and channels last need."""
    make, random = onnx.helper.make_node, np.random.default_rng(0)
    steps: list[tuple[str, tuple[str, ...], dict[str, Any]]] = [
        *([("Cast", (), {"to": FLOAT}), ("Div", ("levels",), {})] if kind == PIXELS else []),
        *([("Transpose", (), {"perm": [0, 3, 1, 2]})] if last else []),
        ("Conv", ("conv.weight",), {"pads": [1] * 4}),
        ("Relu", (), {}),
        ("GlobalAveragePool", (), {}),
        ("Flatten", (), {}),
        ("MatMul", ("weight",), {}),
    ]
    nodes, value = [], "x:0"
    for number, (op, constants, attributes) in enumerate(steps):
        after = outputs[0] if number == len(steps) - 1 else f"conv2d_{number}"
        nodes.append(make(op, [value, *constants], [after], name=f"{op}_{number}", **attributes))
        value = after
    if len(outputs) > 1:
        nodes.append(make("Neg", [value], [outputs[1]]))
    weights = {
        "levels": np.float32(255),
        "conv.weight": random.normal(size=(5, 3, 3, 3)).astype(np.float32),
        "weight": random.normal(size=(5, 4)).astype(np.float32),
    }
    used = {name for node in nodes for name in node.input}
    shape = ["n", 8, 6, 3] if last else ["n", 3, 8, 6]
    info = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        nodes,
        "g",
        [info("x:0", kind, shape)],
        [info(name, FLOAT, ["n", 4]) for name in outputs],
        [onnx.numpy_helper.from_array(np.array(v), n) for n, v in weights.items() if n in used],
    )
    opsets = [onnx.helper.make_opsetid("", 17)]
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8)
    onnx.save(model, folder / "m.onnx")
    return folder / "m.onnx"


def told(path: Path) -> list[tuple[str, str, list[int]]]:
    """Names, types and shapes of inputs and outputs, the number of images left out."""
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    values = (*session.get_inputs(), *session.get_outputs())
    return [(value.name, value.type, value.shape[1:]) for value in values]


def run(path: Path, feed: Any) -> list[Any]:
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {"x:0": feed})


@pytest.mark.parametrize(
    ("kind", "last", "outputs"),
    [
        (FLOAT, False, ("images", "values")),
        (FLOAT, True, ("probs",)),
        (PIXELS, False, ("probs",)),
        (PIXELS, True, ("images", "values")),
    ],
)
def test_inputs_and_outputs_are_those_of_the_file(
    tmp_path: Path, kind: int, last: bool, outputs: tuple[str, ...]
) -> None:
    given = written(tmp_path, kind=kind, last=last, outputs=outputs)
    known = {} if kind == PIXELS else {"mean": (0.5,) * 3, "std": (0.25,) * 3}
    network = load_network(str(given), **known)
    out = tmp_path / "out"
    result = dreamquant.quantize(network, "w8a8", "squant", device="cpu", quiet=True, out=out)
    for file in export_result(out):
        assert told(file.path) == told(given)
        pixels = np.random.default_rng(1).integers(0, 256, (2, 8, 6, 3), np.uint8)
        feed = pixels if kind == PIXELS else ((pixels / 255 - 0.5) / 0.25).astype(np.float32)
        feed = feed if last else np.ascontiguousarray(feed.transpose(0, 3, 1, 2))
        ours, theirs = run(file.path, feed), run(given, feed)
        assert all(map(lambda a, b: np.allclose(a, b, atol=0.05 * np.abs(b).max()), ours, theirs))
        np.savez(tmp_path / "a.npz", images=pixels)
        (images,) = open_images(tmp_path / "a.npz", network.input).batches(2)
        opened = open_onnx(file.path)(images)
        first = opened if isinstance(opened, torch.Tensor) else opened[outputs[0]]
        assert np.allclose(first.numpy(), ours[0], atol=1e-5)
    assert result.input.outputs == outputs


def test_such_a_file_is_timed_and_predicts(tmp_path: Path) -> None:
    given = written(tmp_path, kind=PIXELS, last=True, outputs=("probs",))
    out = tmp_path / "out"
    dreamquant.quantize(str(given), "w8a8", "squant", device="cpu", quiet=True, out=out)
    (file,) = export_result(out, ["int8box"])
    timed = benchmark(file.path, runtime="onnxruntime", threads=1, batch=2, runs=2)
    assert timed.quantized.p50 > 0
    from PIL import Image

    Image.new("RGB", (9, 9), (200, 10, 10)).save(tmp_path / "a.png")
    network = open_onnx(file.path)
    spec = network.description.input
    (found,) = predict(network, read_pictures([tmp_path / "a.png"], spec), spec, top=2)
    assert len(found.classes) == 2


def test_the_layout_asked_for_goes_before_that_of_the_file(tmp_path: Path) -> None:
    given = written(tmp_path, kind=FLOAT, last=True, outputs=("probs",))
    network = load_network(str(given), mean=(0.5,) * 3, std=(0.25,) * 3)
    out = tmp_path / "out"
    dreamquant.quantize(network, "w8a8", "squant", device="cpu", quiet=True, out=out)
    (file,) = export_result(out, ["int8box"], preprocessing="nchw")
    assert told(file.path)[0] == ("x:0", "tensor(uint8)", [3, 8, 6])
