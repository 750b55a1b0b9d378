"""Unlabelled images that are read one by one and converted to the network's input."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from dreamquant.errors import DataError
from dreamquant.evaluation.arrays import Values, read_npz
from dreamquant.evaluation.data import normalised
from dreamquant.evaluation.decoding import decode_file
from dreamquant.evaluation.files import (
    LABELS_FILE,
    Extent,
    folder_files,
    tar_files,
)
from dreamquant.networks.spec import InputSpec

_FORMS = "a folder of images, an uncompressed .tar of them, or an .npz"


@dataclass(frozen=True)
class Pictures:
    """Images in a fixed order, decoded when they are read; labels beside them are not read.

    Attributes:
        count: number of images.
        one: function that returns the pixels or features of one image.
        spec: input of the network.
        sha256: hash of names and sizes.
    """

    count: int
    one: Callable[[int], Values]
    spec: InputSpec
    sha256: str

    @property
    def targets(self) -> None:
        """``None``, because labels are not known."""
        return

    def __len__(self) -> int:
        """Number of images."""
        return self.count

    def read(self, rows: Sequence[int]) -> Tensor:
        """Images (B, ...) of these rows, normalised, float32.

        Raises:
            DataError: an image file cannot be decoded; the message names it.
        """
        return normalised(np.stack([self.one(row) for row in rows]), self.spec)


def open_pictures(source: Path, spec: InputSpec) -> Pictures:
    """Open images of a folder and its subfolders, of a tar, or images or features of an ``.npz``.

    Files are scaled and cropped like in :func:`dreamquant.evaluation.data.open_images`.

    Raises:
        DataError: there are no images, their form is not known, or they do not fit the network.
    """
    if source.suffix == ".npz" and source.is_file():
        values, _ = read_npz(source, spec)
        digest = hashlib.sha256(f"{source.name} {source.stat().st_size}".encode())
        return Pictures(len(values), lambda row: values[row], spec, digest.hexdigest())
    if source.is_dir():
        return _of_files(list(folder_files(source).values()), source, spec)
    if source.suffix == ".tar" and source.is_file():
        return _of_files(list(tar_files(source).values()), source, spec)
    raise DataError("there are no images here", where=str(source), remedy=f"give {_FORMS}")


def _of_files(files: list[Extent], where: Path, spec: InputSpec) -> Pictures:
    if len(spec.shape) != 3 or spec.shape[0] not in (1, 3):
        raise DataError(
            "image files have 1 or 3 channels, but the network takes a different input",
            where=str(where),
            remedy="give an .npz: numpy.savez(file, features=...)",
        )
    found = [file for file in files if not file.place.endswith(LABELS_FILE.name)]
    if not found:
        raise DataError("there are no images here", where=str(where), remedy=f"give {_FORMS}")
    digest = hashlib.sha256()
    for file in found:
        size = file.path.stat().st_size if file.size < 0 else file.size
        digest.update(f"{Path(file.place).name} {size}\n".encode())
    return Pictures(len(found), lambda row: decode_file(found[row], spec), spec, digest.hexdigest())
