"""Composition of a method's parts with an add-on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, TypeVar

from dreamquant.errors import MethodError
from dreamquant.recovery.part import Recovery
from dreamquant.recovery.train import Train
from dreamquant.synthesis.class_mixtures import SimilarClasses
from dreamquant.synthesis.generator import Generator
from dreamquant.synthesis.pixels import Pixels
from dreamquant.synthesis.source import Source
from dreamquant.synthesis.targets import OneHot, Targets
from dreamquant.terms.contract import Term, Terms, Weighted

if TYPE_CHECKING:
    from dreamquant.methods.method import AddOn

Part = TypeVar("Part")
Numbers = Mapping[str, Any]
Asked = Targets | SimilarClasses
Parts = tuple[Source | None, tuple[Recovery, ...]]


def renumbered(part: Part, numbers: Numbers) -> Part:
    """A part with other numbers.

    Raises:
        MethodError: it has no field of that name.
    """
    known = [] if part is None else [own.name for own in fields(part)]  # type: ignore[arg-type]
    if unknown := sorted(numbers.keys() - set(known)):
        raise MethodError(
            f"{type(part).__name__} has no {unknown[0]!r}",
            remedy=f"it has {', '.join(known)}",
        )
    return replace(part, **numbers) if numbers else part  # type: ignore[type-var]


def join(add_on: AddOn, images: Source | None, recovery: tuple[Recovery, ...], where: str) -> Parts:
    """A method's parts with those of an add-on.

    Args:
        add_on: the add-on.
        images: the method's image source.
        recovery: the method's recovery parts.
        where: name of the method, for the error.

    Raises:
        MethodError: the parts cannot be combined with the add-on, or already have its terms.
    """
    if add_on.generator_terms or add_on.targets is not None:
        if not isinstance(images, Generator):
            raise MethodError(
                f"{add_on.name} joins methods that have a generator",
                where=where,
                remedy=f"leave it out, or join it to such a method: gdfq+{add_on.name}",
            )
        images = replace(
            images,
            terms=_beside(images.terms, add_on.generator_terms, where),
            targets=_targets(images.targets, add_on, where),
        )
    if add_on.stopping is not None:
        if not isinstance(images, Pixels):
            raise MethodError(
                f"{add_on.name} joins methods that optimise the pixels of images",
                where=where,
                remedy=f"leave it out, or join it to such a method: psaq_vit+{add_on.name}",
            )
        images = replace(images, stopping=add_on.stopping)
    if add_on.student_terms or add_on.views or add_on.through or add_on.training:
        recovery = _student_side(recovery, add_on, where)
    return images, recovery


def _student_side(
    recovery: tuple[Recovery, ...], add_on: AddOn, where: str
) -> tuple[Recovery, ...]:
    if not any(isinstance(part, Train) for part in recovery):
        raise MethodError(
            f"{add_on.name} joins methods that train the student",
            where=where,
            remedy=f"leave it out, or join it to such a method: gdfq+{add_on.name}",
        )
    joined: list[Recovery] = []
    for part in recovery:
        if isinstance(part, Train):
            part = renumbered(part, add_on.training)
            kinds = {type(view) for view in part.views}
            if any(type(view) in kinds for view in add_on.views):
                raise MethodError(
                    f"{add_on.name} brings a view of images that the method has",
                    where=where,
                    remedy=f"leave {add_on.name} out",
                )
            terms = _beside(part.terms, add_on.student_terms, where)
            views, through = (*part.views, *add_on.views), (*part.through, *add_on.through)
            part = replace(part, terms=terms, views=views, through=through)
        joined.append(part)
    return tuple(joined)


def _beside(own: Terms, added: Terms, where: str) -> Terms:
    names = [_name(term) for term in own]
    for term in added:
        if _name(term) in names:
            raise MethodError(
                f"{_name(term)} would count twice", where=where, remedy="leave one of the two out"
            )
    return (*own, *added)


def _targets(own: Asked, add_on: AddOn, where: str) -> Asked:
    if add_on.targets is None:
        return own
    if own != OneHot():
        raise MethodError(
            f"the method and {add_on.name} ask images for different targets",
            where=where,
            remedy=f"leave {add_on.name} out",
        )
    return add_on.targets


def _name(term: Term | Weighted) -> str:
    return term.name if isinstance(term, Weighted) else type(term).__name__
