"""The figures of an evaluation."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Evaluation:
    """The figures of an evaluation, in percent of the images.

    Attributes:
        top1: images whose label has the largest logit; ``None`` without labels.
        top5: images whose label is among the five largest logits, or among all logits if there are
            fewer; ``None`` without labels.
        n: number of images.
        ci95: Wilson 95 % interval of ``top1``, or of ``agreement`` if there are no labels; ``None``
            if there is no teacher either.
        agreement: images with the same top-1 as the teacher, or the task's measure of agreement;
            ``None`` without a teacher.
        scores: of a network that is not a classifier, by name, the most important first; empty
            without labels.
        outputs: agreement of each output by name, if there are several.
        constant: agreement that a network would have that always gives the teacher's most
            frequent answer; ``None`` without a teacher and for outputs that decide nothing.
        agreement_ci95: interval of ``agreement``, for a network that is not a classifier.
    """

    top1: float | None
    top5: float | None
    n: int
    ci95: tuple[float, float] | None
    agreement: float | None
    scores: dict[str, float] = field(default_factory=dict)
    outputs: dict[str, float] = field(default_factory=dict)
    constant: float | None = None
    agreement_ci95: tuple[float, float] | None = None

    @property
    def main(self) -> tuple[str, float] | None:
        """Name and value of the most important score; ``None`` without labels."""
        if self.top1 is not None:
            return "top-1", self.top1
        return next(iter(self.scores.items()), None)

    def as_json(self) -> dict[str, object]:
        """The attributes by name, without empty ones that only other tasks have."""
        values = {name: getattr(self, name) for name in ("top1", "top5", "n", "ci95", "agreement")}
        values["ci95"] = None if self.ci95 is None else list(self.ci95)
        others = {
            "scores": self.scores,
            "outputs": self.outputs,
            "constant_agreement": self.constant,
        }
        return {**values, **{name: each for name, each in others.items() if each}}
