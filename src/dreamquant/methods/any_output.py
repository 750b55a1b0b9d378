"""Methods on networks whose outputs are no logits of classes: detectors, segmenters, and so on."""

from __future__ import annotations

from dataclasses import replace

from dreamquant.errors import MethodError
from dreamquant.methods import METHODS
from dreamquant.methods.method import Method
from dreamquant.networks.choices import Kind
from dreamquant.terms.contract import weighted


def for_task(method: Method, task: Kind) -> Method:
    """The method as it serves a task.

    All are made for classification. For any other task, images do without the terms that need
    logits of classes where others are left; a method that learns by such logits is refused.

    Args:
        method: resolved.
        task: of the network.

    Raises:
        MethodError: the method needs logits of classes; it names those that need none.
    """
    if task == "classification":
        return method
    try:
        return _for_any_output(method)
    except MethodError as error:
        serving = ", ".join(name for name, known in METHODS.items() if _serves(known))
        raise MethodError(
            f"{method.name} cannot be used for the task {task}: {error.what}",
            where="--method",
            remedy=f"use one that needs no classes: {serving}",
        ) from error


def left_out(method: Method, served: Method) -> tuple[str, ...]:
    """Names of the images' terms that a task has no use for."""
    if method.images is None or served.images is None:
        return ()
    kept = weighted(served.images.terms)
    return tuple(w.name for w in weighted(method.images.terms) if w not in kept)


def _for_any_output(method: Method) -> Method:
    images = None if method.images is None else method.images.for_any_output()
    recovery = tuple(part.for_any_output() for part in method.recovery)
    return replace(method, images=images, recovery=recovery)


def _serves(method: Method) -> bool:
    try:
        _for_any_output(method)
    except MethodError:
        return False
    return True
