"""Texts of the command line into what they stand for, and options that exclude each other."""

from __future__ import annotations

import re

from dreamquant.cli.options import Expected
from dreamquant.errors import DataError, NetworkError, ResultError

_SIDE = re.compile("[0-9]{1,9}")
_NOTHING = Expected()


def parse_shape(text: str) -> tuple[int, ...]:
    """The sides of one input: ``3x32x32``, or ``98x40`` for what is no picture.

    Raises:
        NetworkError: the text is not of that form.
    """
    parts = text.lower().split("x")
    if not all(_SIDE.fullmatch(part) for part in parts):
        raise NetworkError(
            f"{text!r} is no input shape",
            where="--input",
            remedy="give CxHxW, as 3x32x32, or the sides of a feature map, as 98x40",
        )
    return tuple(map(int, parts))


def parse_numbers(text: str, option: str) -> tuple[float, ...]:
    """The numbers of a list such as ``0.485,0.456,0.406``.

    Raises:
        NetworkError: it names ``option``, for the text is no such list.
    """
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise NetworkError(
            f"{text!r} is no list of numbers",
            where=option,
            remedy="separate them by commas, as 0.485,0.456,0.406",
        ) from error


def one_of(images: str | None, data: str | None) -> str:
    """The images to measure on, given in either place.

    Raises:
        DataError: they are given in neither, or in both.
    """
    if images is not None and data is not None:
        raise DataError(
            "images are given twice", where=f"{images}, --data {data}", remedy="give them once"
        )
    if images is None and data is None:
        raise DataError(
            "there are no images to measure on",
            where="dreamquant evaluate",
            remedy="give --data IMAGES",
        )
    return images or data or ""


def refuse(expected: Expected) -> None:
    """Refuse what only networks are asked for, where a result is given.

    Raises:
        ResultError: something of it was given.
    """
    given = [
        f"--{name}" for name, value in vars(expected).items() if value != getattr(_NOTHING, name)
    ]
    if given:
        raise ResultError(
            "a result knows the input and the classes of its network",
            where=", ".join(given),
            remedy="leave it out",
        )
