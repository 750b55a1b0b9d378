"""Runtimes in a process that continues."""

from __future__ import annotations

import subprocess
import sys

import pytest

_INTERRUPTED_LATER = """
import gc, signal, threading
import onnx
from onnx import TensorProto, helper
from dreamquant.export.runtime import RUNTIMES

value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])
logits = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])
graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [value], [logits])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
sessions = [RUNTIMES["{runtime}"](model.SerializeToString(), threads=1)]

def forget():
    sessions.clear()
    gc.collect()

thread = threading.Thread(target=forget)
thread.start()
thread.join()
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_ctrl_c_is_no_crash_after_a_session_ended_in_another_thread(runtime):
    pytest.importorskip(runtime)
    program = _INTERRUPTED_LATER.format(runtime=runtime)
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout.strip()) == (0, "interrupted"), ended.stderr
