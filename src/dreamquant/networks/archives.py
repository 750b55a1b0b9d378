"""Zip archives (npz and torch files) are refused if they unpack to far more than their size."""

from __future__ import annotations

import zipfile
from pathlib import Path

# Images and weights hardly compress: a factor of 4 is rare. A bomb reaches a factor of 1000.
_MOST, _ORDINARY = 64, 2**26


def require_no_bomb(path: Path) -> None:
    """Refuse a file whose members would take far more memory than the file takes on disk.

    Members that overlap in the file count once each. Files that are not zip archives pass.

    Raises:
        ValueError: the file is a decompression bomb.
        BadZipFile: the file is damaged.
        OSError: the file cannot be read.
    """
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(member.file_size for member in archive.infolist())
    if unpacked > max(_ORDINARY, _MOST * path.stat().st_size):
        raise ValueError(f"{path.name} would unpack to {unpacked} bytes")
