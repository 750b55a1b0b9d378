"""Labels of image files, from a table or from the names of their folders."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from io import StringIO
from itertools import zip_longest
from pathlib import PurePosixPath

from dreamquant.errors import DataError
from dreamquant.evaluation.files import LABELS_FILE, SUFFIXES, Extent, Files
from dreamquant.networks.spec import InputSpec


def with_labels(files: Files, spec: InputSpec, where: str) -> tuple[list[Extent], list[int] | None]:
    """The images in a fixed order, and their labels if the layout defines them.

    Args:
        files: files of :func:`folder_files` or :func:`tar_files`.
        spec: input and outputs of the network, with class names and their number.
        where: the folder or tar, for errors.

    Raises:
        DataError: the table or the class folders do not fit the images or the network.
    """
    files = {n: e for n, e in files.items() if _tells_classes(n)}
    files = _without_wrapper(files)
    table = files.pop(LABELS_FILE, None)
    files = {name: extent for name, extent in files.items() if name.name != LABELS_FILE.name}
    if not files:
        return [], None
    names, labels = _ordered(files, table, spec, where)
    return [files[name] for name in names], labels


def _without_wrapper(files: Files) -> Files:
    """``files`` without common parent folders, such as ``val/`` of ``tar c val/``."""
    # With a table, images are at the top level; without one, class folders are.
    depth = 1 if any(name.name == LABELS_FILE.name for name in files) else 2
    while (
        files
        and min(len(name.parts) for name in files) > depth
        and len({name.parts[0] for name in files}) == 1
    ):
        files = {name.relative_to(name.parts[0]): extent for name, extent in files.items()}
    return files


def _ordered(
    files: Files, table: Extent | None, spec: InputSpec, where: str
) -> tuple[list[PurePosixPath], list[int] | None]:
    if table is not None:
        return _by_table(table, files, where)
    loose = sorted(name for name in files if len(name.parts) == 1)
    if len(loose) == len(files):
        return loose, None
    if loose:
        raise DataError(
            f"{loose[0]} and {len(loose) - 1} more images are not in a class folder",
            where=where,
            remedy="move each of them into its class folder",
        )
    return _by_folder(files, spec, where)


def _by_table(table: Extent, files: Files, where: str) -> tuple[list[PurePosixPath], list[int]]:
    try:
        text = StringIO(table.read().decode("utf-8-sig"), newline="")
        rows = [(PurePosixPath(row["file"]), int(row["label"])) for row in csv.DictReader(text)]
    except (OSError, csv.Error, KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{LABELS_FILE} is not a table of file,label: {error!r}",
            where=where,
            remedy="write the header line file,label and then one image and class number per line",
        ) from error
    names = [name for name, _ in rows]
    unpaired = sorted(set(names) ^ set(files))
    if unpaired or len(names) != len(files):
        example = f", for example {unpaired[0]}" if unpaired else ""
        raise DataError(
            f"{LABELS_FILE} lists {len(names)} files for {len(files)} images{example}",
            where=where,
            remedy="list every image once, with its path relative to the table",
        )
    return names, [label for _, label in rows]


def _by_folder(files: Files, spec: InputSpec, where: str) -> tuple[list[PurePosixPath], list[int]]:
    classes: dict[str, list[PurePosixPath]] = {}
    for name in sorted(files):
        classes.setdefault(name.parts[0], []).append(name)
    label = _folder_labels(list(classes), spec, where)
    turns = zip_longest(*classes.values())
    names = [name for turn in turns for name in turn if name is not None]
    return names, [label[name.parts[0]] for name in names]


def _folder_labels(folders: Sequence[str], spec: InputSpec, where: str) -> dict[str, int]:
    if set(folders) <= set(spec.class_names):
        return {folder: spec.class_names.index(folder) for folder in folders}
    if all(folder.isdecimal() for folder in folders):
        return {folder: int(folder) for folder in folders}
    if len(folders) != spec.num_classes:
        raise DataError(
            f"{len(folders)} class folders with images, such as {folders[0]}, "
            f"for a network of {spec.num_classes} classes",
            where=where,
            remedy="give the parent folder of the class folders, or name the class folders after "
            "the "
            "network's classes or class numbers",
        )
    return {folder: label for label, folder in enumerate(sorted(folders))}


def _tells_classes(name: PurePosixPath) -> bool:
    """Whether a file is an image or the table of labels; other files define boxes."""
    return name.suffix.lower() in SUFFIXES or name.name == LABELS_FILE.name
