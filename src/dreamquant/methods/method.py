"""What a method is: the composition that a paper published, and its numbers."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from dreamquant.errors import MethodError
from dreamquant.methods.schedule import Schedule
from dreamquant.quantization.scheme import Gradient, Norms, Ranges
from dreamquant.synthesis.generators import LARGEST_SMALL_IMAGE
from dreamquant.synthesis.targets import AttentionCentres, OneHot, Targets
from dreamquant.synthesis.views import Mixup
from dreamquant.terms.contract import Tap, Term, Weighted

Terms = Sequence[Term | Weighted]


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
    """A schedule with the quantizer training that belongs to it.

    Attributes:
        schedule: of the run.
        ranges: how they are found.
        gradient: through the rounding.
        norms: what becomes of batch-norm statistics before the student learns.
        generator_terms: in place of the method's own, where a paper gives other numbers.
        student_terms: likewise.
    """

    schedule: Schedule
    ranges: Ranges = "ema"
    gradient: Gradient = "straight-through"
    norms: Norms = "kept"
    generator_terms: Terms | None = None
    student_terms: Terms | None = None


@dataclass(frozen=True)
class Recipe:
    """A method resolved for one run: nothing left to choose."""

    generator_terms: tuple[Weighted, ...]
    student_terms: tuple[Weighted, ...]
    targets: Targets
    centres: AttentionCentres | None
    mixup: Mixup | None
    latent: int
    schedule: Schedule
    ranges: Ranges
    gradient: Gradient
    norms: Norms

    def lasting(self, iterations: int | None) -> Recipe:
        """The recipe with its schedule stretched or squeezed; ``None`` leaves it."""
        if iterations is None:
            return self
        return replace(self, schedule=self.schedule.scaled(iterations))

    @property
    def taps(self) -> frozenset[Tap]:
        """Everything that the terms read."""
        terms = (*self.generator_terms, *self.student_terms)
        return frozenset[Tap]().union(*(weighted.term.taps for weighted in terms))

    @property
    def generator_asks_student(self) -> bool:
        """Whether the generator's loss goes through the student."""
        return any("student" in weighted.term.taps for weighted in self.generator_terms)


@dataclass(frozen=True)
class AddOn:
    """What a paper adds to other methods; ``method + add_on`` composes them.

    Attributes:
        name: as given after a ``+`` to ``--method``.
        summary: one line.
        paper: where it comes from.
        generator_terms: beside the method's own.
        targets: in place of the method's one-hot labels.
        mixup: of the images that the student learns from.
    """

    name: str
    summary: str
    paper: Paper
    generator_terms: Terms
    targets: Targets | None = None
    mixup: Mixup | None = None


@dataclass(frozen=True)
class Method:
    """A named set of parts, as published.

    Attributes:
        name: as given to ``--method``.
        summary: one line.
        paper: where it comes from.
        generator_terms: minimised by the generator.
        student_terms: minimised by the student.
        presets: by name. ``paper`` and ``quick`` are for images of up to 64 pixels,
            ``paper-imagenet`` and ``quick-imagenet`` take their place for larger ones.
        targets: what is asked of each image.
        centres: where the teacher's attention is asked to lie; ``None`` asks nothing.
        latent: length of the generator's noise.
        add_ons: that have joined it.
    """

    name: str
    summary: str
    paper: Paper
    generator_terms: Terms
    student_terms: Terms
    presets: Mapping[str, Preset]
    targets: Targets = field(default_factory=OneHot)
    centres: AttentionCentres | None = None
    latent: int = 100
    add_ons: tuple[AddOn, ...] = ()

    def __add__(self, add_on: AddOn) -> Method:
        """The method with an add-on.

        Raises:
            MethodError: both ask the same images for different things, or bring the same term.
        """
        self._require_no_conflict(add_on)
        return replace(self, name=f"{self.name}+{add_on.name}", add_ons=(*self.add_ons, add_on))

    def _require_no_conflict(self, add_on: AddOn) -> None:
        where = f"--method {self.name}+{add_on.name}"
        own = [_name(term) for term in (*self.generator_terms, *self._added_terms())]
        for term in add_on.generator_terms:
            if _name(term) in own:
                raise MethodError(f"{_name(term)} would count twice", where=where)
        taken = self.targets != OneHot() or any(part.targets for part in self.add_ons)
        if add_on.targets is not None and taken:
            raise MethodError(
                f"{self.name} and {add_on.name} ask images for different targets", where=where
            )
        if add_on.mixup is not None and any(part.mixup for part in self.add_ons):
            raise MethodError(f"{self.name} and {add_on.name} both mix images", where=where)

    def _added_terms(self) -> list[Term | Weighted]:
        return [term for add_on in self.add_ons for term in add_on.generator_terms]

    def recipe(self, preset: str, image: tuple[int, int, int]) -> Recipe:
        """The method with the numbers of a preset, for images (C, H, W).

        Raises:
            MethodError: there is no preset of that name.
        """
        chosen = self._preset(preset, large=max(image[1:]) > LARGEST_SMALL_IMAGE)
        return Recipe(
            generator_terms=_weighted(
                [*(chosen.generator_terms or self.generator_terms), *self._added_terms()]
            ),
            student_terms=_weighted(chosen.student_terms or self.student_terms),
            targets=next((part.targets for part in self.add_ons if part.targets), self.targets),
            centres=self.centres,
            mixup=next((part.mixup for part in self.add_ons if part.mixup), None),
            latent=self.latent,
            schedule=chosen.schedule,
            ranges=chosen.ranges,
            gradient=chosen.gradient,
            norms=chosen.norms,
        )

    def _preset(self, name: str, *, large: bool) -> Preset:
        if large and f"{name}-imagenet" in self.presets:
            return self.presets[f"{name}-imagenet"]
        if name not in self.presets:
            near = difflib.get_close_matches(name.lower(), self.presets, n=1, cutoff=0)
            raise MethodError(
                f"method {self.name!r} has no preset {name!r}",
                where="--preset",
                remedy=f"did you mean {near[0]!r}? It has {', '.join(self.presets)}",
            )
        return self.presets[name]


def _name(term: Term | Weighted) -> str:
    return term.name if isinstance(term, Weighted) else type(term).__name__


def _weighted(terms: Terms) -> tuple[Weighted, ...]:
    return tuple(term if isinstance(term, Weighted) else Weighted(1.0, term) for term in terms)
