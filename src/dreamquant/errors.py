"""Every error a user can cause: what is wrong, where, and how to mend it."""

from __future__ import annotations


class DreamQuantError(Exception):
    """Something the user gave cannot be used.

    The command line prints it in one piece and leaves with exit code 2.

    Args:
        what: what is wrong, naming the thing.
        where: the file, layer, option or field it was found in.
        remedy: what to do about it.
    """

    def __init__(self, what: str, *, where: str = "", remedy: str = "") -> None:
        self.what, self.where, self.remedy = what, where, remedy
        super().__init__(what)

    def __str__(self) -> str:
        place = f"\n  where:  {self.where}" if self.where else ""
        remedy = f"\n  remedy: {self.remedy}" if self.remedy else ""
        return f"{self.what}{place}{remedy}"


class NetworkError(DreamQuantError):
    """The network cannot be found, built, run, or lacks what a method needs."""


class WeightsError(DreamQuantError):
    """The weights are unreadable, belong to another network, or are not finite."""


class SchemeError(DreamQuantError):
    """The bits, placement or an override make no quantization scheme."""


class MethodError(DreamQuantError):
    """The method or preset is unknown or cannot be used as asked."""


class DataError(DreamQuantError):
    """The evaluation images cannot be read or do not fit the network."""


class ResultError(DreamQuantError):
    """The result folder is occupied, incomplete, damaged, or cannot be written."""


class TrainingError(DreamQuantError):
    """Training cannot go on: a loss is not finite, or a checkpoint does not fit."""


class ExportError(DreamQuantError):
    """The student cannot be exported, or an exported file is damaged or cannot be run."""
