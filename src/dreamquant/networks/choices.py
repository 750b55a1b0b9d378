"""Choices that a user has for a network. Imports no torch, so that ``--help`` is fast."""

from __future__ import annotations

from typing import Literal, cast

Form = Literal["nchw", "nhwc", "uint8-nchw", "uint8-nhwc"]
"""The input of a file: channels first or last, normalised numbers or uint8 pixels."""

Kind = Literal["classification", "multi-label", "segmentation", "regression"]
"""The task of a network: the meaning of its outputs."""

# Tasks by the name that the version before gave them: accepted for one version.
_FORMER: dict[str, Kind] = {"tensors": "regression"}


def current_task(name: str) -> Kind:
    """The task of that name; names of the version before are translated, others stay."""
    return _FORMER.get(name, cast(Kind, name))
