"""The commands for other runtimes: their output, and their errors for bad input."""

from __future__ import annotations

import importlib
import json
import shutil
import sys

import numpy as np
import pytest
from PIL import Image

from dreamquant.cli import main as cli

pytest.importorskip("onnxruntime")
BOX = "model.int8box.onnx"


@pytest.fixture
def run(capsys):
    """Run a command in this process; gives what it wrote."""

    def call(*arguments, code=0):
        with pytest.raises(SystemExit) as stopped:
            cli.main([str(argument) for argument in arguments])
        written = capsys.readouterr()
        assert (stopped.value.code or 0) == code, written.err
        return written

    return call


@pytest.fixture
def refused(run, tmp_path):
    """Run a command that must be refused; gives its message with short paths."""

    def call(*arguments):
        written = run(*arguments, code=2)
        assert written.out == ""
        return written.err.replace(str(tmp_path), "TMP")

    return call


@pytest.fixture
def own(exported, tmp_path):
    """An exported result of one's own."""
    shutil.copytree(exported, tmp_path / "out")
    return tmp_path / "out"


@pytest.fixture
def copied(saved, tmp_path):
    """A result of one's own, not exported."""
    shutil.copytree(saved, tmp_path / "copied")
    return tmp_path / "copied"


@pytest.fixture
def data(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 16, 16, 3), np.uint8)
    np.savez(tmp_path / "data.npz", images=pixels, labels=np.arange(20) % 5)
    return tmp_path / "data.npz"


def picture(folder, name, mode="RGB", size=(40, 24), **options):
    pixels = np.random.default_rng(1).integers(0, 256, (size[1], size[0], 4), np.uint8)
    image = Image.fromarray(pixels, "RGBA")
    if mode == "I;16":
        image = Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)
    elif mode != "RGBA":
        image = image.convert("RGB").convert(mode)
    image.save(folder / name, **options)
    return folder / name


# ----------------------------------------------------------------------------------- export


def test_export_prints_where_how_large_and_how_verified(run, own, tmp_path):
    written = run("export", own, "--to", tmp_path / "to", "--target", "int8box")
    text = " ".join(written.out.split())
    assert f"{tmp_path}/to/{BOX}" in text.replace(" ", "")
    assert "2 on integers, 0 in float" in text
    assert "100.0 % in onnxruntime" in text
    assert (tmp_path / "to" / BOX).is_file()


def test_export_as_json(run, own):
    written = run("export", own, "--target", "int4", "--json")
    (file,) = json.loads(written.out)["files"]
    assert file["target"] == "int4"
    assert file["bytes"] == (own / "model.int4.onnx").stat().st_size


def test_quantize_exports_at_its_end(run, saved, tmp_path):
    written = run(
        *("quantize", f"{saved.parent / 'nets.py'}:Network", "--input", "3x16x16"),
        *("--weights", saved.parent / "weights.safetensors"),
        *("--mean", "0.5,0.4,0.3", "--std", "0.25,0.2,0.2", "--iterations", "8"),
        *("--method", "adadfq"),
        *(
            "--placement",
            "layer-input",
            "--elementwise",
            "8",
            "--out",
            tmp_path / "out",
            "--export",
        ),
        "--json",
    )
    exported = json.loads(written.out)["exported"]
    assert [file["target"] for file in exported] == ["int8box", "int4"]
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["protocol"]["joins"] == manifest["protocol"]["image"] == 8
    assert {BOX, "model.int4.onnx"} <= set(manifest["files"])


def test_a_network_that_no_exporter_takes_is_refused_before_training(
    refused, untraceable, tmp_path
):
    message = refused(
        *("quantize", f"{untraceable.parent / 'nets.py'}:Network", "--input", "3x16x16"),
        *("--weights", untraceable.parent / "weights.safetensors"),
        *("--mean", "0.5,0.4,0.3", "--std", "0.25,0.2,0.2"),
        *("--out", tmp_path / "out", "--export"),
    )
    assert message.startswith("error: the network cannot be exported: ")
    assert not (tmp_path / "out").exists()


# ------------------------------------------------------------------------ evaluate, predict


@pytest.mark.parametrize("form", [["--data"], []])
def test_evaluate_an_exported_file(run, own, data, form):
    file = json.loads(run("evaluate", own / BOX, *form, data, "--json").out)
    student = json.loads(run("evaluate", own, *form, data, "--json").out)
    assert file["n"] == student["n"] == 20
    assert abs(file["top1"] - student["top1"]) <= 5


@pytest.mark.parametrize("target", ["", BOX])
def test_predict_decodes_images_and_normalises_them(run, own, tmp_path, target):
    folder = tmp_path / "images"
    folder.mkdir()
    names = ["a.png", "b.jpg", "c.bmp"]
    paths = [picture(folder, name) for name in names]
    listed = json.loads(run("predict", own / target, *paths, "--json").out)["predictions"]
    assert [found["image"] for found in listed] == [str(path) for path in paths]
    for found in listed:
        shares = [entry["probability"] for entry in found["classes"]]
        assert len(shares) == 3
        assert shares == sorted(shares, reverse=True)
    whole = json.loads(run("predict", own / target, folder, "--json").out)["predictions"]
    assert whole == listed
    lines = run("predict", own / target, *paths, "--top", "1").out.splitlines()
    assert lines[::2] == [str(path) for path in paths]
    assert all(line.endswith(" %") for line in lines[1::2])


@pytest.mark.parametrize(
    ("name", "mode", "note"),
    [
        ("grey.png", "L", "it is grey, but the network expects colour"),
        ("alpha.png", "RGBA", "its transparency is ignored"),
        ("print.jpg", "CMYK", "converted from CMYK to RGB without a colour profile"),
        ("deep.png", "I;16", "its 16 bits per pixel are reduced to 8\n"),
        ("palette.gif", "P", ""),
    ],
)
def test_predict_tells_what_it_did_to_an_image(run, own, tmp_path, name, mode, note):
    path = picture(tmp_path, name, mode)
    written = run("predict", own / BOX, path, "--json")
    assert len(json.loads(written.out)["predictions"]) == 1
    assert written.err.startswith(f"{path}: {note}" if note else "")


def test_predict_takes_the_first_frame_of_an_animation(run, own, tmp_path):
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    written = run("predict", own / BOX, tmp_path / "a.gif", "--json")
    assert "a.gif: only the first of its 2 frames is used\n" in written.err


def test_benchmark_times_both_networks(run, own):
    found = json.loads(run("benchmark", own / BOX, "--runs", "5", "--json").out)
    assert found["runs"] == 5
    for name in ("quantized", "float32"):
        assert 0 < found[name]["p50"] <= found[name]["p90"]
    assert found["speedup"] == pytest.approx(found["float32"]["p50"] / found["quantized"]["p50"])
    written = run("benchmark", own / BOX, "--runs", "5", "--threads", "1", "--batch", "2")
    assert "onnxruntime, 1 threads, batch 2, 5 runs of each, alternating" in written.out
    assert "times as fast as float32" in written.out


def test_a_slower_file_is_said_to_be_and_why(run, own, monkeypatch):
    benchmark = importlib.import_module("dreamquant.export.benchmark")
    times = np.array([[0.002] * 5, [0.001] * 5])
    monkeypatch.setattr(benchmark, "_in_turns", lambda *_: times)
    written = run("benchmark", own / "model.int4.onnx", "--runs", "5")
    assert "0.50 times as fast as float32" in written.out
    assert written.err.startswith(
        "warning: the file is slower than float32\n"
        "warning: an int4 file is made for small size: its weights are unpacked in every run\n"
    )
    monkeypatch.setattr(benchmark, "_has_integer_dot_products", lambda: False)
    assert "warning: this processor has no integer dot products (VNNI)\n" in (
        run("benchmark", own / BOX, "--runs", "5").err
    )


# -------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize("command", ["export", "evaluate", "predict"])
def test_no_result(refused, data, tmp_path, command):
    (tmp_path / "none").mkdir()
    more = {"export": [], "evaluate": [data], "predict": [picture(tmp_path, "a.png")]}[command]
    assert refused(command, tmp_path / "none", *more) == (
        "error: TMP/none is not a result of dreamquant: it has no manifest.json\n"
        "  where:  TMP/none\n"
        "  remedy: give the --out folder of a finished run\n"
    )
    assert not list((tmp_path / "none").iterdir())


@pytest.mark.parametrize("damage", ["cut off", "tampered with"])
def test_a_damaged_student(refused, copied, damage):
    student = copied / "student.safetensors"
    content = bytearray(student.read_bytes())
    content[-10] ^= 1
    student.write_bytes(content if damage == "tampered with" else content[:-40])
    message = refused("export", copied)
    told = {
        "cut off": "error: student.safetensors is not a complete safetensors file: ",
        "tampered with": "error: student.safetensors is not the file that the manifest describes",
    }
    assert message.startswith(told[damage])
    assert message.endswith("  remedy: quantize again or restore a copy\n")
    assert {path.name for path in copied.iterdir()} == {"manifest.json", "student.safetensors"}


@pytest.mark.parametrize("target", ["int8box", "pt2"])
def test_a_network_that_no_exporter_takes(refused, untraceable, target):
    message = refused("export", untraceable, "--target", target)
    assert message.startswith("error: the network cannot be exported: ")
    assert "  where:  Network\n  remedy: write that part of its forward pass with" in message
    assert {path.name for path in untraceable.iterdir()} == {"manifest.json", "student.safetensors"}


@pytest.mark.parametrize("files", [None, [BOX], {BOX: {}}])
def test_a_damaged_record_of_the_file(refused, own, data, files):
    manifest = json.loads((own / "manifest.json").read_text())
    (own / "manifest.json").write_text(json.dumps(manifest | {"files": files}))
    message = refused("evaluate", own / BOX, data)
    assert message.startswith("error: the manifest's section 'files' is damaged: ")


def test_a_sound_file_that_is_not_what_it_says(refused, own, data, tmp_path):
    import onnx

    model = onnx.load(own / BOX)
    (told,) = [entry for entry in model.metadata_props if entry.key == "dreamquant.input"]
    told.value = told.value.replace("[3, 16, 16]", "[3, 20, 20]")
    onnx.save(model, tmp_path / "alone.onnx")
    message = refused("evaluate", tmp_path / "alone.onnx", data)
    assert message.startswith("error: onnxruntime cannot run the file: ")


@pytest.mark.parametrize("command", ["evaluate", "predict", "benchmark"])
def test_a_file_tampered_with(refused, own, data, command):
    file = own / BOX
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    more = {"evaluate": [data], "predict": [data], "benchmark": []}[command]
    assert refused(command, file, *more) == (
        f"error: {BOX} is not the file that the manifest describes: its checksum differs\n"
        f"  where:  TMP/out/{BOX}\n"
        "  remedy: export it again or restore a copy\n"
    )


@pytest.mark.parametrize("content", [b"", b"hello", None], ids=["empty", "text", "cut off"])
def test_no_whole_onnx_file(refused, own, data, tmp_path, content):
    file = tmp_path / "alone.onnx"
    whole = (own / BOX).read_bytes()
    file.write_bytes(whole[: len(whole) // 2] if content is None else content)
    message = refused("evaluate", file, data)
    assert message.startswith("error: alone.onnx is not a complete ONNX file: ")
    assert message.endswith(
        "  where:  TMP/alone.onnx\n  remedy: export it again or restore a copy\n"
    )


def test_no_such_file(refused, data, tmp_path):
    assert refused("evaluate", tmp_path / "none.onnx", data) == (
        "error: the file cannot be read: No such file or directory\n"
        "  where:  TMP/none.onnx\n"
        "  remedy: check the path\n"
    )


def test_a_file_of_another_tool(refused, own, data, tmp_path):
    import onnx

    model = onnx.load(own / BOX)
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "other.onnx")
    assert refused("evaluate", tmp_path / "other.onnx", data) == (
        "error: the file does not describe its input\n"
        "  where:  TMP/other.onnx\n"
        "  remedy: give a file that `dreamquant export` wrote; `dreamquant evaluate` takes "
        "others, in float, with --mean and --std\n"
    )


def test_images_that_are_none(refused, own, tmp_path):
    (tmp_path / "cat.png").write_bytes(b"hello")
    assert refused("predict", own / BOX, tmp_path / "cat.png") == (
        "error: the image cannot be read: its format is not known\n"
        "  where:  TMP/cat.png\n"
        "  remedy: replace or remove it; known are BMP, GIF, JPEG, PNG, PPM, TIFF, WEBP\n"
    )
    whole = picture(tmp_path, "half.png")
    whole.write_bytes(whole.read_bytes()[:500])
    message = refused("predict", own / BOX, whole)
    assert message.startswith("error: the image cannot be read: ")
    assert "  where:  TMP/half.png\n" in message
    assert refused("predict", own / BOX, tmp_path / "dog.png") == (
        "error: the image does not exist\n  where:  TMP/dog.png\n  remedy: check the path\n"
    )
    (tmp_path / "empty").mkdir()
    for arguments in ([], [tmp_path / "empty"]):
        assert refused("predict", own / BOX, *arguments) == (
            "error: there are no images\n"
            "  where:  IMAGES\n"
            "  remedy: give image files, or folders of them\n"
        )


def test_images_given_twice_or_never(refused, own, data):
    assert refused("evaluate", own / BOX) == (
        "error: no images are given for the evaluation\n"
        "  where:  dreamquant evaluate\n"
        "  remedy: give --data IMAGES\n"
    )
    assert "images are given twice" in refused("evaluate", own / BOX, data, "--data", data)


@pytest.mark.parametrize(
    ("command", "package", "extra"),
    [
        (["export"], "onnxruntime", "export"),
        (["export"], "onnxscript", "export"),
        (["evaluate", "data.npz"], "onnxruntime", "export"),
        (["predict", "a.png"], "onnx", "export"),
        (["benchmark", "--runtime", "openvino"], "openvino", "openvino"),
    ],
)
def test_a_missing_package(refused, own, monkeypatch, command, package, extra):
    monkeypatch.setitem(sys.modules, package, None)
    target = own if command[0] == "export" else own / BOX
    message = refused(command[0], target, *command[1:])
    assert message.startswith(f"error: {package} cannot be used: ")
    assert message.endswith(f"  remedy: pip install 'dreamquant[{extra}]'\n")


def test_a_long_run_is_not_begun_where_its_result_could_not_be_exported(
    refused, monkeypatch, tmp_path
):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    message = refused("quantize", "torchvision:resnet18", "--out", tmp_path / "out", "--export")
    assert message.startswith("error: onnxscript cannot be used: ")
    assert not (tmp_path / "out").exists()


def test_openvino_may_be_missing(run, own, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    (file,) = json.loads(run("export", own, "--target", "int8box", "--json").out)["files"]
    assert list(file["verification"]["agreement"]) == ["onnxruntime"]


@pytest.mark.parametrize("option", ["--runs", "--batch", "--threads"])
def test_numbers_that_are_none(refused, own, option):
    assert refused("benchmark", own / BOX, option, "0") == (
        f"error: {option} is 0\n  where:  {option}\n  remedy: give 1 or more\n"
    )


def test_a_folder_that_cannot_be_made(refused, own, tmp_path):
    (tmp_path / "file").write_text("")
    message = refused("export", own, "--to", tmp_path / "file")
    assert message.startswith("error: cannot make the folder: ")
