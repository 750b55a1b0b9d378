"""Image files: found in folders and tars, paired with labels, decoded to the network's size."""

from __future__ import annotations

import csv
import errno
import os
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO, StringIO
from itertools import zip_longest
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from dreamquant.errors import DataError
from dreamquant.networks.spec import InputSpec

LABELS_FILE = PurePosixPath("labels.csv")
SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
# Named, so that Pillow never hands a disguised PostScript file to Ghostscript.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
MAX_FILE_BYTES = 64 * 2**20
MAX_PIXELS = 2**27

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Extent:
    """The bytes of one file: all of a file on disk, or a stretch of an uncompressed tar.

    Attributes:
        path: of the file or the tar.
        offset: where in it they begin.
        size: how many there are; -1 for all.
        place: what to call it in errors.
    """

    path: Path
    offset: int
    size: int
    place: str

    def read(self) -> bytes:
        """The bytes themselves.

        Raises:
            OSError: they cannot be read, or the file is none: opening a pipe would wait for ever.
        """
        if not self.path.is_file():
            raise OSError(errno.EINVAL, "it is no ordinary file")
        with self.path.open("rb") as file:
            file.seek(self.offset)
            return file.read(self.size)


Files = dict[PurePosixPath, Extent]


# -------------------------------------------------------------------------------- finding


def folder_files(root: Path) -> Files:
    """The images and label tables below a folder, by their names seen from it, sorted."""
    found = [Path(folder, name) for folder, names in _walk(root) for name in names]
    files = {
        PurePosixPath(path.relative_to(root).as_posix()): Extent(path, 0, -1, str(path))
        for path in found
    }
    return {name: files[name] for name in sorted(files) if _is_wanted(name)}


def _walk(root: Path) -> Iterator[tuple[str, list[str]]]:
    """Every folder once, with the names of its files, even where links lead round in circles."""
    known: set[tuple[int, int]] = set()
    # Class folders are often links, and torchvision follows them too.
    for folder, folders, names in os.walk(root, followlinks=True):
        status = Path(folder).stat()
        if (status.st_dev, status.st_ino) in known:
            folders.clear()
            continue
        known.add((status.st_dev, status.st_ino))
        yield folder, names


def tar_files(path: Path) -> Files:
    """The images and label tables of an uncompressed tar, and where in it they lie.

    Nothing is ever extracted, so that names cannot do harm.

    Raises:
        DataError: the tar is damaged or compressed, or a member is too large.
    """
    try:
        # "r:" refuses compression: batches need random access.
        with tarfile.open(path, "r:") as tar:
            members = [m for m in tar if m.isreg() and not m.issparse()]
    # A damaged header ends in TarError, OverflowError, MemoryError and others.
    except Exception as error:
        raise DataError(
            f"the tar cannot be read: {error}",
            where=str(path),
            remedy="pack it anew with `tar cf`; a compressed tar has to be decompressed first",
        ) from error
    files: Files = {}
    for member in members:
        name = _plain_name(member.name)
        if not _is_wanted(name):
            continue
        if not 0 <= member.size <= MAX_FILE_BYTES:
            raise DataError(
                f"a member of {member.size} bytes is not read (at most {MAX_FILE_BYTES})",
                where=f"{path}: {member.name}",
                remedy="leave the file out, or save a smaller image",
            )
        files[name] = Extent(path, member.offset_data, member.size, f"{path}: {name}")
    return files


def _is_wanted(name: PurePosixPath) -> bool:
    # Leading dots: what file browsers leave beside images ("._cat.png").
    if name.name.startswith("."):
        return False
    return name.suffix.lower() in SUFFIXES or name.name == LABELS_FILE.name


def _plain_name(name: str) -> PurePosixPath:
    return PurePosixPath(*(part for part in name.split("/") if part not in ("", ".", "..")))


# ------------------------------------------------------------------------------- labelling


def with_labels(files: Files, spec: InputSpec, where: str) -> tuple[list[Extent], list[int] | None]:
    """The images in their fixed order, and their labels where the layout tells them.

    Args:
        files: from :func:`folder_files` or :func:`tar_files`.
        spec: what the network expects; gives class names and their number.
        where: the folder or tar, for errors.

    Raises:
        DataError: table or class folders do not fit the images or the network.
    """
    files = _without_wrapper(files)
    table = files.pop(LABELS_FILE, None)
    files = {name: extent for name, extent in files.items() if name.name != LABELS_FILE.name}
    if not files:
        return [], None
    names, labels = _ordered(files, table, spec, where)
    return [files[name] for name in names], labels


def _without_wrapper(files: Files) -> Files:
    """``files`` without the folders all of them share, as ``tar c val/`` puts around classes."""
    # Beside a table the images themselves are at the top, else their class folders are.
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
            f"{loose[0]} and {len(loose) - 1} more images lie beside class folders",
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
            f"{LABELS_FILE} is no table of file,label: {error!r}",
            where=where,
            remedy="write the header line file,label and then one image and class number a line",
        ) from error
    names = [name for name, _ in rows]
    unpaired = sorted(set(names) ^ set(files))
    if unpaired or len(names) != len(files):
        example = f", for example {unpaired[0]}" if unpaired else ""
        raise DataError(
            f"{LABELS_FILE} lists {len(names)} files for {len(files)} images{example}",
            where=where,
            remedy="list every image once, with its path seen from the table",
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
            remedy="name the folder right above the class folders, "
            "or name these after the network's classes or class numbers",
        )
    return {folder: label for label, folder in enumerate(sorted(folders))}


# -------------------------------------------------------------------------------- decoding


def decode_file(file: Extent, spec: InputSpec) -> Pixels:
    """An image file as uint8 (H, W, C) of the network's size.

    Raises:
        DataError: it cannot be read.
    """
    return decode(lambda: Image.open(BytesIO(file.read()), formats=FORMATS), spec, file.place)


def decode(open_image: Callable[[], Image.Image], spec: InputSpec, place: str) -> Pixels:
    """One image, however it is opened, as uint8 (H, W, C) of the network's size.

    Raises:
        DataError: it cannot be opened or read; ``place`` is what it is called.
    """
    try:
        with open_image() as image:
            return _cropped(image, spec)
    except UnidentifiedImageError as error:
        raise DataError(
            "the image cannot be read: it is of no known format",
            where=place,
            remedy=f"replace or remove it; known are {', '.join(FORMATS)}",
        ) from error
    # Damaged files make Pillow's plugins raise nearly anything, SyntaxError included.
    except Exception as error:
        raise DataError(
            f"the image cannot be read: {error}", where=place, remedy="replace or remove it"
        ) from error


def _cropped(image: Image.Image, spec: InputSpec) -> Pixels:
    channels, height, width = spec.shape
    image = _eight_bit(image).convert("L" if channels == 1 else "RGB")
    size = _scaled_size(*image.size, spec)
    if size[0] * size[1] > MAX_PIXELS:
        raise ValueError(f"{image.size} is too elongated to be scaled to {size}")
    if size != image.size:
        image = image.resize(size, Image.Resampling.BILINEAR)
    left, top = round((size[0] - width) / 2), round((size[1] - height) / 2)
    crop = image.crop((left, top, left + width, top + height))
    return np.asarray(crop, dtype=np.uint8).reshape(height, width, channels)


def _eight_bit(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers of unknown range")
    if not image.mode.startswith("I"):
        return image
    # 16-bit grey: Pillow's own conversion would clip at 255 in some modes.
    return Image.fromarray((np.asarray(image).clip(0, 65535) // 256).astype(np.uint8))


def _scaled_size(width: int, height: int, spec: InputSpec) -> tuple[int, int]:
    """Width and height before the crop; rounded as torchvision's ``Resize`` does."""
    _, crop_height, crop_width = spec.shape
    if spec.resize is not None:
        short = min(width, height)
        scaled = width * spec.resize // short, height * spec.resize // short
        if scaled[0] >= crop_width and scaled[1] >= crop_height:
            return scaled
    if crop_width * height >= crop_height * width:
        return crop_width, height * crop_width // width
    return width * crop_height // height, crop_height
