"""Evaluation data as arrays: pixels, or features that are not images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dreamquant.errors import DataError
from dreamquant.networks.archives import require_no_bomb
from dreamquant.networks.spec import InputSpec

Values = NDArray[Any]

_NAMES = ("images", "features", "features_int8", "labels", "scale", "zero_point")
_SAVE = "save it with numpy.savez(file, images=..., labels=...), or features=... if not images"


def read_npz(path: Path, spec: InputSpec) -> tuple[Values, NDArray[Any] | None]:
    """Read values (N, ...) and integer labels, if the file has any. Labels are (N,) classes,
    (N, labels) of 0 and 1 for several labels per image, or (N, H, W) masks for segmentation.

    The file contains one of

    * ``images``: pixels, uint8 (N, H, W, C) or (N, H, W), which are divided by 255;
    * ``features``: float (N, ...) with the shape of the network's input, channels first;
    * ``features`` or ``features_int8``: integers (N, ...) with ``scale`` and ``zero_point``; values
      are ``(q - zero_point) * scale``.

    Returns:
        Pixels as uint8 (N, H, W, C), features as floats (N, ...).

    Raises:
        DataError: the file cannot be read, or its arrays do not fit ``spec``.
    """
    arrays = _load(path)
    held = [name for name in _NAMES[:3] if name in arrays]
    if len(held) != 1:
        found = f"{' and '.join(held)}" if held else "no array named images or features"
        raise DataError(f"the .npz contains {found}", where=str(path), remedy=_SAVE)
    values = arrays[held[0]]
    read = _pixels if held[0] == "images" else _features
    values = read(values, arrays, spec, str(path))
    labels = arrays.get("labels")
    if labels is not None:
        _check_labels(labels, len(values), spec, str(path))
    return values, labels


def _load(path: Path) -> dict[str, NDArray[Any]]:
    try:
        require_no_bomb(path)
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in _NAMES if name in archive}
    # A damaged zip or header raises many types, from BadZipFile to MemoryError. For arrays of
    # objects, NumPy's message recommends running their code.
    except Exception as error:
        raise DataError(
            "the .npz cannot be read: it is damaged, contains more than numbers, or unpacks to "
            "far more than its size",
            where=str(path),
            remedy="save it again with numpy.savez(file, images=..., labels=...)",
        ) from error


def _pixels(
    images: NDArray[Any], _: Mapping[str, NDArray[Any]], spec: InputSpec, where: str
) -> Values:
    if len(spec.shape) != 3:
        raise DataError(
            f"images are pixels, but the network takes {_sides(spec)}", where=where, remedy=_SAVE
        )
    channels, height, width = spec.shape
    expected = f"uint8 (N, {height}, {width}, {channels})"
    if images.dtype != np.uint8:
        raise DataError(
            f"images are {images.dtype}, not uint8",
            where=where,
            remedy=f"save raw pixels 0..255 as {expected}; they are normalised here. Save inputs "
            f"that "
            "are not images as float features=...",
        )
    shape = images.shape
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or images.shape[1:] != (height, width, channels):
        raise DataError(
            f"images have shape {shape}, but the network takes {_sides(spec)}",
            where=where,
            remedy=f"save them as {expected}; only image files are scaled and converted",
        )
    return images


def _features(
    values: NDArray[Any], arrays: Mapping[str, NDArray[Any]], spec: InputSpec, where: str
) -> Values:
    if values.dtype.kind in "iu":
        values = _dequantized(values, arrays, where)
    if values.dtype.kind != "f":
        raise DataError(
            f"features are {values.dtype}, not float", where=where, remedy="save them as float32"
        )
    if values.shape[1:] != spec.shape:
        raise DataError(
            f"features have shape {values.shape}, but the network takes {_sides(spec)}",
            where=where,
            remedy=f"save them as float32 (N, {', '.join(map(str, spec.shape))})",
        )
    if not np.isfinite(values).all():
        raise DataError(
            "features contain NaN or infinity", where=where, remedy="save finite numbers"
        )
    return values


def _dequantized(codes: NDArray[Any], arrays: Mapping[str, NDArray[Any]], where: str) -> Values:
    scale, zero_point = arrays.get("scale"), arrays.get("zero_point")
    if scale is None or zero_point is None or scale.size != 1 or zero_point.size != 1:
        raise DataError(
            f"features are {codes.dtype}, but scale or zero_point is missing or not one number",
            where=where,
            remedy="save float features, or both: (q - zero_point) * scale",
        )
    return (codes.astype(np.float32) - np.float32(zero_point.item())) * np.float32(scale.item())


def _check_labels(labels: NDArray[Any], count: int, spec: InputSpec, where: str) -> None:
    if labels.dtype.kind not in "iu":
        raise DataError(
            f"labels are {labels.dtype}, not integers", where=where, remedy="save class numbers"
        )
    sides: dict[str, tuple[int, ...]] = {
        "multi-label": (spec.num_classes,),
        "segmentation": spec.shape[1:],
    }
    wanted = (count, *sides.get(spec.task, ()))
    if labels.shape != wanted:
        raise DataError(
            f"labels have shape {labels.shape} for {count} images",
            where=where,
            remedy="save one label per image" if len(wanted) == 1 else f"save {wanted}",
        )


def _sides(spec: InputSpec) -> str:
    return " x ".join(map(str, spec.shape))
