"""Sums that saturate in 16 bits are found by calculation, counted by emulation, and reported."""

from __future__ import annotations

import importlib
import itertools

import numpy as np
import pytest

from dreamquant.export.metadata import IMAGES
from dreamquant.quantization.scheme import Bits

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
saturation = importlib.import_module("dreamquant.export.saturation")
runtime = importlib.import_module("dreamquant.export.runtime")


def convolution(codes, highest=255, zero_point=0, **attributes):
    """A file of one convolution on integers, whose results are its sums in float."""
    make, array = onnx.helper, onnx.numpy_helper.from_array
    nodes = [
        make.make_node("QuantizeLinear", [IMAGES, "one", "zero"], ["q"]),
        make.make_node("Clip", ["q", "zero_code", "highest"], ["c"]),
        make.make_node("DequantizeLinear", ["c", "one", "zero"], ["x"]),
        make.make_node("DequantizeLinear", ["w", "one", "none"], ["wf"], axis=0),
        make.make_node("Conv", ["x", "wf"], ["logits"], name="conv", **attributes),
    ]
    constants = {
        "one": np.float32(1),
        "zero": np.uint8(zero_point),
        "zero_code": np.uint8(0),
        "highest": np.uint8(highest),
        "w": codes.astype(np.int8),
        "none": np.int8(0),
    }
    channels = codes.shape[1] * attributes.get("group", 1)
    kind = onnx.TensorProto.FLOAT
    graph = make.make_graph(
        nodes,
        "one",
        [make.make_tensor_value_info(IMAGES, kind, ["n", channels, 6, 6])],
        [make.make_tensor_value_info("logits", kind, None)],
        [array(np.asarray(value), name) for name, value in constants.items()],
    )
    return make.make_model(graph, opset_imports=[make.make_opsetid("", 21)], ir_version=10)


def session(data):
    return runtime.OrtSession(data, threads=1, exact=True)


def row(*values):
    return np.array(values).reshape(1, -1, 1, 1)


@pytest.mark.parametrize(("joins", "first"), [(8, True), (7, False)])
def test_at_7_bits_the_first_layer_alone_may_saturate_and_where_the_image_has_8(
    with_range, joins, first
):
    file = onnx.load_model_from_string(with_range("full", Bits(8, 7), joins).data)
    layers = [node.name for node in file.graph.node if node.op_type in ("Conv", "Gemm")]
    assert saturation.layers_that_may_saturate(file) == (tuple(layers[:1]) if first else ())


@pytest.mark.parametrize(
    ("weights", "highest", "may"),
    [
        (row(64, 64), 255, False),  # 2 * 64 * 255 = 32640
        (row(64, 65), 255, True),
        (row(-64, 3, -64, 2), 255, False),
        (row(-65, 3, -64, 2), 255, True),  # wherever they stand
        (row(127, -127), 255, False),  # one product alone fits, and these cancel
        (row(127), 255, False),
        (row(127, 127), 127, False),
        (row(127, 127), 129, False),  # 32766
        (row(127, 127), 130, True),
        (np.concatenate([row(1, 1), row(100, 100)]), 255, True),  # any output channel
    ],
)
def test_a_layer_may_saturate_if_any_two_products_exceed_16_bits(weights, highest, may):
    found = saturation.layers_that_may_saturate(convolution(weights, highest))
    assert found == (("conv",) if may else ())
    flat = weights.reshape(len(weights), -1)
    pairs = (
        highest * (w[i] + w[j])
        for w in flat
        for i, j in itertools.combinations(range(flat.shape[1]), 2)
    )
    assert may == any(not -(2**15) <= pair < 2**15 for pair in pairs)


def test_sums_saturate_pair_by_pair():
    x, w = np.array([[255, 255, 1, 255, 255]]), np.array([[127, 127, 2, -127, -127]])
    exact, held = saturation.pair_sums(x, w)
    assert exact.tolist() == [[255 * 254 + 2 - 255 * 127 - 255 * 127]]
    assert held.tolist() == [[32767 + (2 - 255 * 127) - 255 * 127]]


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"group": 2},
        {"pads": [1, 0, 2, 1]},
        {"strides": [2, 1], "dilations": [1, 2]},
    ],
)
def test_emulation_reads_what_the_convolution_reads(attributes):
    rng = np.random.default_rng(0)
    weights = rng.integers(-127, 128, (4, 6 // attributes.get("group", 1), 3, 2))
    model = convolution(weights, zero_point=3, **attributes)
    (layer,) = saturation._layers(model)
    codes = rng.integers(0, 256, (2, 6, 6, 6))
    columns = saturation._columns(layer, codes)
    groups = columns.shape[1]
    rows = saturation._packed(layer).reshape(groups, -1, columns.shape[2])
    sums = np.stack([saturation.pair_sums(columns[:, g] - 3, rows[g])[0] for g in range(groups)], 1)
    wanted = runtime.OrtSession(model.SerializeToString(), threads=1, exact=True).run(
        {IMAGES: codes.astype(np.float32) - 3}, ["logits"]
    )[0]
    places = wanted.shape[2:]
    found = sums.reshape(2, *places, 4).transpose(0, 3, 1, 2)
    assert np.array_equal(found, wanted)


def test_the_fraction_of_sums_that_saturate():
    images = np.full((1, 2, 6, 6), 200, np.float32)
    images[:, :, :3] = 10
    model = convolution(row(127, 127))
    assert saturation.saturated(model, images, session) == {"conv": 0.5}
    assert saturation.saturated(convolution(row(64, 64)), images, session) == {}


def test_a_safe_file_is_exact_with_and_without_vnni(with_range):
    found = with_range("safe").verification
    assert found.exact_on == ("AVX2", "AVX-512", "VNNI")
    assert found.saturating == {}


def test_a_file_of_the_full_range_tells_where_it_is_exact(with_range):
    found = with_range("full")
    assert found.verification.exact_on == ("VNNI",)
    assert len(found.verification.saturating) == 3
    assert 0 < max(found.verification.saturating.values()) < 1
    assert "safe" not in " ".join(found.verification.warnings) or saturation.saturates("openvino")


@pytest.mark.parametrize("weights_range", ["safe", "full"])
def test_who_runs_it_on_a_processor_that_saturates_is_warned(
    monkeypatch, with_range, weights_range
):
    model = onnx.load_model_from_string(with_range(weights_range).data)
    verify = importlib.import_module("dreamquant.export.verify")
    for module in (saturation, verify):
        monkeypatch.setattr(module, "saturates", lambda _: True)
    told = saturation.warn_of_saturation(model, "onnxruntime")
    warnings = " ".join(with_range(weights_range).verification.warnings)
    if weights_range == "safe":
        assert told == warnings == ""
    else:
        assert "saturates sums of integers in 3 layers of this file" in told
        assert "verified in ONNX Runtime with session.x64quantprecision=1" in warnings
