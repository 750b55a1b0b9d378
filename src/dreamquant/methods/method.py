"""What a method is: the composition that a paper published, and its numbers."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from dreamquant.errors import MethodError
from dreamquant.methods.schedule import Schedule
from dreamquant.quantization.scheme import Gradient, Ranges
from dreamquant.synthesis.generators import LARGEST_SMALL_IMAGE
from dreamquant.synthesis.targets import OneHot
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
        ranges: how activation ranges are found.
        gradient: through the rounding.
        generator_terms: in place of the method's own, where a paper gives other numbers.
        student_terms: likewise.
    """

    schedule: Schedule
    ranges: Ranges = "ema"
    gradient: Gradient = "straight-through"
    generator_terms: Terms | None = None
    student_terms: Terms | None = None


@dataclass(frozen=True)
class Recipe:
    """A method resolved for one run: nothing left to choose."""

    generator_terms: tuple[Weighted, ...]
    student_terms: tuple[Weighted, ...]
    targets: OneHot
    latent: int
    schedule: Schedule
    ranges: Ranges
    gradient: Gradient

    @property
    def taps(self) -> frozenset[Tap]:
        """Everything that the generator's terms read."""
        return frozenset[Tap]().union(*(weighted.term.taps for weighted in self.generator_terms))


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
        latent: length of the generator's noise.
    """

    name: str
    summary: str
    paper: Paper
    generator_terms: Terms
    student_terms: Terms
    presets: Mapping[str, Preset]
    targets: OneHot = field(default_factory=OneHot)
    latent: int = 100

    def recipe(self, preset: str, image: tuple[int, int, int]) -> Recipe:
        """The method with the numbers of a preset, for images (C, H, W).

        Raises:
            MethodError: there is no preset of that name.
        """
        chosen = self._preset(preset, large=max(image[1:]) > LARGEST_SMALL_IMAGE)
        return Recipe(
            generator_terms=_weighted(chosen.generator_terms or self.generator_terms),
            student_terms=_weighted(chosen.student_terms or self.student_terms),
            targets=self.targets,
            latent=self.latent,
            schedule=chosen.schedule,
            ranges=chosen.ranges,
            gradient=chosen.gradient,
        )

    def _preset(self, name: str, *, large: bool) -> Preset:
        if large and f"{name}-imagenet" in self.presets:
            return self.presets[f"{name}-imagenet"]
        if name not in self.presets:
            near = difflib.get_close_matches(name, self.presets, n=1, cutoff=0)
            raise MethodError(
                f"method {self.name!r} has no preset {name!r}",
                where="--preset",
                remedy=f"did you mean {near[0]!r}? It has {', '.join(self.presets)}",
            )
        return self.presets[name]


def _weighted(terms: Terms) -> tuple[Weighted, ...]:
    return tuple(term if isinstance(term, Weighted) else Weighted(1.0, term) for term in terms)
