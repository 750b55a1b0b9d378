"""Parses texts of the command line, and checks options that exclude each other."""

from __future__ import annotations

import re

from dreamquant.cli.options import Expected
from dreamquant.errors import DataError, NetworkError, ResultError

_SIDE = re.compile("[0-9]{1,9}")
_NOTHING = Expected()


def parse_shape(text: str) -> tuple[int, ...]:
    """Parse the shape of one input: ``3x32x32``, or ``98x40`` if it is not an image.

    Raises:
        NetworkError: the text is not of that form.
    """
    parts = text.lower().split("x")
    if not all(_SIDE.fullmatch(part) for part in parts):
        raise NetworkError(
            f"{text!r} is not an input shape",
            where="--input",
            remedy="give CxHxW, such as 3x32x32, or the sides of a feature map, such as 98x40",
        )
    return tuple(map(int, parts))


def parse_numbers(text: str, option: str) -> tuple[float, ...]:
    """Parse a list of numbers such as ``0.485,0.456,0.406``.

    Raises:
        NetworkError: the text is not such a list; the error names ``option``.
    """
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise NetworkError(
            f"{text!r} is not a list of numbers",
            where=option,
            remedy="separate numbers by commas, for example 0.485,0.456,0.406",
        ) from error


def one_of(images: str | None, data: str | None) -> str:
    """The images for the evaluation, as an argument or as an option.

    Raises:
        DataError: they are not given, or given twice.
    """
    if images is not None and data is not None:
        raise DataError(
            "images are given twice", where=f"{images}, --data {data}", remedy="give them once"
        )
    if images is None and data is None:
        raise DataError(
            "no images are given for the evaluation",
            where="dreamquant evaluate",
            remedy="give --data IMAGES",
        )
    return images or data or ""


def refuse(expected: Expected) -> None:
    """Refuse options for networks if a result is given.

    Raises:
        ResultError: such an option was given.
    """
    given = [
        f"--{name}" for name, value in vars(expected).items() if value != getattr(_NOTHING, name)
    ]
    if given:
        raise ResultError(
            "a result already contains the input and the classes of its network",
            where=", ".join(given),
            remedy="leave these options out",
        )
