"""Evaluation images of any form, read lazily and normalised as the network expects them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dreamquant.errors import DataError
from dreamquant.evaluation.files import (
    Files,
    Pixels,
    decode,
    decode_file,
    folder_files,
    tar_files,
    with_labels,
)
from dreamquant.networks.archives import require_no_bomb
from dreamquant.networks.pixels import normalise
from dreamquant.networks.spec import InputSpec
from dreamquant.networks.torchvision_data import TEST_SPLITS, open_test_split

FORMS = "a folder of images, an .npz, a .tar, or torchvision:NAME:ROOT"


class EvaluationSet:
    """Images in a fixed order, with their labels where these are known.

    Args:
        chunks: given a batch size, yields uint8 (B, H, W, C) in order.
        count: number of images.
        labels: int64 (N,), or ``None``.
        spec: what the network expects; gives mean and std.
    """

    def __init__(
        self,
        chunks: Callable[[int], Iterator[Pixels]],
        count: int,
        labels: Tensor | None,
        spec: InputSpec,
    ) -> None:
        self.labels = labels
        self._chunks = chunks
        self._count = count
        self._spec = spec

    def __len__(self) -> int:
        """Number of images."""
        return self._count

    def first(self, count: int) -> EvaluationSet:
        """The first ``count`` of these images, or all where there are fewer.

        Raises:
            DataError: ``count`` is below 1.
        """
        _check_positive(count, "count")
        count = min(count, self._count)
        labels = None if self.labels is None else self.labels[:count]
        return EvaluationSet(
            lambda size: _cut(self._chunks(size), count), count, labels, self._spec
        )

    def batches(self, size: int) -> Iterator[Tensor]:
        """Normalised float32 (B, C, H, W), in the order of ``labels``; the last may be smaller.

        Raises:
            DataError: ``size`` is below 1, or an image file cannot be decoded.
        """
        _check_positive(size, "batch")
        for chunk in self._chunks(size):
            yield normalised(chunk, self._spec)


def normalised(pixels: Pixels, spec: InputSpec) -> Tensor:
    """uint8 (B, H, W, C) as the network takes them: float32 (B, C, H, W)."""
    # Contiguous, because a network may flatten its input with `view`.
    return normalise(torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous(), spec)


def _cut(chunks: Iterator[Pixels], count: int) -> Iterator[Pixels]:
    for chunk in chunks:
        yield chunk[:count]
        count -= len(chunk)
        if count <= 0:
            return


def open_images(source: str | Path, spec: InputSpec, *, limit: int | None = None) -> EvaluationSet:
    """Images to evaluate a network on.

    ``source`` is one of

    * a folder or an uncompressed ``.tar`` that holds class folders, or images beside a
      ``labels.csv`` (columns ``file,label``), or images only, which are then unlabelled;
    * an ``.npz`` with ``images``, uint8 (N, H, W, C) or (N, H, W), and maybe integer ``labels``;
    * ``torchvision:NAME``, ``torchvision:NAME:ROOT`` or a plain ``NAME`` such as ``CIFAR10``: the
      test split, found under ROOT, else under ``TORCHVISION_ROOT``, else under ``./data``.

    Class folders are matched to ``spec.class_names`` where all of them occur there, else read as
    integer labels where all are integers, else numbered in sorted order. Their images come
    round-robin: the first of every class, the second of every class, and so on, so that every
    prefix is nearly class-balanced. Other forms keep the order of the file, the table or, without
    labels, the names.

    Image files are decoded per batch, their short side scaled to ``spec.resize`` (bilinear), and
    the centre is cropped; where the crop would not fit, or there is no ``spec.resize``, the image
    is scaled just to cover it. EXIF rotation and transparency are ignored, as by torchvision.
    An ``.npz`` has to be of the network's size already.

    Args:
        source: where the images are.
        spec: what the network expects.
        limit: take only the first so many, in the order told above.

    Raises:
        DataError: the images are missing, unreadable, of unknown form, or do not fit ``spec``.
    """
    if limit is not None:
        _check_positive(limit, "--limit")
    if str(source).startswith("torchvision:"):
        _, name, *root = str(source).split(":", 2)
        return _from_torchvision(name, root[0] if root else None, spec, limit)
    path = Path(source).expanduser()
    if path.is_dir():
        return _from_files(folder_files(path), spec, limit, path)
    if path.suffix == ".npz" and path.is_file():
        return _from_npz(path, spec, limit)
    if path.suffix == ".tar" and path.is_file():
        return _from_files(tar_files(path), spec, limit, path)
    if path.exists():
        raise DataError(
            "the images are of a form that is not known", where=str(path), remedy=f"give {FORMS}"
        )
    if str(source) in TEST_SPLITS:
        return _from_torchvision(str(source), None, spec, limit)
    raise DataError("the images do not exist", where=str(path), remedy=f"give {FORMS}")


# ---------------------------------------------------------------------------- arrays


def _from_npz(path: Path, spec: InputSpec, limit: int | None) -> EvaluationSet:
    images, labels = _load_npz(path)
    images = _fitting_array(images, spec, str(path))
    if labels is not None:
        _check_label_array(labels, len(images), str(path))
    taken = images[:limit]
    known = None if labels is None else _label_tensor(labels.tolist(), spec, str(path))[:limit]

    def chunks(size: int) -> Iterator[Pixels]:
        return (taken[start : start + size] for start in range(0, len(taken), size))

    return EvaluationSet(chunks, len(taken), known, spec)


def _load_npz(path: Path) -> tuple[NDArray[np.generic], NDArray[np.generic] | None]:
    try:
        require_no_bomb(path)
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in ("images", "labels") if name in archive}
    # A damaged zip or header ends in a dozen kinds of error, from BadZipFile to MemoryError; and
    # what NumPy says of one with objects advises to run their code.
    except Exception as error:
        raise DataError(
            "the .npz cannot be read: it is damaged, holds more than numbers, or unpacks to far "
            "more than its size",
            where=str(path),
            remedy="save it anew with numpy.savez(file, images=..., labels=...)",
        ) from error
    if "images" not in arrays:
        raise DataError(
            "the .npz holds no array named images",
            where=str(path),
            remedy="save it with numpy.savez(file, images=..., labels=...)",
        )
    return arrays["images"], arrays.get("labels")


def _fitting_array(images: NDArray[np.generic], spec: InputSpec, where: str) -> Pixels:
    """``images`` as (N, H, W, C)."""
    channels, height, width = spec.shape
    expected = f"uint8 (N, {height}, {width}, {channels})"
    if images.dtype != np.uint8:
        raise DataError(
            f"images are {images.dtype}, not uint8",
            where=where,
            remedy=f"save raw pixels 0..255, {expected}; they are normalised here",
        )
    shape = images.shape
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or images.shape[1:] != (height, width, channels):
        raise DataError(
            f"images have shape {shape}, but the network takes {channels} x {height} x {width}",
            where=where,
            remedy=f"save them as {expected}; only image files are scaled and converted here",
        )
    _check_not_empty(len(images), where)
    return images.astype(np.uint8, copy=False)


def _check_label_array(labels: NDArray[np.generic], count: int, where: str) -> None:
    if labels.dtype.kind not in "iu":
        raise DataError(
            f"labels are {labels.dtype}, not integers", where=where, remedy="save class numbers"
        )
    if labels.shape != (count,):
        raise DataError(
            f"labels have shape {labels.shape} for {count} images",
            where=where,
            remedy="save one label per image",
        )


# ----------------------------------------------------------------------------- files


def _from_files(files: Files, spec: InputSpec, limit: int | None, where: Path) -> EvaluationSet:
    channels = spec.shape[0]
    if channels not in (1, 3):
        raise DataError(
            f"image files have 1 or 3 channels, but the network takes {channels}",
            where=str(where),
            remedy="give an .npz",
        )
    pictures, labels = with_labels(files, spec, str(where))
    _check_not_empty(len(pictures), str(where))
    known = None if labels is None else _label_tensor(labels, spec, str(where))[:limit]
    taken = pictures[:limit]
    chunks = _stacked(lambda index: decode_file(taken[index], spec), len(taken))
    return EvaluationSet(chunks, len(taken), known, spec)


def _stacked(picture: Callable[[int], Pixels], count: int) -> Callable[[int], Iterator[Pixels]]:
    def chunks(size: int) -> Iterator[Pixels]:
        for start in range(0, count, size):
            yield np.stack([picture(index) for index in range(start, min(start + size, count))])

    return chunks


# ------------------------------------------------------------------------- torchvision


def _from_torchvision(
    name: str, root: str | None, spec: InputSpec, limit: int | None
) -> EvaluationSet:
    where = f"torchvision:{name}"
    if spec.shape[0] not in (1, 3):
        raise DataError(
            f"{name} has images of 1 or 3 channels, but the network takes {spec.shape[0]}",
            where=where,
            remedy="give images of the network's kind",
        )
    split, labels = open_test_split(name, root)
    _check_not_empty(len(labels), where)
    known = _label_tensor(labels, spec, where)[:limit]

    def picture(index: int) -> Pixels:
        return decode(lambda: split[index][0], spec, f"{where}, image {index}")

    return EvaluationSet(_stacked(picture, len(known)), len(known), known, spec)


# ----------------------------------------------------------------------------- checks


def _check_positive(value: int, name: str) -> None:
    if value < 1:
        raise DataError(f"{name} is {value}", where=name, remedy="give a number from 1 up")


def _check_not_empty(count: int, where: str) -> None:
    if count == 0:
        raise DataError("there are no images", where=where, remedy=f"give {FORMS} with images")


def _label_tensor(labels: Collection[int], spec: InputSpec, where: str) -> Tensor:
    """int64 (N,), all in 0..num_classes-1."""
    smallest, largest = min(labels), max(labels)
    if smallest < 0 or largest >= spec.num_classes:
        raise DataError(
            f"labels go from {smallest} to {largest}, but the network has {spec.num_classes} "
            f"classes (0 to {spec.num_classes - 1})",
            where=where,
            remedy="give images of the classes the network was trained on",
        )
    return torch.tensor(list(labels), dtype=torch.int64)
