import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from dreamquant import machine

ZEN4 = """processor	: 0
model name	: Some Processor 9
flags		: fpu avx2 avx512f avx512_vnni avx512_bf16

processor	: 1
model name	: Another
flags		: fpu amx_bf16
"""
HASWELL = "processor	: 0\nmodel name	: Some Processor 4\nflags		: fpu avx avx2\n"
ARM = "processor	: 0\nFeatures	: fp asimd asimddp bf16 i8mm\n"


@pytest.fixture
def on(monkeypatch, tmp_path):
    """Pretend to run on the processor that a text of Linux describes."""

    def pretend(text):
        (tmp_path / "cpuinfo").write_text(text)
        monkeypatch.setattr(machine, "_CPUINFO", tmp_path / "cpuinfo")
        machine.flags.cache_clear()

    yield pretend
    monkeypatch.undo()
    machine.flags.cache_clear()


@pytest.mark.parametrize(
    ("text", "vnni", "bfloat16", "sets"),
    [
        (ZEN4, True, True, ("avx2", "avx512_bf16", "avx512_vnni", "avx512f")),
        (HASWELL, False, False, ("avx2",)),
        (ARM, False, True, ("asimddp", "bf16", "i8mm")),
    ],
)
def test_instruction_sets(on, text, vnni, bfloat16, sets):
    on(text)
    assert (machine.has_vnni(), machine.has_bfloat16()) == (vnni, bfloat16)
    assert machine.instruction_sets() == sets


@pytest.mark.parametrize(
    ("text", "told"),
    [(ZEN4, "Some Processor 9, with VNNI"), (HASWELL, "Some Processor 4, without VNNI")],
)
def test_the_processor_in_words(on, text, told):
    on(text)
    assert machine.described() == told


def test_a_system_that_tells_nothing(on, monkeypatch):
    on("")
    monkeypatch.setattr(machine, "_CPUINFO", Path("nowhere"))
    assert machine.flags() == frozenset()
    assert machine.described() == machine.processor() != ""


FAULTS = """
import ctypes, importlib.util, resource, sys

found = importlib.util.spec_from_file_location("machine", sys.argv[1])
machine = importlib.util.module_from_spec(found)
found.loader.exec_module(machine)
library, size = ctypes.CDLL(None), 64 * 2**20
library.malloc.restype = ctypes.c_void_p

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = ctypes.c_void_p(library.malloc(size))
    ctypes.memset(block, 1, size)
    library.free(block)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

usual = [faults(), faults()]
print(machine.keep_freed_memory(), *usual, faults(), faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="not the GNU C library")
def test_freed_memory_is_used_again():
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")}
    command = [sys.executable, "-c", FAULTS, machine.__file__]
    kept = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    done, first, second, third, fourth = kept.stdout.split()
    assert done == "True"
    # Every block of 64 MiB has new pages, until the second one after the call.
    assert min(int(first), int(second), int(third)) > 20 * int(fourth)
    environment["MALLOC_ARENA_MAX"] = "2"
    own = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert own.stdout.split()[0] == "False"
