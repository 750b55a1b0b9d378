"""Exported files on processors without VNNI: emulated ones, and kernels without VNNI."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from dreamquant import machine

pytest.importorskip("onnxruntime")
runtime = importlib.import_module("dreamquant.export.runtime")
EMULATOR = "qemu-x86_64"

# Without PyTorch, which an emulator takes half a minute to import.
CODE = """
import sys
import numpy as np
name, file, images, logits, exact = sys.argv[1:]
if name == "onnxruntime":
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    if exact == "exact":
        options.add_session_config_entry("session.x64quantprecision", "1")
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    found = session.run(None, {"images": np.load(images)})[0]
else:
    import openvino
    core = openvino.Core()
    options = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    found = core.compile_model(core.read_model(file), "CPU", options)(np.load(images))[0]
np.save(logits, found)
"""


@pytest.fixture(scope="module")
def files(with_range):
    return {weights_range: with_range(weights_range).data for weights_range in ("safe", "full")}


def run(name, data, images, folder, *before, exact=False, **environment):
    """Logits of a file, computed in a process of its own."""
    (folder / "file.onnx").write_bytes(data)
    np.save(folder / "images.npy", images)
    last = "exact" if exact else "fast"
    paths = [str(folder / each) for each in ("file.onnx", "images.npy", "logits.npy")]
    command = [*before, sys.executable, "-c", CODE, name, *paths, last]
    done = subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return np.load(folder / "logits.npy")


def emulator(model):
    """The command that runs another as on a processor; skips where there is none."""
    if shutil.which(EMULATOR) is None:
        pytest.skip(f"{EMULATOR} is not installed (Debian: qemu-user)")
    if not machine.flags() & {"sse2"}:
        pytest.skip("this processor is not x86")
    return [EMULATOR, "-cpu", model]


def pictures():
    # Large ones, so that many codes are.
    return 4 * np.random.default_rng(0).standard_normal((8, 3, 16, 16), np.float32)


def deviation(found, wanted):
    return np.abs(found - wanted).max() / np.abs(wanted).max()


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_a_safe_file_is_right_with_avx2_alone_and_a_full_one_is_not(files, tmp_path, name):
    pytest.importorskip(name)
    before, images = emulator("Haswell-noTSX"), pictures()
    exactly = {
        weights_range: runtime.OrtSession(data, threads=1, exact=True).run(
            {"images": images}, ["logits"]
        )[0]
        for weights_range, data in files.items()
    }
    assert deviation(run(name, files["safe"], images, tmp_path, *before), exactly["safe"]) < 0.01
    assert deviation(run(name, files["full"], images, tmp_path, *before), exactly["full"]) > 0.02
    if name == "onnxruntime":
        slower = run(name, files["full"], images, tmp_path, *before, exact=True)
        assert deviation(slower, exactly["full"]) < 0.01


@pytest.mark.parametrize(("kernels", "needed"), [("AVX2", "avx2"), ("AVX512_CORE", "avx512f")])
def test_a_safe_file_is_right_in_kernels_without_vnni(files, tmp_path, kernels, needed):
    pytest.importorskip("openvino")
    if needed not in machine.flags():
        pytest.skip(f"this processor has no {needed}")
    images = pictures()
    wanted = runtime.OrtSession(files["safe"], threads=1).run({"images": images}, ["logits"])[0]
    found = run("openvino", files["safe"], images, tmp_path, ONEDNN_MAX_CPU_ISA=kernels)
    assert deviation(found, wanted) < 0.01
    wanted = runtime.OrtSession(files["full"], threads=1, exact=True).run(
        {"images": images}, ["logits"]
    )[0]
    found = run("openvino", files["full"], images, tmp_path, ONEDNN_MAX_CPU_ISA=kernels)
    assert deviation(found, wanted) > 0.02
