"""Methods for networks whose outputs are not logits of classes, such as detectors."""

from __future__ import annotations

from dataclasses import replace

from dreamquant.errors import MethodError
from dreamquant.methods import METHODS
from dreamquant.methods.method import Method
from dreamquant.networks.choices import Kind
from dreamquant.recovery.part import Recovery
from dreamquant.recovery.train import Train
from dreamquant.terms.contract import Weighted, weighted


def for_task(method: Method, task: Kind) -> Method:
    """The method in the form that a task needs.

    All methods are made for classification. For the task ``multi-label``, the student's losses
    take the form that they have for independent labels. For every task but classification, images
    are made without the terms that need logits of classes, if others are left; a method whose
    student needs such logits is refused.

    Args:
        method: resolved.
        task: of the network.

    Raises:
        MethodError: the method needs logits of classes; the error names methods that do not.
    """
    if task == "classification":
        return method
    try:
        return _served(method, task)
    except MethodError as error:
        serving = ", ".join(name for name, known in METHODS.items() if _serves(known, task))
        raise MethodError(
            f"{method.name} cannot be used for the task {task}: {error.what}",
            where="--method",
            remedy=f"use one that needs no classes: {serving}",
        ) from error


def left_out(method: Method, served: Method) -> tuple[str, ...]:
    """Names of the images' terms that need classes, which the task does not have."""
    if method.images is None or served.images is None:
        return ()
    kept = weighted(served.images.terms)
    return tuple(w.name for w in weighted(method.images.terms) if w not in kept)


def replaced(method: Method, served: Method) -> tuple[tuple[str, str], ...]:
    """Names of the student's terms that have another form for the task, with that of the form."""
    return tuple(
        dict.fromkeys(
            (before.name, after.name)
            for part, new in zip(method.recovery, served.recovery, strict=True)
            if isinstance(part, Train) and isinstance(new, Train)
            for before, after in zip(weighted(part.terms), weighted(new.terms), strict=True)
            if before.name != after.name
        )
    )


def _served(method: Method, task: Kind) -> Method:
    if task == "multi-label":
        method = replace(method, recovery=tuple(_for_labels(part) for part in method.recovery))
    images = None if method.images is None else method.images.for_any_output()
    recovery = tuple(part.for_any_output() for part in method.recovery)
    return replace(method, images=images, recovery=recovery)


def _for_labels(part: Recovery) -> Recovery:
    if not isinstance(part, Train):
        return part
    terms = [Weighted(each.weight, each.term.for_labels()) for each in weighted(part.terms)]
    return replace(part, terms=terms)


def _serves(method: Method, task: Kind) -> bool:
    try:
        _served(method.joined(), task)
    except MethodError:
        return False
    return True
