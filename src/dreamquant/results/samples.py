"""Draws the images that a network was quantized with; features are drawn as heat maps."""

from __future__ import annotations

import base64
import io
import math
import unicodedata
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from dreamquant.networks.pixels import denormalise, heat_map
from dreamquant.networks.spec import InputSpec
from dreamquant.results.files import write_bytes

_SMALLEST_TILE, _LARGEST_TILE = 112, 224
_LARGEST_EXACT, _LARGEST_SCALED = 64, 160
_MARGIN = 12
_CAPTION = 22
_GAP = 6
_FONT_SIZE = 13
_WIDEST_ROW = 10
_WHITE, _FRAME = (255, 255, 255), (208, 208, 208)
_INK, _PALE_INK = (32, 32, 32), (96, 96, 96)


def save_samples(
    path: Path,
    images: Tensor,
    spec: InputSpec,
    targets: Tensor | None,
    confidence: Tensor | None,
) -> None:
    """Write a PNG grid of ``images`` to ``path``, with captions such as "cat 97 %".

    Args:
        path: path of the PNG.
        images: normalised images (N, C, H, W), N >= 1; drawn in grey unless C is 3. Features
            (N, ...) are drawn from dark (smallest value) to bright (largest value).
        spec: input of the network, with normalisation and class names.
        targets: (N,) class indices; ``None`` if the images have no labels, then without captions.
        confidence: (N,) the teacher's probability of each target, in [0, 1]; ``None`` without
            targets.

    Raises:
        ResultError: the file cannot be written.
    """
    tiles = [_tile(pixels) for pixels in _to_pixels(images, spec)]
    captions = [
        ("", "") if target is None else (_class_name(target, spec), f"{probability * 100:.0f} %")
        for target, probability in _asked(len(tiles), targets, confidence)
    ]
    buffer = io.BytesIO()
    _grid(tiles, captions).save(buffer, "PNG", optimize=True)
    write_bytes(path, buffer.getvalue())


def encode_tiles(
    images: Tensor, spec: InputSpec, targets: Tensor | None, confidence: Tensor | None
) -> list[dict[str, Any]]:
    """Encode each image for a page: class, its name, confidence, and a file as base64.

    Args as for :func:`save_samples`. Images with sides up to 64 pixels are lossless PNG. Larger
    images are scaled down to at most 160 pixels and stored as WebP.
    """
    return [
        {
            "class": target,
            "name": spec.class_names[target] if spec.class_names and target is not None else None,
            "confidence": probability,
            **_encoded(Image.fromarray(pixels.numpy())),
        }
        for pixels, (target, probability) in zip(
            _to_pixels(images, spec), _asked(len(images), targets, confidence), strict=True
        )
    ]


def _asked(
    count: int, targets: Tensor | None, confidence: Tensor | None
) -> list[tuple[int | None, float]]:
    """Target and confidence of each image; ``None`` and 0 without targets."""
    if targets is None or confidence is None:
        return [(None, 0.0)] * count
    return list(zip(targets.tolist(), confidence.tolist(), strict=True))


def _encoded(image: Image.Image) -> dict[str, str]:
    buffer = io.BytesIO()
    if max(image.size) <= _LARGEST_EXACT:
        image.save(buffer, "PNG", optimize=True)
        kind = "image/png"
    else:
        image.thumbnail((_LARGEST_SCALED, _LARGEST_SCALED))
        image.save(buffer, "WEBP", quality=80)
        kind = "image/webp"
    return {"type": kind, "base64": base64.b64encode(buffer.getvalue()).decode()}


def _to_pixels(images: Tensor, spec: InputSpec) -> Tensor:
    """Return uint8 pixels (N, H, W, 3) of normalised images (N, C, H, W) or features (N, ...)."""
    if spec.features:
        return heat_map(images.detach().float().cpu())
    pixels = denormalise(images.detach().float().cpu(), spec).clamp(0, 1)
    if pixels.shape[1] != 3:
        pixels = pixels.mean(1, keepdim=True).expand(-1, 3, -1, -1)
    return (pixels * 255).round().to(torch.uint8).permute(0, 2, 3, 1)


def _tile(pixels: Tensor) -> Image.Image:
    """Return pixels (H, W, 3) as an image 112 to 224 wide, enlarged by an integer factor."""
    image = Image.fromarray(pixels.numpy())
    if image.width > _LARGEST_TILE:
        height = max(1, round(image.height * _LARGEST_TILE / image.width))
        return image.resize((_LARGEST_TILE, height), Image.Resampling.LANCZOS)
    factor = math.ceil(_SMALLEST_TILE / image.width)
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)


def _class_name(target: int, spec: InputSpec) -> str:
    """Return the class's name, without characters that the built-in ASCII font does not have."""
    number = f"class {target}"
    if not spec.class_names:
        return number
    # ImageNet's names contain synonyms: "tench, Tinca tinca".
    decomposed = unicodedata.normalize("NFKD", spec.class_names[target].split(",")[0])
    name = "".join(letter for letter in decomposed if not unicodedata.combining(letter))
    return name if name.isascii() else number


def _grid(tiles: list[Image.Image], captions: list[tuple[str, str]]) -> Image.Image:
    """Return equally large tiles in rows, each above its caption."""
    columns = _columns(len(tiles))
    rows = math.ceil(len(tiles) / columns)
    width, height = tiles[0].width + _MARGIN, tiles[0].height + _CAPTION + _MARGIN
    grid = Image.new("RGB", (columns * width + _MARGIN, rows * height + _MARGIN), _WHITE)
    draw = ImageDraw.Draw(grid)
    font = ImageFont.load_default(size=_FONT_SIZE)
    for index, (tile, (name, probability)) in enumerate(zip(tiles, captions, strict=True)):
        left = _MARGIN + index % columns * width
        top = _MARGIN + index // columns * height
        # A frame, because a white image would have no visible border.
        draw.rectangle((left - 1, top - 1, left + tile.width, top + tile.height), outline=_FRAME)
        grid.paste(tile, (left, top))
        right, baseline = left + tile.width, top + tile.height + _CAPTION - 4
        room = tile.width - font.getlength(probability) - _GAP
        draw.text((left, baseline), _shortened(name, room, font), _INK, font, anchor="ls")
        # Right-aligned and paler, because "1 15 %" would be hard to read.
        draw.text((right, baseline), probability, _PALE_INK, font, anchor="rs")
    return grid


def _columns(count: int) -> int:
    """The number of columns for a grid that is nearly square and, if possible, has full rows."""
    square = math.ceil(math.sqrt(count))
    candidates = range(square, min(count, _WIDEST_ROW) + 1)
    return next((columns for columns in candidates if count % columns == 0), square)


def _shortened(name: str, room: float, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """``name``, cut and ended by "…" if it is wider than ``room`` pixels."""
    if font.getlength(name) <= room:
        return name
    kept = name
    while kept and font.getlength(f"{kept}…") > room:
        kept = kept[:-1]
    return f"{kept.rstrip()}…"
