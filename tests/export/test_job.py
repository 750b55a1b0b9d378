"""Exported files are verified, recorded and self-describing; a failure leaves no file."""

from __future__ import annotations

import importlib
import json
import math
import shutil

import numpy as np
import pytest
import torch

from dreamquant.errors import ExportError, ResultError
from dreamquant.export import metadata
from dreamquant.export.job import export_result
from dreamquant.export.parts import is_there
from dreamquant.networks.spec import InputSpec
from dreamquant.results.files import sha256_file
from dreamquant.results.manifest import read_manifest
from dreamquant.results.reopen import load

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
runtime = importlib.import_module("dreamquant.export.runtime")
compare = importlib.import_module("dreamquant.export.compare")
verify = importlib.import_module("dreamquant.export.verify")
FILES = ("model.int8box.onnx", "model.int4.onnx")


@pytest.fixture
def copy(saved, tmp_path):
    """A result of one's own, not exported."""
    shutil.copytree(saved, tmp_path / "out")
    return tmp_path / "out"


def logits(model, images):
    with torch.no_grad():
        return model(images)


@pytest.mark.parametrize("name", FILES)
def test_a_file_computes_what_the_student_does(exported, name):
    images = torch.randn(3, 3, 16, 16)
    found = logits(runtime.open_onnx(exported / name), images)
    assert torch.allclose(found, logits(load(exported), images), atol=0.05)


def test_files_are_on_record_with_their_verification(exported):
    files = read_manifest(exported)["files"]
    for name in FILES:
        assert files[name]["sha256"] == sha256_file(exported / name)
        assert files[name]["bytes"] == (exported / name).stat().st_size
    box = files["model.int8box.onnx"]
    assert (box["target"], box["in_float"]) == ("int8box", [])
    assert box["verification"]["integer_convolutions"] == 2
    assert box["verification"]["float_convolutions"] == 0
    assert box["verification"]["flipped"] < 0.001
    assert box["verification"]["confident"] >= verify._FEWEST
    assert box["verification"]["warnings"] == []
    assert box["verification"]["exact_on"] == ["AVX2", "AVX-512", "VNNI"]
    assert box["verification"]["saturating"] == {}
    expected = {name: 1.0 for name in ("onnxruntime", "openvino") if is_there(name)}
    assert box["verification"]["agreement"] == expected
    assert "stored in INT4" in " ".join(files["model.int4.onnx"]["in_float"])


@pytest.mark.parametrize("name", FILES)
def test_a_file_describes_itself(exported, name):
    model = onnx.load(exported / name)
    told = {entry.key: json.loads(entry.value) for entry in model.metadata_props}
    assert told["dreamquant.target"] == name.split(".")[1]
    assert told["dreamquant.method"] == "adadfq"
    assert told["dreamquant.seed"] == 0
    assert told["dreamquant.protocol"] == read_manifest(exported)["protocol"]
    assert told["dreamquant.bits"]["conv"] == {"weight": 2, "input": 4}
    assert told["dreamquant.verification"]["layers"] > 0
    assert model.opset_import[0].version == 21
    (images,) = model.graph.input
    assert images.type.tensor_type.shape.dim[0].dim_param == "batch"


def test_the_fast_file_is_of_8_bit_integers_that_keep_to_the_true_bits(exported):
    graph = onnx.load(exported / FILES[0]).graph
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    makers = {out: node for node in graph.node for out in node.output}
    assert "BatchNormalization" not in {node.op_type for node in graph.node}
    widths = []
    for node in graph.node:
        if node.op_type == "QuantizeLinear":
            assert constants[node.input[2]].dtype == np.uint8
        if node.op_type == "Clip":
            assert makers[node.input[0]].op_type == "QuantizeLinear"
            low, high = (constants[name] for name in node.input[1:])
            assert low.dtype == high.dtype == np.uint8
            widths.append(int(high) - int(low))
        if node.op_type == "DequantizeLinear" and node.input[0].endswith("weight.codes"):
            codes, scale, zero_point = (constants[name] for name in node.input)
            assert codes.dtype == zero_point.dtype == np.int8
            assert not zero_point.any()
            assert len(scale) == len(codes)
    assert min(widths) <= 15  # the input of `conv` has 4 bits


def test_class_names_go_along(exported):
    described = metadata.read(
        metadata.describe(
            read_manifest(exported),
            InputSpec((3, 16, 16), (0.5,) * 3, (0.25,) * 3, 2, ("cat", "dog, wet")),
            "int8box",
            "nhwc",
            (),
        ),
        "file",
    )
    assert described.input.class_names == ("cat", "dog, wet")
    assert (described.target, described.layout) == ("int8box", "nhwc")


def test_the_small_file_holds_integers_of_four_bits(exported):
    model = onnx.load(exported / "model.int4.onnx")
    kinds = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    of_conv = [kind for name, kind in kinds.items() if name.startswith("conv.weight")]
    assert of_conv.count(onnx.TensorProto.INT4) == 2  # codes and zero-points


def test_integers_of_two_bits_on_demand(copy):
    (file,) = export_result(copy, ["int4"], two_bit=True)
    model = onnx.load(file.path)
    assert model.opset_import[0].version == 25
    kinds = {tensor.data_type for tensor in model.graph.initializer}
    assert onnx.TensorProto.INT2 in kinds
    assert list(file.verification.agreement) == ["onnxruntime"]


@pytest.mark.parametrize("layout", ["nhwc", "nchw"])
def test_preprocessing_takes_pixels(copy, layout):
    (file,) = export_result(copy, ["int8box"], preprocessing=layout)
    pixels = np.random.default_rng(0).integers(0, 256, (5, 3, 16, 16), np.uint8)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ((0.5, 0.4, 0.3), (0.25, 0.2, 0.2)))
    images = torch.from_numpy(pixels).float().div(255).sub(mean).div(std)
    network = runtime.open_onnx(file.path)
    feed = pixels.transpose(0, 2, 3, 1) if layout == "nhwc" else pixels
    (raw,) = network.session.run({"images": np.ascontiguousarray(feed)}, ["logits"])
    assert np.array_equal(raw, logits(network, images).numpy())
    assert np.allclose(raw, logits(load(copy), images).numpy(), atol=0.05)


def test_a_program_computes_the_same(copy):
    (file,) = export_result(copy, ["pt2"])
    images = torch.randn(3, 3, 16, 16)
    again = torch.export.load(file.path).module()
    assert torch.equal(logits(again, images), logits(load(copy), images))


def test_elsewhere_a_manifest_goes_along(copy, tmp_path):
    export_result(copy, ["int8box"], to=tmp_path / "deploy")
    assert {path.name for path in (tmp_path / "deploy").iterdir()} == {FILES[0], "manifest.json"}
    assert FILES[0] in read_manifest(tmp_path / "deploy")["files"]
    assert FILES[0] not in read_manifest(copy)["files"]
    export_result(copy, ["int4"], to=tmp_path / "deploy")
    assert set(FILES) <= set(read_manifest(tmp_path / "deploy")["files"])


def test_a_folder_of_another_result_is_refused(copy, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(copy, other)
    manifest = json.loads((other / "manifest.json").read_text())
    manifest["files"]["student.safetensors"]["sha256"] = "0" * 64
    (other / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ResultError, match="contains another result"):
        export_result(copy, to=other)


@pytest.mark.parametrize("damage", ["codes", "wiring", "logits"])
def test_a_file_that_fails_its_verification_is_not_written(copy, monkeypatch, damage):
    module = importlib.import_module("dreamquant.export.onnx_file")
    encode = module.encode

    def wrong(model, student, target, *, two_bit):
        done = encode(model, student, target, two_bit=two_bit)
        spoil(model, damage)
        return done

    monkeypatch.setattr(module, "encode", wrong)
    with pytest.raises(
        ExportError, match="the exported network differs from the student"
    ) as failed:
        export_result(copy, ["int8box"])
    left = {"manifest.json", "student.safetensors", "failed.int8box.json"}
    assert {path.name for path in copy.iterdir()} == left
    assert FILES[0] not in read_manifest(copy)["files"]
    assert f"please report this with {copy / 'failed.int8box.json'}" in str(failed.value)
    report = json.loads((copy / "failed.int8box.json").read_text())
    assert report["reason"] in str(failed.value)
    assert report["runtimes"]["onnxruntime"]
    if damage != "logits":  # which no quantizer follows
        layer = report["layer"]
        kinds = [operation["kind"] for operation in layer["operations"]]
        assert kinds[0] == "DequantizeLinear"
        assert ("Conv" in kinds) or damage == "wiring"
        assert all(found != wanted for _, found, wanted in layer["differing"])
        constants = [entry for op in layer["operations"] for entry in op["inputs"]]
        assert all(np.prod(entry["shape"]) == 1 for entry in constants if "value" in entry)


def spoil(model, damage):
    ir = importlib.import_module("onnx_ir")
    if damage == "wiring":
        (add,) = [node for node in model.graph if node.op_type == "Add"]
        add.replace_input_with(0, add.inputs[1])
        return
    name = "conv.weight" if damage == "codes" else "head.weight"
    (value,) = [
        value
        for key, value in model.graph.initializers.items()
        if key.startswith(name) and key.endswith(".codes")
    ]
    codes = value.const_value.numpy().copy()
    codes[0] = -codes[0]
    value.const_value = ir.tensor(codes, name=value.name)


def test_codes_may_differ_by_one_and_rarely_but_for_ties():
    wanted, tied = np.zeros(10_000, np.uint8), np.zeros(10_000, bool)
    found = wanted.copy()
    found[:22] = 1
    rare = compare.compare_codes(found, wanted, tied, "layer")
    assert (rare.tolerable, rare.fraction) == (True, 0.0022)
    found[22] = 1
    often = compare.compare_codes(found, wanted, tied, "layer")
    assert not often.tolerable
    assert str(often) == "23 of 10000 codes differ, by up to 1, at layer"
    tied[22] = True
    assert compare.compare_codes(found, wanted, tied, "layer").tolerable
    found[:], found[22] = 0, 2
    assert not compare.compare_codes(found, wanted, tied, "layer").tolerable


def test_no_agreement_is_claimed_where_no_input_is_confident(copy, monkeypatch):
    monkeypatch.setattr(verify, "sensitivity_of", lambda *_: (math.inf,))
    (file,) = export_result(copy, ["int8box"])
    assert file.verification.confident == 0
    assert set(file.verification.agreement.values()) == {None}
    on_record = read_manifest(copy)["files"][FILES[0]]["verification"]
    assert on_record["warnings"][-1].startswith(
        f"only 0 of {file.verification.images} noise images are confident"
    )


def test_confident_inputs_must_agree():
    logits, confident = torch.eye(4) * 10, torch.ones(4, dtype=torch.bool)

    def agreement(found, sensitivity):
        wanted = compare.Outputs(("logits",), (logits,), (sensitivity,), confident)
        return compare.compare_outputs((found,), wanted, "some runtime")

    assert agreement(logits, 0.0) == 1.0
    # Logits may deviate by 2 × 4, but no top-1 may change where it stands well above that.
    found = logits.clone()
    found[0] = torch.tensor([4.0, 6.0, 0.0, 0.0])
    with pytest.raises(ExportError, match=r"in some runtime top-1 agrees on only 75\.0%"):
        agreement(found, 4.0)
    with pytest.raises(ExportError, match="in some runtime logits deviate by 10"):
        agreement(torch.zeros(4, 4), 4.0)


def test_the_loaded_result_compiles(saved):
    student = load(saved)
    images = torch.randn(2, 3, 16, 16)
    compiled = torch.compile(student, backend="eager")
    assert torch.allclose(logits(compiled, images), logits(student, images), atol=1e-5)


def test_float_twin_is_the_network_without_quantizers(exported):
    benchmark = importlib.import_module("dreamquant.export.benchmark")
    data = (exported / FILES[0]).read_bytes()
    twin = onnx.load_model_from_string(benchmark.float_twin(data))
    onnx.checker.check_model(twin, full_check=True)
    kinds = {node.op_type for node in twin.graph.node}
    assert not kinds & {"QuantizeLinear", "DequantizeLinear"}
    images = torch.randn(4, 3, 16, 16)
    session = runtime.OrtSession(twin.SerializeToString(), threads=1)
    (found,) = session.run({"images": images.numpy()}, ["logits"])
    student = load(exported)
    for quantizer in student.activation_quantizers().values():
        quantizer.register_forward_hook(lambda _, inputs, __: inputs[0])
    assert np.allclose(found, logits(student, images).numpy(), atol=1e-4)
