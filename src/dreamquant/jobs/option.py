"""One option of a request: a field, and how it is shown."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

# This module serves `dreamquant --help` too, which must not wait for torch.
if TYPE_CHECKING:
    pass

Group = Literal["Quantization", "Training", "Result"]


@dataclass(frozen=True)
class Option:
    """How an option is shown.

    Attributes:
        meaning: a sentence or two.
        group: heading that it stands under.
        metavar: of its value; empty for a switch.
        old: its name in earlier versions, still taken.
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
