"""This machine: its processor, the instruction sets that matter here, and how memory is kept."""

from __future__ import annotations

import ctypes
import os
import platform
from functools import lru_cache
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")
_VNNI = frozenset({"avx512_vnni", "avx_vnni"})
_BFLOAT16 = frozenset({"avx512_bf16", "amx_bf16", "bf16"})  # the last is Arm's
_NOTABLE = frozenset({"avx2", "avx512f", "amx_int8", "asimddp", "i8mm"})

# Options of the GNU C library's mallopt, <malloc.h>, and what they get.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_KEPT, _LARGEST_BLOCK = 2**31 - 1, 2**30


def keep_freed_memory() -> bool:
    """Let this process use the memory of freed tensors again, up to 2 GiB.

    The GNU C library returns blocks beyond 32 MiB to the system at once. The next tensor of that
    size then gets new pages, which the system fills with zeros one by one: at 224 pixels and 32
    images most of the time of a forward pass.

    Returns:
        Whether it was done: not with other C libraries, nor where the user has set ``MALLOC_*``.
    """
    options = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if options is None or any(name.startswith("MALLOC_") for name in os.environ):
        return False
    set_block = options(_MMAP_THRESHOLD, _LARGEST_BLOCK)
    return bool(set_block and options(_TRIM_THRESHOLD, _KEPT))


@lru_cache
def flags() -> frozenset[str]:
    """Instruction sets as Linux names them; none where the system does not tell."""
    return frozenset(" ".join(_values("flags") + _values("Features")).split())


def has_vnni() -> bool:
    """Whether an x86 processor adds products of 8-bit integers in 32 bits."""
    return bool(flags() & _VNNI)


def has_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 in hardware."""
    return bool(flags() & _BFLOAT16)


def instruction_sets() -> tuple[str, ...]:
    """Those among the flags that decide how fast and how exact integers and bfloat16 are."""
    return tuple(sorted(flags() & (_NOTABLE | _VNNI | _BFLOAT16)))


def processor() -> str:
    """The processor's name."""
    named = _values("model name")
    return named[0] if named else platform.processor() or platform.machine()


def described() -> str:
    """The processor and what it lacks, in words."""
    if not flags():
        return processor()
    vnni = "with VNNI" if has_vnni() else "without VNNI"
    return f"{processor()}, {vnni}"


def _values(field: str) -> list[str]:
    """The values of a field of the first processor listed."""
    if not _CPUINFO.is_file():
        return []
    first = _CPUINFO.read_text().partition("\n\n")[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return [value.strip() for name, _, value in pairs if name.strip() == field]
