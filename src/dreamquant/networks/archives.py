"""Zip archives, which npz and torch files are: none is read that unpacks to far more than it is."""

from __future__ import annotations

import zipfile
from pathlib import Path

# Images and weights hardly compress: a fourfold is rare, a bomb reaches a thousandfold.
_MOST, _ORDINARY = 64, 2**26


def require_no_bomb(path: Path) -> None:
    """Refuse a file whose members would take more memory than its size accounts for.

    Members that lie over each other count each, files that are no zip archive not at all.

    Raises:
        ValueError: it is a decompression bomb.
        BadZipFile: it is damaged.
        OSError: it cannot be read.
    """
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(member.file_size for member in archive.infolist())
    if unpacked > max(_ORDINARY, _MOST * path.stat().st_size):
        raise ValueError(f"{path.name} would unpack to {unpacked} bytes")
