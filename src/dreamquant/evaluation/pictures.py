"""Pictures without labels, read one by one as the network sees them."""

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
        count: how many.
        one: gives the pixels or features of one.
        spec: what the network expects.
        sha256: of their names and sizes.
    """

    count: int
    one: Callable[[int], Values]
    spec: InputSpec
    sha256: str

    @property
    def targets(self) -> None:
        """None: nobody told them."""
        return

    def __len__(self) -> int:
        """Number of images."""
        return self.count

    def read(self, rows: Sequence[int]) -> Tensor:
        """Images (B, ...) of these rows, normalised, float32.

        Raises:
            DataError: an image file cannot be decoded; it is named.
        """
        return normalised(np.stack([self.one(row) for row in rows]), self.spec)


def open_pictures(source: Path, spec: InputSpec) -> Pictures:
    """Pictures in a folder, at any depth, or in a tar; or the images or features of an ``.npz``.

    Files are scaled and cropped as those that a network is measured on, see
    :func:`dreamquant.evaluation.data.open_images`.

    Raises:
        DataError: no picture is found, or the pictures have another form or do not fit the network.
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
            "image files have 1 or 3 channels, and the network takes something else",
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
