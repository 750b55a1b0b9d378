"""The agreement of a constant answer: where it is high, agreement with a network says little."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

LIMIT = 90.0  # percent


class Remark(NamedTuple):
    """A remark on an agreement.

    Attributes:
        what: the reason why the agreement says little.
        remedy: the way to an agreement that says more.
    """

    what: str
    remedy: str


def constant_agreement(decisions: Tensor) -> float:
    """The agreement in percent of a network that always gives the most frequent answer.

    Args:
        decisions: number of times that each option was chosen, (groups, options); at least one.
    """
    return 100 * int(decisions.max(1).values.sum()) / int(decisions.sum())


def remark(constant: float | None, on: str, *, given: bool) -> Remark | None:
    """A remark where an agreement says little; ``None`` elsewhere.

    Args:
        constant: the :func:`constant_agreement`; ``None`` for outputs that decide nothing.
        on: the images, in words.
        given: whether the user gave these images, without labels.
    """
    if constant is None or constant <= LIMIT:
        return None
    images = (
        "give labels, or images of more classes, with --data"
        if given
        else "measure on inputs of the network's own kind with --data, which needs no labels"
    )
    return Remark(
        f"agreement says little here: a network that always gives the same answer would agree on "
        f"{constant:.1f} % of {on}",
        f"check --mean, --std and --bgr; {images}",
    )
