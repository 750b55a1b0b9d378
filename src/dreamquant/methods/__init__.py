"""The published methods, one a file; ``METHODS`` is the table that the command line lists."""

from __future__ import annotations

import difflib

from dreamquant.errors import MethodError
from dreamquant.methods.adadfq import adadfq
from dreamquant.methods.gdfq import gdfq
from dreamquant.methods.method import Method

METHODS: dict[str, Method] = {method.name: method for method in (gdfq, adadfq)}


def find_method(name: str) -> Method:
    """The method of that name.

    Raises:
        MethodError: there is none; it names the nearest.
    """
    if name not in METHODS:
        near = difflib.get_close_matches(name, METHODS, n=1, cutoff=0)
        raise MethodError(
            f"there is no method {name!r}",
            where="--method",
            remedy=f"did you mean {near[0]!r}? `dreamquant methods` lists them all",
        )
    return METHODS[name]
