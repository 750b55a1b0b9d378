"""Runs a command as on a processor with fewer instruction sets, at this processor's full speed.

    .venv/bin/python tools/as_processor.py avx2 make test
    .venv/bin/python tools/as_processor.py avx512 .venv/bin/dreamquant doctor

Libraries ask a processor for its instruction sets by the instruction ``cpuid``. Here the libraries
of this Python environment are replaced, for the command alone, by copies in which ``cpuid`` traps,
and a handler answers with fewer. ``/proc/cpuinfo`` is replaced as well. Nothing keeps a program
from using the other instructions without asking, and the C library still uses them to copy memory.

Needs Linux on x86, gcc, objdump and unshare. The copies lie in ``out/processors``; the first call
takes a minute or two to make them.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import struct
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from pathlib import Path

# Those that compute. A library is patched where it is a file of its own in one of them.
PACKAGES = ("torch", "onnxruntime", "openvino", "numpy", "numpy.libs", "scipy", "scipy.libs")
_UNUSED = re.compile(r"cuda|_gpu_|_npu_|nvshmem")
OUT = Path("out/processors").absolute()
CPUID, TRAP = b"\x0f\xa2", b"\xcc\x90"
_CPUINFO = Path("/proc/cpuinfo")

_BEYOND_AVX512 = {
    "ecx": {"avx512_vnni": 11},
    "edx": {
        "avx512_4vnniw": 2,
        "avx512_4fmaps": 3,
        "amx_bf16": 22,
        "avx512_fp16": 23,
        "amx_tile": 24,
        "amx_int8": 25,
    },
}
_BEYOND_AVX2 = {
    "ebx": {
        "avx512f": 16,
        "avx512dq": 17,
        "avx512ifma": 21,
        "avx512pf": 26,
        "avx512er": 27,
        "avx512cd": 28,
        "avx512bw": 30,
        "avx512vl": 31,
    },
    "ecx": {
        **_BEYOND_AVX512["ecx"],
        "avx512vbmi": 1,
        "avx512_vbmi2": 6,
        "gfni": 8,
        "vaes": 9,
        "vpclmulqdq": 10,
        "avx512_bitalg": 12,
        "avx512_vpopcntdq": 14,
    },
    "edx": {**_BEYOND_AVX512["edx"], "avx512_vp2intersect": 8},
}
# What each kind lacks: names as Linux prints them, with their bits in leaf 7 of cpuid.
KINDS: dict[str, Mapping[str, Mapping[str, int]]] = {"avx2": _BEYOND_AVX2, "avx512": _BEYOND_AVX512}
# Of the further parts of leaf 7, which are taken away whole.
_FURTHER = frozenset({"avx_vnni", "avx512_bf16", "amx_fp16", "avx_ifma"})

# Replaces files within a name space of mounts, which ends with the command.
_REPLACE = """
while read -r copy original; do mount --bind "$copy" "$original" || exit 1; done < "$1"
shift
exec "$@"
"""


def libraries() -> Iterator[Path]:
    """Shared libraries of this environment that compute."""
    site = Path(sysconfig.get_path("platlib"))
    for package in PACKAGES:
        for path in sorted((site / package).rglob("*.so*")):
            if not path.is_symlink() and not _UNUSED.search(str(path.relative_to(site))):
                yield path


def patched(library: Path) -> Path | None:
    """A copy of a library without ``cpuid``; ``None`` if it has none. Kept while it is newer."""
    copy = OUT / "libraries" / str(library).lstrip("/")
    if not copy.exists() or copy.stat().st_mtime < library.stat().st_mtime:
        copy.parent.mkdir(parents=True, exist_ok=True)
        content = bytearray(library.read_bytes())
        places = list(_places(library, content)) if CPUID in content else []
        for place in places:
            content[place : place + len(TRAP)] = TRAP
        copy.write_bytes(content if places else b"")
    return copy if copy.stat().st_size else None


def _places(library: Path, content: bytearray) -> Iterator[int]:
    """Where in a file the instruction is, and not two bytes of another or of data."""
    command = ["objdump", "--disassemble", "--no-show-raw-insn", str(library)]
    segments = list(_segments(content))
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.endswith("cpuid\n"):
                address = int(line.partition(":")[0], 16)
                place = next(
                    offset + address - start
                    for start, offset, size in segments
                    if start <= address < start + size
                )
                assert content[place : place + len(CPUID)] == CPUID
                yield place
    if process.returncode != 0:
        raise SystemExit(f"objdump cannot read {library}")


def _segments(content: bytearray) -> Iterator[tuple[int, int, int]]:
    """Address, place in the file and size of what a 64-bit ELF file loads."""
    (table,) = struct.unpack_from("<Q", content, 32)
    size, count = struct.unpack_from("<HH", content, 54)
    for index in range(count):
        kind, _, offset, address, _, length = struct.unpack_from(
            "<IIQQQQ", content, table + size * index
        )
        if kind == 1:  # PT_LOAD
            yield address, offset, length


def handler(kind: str) -> Path:
    """The library that answers instead of the processor."""
    masks = {
        register: sum(1 << bit for bit in KINDS[kind].get(register, {}).values())
        for register in ("ebx", "ecx", "edx")
    }
    library = OUT / kind / "cpuid.so"
    library.parent.mkdir(parents=True, exist_ok=True)
    source = Path(__file__).with_name("cpuid.c")
    defined = [f"-DWITHOUT_{register.upper()}={mask}u" for register, mask in masks.items()]
    command = ["gcc", "-O2", "-shared", "-fPIC", *defined, str(source), "-o", str(library)]
    subprocess.run(command, check=True)
    return library


def cpuinfo(kind: str, text: str) -> str:
    """What ``/proc/cpuinfo`` says on a kind of processor, from what it says here."""
    lacking = _FURTHER.union(*KINDS[kind].values())
    lines = [
        " ".join(word for word in line.split(" ") if word not in lacking)
        if line.startswith("flags")
        else line
        for line in text.split("\n")
    ]
    return "\n".join(lines)


def main() -> None:
    """Prepare the copies and become the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kind", choices=KINDS, help="the most that the processor has")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    given = parser.parse_args()
    if missing := [tool for tool in ("gcc", "objdump", "unshare") if not shutil.which(tool)]:
        raise SystemExit(f"not installed: {', '.join(missing)} (Debian: gcc, binutils, util-linux)")
    told = OUT / given.kind / "cpuinfo"
    preloaded = handler(given.kind)
    told.write_text(cpuinfo(given.kind, _CPUINFO.read_text()))
    pairs = [(copy, library) for library in libraries() if (copy := patched(library)) is not None]
    for copy, _ in pairs:
        copy.read_bytes()  # whole, once: programs read them page by page, minutes on a slow disk
    listed = OUT / given.kind / "replaced"
    listed.write_text("".join(f"{copy} {file}\n" for copy, file in [*pairs, (told, _CPUINFO)]))
    root = [] if os.geteuid() == 0 else ["--map-root-user"]
    environment = os.environ | {
        "LD_PRELOAD": str(preloaded),
        # Graphs compiled for fewer instruction sets crash programs that take them from the cache.
        "TORCHINDUCTOR_CACHE_DIR": str(OUT / "compiled"),
    }
    command = ["unshare", "--mount", *root, "sh", "-c", _REPLACE, "sh", str(listed), *given.command]
    sys.stdout.flush()
    os.execvpe("unshare", command, environment)


if __name__ == "__main__":
    main()
