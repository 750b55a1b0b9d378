"""One option of a request: a field, and the way it is shown."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

# `dreamquant --help` imports this module, and must not wait for torch.
if TYPE_CHECKING:
    pass

Group = Literal["Quantization", "Training", "Result"]


@dataclass(frozen=True)
class Option:
    """The way that an option is shown.

    Attributes:
        meaning: one or two sentences.
        group: heading of its group.
        metavar: name of its value; empty for a switch.
        old: its name in earlier versions, which is still accepted.
        short: its short form on the command line.
    """

    meaning: str
    group: Group
    metavar: str = ""
    old: str = ""
    short: str = ""


def option(default: Any, group: Group, metavar: str, meaning: str, **more: str) -> Any:
    """A field that is an option."""
    return field(default=default, metadata={"option": Option(meaning, group, metavar, **more)})
