"""Labels of image files for other tasks: boxes, segmentation masks, or several labels per image.

Boxes are in ``boxes.csv`` (columns ``file,class,cx,cy,w,h``: centre and size relative to the image)
or, in the format of YOLO, in ``labels/NAME.txt`` (lines ``class cx cy w h``). Masks are PNG files
of class numbers, grey or with a palette, in a folder whose name ends in ``masks``, or in
``SegmentationClass`` as in Pascal VOC; pixels of value 255 are ignored. Several labels of an image
are several lines of ``labels.csv`` (columns ``file,label``).
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import PurePosixPath
from typing import Any, overload

import torch
from torch import Tensor

from dreamquant.errors import DataError
from dreamquant.evaluation.classes import IGNORED, MultiLabel, Segmentation
from dreamquant.evaluation.decoding import decode_mask, placed_boxes
from dreamquant.evaluation.files import BOXES_FILE, LABELS_FILE, SUFFIXES, Extent, Files
from dreamquant.evaluation.task import Task, Truth
from dreamquant.networks.spec import InputSpec


class Lazy(Sequence[Any]):
    """The labels of each image; they are read when they are accessed.

    Args:
        count: number of images.
        read: function from the number of an image to its labels.
    """

    def __init__(self, count: int, read: Callable[[int], Tensor]) -> None:
        self._rows, self._read = range(count), read

    def __len__(self) -> int:
        """Images."""
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> Tensor: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Any]: ...

    def __getitem__(self, index: int | slice) -> Tensor | Sequence[Any]:
        """The labels of one image, or an unread sequence for several."""
        if isinstance(index, int):
            return self._read(self._rows[index])
        some = Lazy(0, self._read)
        some._rows = self._rows[index]
        return some


@dataclass(frozen=True)
class Found:
    """Images and their labels.

    Attributes:
        pictures: images in a fixed order.
        truth: labels of each image; ``None`` if they are not known.
        left_out: number of images that are left out because they have no labels.
    """

    pictures: list[Extent]
    truth: Truth | None
    left_out: int = 0


def with_truth(files: Files, spec: InputSpec, task: Task, where: str) -> Found:
    """The images, sorted by name, and their labels for a task.

    Args:
        files: files of :func:`dreamquant.evaluation.files.folder_files` or ``tar_files``.
        spec: input and outputs of the network.
        task: task of the network.
        where: the folder or tar, for errors.

    Raises:
        DataError: a table is damaged, or classes do not fit the network.
    """
    pictures = {
        name: extent
        for name, extent in files.items()
        if name.suffix.lower() in SUFFIXES and not _is_masks(name.parent.name)
    }
    if isinstance(task, Segmentation):
        return _with_masks(pictures, files, spec)
    if isinstance(task, MultiLabel):
        truth = _labels(pictures, files, spec, where)
    else:
        truth = _boxes(pictures, files, spec, where)
    return Found(list(pictures.values()), truth)


def _is_masks(folder: str) -> bool:
    return folder.lower().endswith("masks") or folder == "SegmentationClass"


# ---------------------------------------------------------------------------------- masks


def _with_masks(pictures: Files, files: Files, spec: InputSpec) -> Found:
    masks = {name.stem: extent for name, extent in files.items() if _is_masks(name.parent.name)}
    if not masks:
        return Found(list(pictures.values()), None)
    paired = [(extent, masks[name.stem]) for name, extent in pictures.items() if name.stem in masks]

    def read(index: int) -> Tensor:
        mask = torch.from_numpy(decode_mask(paired[index][1], spec))
        largest = int(torch.where(mask == IGNORED, 0, mask).max())
        if largest >= spec.num_classes:
            raise DataError(
                f"the mask contains class {largest}, but the network has {spec.num_classes} "
                "classes",
                where=paired[index][1].place,
                remedy=f"number classes from 0, and mark ignored pixels by {IGNORED}",
            )
        return mask

    return Found(
        [picture for picture, _ in paired], Lazy(len(paired), read), len(pictures) - len(paired)
    )


# ---------------------------------------------------------------------------------- boxes


def _boxes(pictures: Files, files: Files, spec: InputSpec, where: str) -> Sequence[Any] | None:
    found = _table_of_boxes(pictures, files, where) or _files_of_boxes(pictures, files)
    if not found:
        return None
    extents = list(pictures.values())
    of_each = [torch.tensor(found.get(name, [])).view(-1, 5) for name in pictures]
    largest = max((int(boxes[:, 0].max()) for boxes in of_each if len(boxes)), default=0)
    if spec.num_classes and largest >= spec.num_classes:
        raise DataError(
            f"a box has class {largest}, but the network has {spec.num_classes} classes",
            where=where,
            remedy="number the classes from 0, like the network",
        )
    return Lazy(len(extents), lambda index: placed_boxes(of_each[index], extents[index], spec))


Rows = dict[PurePosixPath, list[list[float]]]


def _table_of_boxes(pictures: Files, files: Files, where: str) -> Rows:
    table = next((extent for name, extent in files.items() if name.name == BOXES_FILE), None)
    if table is None:
        return {}
    by_name = {name.name: name for name in pictures}
    rows: Rows = {}
    for row in _read_table(table, ("file", "class", "cx", "cy", "w", "h"), where):
        name = by_name.get(PurePosixPath(row[0]).name)
        if name is None:
            raise DataError(
                f"{BOXES_FILE} names {row[0]}, which does not exist",
                where=where,
                remedy="list existing files",
            )
        rows.setdefault(name, []).append([float(value) for value in row[1:]])
    return rows


def _files_of_boxes(pictures: Files, files: Files) -> Rows:
    texts = {
        name.stem: extent
        for name, extent in files.items()
        if name.suffix == ".txt" and "labels" in name.parts[:-1]
    }
    return {name: _yolo(texts[name.stem]) for name in pictures if name.stem in texts}


def _yolo(file: Extent) -> list[list[float]]:
    try:
        lines = file.read().decode().splitlines()
        rows = [[float(value) for value in line.split()] for line in lines]
        if any(len(row) != 5 for row in rows if row):
            raise ValueError("a line does not have five numbers")
    except (OSError, ValueError) as error:
        raise DataError(
            f"the labels cannot be read: {error}",
            where=file.place,
            remedy="write one object per line: class cx cy w h, relative to the image",
        ) from error
    return [row for row in rows if row]


# --------------------------------------------------------------------------------- labels


def _labels(pictures: Files, files: Files, spec: InputSpec, where: str) -> Truth | None:
    table = next((e for name, e in files.items() if name.name == LABELS_FILE.name), None)
    if table is None:
        return None
    rows = {name.name: row for row, name in enumerate(pictures)}
    truth = torch.zeros(len(pictures), spec.num_classes)
    for file, label in _read_table(table, ("file", "label"), where):
        row = rows.get(PurePosixPath(file).name)
        if row is None or not 0 <= int(label) < spec.num_classes:
            raise DataError(
                f"{LABELS_FILE} has the line {file},{label}, but that image or label does not "
                f"exist",
                where=where,
                remedy=f"list existing images, with labels from 0 to {spec.num_classes - 1}",
            )
        truth[row, int(label)] = 1
    return truth


def _read_table(table: Extent, columns: Sequence[str], where: str) -> Iterator[list[str]]:
    try:
        text = StringIO(table.read().decode("utf-8-sig"), newline="")
        rows = [[row[column] for column in columns] for row in csv.DictReader(text)]
        for row in rows:
            [float(value) for value in row[1:]]
    except (OSError, csv.Error, KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{table.place} is not a table of {','.join(columns)}: {error!r}",
            where=where,
            remedy=f"write the header line {','.join(columns)} and then one line for each entry",
        ) from error
    yield from rows
