"""The published methods, one a file; ``METHODS`` is the table that the command line lists."""

from __future__ import annotations

import difflib

from dreamquant.errors import MethodError
from dreamquant.methods.adadfq import adadfq
from dreamquant.methods.gdfq import gdfq
from dreamquant.methods.method import Method
from dreamquant.networks.user_file import names_user_file, read_user_file

METHODS: dict[str, Method] = {method.name: method for method in (gdfq, adadfq)}


def find_method(name: str) -> Method:
    """The method of that name, or the one that ``FILE.py:NAME`` holds.

    Raises:
        MethodError: there is none; it names the nearest.
    """
    if names_user_file(name):
        return _own_method(name)
    if name not in METHODS:
        near = difflib.get_close_matches(name, METHODS, n=1, cutoff=0)
        raise MethodError(
            f"there is no method {name!r}",
            where="--method",
            remedy=f"did you mean {near[0]!r}? `dreamquant methods` lists them all",
        )
    return METHODS[name]


def _own_method(name: str) -> Method:
    method = read_user_file(name, MethodError).attribute()
    if not isinstance(method, Method):
        raise MethodError(
            f"{name} is no dreamquant.Method but a {type(method).__name__}",
            where="--method",
            remedy="examples/my_method.py shows one",
        )
    return method
