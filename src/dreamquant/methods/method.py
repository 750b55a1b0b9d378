"""What a method is: where images come from, how accuracy comes back, and a paper's numbers."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeVar

from torch import Tensor, nn

from dreamquant.errors import MethodError
from dreamquant.networks.taps import Tap
from dreamquant.quantization.prepare import Preparation
from dreamquant.quantization.scheme import Scheme
from dreamquant.recovery.part import Recovery
from dreamquant.recovery.train import Train
from dreamquant.recovery.views import Filter, StudentView
from dreamquant.synthesis.generator import Generator
from dreamquant.synthesis.generator_networks import LARGEST_SMALL_IMAGE
from dreamquant.synthesis.source import Source
from dreamquant.synthesis.targets import OneHot, Targets
from dreamquant.terms.contract import Term, Terms, Weighted

Part = TypeVar("Part")


@dataclass(frozen=True)
class Paper:
    """Where a method comes from.

    Attributes:
        title: of the publication.
        venue: and year.
        authors: the first one, "et al.".
        confirmed: what was read in the paper or its released code.
        ours: choices made here because the source leaves them open, or to mend it.
    """

    title: str
    venue: str
    authors: str
    confirmed: str
    ours: str


Numbers = Mapping[str, Any]


@dataclass(frozen=True)
class Preset:
    """Numbers of a method's parts in place of their own; it adds no part and takes none away.

    Attributes:
        images: fields of the source.
        recovery: fields of each recovery, by its class name.
        scheme: of the quantizer, see :class:`dreamquant.quantization.scheme.Scheme`.
    """

    images: Numbers = field(default_factory=dict)
    recovery: Mapping[str, Numbers] = field(default_factory=dict)
    scheme: Numbers = field(default_factory=dict)


@dataclass(frozen=True)
class AddOn:
    """What a paper adds to other methods; ``method + add_on`` composes them.

    Attributes:
        name: as given after a ``+`` to ``--method``.
        summary: one line.
        paper: where it comes from.
        generator_terms: beside those of the method's images.
        student_terms: beside those that the student minimises.
        targets: in place of the method's one-hot labels.
        views: of the images that the student learns from.
        through: what images pass before the student sees them.
    """

    name: str
    summary: str
    paper: Paper
    generator_terms: Terms = ()
    student_terms: Terms = ()
    targets: Targets | None = None
    views: tuple[StudentView, ...] = ()
    through: tuple[Filter, ...] = ()


@dataclass(frozen=True)
class Method:
    """A named set of parts, as published.

    Attributes:
        name: as given to ``--method``.
        summary: one line.
        paper: where it comes from.
        images: where they come from; ``None`` where the method needs none.
        recovery: how accuracy comes back, in this order.
        prepare: what is done to the float copy before quantizers go in.
        scheme: what the paper fixes of the quantizer; options override it.
        presets: by name. ``paper`` and ``quick`` are for images of up to 64 pixels,
            ``paper-imagenet`` and ``quick-imagenet`` take their place for larger ones.
        add_ons: that have joined it.
    """

    name: str
    summary: str
    paper: Paper
    images: Source | None
    recovery: tuple[Recovery, ...]
    prepare: tuple[Preparation, ...] = ()
    scheme: Numbers = field(default_factory=dict)
    presets: Mapping[str, Preset] = field(default_factory=dict)
    add_ons: tuple[AddOn, ...] = ()

    def __add__(self, add_on: AddOn) -> Method:
        """The method with an add-on.

        Raises:
            MethodError: both ask the same images for different things, or bring the same term.
        """
        both = replace(self, name=f"{self.name}+{add_on.name}", add_ons=(*self.add_ons, add_on))
        both.joined()
        return both

    def resolved(self, preset: str, image: tuple[int, ...]) -> Method:
        """The method with a preset's numbers and its add-ons joined; no preset is left.

        Args:
            preset: its name.
            image: channels, height and width of the images.

        Raises:
            MethodError: there is no preset of that name.
        """
        chosen = self._preset(preset, large=max(image[1:]) > LARGEST_SMALL_IMAGE)
        return self.with_numbers(chosen).joined()

    def with_numbers(self, preset: Preset) -> Method:
        """The method with other numbers of its parts.

        Raises:
            MethodError: they name a part or a field that the method does not have.
        """
        images = self.images
        if preset.images:
            images = _renumbered(images, preset.images)
        own = {type(part).__name__ for part in self.recovery}
        if unknown := sorted(preset.recovery.keys() - own):
            raise MethodError(f"{self.name} has no recovery {unknown[0]!r}")
        recovery = tuple(
            _renumbered(part, preset.recovery.get(type(part).__name__, {}))
            for part in self.recovery
        )
        scheme = {**self.scheme, **preset.scheme}
        return replace(self, images=images, recovery=recovery, scheme=scheme, presets={})

    def suited(self, network: nn.Module, example: Tensor, scheme: Scheme) -> Method:
        """The method without what network or scheme give its parts no means for, see the parts."""
        suited = tuple(part.suited(network, example, scheme) for part in self.recovery)
        return replace(self, recovery=suited)

    def joined(self) -> Method:
        """The method with its add-ons' terms, targets and views among its own."""
        method = self
        for add_on in self.add_ons:
            method = _joined(method, add_on)
        return method

    @property
    def iterations(self) -> int:
        """Steps of all parts whose length can be chosen."""
        parts = (*self.recovery, *(() if self.images is None else (self.images,)))
        return sum(part.iterations for part in parts)

    def lasting(self, iterations: int | None) -> Method:
        """The method stretched or squeezed to so many iterations; ``None`` leaves it."""
        if iterations is None or not self.iterations:
            return self
        method = self._stretched(iterations / self.iterations)
        return method._with_rest(iterations - method.iterations)

    def _stretched(self, ratio: float) -> Method:
        images = None if self.images is None else self.images.stretched(ratio)
        recovery = tuple(part.stretched(ratio) for part in self.recovery)
        return replace(self, images=images, recovery=recovery)

    def _with_rest(self, rest: int) -> Method:
        """What rounding each part has lost or gained of the whole goes to the longest training."""
        trainings = [part for part in self.recovery if isinstance(part, Train)]
        if not trainings:
            return self
        longest = max(trainings, key=lambda part: part.iterations)
        recovery = tuple(
            replace(longest, iterations=max(longest.iterations + rest, 0))
            if part is longest
            else part
            for part in self.recovery
        )
        return replace(self, recovery=recovery)

    @property
    def updates(self) -> int:
        """How often recovery lets the images learn along."""
        return sum(part.updates for part in self.recovery)

    @property
    def teacher_taps(self) -> tuple[Tap[Any], ...]:
        """Everything that its parts read inside the teacher."""
        return tuple(dict.fromkeys(tap for part in self._parts() for tap in part.teacher_taps))

    @property
    def student_taps(self) -> tuple[Tap[Any], ...]:
        """Likewise of the student."""
        return tuple(dict.fromkeys(tap for part in self._parts() for tap in part.student_taps))

    def _parts(self) -> tuple[Source | Recovery, ...]:
        return (*self.recovery,) if self.images is None else (self.images, *self.recovery)

    def _preset(self, name: str, *, large: bool) -> Preset:
        if large and f"{name}-imagenet" in self.presets:
            return self.presets[f"{name}-imagenet"]
        if name not in self.presets:
            near = difflib.get_close_matches(name.lower(), self.presets, n=1, cutoff=0)
            meant = f"did you mean {near[0]!r}? " if near else ""
            raise MethodError(
                f"method {self.name!r} has no preset {name!r}",
                where="--preset",
                remedy=f"{meant}It has {', '.join(self.presets) or 'none'}",
            )
        return self.presets[name]


def _renumbered(part: Part, numbers: Numbers) -> Part:
    known = [] if part is None else [own.name for own in fields(part)]  # type: ignore[arg-type]
    if unknown := sorted(numbers.keys() - set(known)):
        raise MethodError(
            f"{type(part).__name__} has no {unknown[0]!r}",
            remedy=f"it has {', '.join(known)}",
        )
    return replace(part, **numbers) if numbers else part  # type: ignore[type-var]


def _joined(method: Method, add_on: AddOn) -> Method:
    images, recovery = method.images, method.recovery
    where = f"--method {method.name}"
    if add_on.generator_terms or add_on.targets is not None:
        if not isinstance(images, Generator):
            raise MethodError(f"{add_on.name} joins methods that have a generator", where=where)
        images = replace(
            images,
            terms=_beside(images.terms, add_on.generator_terms, where),
            targets=_targets(images.targets, add_on, where),
        )
    if add_on.student_terms or add_on.views or add_on.through:
        recovery = _student_side(recovery, add_on, where)
    return replace(method, images=images, recovery=recovery)


def _student_side(
    recovery: tuple[Recovery, ...], add_on: AddOn, where: str
) -> tuple[Recovery, ...]:
    if not any(isinstance(part, Train) for part in recovery):
        raise MethodError(f"{add_on.name} joins methods that train the student", where=where)
    joined: list[Recovery] = []
    for part in recovery:
        if isinstance(part, Train):
            kinds = {type(view) for view in part.views}
            if any(type(view) in kinds for view in add_on.views):
                raise MethodError(
                    f"{add_on.name} brings a view of images that the method has", where=where
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
            raise MethodError(f"{_name(term)} would count twice", where=where)
    return (*own, *added)


def _targets(own: Targets, add_on: AddOn, where: str) -> Targets:
    if add_on.targets is None:
        return own
    if own != OneHot():
        raise MethodError(
            f"the method and {add_on.name} ask images for different targets", where=where
        )
    return add_on.targets


def _name(term: Term | Weighted) -> str:
    return term.name if isinstance(term, Weighted) else type(term).__name__
