"""Image files decoded to the network's size."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from dreamquant.errors import DataError
from dreamquant.evaluation.files import Extent
from dreamquant.networks.spec import InputSpec

# Named, so that Pillow never hands a disguised PostScript file to Ghostscript.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
MAX_PIXELS = 2**27
Pixels = NDArray[np.uint8]


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
