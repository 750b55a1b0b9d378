"""The input that a network expects, from its origin and from options."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from dreamquant.errors import NetworkError
from dreamquant.networks.found import Found

_OPTIONS = {"shape": "--input", "mean": "--mean", "std": "--std"}


def with_options(found: Found, options: dict[str, tuple[float, ...] | None]) -> Found:
    """``found`` with the user's values of ``shape``, ``mean`` and ``std``.

    What the origin says otherwise is named in the notes: numbers copied from another network's
    command would else feed this one with wrong values, without a word.
    """
    given: dict[str, Any] = {
        field: tuple(value) for field, value in options.items() if value is not None
    }
    if not given:
        return found
    names = ", ".join(_OPTIONS[field] for field in given)
    complete = len(given) == len(options) or not found.source
    source = "options" if complete else f"{found.source}; {names} from options"
    # The short side for scaling was chosen for one input size.
    same_size = given.get("shape", found.shape) == found.shape
    resize = found.resize if same_size else None
    notes = (*found.notes, *_contradictions(found, given))
    return replace(found, source=source, resize=resize, notes=notes, **given)


def _contradictions(found: Found, given: Mapping[str, tuple[float, ...]]) -> Iterator[str]:
    for field, value in given.items():
        known = getattr(found, field)
        if known is not None and not _equal(known, value):
            said = ", ".join(f"{each:g}" for each in known)
            yield f"{_OPTIONS[field]} is used as given, although {found.source} says {said}"


def _equal(known: Sequence[float], given: Sequence[float]) -> bool:
    alike = len(known) == len(given)
    return alike and all(
        math.isclose(a, b, rel_tol=1e-2) for a, b in zip(known, given, strict=True)
    )


def unknown_input(found: Found, name: str) -> NetworkError:
    """The error about values that neither the origin nor the user gives."""
    missing = [option for field, option in _OPTIONS.items() if getattr(found, field) is None]
    remedy = f"give {', '.join(missing)}, with the values used in training"
    return NetworkError(
        f"the input of {name} is not fully known: {', '.join(missing)} missing",
        where=name,
        remedy=f"{remedy} ({found.hint})" if found.hint else remedy,
    )
