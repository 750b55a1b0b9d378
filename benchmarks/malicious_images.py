"""Malicious images: arrays and tar files that are damaged, huge or wrongly described."""

from __future__ import annotations

import io
import tarfile
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st
from PIL import Image

from malice import CANARY, Malicious, bomb, damaged


def arrays(folder: Path) -> st.SearchStrategy[bytes]:
    """Archives of NumPy."""
    whole = _archive(images=np.zeros((6, 8, 8, 1), np.uint8), labels=np.arange(6) % 5)
    evil = np.array([Malicious(folder / CANARY)], dtype=object)
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|u1", "fortran_order": False, "shape": (2**24, 8, 8, 1)}
    )
    fixed = [
        _archive(images=evil),
        _archive(images=np.zeros((6, 8, 8, 1), np.uint8), labels=evil),
        bomb("images.npy", header.getvalue()),
    ]
    return damaged(whole) | st.sampled_from(fixed) | _arrays() | _headers()


def _archive(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


@st.composite
def _arrays(draw: st.DrawFn) -> bytes:
    """Arrays of other types, shapes and names."""
    types = ("u1", "i1", "f4", "f8", "?", "c16", "U3", "S2", "M8[s]", "V4", "i8")
    sizes = st.lists(st.sampled_from((0, 1, 5, 8)), max_size=5)
    images = np.zeros(draw(st.just([5, 8, 8, 1]) | sizes), draw(st.sampled_from(types)))
    labels = np.zeros(draw(st.just([5]) | sizes), draw(st.sampled_from(types)))
    if labels.dtype.kind in "if":
        labels += draw(st.integers(-2, 9))
    name = draw(st.sampled_from(("images", "labels", "../../images", "x")))
    return _archive(
        **{"images": images, "labels": labels, name: draw(st.sampled_from((images, labels)))}
    )


@st.composite
def _headers(draw: st.DrawFn) -> bytes:
    """An array whose header has the wrong size or type."""
    shape = draw(st.lists(st.sampled_from((-1, 0, 1, 8, 2**20, 2**40, 2**62)), max_size=5))
    kind = draw(st.sampled_from(("|u1", "<f8", "|O", "<U99999", "[('a', '<f8')]", "x", "<i3")))
    text = f"{{'descr': {kind!r}, 'fortran_order': False, 'shape': {tuple(shape)}, }}\n".encode()
    array = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + bytes(64)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("images.npy", array)
    return buffer.getvalue()


@st.composite
def tars(draw: st.DrawFn) -> bytes:
    """Tar files with paths outside the folder, special members, damaged and huge images."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for _ in range(draw(st.integers(0, 5))):
            content = draw(_members())
            info = tarfile.TarInfo(draw(_names()))
            info.type = draw(st.sampled_from((tarfile.REGTYPE,) * 6 + _KINDS))
            info.linkname = draw(st.sampled_from(("/etc/passwd", "../../..", "0/a.png")))
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return draw(st.just(buffer.getvalue()) | damaged(buffer.getvalue()))


_KINDS = (
    tarfile.SYMTYPE,
    tarfile.LNKTYPE,
    tarfile.CHRTYPE,
    tarfile.FIFOTYPE,
    tarfile.GNUTYPE_SPARSE,
)


def _names() -> st.SearchStrategy[str]:
    fixed = ("0/a.png", "1/b.png", "c.png", "labels.csv", "../../up.png", "/etc/x.png", "0/" * 99)
    letters = st.characters(exclude_characters="\0", exclude_categories=["Cs"])
    return st.sampled_from(fixed) | st.text(letters, max_size=9)


def _members() -> st.SearchStrategy[bytes]:
    png = _picture("PNG", (8, 8))
    tables = (
        "file,label\nc.png,0\n",
        "file,label\n../../up.png,1\n",
        "file,label\nc.png," + "9" * 5000,
    )
    return st.one_of(
        st.just(png),
        damaged(png),
        damaged(_picture("GIF", (9, 7))),
        damaged(_picture("TIFF", (9, 7))),
        st.sampled_from([table.encode() for table in tables]),
        st.sampled_from([_huge_png(), _picture("PNG", (1, 3000)), b"%!PS\n", b""]),
        st.binary(max_size=40),
    )


def _picture(kind: str, size: tuple[int, int]) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", size).save(buffer, kind)
    return buffer.getvalue()


def _huge_png() -> bytes:
    """A small file that claims to have 30,000 x 30,000 pixels."""
    data = bytearray(_picture("PNG", (8, 8)))
    data[16:24] = (30_000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    return bytes(data)
