"""Protocols in words, numbers with units, and commands that repeat a run."""

from __future__ import annotations

import ast
import copy
import shlex

import pytest

from dreamquant.report import wording


def test_units():
    assert [wording.size(n) for n in (12, 2048, 3 * 2**20, 5 * 2**30)] == [
        "12 bytes",
        "2.0 KiB",
        "3.0 MiB",
        "5.0 GiB",
    ]
    assert [wording.duration(n) for n in (3, 200, 9000)] == ["3 s", "3.3 min", "2.5 h"]
    assert [wording.signed(n) for n in (3, -2, -0.5)] == ["+3", "−2", "−0.50"]


def test_classes_have_names_that_are_no_figures(record):
    names = [wording.class_name(record.manifest, label) for label in range(5)]
    assert names == ["cat", "<b>dog</b>", "tench", "ship", "class 4"]
    record.manifest["network"]["input"]["class_names"] = []
    assert wording.class_name(record.manifest, 3) == "class 3"


def test_the_protocol_is_in_whole_sentences(record):
    found = wording.protocol(record.manifest)
    assert found["Bits"] == "Weights have 3 bits (8 levels), activations 3 bits (8 levels)."
    assert found["How"] == (
        "Method adadfq, preset quick: generator warms up, 1 step in float32; student learns, "
        "11 steps in float32. Not one real image was used. Seed 0."
    )
    assert found["Measured on"].startswith("60 images given (labelled.npz)")
    assert all(text.endswith(".") for text in found.values())


def test_exceptions_from_the_bits_are_named(record):
    record.manifest["protocol"] |= {"first_last_bits": 8, "overrides": {"3": "w2a2"}}
    record.manifest["coverage"]["left_in_float"] = ["matmul of computed tensors"] * 2
    record.manifest["protocol"] |= {"joins": 7, "image": 8}
    found = wording.protocol(record.manifest)
    assert "Element-wise and concat inputs have 7 bits, the image 8;" in found["Bits"]
    assert "first and the last layer have 8 bits. Layers 3 have w2a2." in found["Bits"]
    assert " % of the multiplications (2 x matmul of computed tensors, " in found["Where"]


def test_a_module_in_memory_is_quantized_again_by_a_python_call(record):
    call = wording.command(record.manifest)
    (_, statement) = ast.parse(call).body
    given = {word.arg: word.value for word in statement.value.keywords}
    assert ast.literal_eval(given["iterations"]) == 12
    assert ast.literal_eval(given["data"]).endswith("labelled.npz")
    assert [ast.literal_eval(word) for word in statement.value.args[1:]] == ["w3a3", "adadfq"]


def test_a_distillation_of_a_module_in_memory_is_a_python_call_too(record, named):
    request = {"command": "distill", "method": "adadfq"}
    teacher = record.manifest["network"]
    call = wording.command(named | {"scheme": None, "teacher": teacher, "request": request})
    assert call.startswith("from dreamquant import distill\n\ndistill(\n    network,  # the same ")
    assert "'/some where/net.py:build'," in call
    ast.parse(call)


def test_phases_of_one_kind_are_told_as_one(named):
    images = {"kind": "optimising images", "iterations": 100, "precision": "bf16"}
    units = {"kind": "reconstructing units", "iterations": 1, "precision": "32"}
    named["phases"] = [images, images, units]
    told = "optimising images, 200 steps in bfloat16; reconstructing units, 1 step in float32."
    assert told in wording.protocol(named)["How"]


def test_a_method_in_memory_too(named):
    named["request"]["method"] = None
    assert "method,  # the same adadfq as then" in wording.command(named)


@pytest.fixture
def named(record):
    """The manifest as it would be of a network from a file."""
    manifest = copy.deepcopy(record.manifest)
    manifest["network"] |= {
        "name": "/some where/net.py:build",
        "weights": "/some where/w.pt",
        "input_source": "options",
    }
    manifest["request"] |= {"first_last": 8, "elementwise": 7, "batch_norm": "re-estimated"}
    manifest["request"] |= {"override": ["layer1.*=w8a8"], "compile": True}
    return manifest


def test_what_a_file_computes_in_float_is_named(tmp_path):
    model = {"bytes": 2000, "sha256": "ab", "in_float": ["embed: no", "head: neither"]}
    manifest = {"files": {"model.onnx": model, "student": {"bytes": 10, "sha256": "c"}}}
    found = wording.files(manifest, tmp_path)
    assert found["model.onnx"].endswith("SHA-256 ab; in float: embed: no; head: neither")
    assert found["student"].endswith("SHA-256 c")


def test_the_command_can_be_pasted_into_a_shell(named):
    words = shlex.split(wording.command(named).replace("\\\n", " "))
    assert words[:3] == ["dreamquant", "quantize", "/some where/net.py:build"]
    words.remove("--compile")
    options = dict(zip(words[3::2], words[4::2], strict=True))
    assert options["--weights"] == "/some where/w.pt"
    assert options["--input"] == "3x8x8"
    assert options["--mean"] == "0.5,0.5,0.5"
    assert options["--override"] == "layer1.*=w8a8"
    assert (options["--first-last"], options["--elementwise"]) == ("8", "7")
    assert options["--batch-norm"] == "re-estimated"
    assert (options["--bits"], options["--iterations"]) == ("w3a3", "12")


def test_the_command_has_only_options_that_exist(named, capsys):
    from dreamquant.cli import main as cli

    with pytest.raises(SystemExit):
        cli.main(["quantize", "--help"])
    text = capsys.readouterr().out
    words = shlex.split(wording.command(named).replace("\\\n", " "))
    assert all(f"{word} " in text for word in words if word.startswith("--"))


def test_a_distillation_that_inherited_does_so_again(named):
    request = {"command": "distill", "method": "adadfq", "inherit": True, "compile": True}
    named |= {"scheme": None, "teacher": named["network"], "request": request}
    words = shlex.split(wording.command(named).replace("\\\n", " "))
    assert words[:2] == ["dreamquant", "distill"]
    assert "--inherit" in words
    assert "--compile" in words
    assert words[words.index("--student") + 1] == "/some where/net.py:build"
