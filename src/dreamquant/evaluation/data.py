"""Evaluation images of any form, read lazily and normalised as the network expects them."""

from __future__ import annotations

import csv
import os
import tarfile
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO, StringIO
from itertools import zip_longest
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from dreamquant.errors import DataError
from dreamquant.networks.spec import InputSpec
from dreamquant.networks.torchvision_data import TEST_SPLITS, open_test_split

FORMS = "a folder of images, an .npz, a .tar, or torchvision:NAME:ROOT"
LABELS_FILE = PurePosixPath("labels.csv")
SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
# Named, so that Pillow never hands a disguised PostScript file to Ghostscript.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
MAX_FILE_BYTES = 64 * 2**20
MAX_PIXELS = 2**27

Pixels = NDArray[np.uint8]


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
        self._mean = torch.tensor(spec.mean).view(1, -1, 1, 1)
        self._std = torch.tensor(spec.std).view(1, -1, 1, 1)

    def __len__(self) -> int:
        """Number of images."""
        return self._count

    def first(self, count: int) -> EvaluationSet:
        """The first ``count`` of these images, or all where there are fewer."""
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
            # Contiguous, because a network may flatten its input with `view`.
            pixels = torch.from_numpy(chunk).permute(0, 3, 1, 2).contiguous()
            yield pixels.float().div_(255).sub_(self._mean).div_(self._std)


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
        _check_positive(limit, "limit")
    if str(source).startswith("torchvision:"):
        _, name, *root = str(source).split(":", 2)
        return _from_torchvision(name, root[0] if root else None, spec, limit)
    path = Path(source).expanduser()
    if path.is_dir():
        return _from_files(_folder_files(path), spec, limit, path)
    if path.suffix == ".npz" and path.is_file():
        return _from_npz(path, spec, limit)
    if path.suffix == ".tar" and path.is_file():
        return _from_files(_tar_files(path), spec, limit, path)
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
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in ("images", "labels") if name in archive}
    # A damaged zip or header ends in a dozen kinds of error, from BadZipFile to MemoryError.
    except Exception as error:
        raise DataError(
            f"the .npz cannot be read: {error}",
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


@dataclass(frozen=True)
class _Extent:
    """The bytes of one image: a whole file, or a stretch of an uncompressed tar."""

    path: Path
    offset: int = 0
    size: int = -1

    def read(self) -> bytes:
        with self.path.open("rb") as file:
            file.seek(self.offset)
            return file.read(self.size)


Files = dict[PurePosixPath, _Extent]


def _is_wanted(name: PurePosixPath) -> bool:
    # Leading dots: what file browsers leave beside images ("._cat.png").
    if name.name.startswith("."):
        return False
    return name.suffix.lower() in SUFFIXES or name.name == LABELS_FILE.name


def _folder_files(root: Path) -> Files:
    found = [
        Path(folder, name)
        # Class folders are often links, and torchvision follows them too.
        for folder, _, names in os.walk(root, followlinks=True)
        for name in names
    ]
    files = {PurePosixPath(path.relative_to(root).as_posix()): _Extent(path) for path in found}
    return {name: files[name] for name in sorted(files) if _is_wanted(name)}


def _tar_files(path: Path) -> Files:
    """Where each image lies in the tar; nothing is ever extracted, so names cannot do harm."""
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
        files[name] = _Extent(path, member.offset_data, member.size)
    return files


def _plain_name(name: str) -> PurePosixPath:
    return PurePosixPath(*(part for part in name.split("/") if part not in ("", ".", "..")))


def _from_files(files: Files, spec: InputSpec, limit: int | None, where: Path) -> EvaluationSet:
    channels = spec.shape[0]
    if channels not in (1, 3):
        raise DataError(
            f"image files have 1 or 3 channels, but the network takes {channels}",
            where=str(where),
            remedy="give an .npz",
        )
    files = _without_wrapper(files)
    table = files.pop(LABELS_FILE, None)
    files = {name: extent for name, extent in files.items() if name.name != LABELS_FILE.name}
    _check_not_empty(len(files), str(where))
    names, labels = _ordered(files, table, spec, str(where))
    known = None if labels is None else _label_tensor(labels, spec, str(where))[:limit]
    taken = names[:limit]

    def picture(index: int) -> Pixels:
        name = taken[index]
        place = files[name].path if files[name].size < 0 else f"{where}: {name}"
        return _decoded(lambda: _open_image(files[name]), spec, str(place))

    return EvaluationSet(_stacked(picture, len(taken)), len(taken), known, spec)


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
    files: Files, table: _Extent | None, spec: InputSpec, where: str
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


def _by_table(table: _Extent, files: Files, where: str) -> tuple[list[PurePosixPath], list[int]]:
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


# --------------------------------------------------------------------------- decoding


def _stacked(picture: Callable[[int], Pixels], count: int) -> Callable[[int], Iterator[Pixels]]:
    def chunks(size: int) -> Iterator[Pixels]:
        for start in range(0, count, size):
            yield np.stack([picture(index) for index in range(start, min(start + size, count))])

    return chunks


def _open_image(extent: _Extent) -> Image.Image:
    return Image.open(BytesIO(extent.read()), formats=FORMATS)


def _decoded(open_image: Callable[[], Image.Image], spec: InputSpec, where: str) -> Pixels:
    """One image as uint8 (H, W, C) of the network's size."""
    try:
        with open_image() as image:
            return _cropped(image, spec)
    # Damaged files make Pillow's plugins raise nearly anything, SyntaxError included.
    except Exception as error:
        raise DataError(
            f"the image cannot be read: {error}",
            where=where,
            remedy="replace or remove it",
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
        return _decoded(lambda: split[index][0], spec, f"{where}, image {index}")

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
