"""Predictions of a student or an exported file for image files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from dreamquant.errors import DataError
from dreamquant.evaluation.data import normalised
from dreamquant.evaluation.decoding import FORMATS, Pixels, decode_file
from dreamquant.evaluation.files import SUFFIXES, Extent
from dreamquant.export.prediction import Prediction, tell
from dreamquant.networks.found import Boxes
from dreamquant.networks.spec import InputSpec

_BATCH = 32
_CONVERTED = {
    "CMYK": "converted from CMYK to RGB without a colour profile",
    "RGBA": "its transparency is ignored",
    "LA": "its transparency is ignored",
    "PA": "its transparency is ignored",
}


@dataclass(frozen=True)
class Picture:
    """An image file, decoded for the network.

    Attributes:
        path: path of the file.
        pixels: uint8 (H, W, C) of the network's size.
        notes: conversions that may change its class.
    """

    path: Path
    pixels: Pixels
    notes: tuple[str, ...]


def read_pictures(paths: Sequence[Path], spec: InputSpec) -> list[Picture]:
    """Read the image files at ``paths``; they are scaled and cropped like in evaluation.

    Args:
        paths: image files, or folders of them.
        spec: input of the network.

    Raises:
        DataError: there is no image, or an image cannot be read.
    """
    files = [file for path in paths for file in _files(path)]
    if not files:
        raise DataError(
            "there are no images", where="IMAGES", remedy="give image files, or folders of them"
        )
    return [_read(file, spec) for file in files]


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    return sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES)


def _read(path: Path, spec: InputSpec) -> Picture:
    if len(spec.shape) != 3 or spec.shape[0] not in (1, 3):
        raise DataError(
            "image files have 1 or 3 channels, but the network takes "
            + " x ".join(map(str, spec.shape)),
            where=str(path),
            remedy="give an .npz to `dreamquant evaluate`",
        )
    if not path.is_file():
        raise DataError("the image does not exist", where=str(path), remedy="check the path")
    pixels = decode_file(Extent(path, 0, -1, str(path)), spec)
    return Picture(path, pixels, _notes(path, spec))


def _notes(path: Path, spec: InputSpec) -> tuple[str, ...]:
    with Image.open(path, formats=FORMATS) as image:
        frames, mode = getattr(image, "n_frames", 1), image.mode
    notes = [_CONVERTED[mode]] if mode in _CONVERTED else []
    if mode.startswith("I"):
        notes.append("its 16 bits per pixel are reduced to 8")
    if mode in ("1", "L", "LA", "I", "I;16") and spec.shape[0] == 3:
        notes.append("it is grey, but the network expects colour")
    if frames > 1:
        notes.append(f"only the first of its {frames} frames is used")
    return tuple(notes)


def predict(
    model: nn.Module,
    pictures: Sequence[Picture],
    spec: InputSpec,
    *,
    top: int,
    boxes: Boxes | None = None,
) -> list[Prediction]:
    """The prediction for each picture.

    Args:
        model: function from normalised images (B, C, H, W) to outputs.
        pictures: pictures of :func:`read_pictures`.
        spec: input and outputs of the network.
        top: number of classes or boxes; all, if there are fewer.
        boxes: converts outputs to boxes.

    Raises:
        DataError: ``top`` is below 1.
    """
    if top < 1:
        raise DataError(f"{top} classes are too few", where="--top", remedy="give 1 or more")
    found: list[Prediction] = []
    for start in range(0, len(pictures), _BATCH):
        few = pictures[start : start + _BATCH]
        images = normalised(np.stack([picture.pixels for picture in few]), spec)
        with torch.inference_mode():
            told = tell(model(images), spec, top, boxes)
        found += [replace(each, path=picture.path) for picture, each in zip(few, told, strict=True)]
    return found
