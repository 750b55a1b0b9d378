"""Finds image files and label files in folders and tars."""

from __future__ import annotations

import errno
import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from dreamquant.errors import DataError

LABELS_FILE = PurePosixPath("labels.csv")
BOXES_FILE = "boxes.csv"
SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
MAX_FILE_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Extent:
    """The bytes of one file: a whole file on disk, or a part of an uncompressed tar.

    Attributes:
        path: path of the file or the tar.
        offset: position of the first byte.
        size: number of bytes; -1 for all.
        place: name of the file in errors.
    """

    path: Path
    offset: int
    size: int
    place: str

    def read(self) -> bytes:
        """Read the bytes.

        Raises:
            OSError: they cannot be read, or the path is not a regular file (opening a pipe would
                    wait for ever).
        """
        if not self.path.is_file():
            raise OSError(errno.EINVAL, "it is not a regular file")
        with self.path.open("rb") as file:
            file.seek(self.offset)
            return file.read(self.size)


Files = dict[PurePosixPath, Extent]


def folder_files(root: Path) -> Files:
    """The images and label files in a folder and its subfolders, sorted by relative path."""
    found = [Path(folder, name) for folder, names in _walk(root) for name in names]
    files = {
        PurePosixPath(path.relative_to(root).as_posix()): Extent(path, 0, -1, str(path))
        for path in found
    }
    return {name: files[name] for name in sorted(files) if _is_wanted(name)}


def _walk(root: Path) -> Iterator[tuple[str, list[str]]]:
    """Every folder once, with the names of its files; circular links are handled."""
    known: set[tuple[int, int]] = set()
    # Class folders are often links; torchvision follows them too.
    for folder, folders, names in os.walk(root, followlinks=True):
        status = Path(folder).stat()
        if (status.st_dev, status.st_ino) in known:
            folders.clear()
            continue
        known.add((status.st_dev, status.st_ino))
        yield folder, names


def tar_files(path: Path) -> Files:
    """The images and label files of an uncompressed tar, and their positions.

    Nothing is extracted, so names in the tar cannot do harm.

    Raises:
        DataError: the tar is damaged or compressed, or a member is too large.
    """
    try:
        # "r:" refuses compression, because batches need random access.
        with tarfile.open(path, "r:") as tar:
            members = [m for m in tar if m.isreg() and not m.issparse()]
    # A damaged header raises TarError, OverflowError, MemoryError and others.
    except Exception as error:
        raise DataError(
            f"the tar cannot be read: {error}",
            where=str(path),
            remedy="make it again with `tar cf`; a compressed tar must be decompressed first",
        ) from error
    files: Files = {}
    for member in members:
        name = _plain_name(member.name)
        if not _is_wanted(name):
            continue
        if not 0 <= member.size <= MAX_FILE_BYTES:
            raise DataError(
                f"a member has {member.size} bytes, more than the limit of {MAX_FILE_BYTES}",
                where=f"{path}: {member.name}",
                remedy="leave the file out, or save a smaller image",
            )
        files[name] = Extent(path, member.offset_data, member.size, f"{path}: {name}")
    return files


def _is_wanted(name: PurePosixPath) -> bool:
    # Names with a leading dot: file browsers write such files beside images ("._cat.png").
    if name.name.startswith("."):
        return False
    if name.suffix == ".txt":
        return "labels" in name.parts[:-1]  # boxes in the format of YOLO
    return name.suffix.lower() in SUFFIXES or name.name in (LABELS_FILE.name, BOXES_FILE)


def _plain_name(name: str) -> PurePosixPath:
    return PurePosixPath(*(part for part in name.split("/") if part not in ("", ".", "..")))
