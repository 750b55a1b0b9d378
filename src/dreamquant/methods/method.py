"""What a method is: where images come from, how accuracy is recovered, and a paper's numbers."""

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
from dreamquant.synthesis.token_stopping import TokenStopping
from dreamquant.terms.contract import Terms


@dataclass(frozen=True)
class Paper:
    """The source of a method.

    Attributes:
        title: of the publication.
        venue: and year.
        authors: the first one, "et al.".
        confirmed: what was read in the paper or its released code.
        ours: choices that were made here, because the source leaves them open or to correct it.
    """

    title: str
    venue: str
    authors: str
    confirmed: str
    ours: str


@dataclass(frozen=True)
class Preset:
    """Numbers that replace those of a method's parts; it adds and removes no part.

    Attributes:
        images: fields of the source.
        recovery: fields of each recovery, by its class name.
        scheme: fields of the quantizer, see :class:`dreamquant.quantization.scheme.Scheme`.
    """

    images: Numbers = field(default_factory=dict)
    recovery: Mapping[str, Numbers] = field(default_factory=dict)
    scheme: Numbers = field(default_factory=dict)


@dataclass(frozen=True)
class AddOn:
    """A paper's addition to other methods; ``method + add_on`` composes them.

    Attributes:
        name: the word after ``+`` in ``--method``.
        summary: one line.
        paper: its source.
        generator_terms: added to the losses of the method's images.
        student_terms: added to the losses of the student.
        targets: replace the method's one-hot labels.
        views: further transformations of the student's images.
        through: further filters of the student's images.
        training: numbers that replace the method's in :class:`dreamquant.recovery.train.Train`.
        stopping: when patches of the method's optimised images are stopped.
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
    stopping: TokenStopping | None = None


@dataclass(frozen=True)
class Method:
    """A named set of parts, as published.

    Attributes:
        name: value of ``--method``.
        summary: one line.
        paper: its source.
        images: source of images; ``None`` if the method needs none.
        recovery: recovery parts, in this order.
        prepare: changes to the float copy before quantizers are inserted.
        scheme: what the paper fixes of the quantizer; options override it.
        presets: by name. ``paper`` and ``quick`` are for images of up to 64 pixels;
            ``paper-imagenet`` and ``quick-imagenet`` replace them for larger images.
        add_ons: add-ons of the method.
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
            MethodError: both set different targets for the same images, or have the same term.
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
            raise MethodError(
                f"{self.name} has no recovery {unknown[0]!r}",
                remedy=f"it has {', '.join(sorted(own)) or 'none'}",
            )
        recovery = tuple(
            renumbered(part, preset.recovery.get(type(part).__name__, {})) for part in self.recovery
        )
        scheme = {**self.scheme, **preset.scheme}
        return replace(self, images=images, recovery=recovery, scheme=scheme, presets={})

    def suited(self, network: nn.Module, example: Tensor, scheme: Scheme) -> Method:
        """The method without the stages that the network or the scheme does not support."""
        suited = tuple(part.suited(network, example, scheme) for part in self.recovery)
        return replace(self, recovery=suited)

    def for_features(self) -> Method:
        """The method for inputs that are no pixels."""
        return replace(self, recovery=tuple(part.for_features() for part in self.recovery))

    def joined(self) -> Method:
        """The method with its add-ons' terms, targets and views among its own.

        Raises:
            MethodError: two add-ons replace numbers of the student's training.
        """
        images, recovery = self.images, self.recovery
        # What replaces numbers comes first: terms that others add then stand beside its own.
        for add_on in sorted(self.add_ons, key=lambda each: not each.training):
            images, recovery = join(add_on, images, recovery, f"--method {self.name}")
        if len(own := [each.name for each in self.add_ons if each.training]) > 1:
            raise MethodError(
                f"{' and '.join(own)} each train the student in their own way",
                where=f"--method {self.name}",
                remedy="keep one of them",
            )
        return replace(self, images=images, recovery=recovery)

    @property
    def iterations(self) -> int:
        """Number of steps of all parts whose length can be chosen."""
        parts = (*self.recovery, *(() if self.images is None else (self.images,)))
        return sum(part.iterations for part in parts)

    def lasting(self, iterations: int | None) -> Method:
        """The method stretched or shortened to so many iterations; ``None`` keeps its length."""
        if iterations is None or not self.iterations:
            return self
        method = self._stretched(iterations / self.iterations)
        return method._with_rest(iterations - method.iterations)

    def _stretched(self, ratio: float) -> Method:
        images = None if self.images is None else self.images.stretched(ratio)
        recovery = tuple(part.stretched(ratio) for part in self.recovery)
        return replace(self, images=images, recovery=recovery)

    def _with_rest(self, rest: int) -> Method:
        """Add the iterations that rounding of the parts' lengths gained or lost to the longest
        training.
        """
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
        """How often recovery lets the image source learn."""
        return sum(part.updates for part in self.recovery)

    @property
    def teacher_taps(self) -> tuple[Tap[Any], ...]:
        """Taps that its parts read inside the teacher."""
        return tuple(dict.fromkeys(tap for part in self._parts() for tap in part.teacher_taps))

    @property
    def student_taps(self) -> tuple[Tap[Any], ...]:
        """Taps that its parts read of the student."""
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
