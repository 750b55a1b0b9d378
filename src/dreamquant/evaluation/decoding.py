"""Decoding of image files to the network's size."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from dreamquant.errors import DataError
from dreamquant.evaluation.files import Extent
from dreamquant.networks.spec import InputSpec

# The formats are listed, so that Pillow never passes a disguised PostScript file to Ghostscript.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
MAX_PIXELS = 2**27
Pixels = NDArray[np.uint8]
Read = TypeVar("Read")


def decode_file(file: Extent, spec: InputSpec) -> Pixels:
    """An image file as uint8 (H, W, C) of the network's size.

    Raises:
        DataError: it cannot be read.
    """
    return decode(lambda: _opened(file), spec, file.place)


def decode_mask(file: Extent, spec: InputSpec) -> Pixels:
    """A mask of class numbers as uint8 (H, W), scaled and cropped like its image.

    Raises:
        DataError: it cannot be read, or has colours.
    """
    return _reading(lambda: _opened(file), lambda mask: _cropped_mask(mask, spec), file.place)


def _cropped_mask(mask: Image.Image, spec: InputSpec) -> Pixels:
    if mask.mode not in ("1", "L", "P"):
        raise ValueError(f"a mask needs one class number per pixel, but its mode is {mask.mode}")
    crop = _at_size(mask, spec, Image.Resampling.NEAREST)
    return np.array(crop, dtype=np.uint8)


def placed_boxes(boxes: Tensor, file: Extent, spec: InputSpec) -> Tensor:
    """Boxes of an image in units of the network's input; boxes outside of it are left out.

    Args:
        boxes: (M, 5): class, centre x and y, width, height, in units of the whole image.
        file: the image.
        spec: the network's input.

    Returns:
        (K, 5): class, x1, y1, x2, y2.

    Raises:
        DataError: the image cannot be read.
    """
    size = _reading(
        lambda: _opened(file), lambda image: _scaled_size(*image.size, spec), file.place
    )
    _, height, width = spec.shape
    left, top = round((size[0] - width) / 2), round((size[1] - height) / 2)
    centre, half = boxes[:, 1:3], boxes[:, 3:] / 2
    corners = torch.cat([centre - half, centre + half], 1) * torch.tensor(size).repeat(2)
    corners = (corners - torch.tensor([left, top]).repeat(2)) / torch.tensor([width, height] * 2)
    corners = corners.clamp(0, 1)
    seen = (corners[:, 2:] > corners[:, :2]).all(1)
    return torch.cat([boxes[:, :1], corners], 1)[seen]


def _opened(file: Extent) -> Image.Image:
    return Image.open(BytesIO(file.read()), formats=FORMATS)


def decode(open_image: Callable[[], Image.Image], spec: InputSpec, place: str) -> Pixels:
    """One image, opened in any way, as uint8 (H, W, C) of the network's size.

    Raises:
        DataError: it cannot be opened or read; ``place`` is its name in the error.
    """
    return _reading(open_image, lambda image: _cropped(image, spec), place)


def _reading(
    open_image: Callable[[], Image.Image], use: Callable[[Image.Image], Read], place: str
) -> Read:
    try:
        with open_image() as image:
            return use(image)
    except UnidentifiedImageError as error:
        raise DataError(
            "the image cannot be read: its format is not known",
            where=place,
            remedy=f"replace or remove it; known are {', '.join(FORMATS)}",
        ) from error
    # For damaged files Pillow's plugins may raise almost any exception, even SyntaxError.
    except Exception as error:
        raise DataError(
            f"the image cannot be read: {error}", where=place, remedy="replace or remove it"
        ) from error


def _cropped(image: Image.Image, spec: InputSpec) -> Pixels:
    channels, height, width = spec.shape
    image = _eight_bit(image).convert("L" if channels == 1 else "RGB")
    crop = _at_size(image, spec, Image.Resampling.BILINEAR)
    return np.asarray(crop, dtype=np.uint8).reshape(height, width, channels)


def _at_size(image: Image.Image, spec: InputSpec, resampling: Image.Resampling) -> Image.Image:
    _, height, width = spec.shape
    size = _scaled_size(*image.size, spec)
    if size[0] * size[1] > MAX_PIXELS:
        raise ValueError(f"{image.size} is too elongated to be scaled to {size}")
    if size != image.size:
        image = image.resize(size, resampling)
    left, top = round((size[0] - width) / 2), round((size[1] - height) / 2)
    return image.crop((left, top, left + width, top + height))


def _eight_bit(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers of unknown range")
    if not image.mode.startswith("I"):
        return image
    # 16-bit grey: in some modes Pillow's conversion would clip at 255.
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
