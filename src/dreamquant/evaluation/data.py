"""Evaluation images from any source; they are read lazily and normalised for the network."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dreamquant.errors import DataError
from dreamquant.evaluation.arrays import Values, read_npz
from dreamquant.evaluation.classes import Classification
from dreamquant.evaluation.decoding import Pixels, decode, decode_file
from dreamquant.evaluation.files import Files, folder_files, tar_files
from dreamquant.evaluation.labels import with_labels
from dreamquant.evaluation.regression import Regression
from dreamquant.evaluation.task import Task, Truth
from dreamquant.evaluation.tasks import task_of
from dreamquant.evaluation.truth import Found, with_truth
from dreamquant.networks.found import Boxes
from dreamquant.networks.pixels import normalise, standardise
from dreamquant.networks.spec import InputSpec
from dreamquant.networks.torchvision_data import TEST_SPLITS, open_test_split

FORMS = "a folder of images, an .npz, a .tar, or torchvision:NAME:ROOT"


class EvaluationSet:
    """Images in a fixed order, with labels if they are known.

    Args:
        chunks: function of a batch size that yields pixels or features in order, see
            :func:`normalised`.
        count: number of images.
        labels: int64 (N,), or ``None``.
        spec: input of the network, with mean and std.
        task: task of the network; by default the one in ``spec``.
        truth: labels of each image for tasks other than classification; ``None`` for a
            classifier or if they are not known.
    """

    def __init__(
        self,
        chunks: Callable[[int], Iterator[Values]],
        count: int,
        labels: Tensor | None,
        spec: InputSpec,
        task: Task | None = None,
        truth: Truth | None = None,
    ) -> None:
        self.labels, self.truth = labels, truth
        self.task = task or task_of(spec)
        self._chunks = chunks
        self._count = count
        self._spec = spec

    def __len__(self) -> int:
        """Number of images."""
        return self._count

    @property
    def labelled(self) -> bool:
        """Whether the images have labels."""
        return self.labels is not None or self.truth is not None

    def first(self, count: int) -> EvaluationSet:
        """The first ``count`` of these images, or all if there are fewer.

        Raises:
            DataError: ``count`` is below 1.
        """
        _check_positive(count, "count")
        count = min(count, self._count)
        labels = None if self.labels is None else self.labels[:count]
        truth = None if self.truth is None else self.truth[:count]
        return EvaluationSet(
            lambda size: _cut(self._chunks(size), count),
            count,
            labels,
            self._spec,
            self.task,
            truth,
        )

    def batches(self, size: int) -> Iterator[Tensor]:
        """Normalised batches, float32 (B, ...), in order of ``labels``; the last may be smaller.

        Raises:
            DataError: ``size`` is below 1, or an image file cannot be decoded.
        """
        _check_positive(size, "batch")
        for chunk in self._chunks(size):
            yield normalised(chunk, self._spec)


def normalised(values: Values, spec: InputSpec) -> Tensor:
    """Convert values to the network's input, float32 (B, ...).

    Args:
        values: pixels, uint8 (B, H, W, C), or features (B, ...) of any other type, which are
            normalised only.
        spec: input of the network.
    """
    if values.dtype != np.uint8:
        return standardise(torch.from_numpy(values.astype(np.float32)), spec)
    # Contiguous, because a network may flatten its input with `view`.
    return normalise(torch.from_numpy(values).permute(0, 3, 1, 2).contiguous(), spec)


def _cut(chunks: Iterator[Values], count: int) -> Iterator[Values]:
    for chunk in chunks:
        yield chunk[:count]
        count -= len(chunk)
        if count <= 0:
            return


def open_images(
    source: str | Path, spec: InputSpec, *, limit: int | None = None, boxes: Boxes | None = None
) -> EvaluationSet:
    """Open images for the evaluation of a network.

    ``source`` is one of

    * a folder or an uncompressed ``.tar`` with class folders, or with images and a ``labels.csv``
      (columns ``file,label``), or with unlabelled images;
    * an ``.npz`` with ``images``, uint8 (N, H, W, C) or (N, H, W), or with ``features``, see
      :func:`dreamquant.evaluation.arrays.read_npz`, and optional integer ``labels``;
    * ``torchvision:NAME``, ``torchvision:NAME:ROOT`` or a plain ``NAME`` such as ``CIFAR10``: the
      test split, in the folder ROOT, or ``TORCHVISION_ROOT``, or ``./data``.

    If all names of class folders occur in ``spec.class_names``, these give the labels. Otherwise,
    if all names are integers, they are the labels. Otherwise the folders are numbered in sorted
    order. Images of class folders are ordered round-robin: the first of every class, the second of
    every class, and so on. So the first N images are nearly class-balanced for every N. Other
    sources keep the order of the file or the table; unlabelled images are sorted by name.

    Image files are decoded batch by batch. Their short side is scaled to ``spec.resize``
    (bilinear), then the centre is cropped. If the crop would not fit, or without ``spec.resize``,
    the image is scaled so that it just covers the crop. EXIF rotation and transparency are
    ignored, as in torchvision. Images of an ``.npz`` must have the network's size.

    Networks that are not classifiers have other labels, see :mod:`dreamquant.evaluation.truth`;
    their images are sorted by name.

    Args:
        source: path or name of the images.
        spec: input of the network.
        limit: use only this number of images, in the order above.
        boxes: converts the network's outputs to boxes, see
            :class:`dreamquant.evaluation.regression.Regression`.

    Raises:
        DataError: the images are missing, unreadable, in an unknown form, or do not fit ``spec``.
    """
    if limit is not None:
        _check_positive(limit, "--limit")
    if str(source).startswith("torchvision:"):
        _, name, *root = str(source).split(":", 2)
        return _from_torchvision(name, root[0] if root else None, spec, limit)
    path, task = Path(source).expanduser(), task_of(spec, boxes)
    if path.is_dir():
        return _from_files(folder_files(path), spec, limit, path, task)
    if path.suffix == ".npz" and path.is_file():
        return _from_npz(path, spec, limit, task)
    if path.suffix == ".tar" and path.is_file():
        return _from_files(tar_files(path), spec, limit, path, task)
    if path.exists():
        raise DataError(
            "the form of the images is not known", where=str(path), remedy=f"give {FORMS}"
        )
    if str(source) in TEST_SPLITS:
        return _from_torchvision(str(source), None, spec, limit)
    raise DataError("the images do not exist", where=str(path), remedy=f"give {FORMS}")


# ---------------------------------------------------------------------------- arrays


def _from_npz(path: Path, spec: InputSpec, limit: int | None, task: Task) -> EvaluationSet:
    values, labels = read_npz(path, spec)
    _check_not_empty(len(values), str(path))
    taken = values[:limit]

    def chunks(size: int) -> Iterator[Values]:
        return (taken[start : start + size] for start in range(0, len(taken), size))

    if not isinstance(task, Classification):
        truth = None if labels is None or isinstance(task, Regression) else torch.from_numpy(labels)
        return EvaluationSet(chunks, len(taken), None, spec, task, truth)
    known = None if labels is None else _label_tensor(labels.tolist(), spec, str(path))[:limit]
    return EvaluationSet(chunks, len(taken), known, spec)


# ----------------------------------------------------------------------------- files


def _from_files(
    files: Files, spec: InputSpec, limit: int | None, where: Path, task: Task
) -> EvaluationSet:
    _check_pictures(spec, str(where), "image files have")
    if not isinstance(task, Classification):
        return _with_truth(with_truth(files, spec, task, str(where)), spec, limit, where, task)
    pictures, labels = with_labels(files, spec, str(where))
    _check_not_empty(len(pictures), str(where))
    known = None if labels is None else _label_tensor(labels, spec, str(where))[:limit]
    taken = pictures[:limit]
    chunks = _stacked(lambda index: decode_file(taken[index], spec), len(taken))
    return EvaluationSet(chunks, len(taken), known, spec)


def _with_truth(
    found: Found, spec: InputSpec, limit: int | None, where: Path, task: Task
) -> EvaluationSet:
    _check_not_empty(len(found.pictures), str(where))
    taken = found.pictures[:limit]
    chunks = _stacked(lambda index: decode_file(taken[index], spec), len(taken))
    scored = not isinstance(task, Regression) or task.boxes is not None
    truth = None if found.truth is None or not scored else found.truth[:limit]
    return EvaluationSet(chunks, len(taken), None, spec, task, truth)


def _stacked(picture: Callable[[int], Pixels], count: int) -> Callable[[int], Iterator[Values]]:
    def chunks(size: int) -> Iterator[Values]:
        for start in range(0, count, size):
            yield np.stack([picture(index) for index in range(start, min(start + size, count))])

    return chunks


# ------------------------------------------------------------------------- torchvision


def _from_torchvision(
    name: str, root: str | None, spec: InputSpec, limit: int | None
) -> EvaluationSet:
    where = f"torchvision:{name}"
    _check_pictures(spec, where, f"{name} has images of")
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


def _check_pictures(spec: InputSpec, where: str, subject: str) -> None:
    if len(spec.shape) != 3 or spec.shape[0] not in (1, 3):
        takes = " x ".join(map(str, spec.shape)) if len(spec.shape) != 3 else spec.shape[0]
        raise DataError(
            f"{subject} 1 or 3 channels, but the network takes {takes}",
            where=where,
            remedy="give an .npz: numpy.savez(file, features=..., labels=...)",
        )


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
            remedy="give images of the classes that the network was trained on",
        )
    return torch.tensor(list(labels), dtype=torch.int64)
