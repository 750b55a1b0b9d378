"""The tool that runs a command as on a processor with fewer instruction sets."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dreamquant import machine

ROOT = Path(__file__).resolve().parents[1]
SOURCE = """
#include <cpuid.h>
unsigned avx2(void) { unsigned a, b, c, d; __cpuid_count(7, 0, a, b, c, d); return b >> 5 & 1; }
unsigned avx512(void) { unsigned a, b, c, d; __cpuid_count(7, 0, a, b, c, d); return b >> 16 & 1; }
unsigned bfloat16(void) { unsigned a, b, c, d; __cpuid_count(7, 1, a, b, c, d); return a >> 5 & 1; }
unsigned number(void) { return 0xa20f; } // the same two bytes, and no instruction
"""
ASK = """
import ctypes, signal, sys
signal.signal(signal.SIGTRAP, signal.SIG_DFL)  # as libraries do that report crashes
library = ctypes.CDLL(sys.argv[1])
print(library.avx2(), library.avx512(), library.bfloat16(), library.number())
"""


@pytest.fixture
def tool(monkeypatch, tmp_path):
    spec = importlib.util.spec_from_file_location("as_processor", ROOT / "tools/as_processor.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "OUT", tmp_path / "out")
    return module


@pytest.fixture
def library(tmp_path):
    if missing := [each for each in ("gcc", "objdump") if shutil.which(each) is None]:
        pytest.skip(f"not installed: {', '.join(missing)}")
    if "avx2" not in machine.flags():
        pytest.skip("this processor has no AVX2")
    (tmp_path / "source.c").write_text(SOURCE)
    path = tmp_path / "library.so"
    command = ["gcc", "-O1", "-shared", "-fPIC", str(tmp_path / "source.c"), "-o", str(path)]
    subprocess.run(command, check=True)
    return path


def test_a_library_is_told_of_fewer_instruction_sets(tool, library):
    def answers(path, kind):
        environment = os.environ | {"LD_PRELOAD": str(tool.handler(kind))}
        command = [sys.executable, "-c", ASK, str(path)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        return [int(each) for each in done.stdout.split()]

    copy = tool.patched(library)
    assert answers(copy, "avx2") == [1, 0, 0, 0xA20F]
    avx2, _, bfloat16, number = answers(copy, "avx512")
    assert (avx2, bfloat16, number) == (1, 0, 0xA20F)
    assert tool.patched(library) == copy  # is kept


def test_flags_of_a_kind_are_those_of_linux_without_the_ones_it_lacks(tool):
    text = "model name\t: A\nflags\t\t: fma avx2 avx512f avx512_vnni avx_vnni\nbugs: x\n"
    avx2 = tool.cpuinfo("avx2", text)
    assert avx2 == "model name\t: A\nflags\t\t: fma avx2\nbugs: x\n"
    assert "avx2 avx512f\n" in tool.cpuinfo("avx512", text)


def test_the_list_of_replaced_libraries_has_those_that_compute(tool):
    names = {path.name for path in tool.libraries()}
    assert "libtorch_cpu.so" in names
    assert not any("cuda" in name for name in names)
