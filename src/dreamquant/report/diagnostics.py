"""What a run with diagnostics left: its picture, and what that shows in sentences."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from dreamquant.report.svg import short
from dreamquant.results.files import read_json

_LARGEST = 1_000_000  # bytes of a picture that is embedded as it is
_WIDEST = 1600  # pixels of one that is not


@dataclass(frozen=True)
class Diagnostics:
    """What to show.

    Attributes:
        pictures: whole files as ``data:`` addresses.
        sentences: the same for those who cannot see them.
    """

    pictures: tuple[str, ...]
    sentences: tuple[str, ...]


def read_diagnostics(folder: Path) -> Diagnostics | None:
    """The diagnostics in a result folder, or ``None`` if the run recorded no diagnostics.

    Raises:
        ResultError: they cannot be read.
    """
    pictures = tuple(_address(path) for path in sorted(folder.glob("diagnostics*.png")))
    path = folder / "diagnostics.json"
    found = read_json(path) if path.is_file() else {}
    return Diagnostics(pictures, tuple(_sentences(found))) if pictures or found else None


def _address(path: Path) -> str:
    data = path.read_bytes()
    if len(data) <= _LARGEST:
        return f"data:image/png;base64,{base64.b64encode(data).decode()}"
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(data)) as picture:
        picture.thumbnail((_WIDEST, _WIDEST))
        picture.save(buffer, "WEBP", quality=80)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _sentences(found: dict[str, Any]) -> Iterator[str]:
    if band := found.get("adaptability"):
        yield (
            f"AdaDFQ asks for images that are neither too hard nor too easy: "
            f"{100 * band['within']:.0f} % are within its band, {100 * band['below']:.0f} % too "
            f"hard and {100 * band['above']:.0f} % too easy."
        )
    if attention := found.get("attention"):
        gaps = ", ".join(f"{short(of['mode_gap'])} for {kind}" for kind, of in _known(attention))
        yield (
            "ACQ asks that the original looks at the same place in evaluation and in training mode "
            f"(0 is the same): {gaps} images."
        )
    if inconsistency := found.get("inconsistency"):
        told = "; ".join(f"{kind} images {_broken(of)}" for kind, of in _known(inconsistency))
        yield f"RIS asks that answers survive small changes (0 is unchanged): {told}."


def _known(kinds: dict[str, Any]) -> list[tuple[str, Any]]:
    return [(kind, of) for kind, of in kinds.items() if of is not None]


def _broken(of: dict[str, Any]) -> str:
    return (
        f"{short(of['views']['prediction'])} when altered and "
        f"{short(of['weights']['prediction'])} with noise on the weights"
    )
