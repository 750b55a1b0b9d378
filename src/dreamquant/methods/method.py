"""What a method is: where images come from, how accuracy comes back, and a paper's numbers."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor, nn

from dreamquant.errors import MethodError
from dreamquant.methods.joining import Numbers, join, renumbered
from dreamquant.networks.taps import Tap
from dreamquant.quantization.prepare import Preparation
from dreamquant.quantization.scheme import Scheme
from dreamquant.recovery.part import Recovery
from dreamquant.recovery.train import Train
from dreamquant.recovery.views import Filter, StudentView
from dreamquant.synthesis.class_mixtures import SimilarClasses
from dreamquant.synthesis.generator_networks import LARGEST_SMALL_IMAGE
from dreamquant.synthesis.source import Source
from dreamquant.synthesis.targets import Targets
from dreamquant.terms.contract import Terms


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
        training: numbers of :class:`dreamquant.recovery.train.Train` in place of the method's.
    """

    name: str
    summary: str
    paper: Paper
    generator_terms: Terms = ()
    student_terms: Terms = ()
    targets: Targets | SimilarClasses | None = None
    views: tuple[StudentView, ...] = ()
    through: tuple[Filter, ...] = ()
    training: Numbers = field(default_factory=dict)


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
            images = renumbered(images, preset.images)
        own = {type(part).__name__ for part in self.recovery}
        if unknown := sorted(preset.recovery.keys() - own):
            raise MethodError(f"{self.name} has no recovery {unknown[0]!r}")
        recovery = tuple(
            renumbered(part, preset.recovery.get(type(part).__name__, {})) for part in self.recovery
        )
        scheme = {**self.scheme, **preset.scheme}
        return replace(self, images=images, recovery=recovery, scheme=scheme, presets={})

    def suited(self, network: nn.Module, example: Tensor, scheme: Scheme) -> Method:
        """The method without what network or scheme give its parts no means for, see the parts."""
        suited = tuple(part.suited(network, example, scheme) for part in self.recovery)
        return replace(self, recovery=suited)

    def joined(self) -> Method:
        """The method with its add-ons' terms, targets and views among its own.

        Raises:
            MethodError: two add-ons train the student in their own way.
        """
        images, recovery = self.images, self.recovery
        # What replaces numbers comes first: terms that others add then stand beside its own.
        for add_on in sorted(self.add_ons, key=lambda each: not each.training):
            images, recovery = join(add_on, images, recovery, f"--method {self.name}")
        if len(own := [each.name for each in self.add_ons if each.training]) > 1:
            raise MethodError(
                f"{' and '.join(own)} each train the student in their own way",
                where=f"--method {self.name}",
            )
        return replace(self, images=images, recovery=recovery)

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
