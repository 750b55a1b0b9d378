"""Properties of images that papers describe, measured with the terms at the end of a run.

Attention is from ACQ (arXiv 2301.07266), inconsistency from RIS (AAAI 2024), adaptability from
AdaDFQ (CVPR 2023).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from dreamquant.diagnostics.dreams import BATCH, dream
from dreamquant.errors import NetworkError
from dreamquant.evaluation.data import EvaluationSet
from dreamquant.networks.relu_maps import LastMap
from dreamquant.synthesis.source import Images
from dreamquant.terms.adaptability import Band, normalised_disagreement_entropy
from dreamquant.terms.attention import ModeConsistency, attention_centre, attention_map
from dreamquant.terms.contract import Terms, weighted
from dreamquant.terms.robustness import InputRobustness, WeightRobustness
from dreamquant.training.batch import Batch
from dreamquant.training.bench import Bench
from dreamquant.training.rng import Rng
from dreamquant.training.step import Players, Step
from dreamquant.training.watched import Watched

Steps = Callable[[], Iterator[Step]]

_SEED = 0
_BATCHES = 8
_HISTOGRAM_BATCHES = (
    24  # the smallest H' of a batch changes all others; this number of batches averages it
)
_CLASSES = 10  # largest number of classes whose attention is measured
_BINS = 20
_PUBLISHED_BAND = Band(lower=0.1, upper=0.8)  # of AdaDFQ, for methods without a band
_PERTURBATIONS: dict[str, InputRobustness | WeightRobustness] = {
    "views": InputRobustness(views=4),
    "weights": WeightRobustness(copies=4),
}


def observed(network: nn.Module, example: Tensor) -> Watched:
    """The teacher with a tap on its last feature map.

    Raises:
        NetworkError: no ReLU returns a feature map.
    """
    try:
        return Watched(network, example, (LastMap(),))
    except NetworkError as error:
        raise NetworkError(
            "diagnostics read the last feature map, and no ReLU of the network returns one",
            where="--diagnostics",
            remedy="leave the option out",
        ) from error


@torch.no_grad()
def diagnose(
    bench: Bench, source: Images, teacher: Watched, images: EvaluationSet | None, terms: Terms
) -> dict[str, Any]:
    """The three diagnoses of a finished run.

    Args:
        bench: bench of the run, with a fixed student; it is not changed.
        source: source of the synthetic images.
        teacher: the teacher P with a tap on its last feature map.
        images: real images for comparison, if there are any.
        terms: terms that the synthetic images minimise.

    Returns:
        ``attention``, ``inconsistency`` and ``adaptability``, plain values.
    """

    def steps(batches: Callable[[torch.Generator], Iterable[Batch]]) -> Steps:
        return lambda: _steps(bench, teacher, batches)

    def dreams(count: int) -> Steps:
        return steps(lambda random: (dream(source, random) for _ in range(count)))

    synthetic = dreams(_BATCHES)
    noise = steps(lambda random: _noise(source, random))
    even = steps(lambda random: _evenly_labelled(source, random))
    real = None if images is None or len(images) < 2 else steps(lambda _: _real(bench, images))
    return {
        "attention": {
            "synthetic": {**centre_spread(even()), "mode_gap": mode_gap(synthetic())},
            "real": real and {**centre_spread(real()), "mode_gap": mode_gap(real())},
        },
        "inconsistency": {
            "noise": inconsistencies(noise),
            "synthetic": inconsistencies(synthetic),
            "real": real and inconsistencies(real),
        },
        "adaptability": adaptability(dreams(_HISTOGRAM_BATCHES)(), terms),
    }


def _steps(
    bench: Bench,
    teacher: Watched,
    batches: Callable[[torch.Generator], Iterable[Batch]],
) -> Iterator[Step]:
    rng = Rng.seeded(_SEED, bench.device)
    drawing = torch.Generator(bench.device).manual_seed(_SEED)
    players = Players(teacher, bench.players.student)
    for batch in batches(drawing):
        yield Step(batch, players, rng, student_learns=True)


def _bare(images: Tensor) -> Batch:
    """A batch of images without targets."""
    return Batch(images, images.new_empty(0), images.new_empty(0))


def _noise(source: Images, random: torch.Generator) -> Iterator[Batch]:
    for _ in range(_BATCHES):
        shape = dream(source, random).images.shape
        yield _bare(torch.randn(shape, generator=random, device=random.device))


def _evenly_labelled(source: Images, random: torch.Generator) -> Iterator[Batch]:
    classes = source.bench.input.num_classes
    few = min(_CLASSES, classes)
    chosen = torch.linspace(0, classes - 1, few, device=random.device).long()
    for start in range(0, _BATCHES * BATCH, BATCH):
        turns = torch.arange(start, start + BATCH, device=random.device) % few
        yield dream(source, random, chosen[turns])


def _real(bench: Bench, images: EvaluationSet) -> Iterator[Batch]:
    for chunk in images.first(_BATCHES * BATCH).batches(BATCH):
        # A single image has no batch statistics.
        if len(chunk) > 1:
            yield _bare(chunk.to(bench.device))


def centre_spread(steps: Iterable[Step]) -> dict[str, Any]:
    """Standard distance of attention centres within each class; classes are the teacher's.

    Returns:
        ``centre_spread`` over all classes, ``None`` if no class has two images, and ``per_class``
        for classes with at least two images. The unit is the side of the image.
    """
    seen = [
        (attention_centre(attention_map(step.teacher[LastMap()])), step.teacher.output.argmax(1))
        for step in steps
    ]
    centres, classes = (torch.cat(part) for part in zip(*seen, strict=True))
    groups = {int(label): centres[classes == label] for label in classes.bincount().nonzero()}
    squares = {
        label: (len(group) - 1, (group - group.mean(0)).square().sum().item())
        for label, group in groups.items()
        if len(group) > 1
    }
    free = sum(n for n, _ in squares.values())
    whole = sum(square for _, square in squares.values())
    return {
        "centre_spread": (whole / free) ** 0.5 if free else None,
        "per_class": {str(label): (square / n) ** 0.5 for label, (n, square) in squares.items()},
    }


def mode_gap(steps: Iterable[Step]) -> float:
    """ACQ's mode consistency: difference of attention maps between modes, over all batches."""
    measure = ModeConsistency()
    return torch.stack([measure(step) for step in steps]).mean().item()


def inconsistencies(steps: Steps) -> dict[str, dict[str, float]]:
    """Mean change of features and predictions with random views and with weight noise."""
    found = {}
    for name, term in _PERTURBATIONS.items():
        feature, prediction = torch.cat([term.inconsistency(step) for step in steps()], 1).mean(1)
        found[name] = {"feature": feature.item(), "prediction": prediction.item()}
    return found


def adaptability(steps: Iterable[Step], terms: Terms) -> dict[str, Any]:
    """The histogram of H' and the band in which it should be."""
    h = torch.cat(
        [normalised_disagreement_entropy(s.teacher.output, s.student.output) for s in steps]
    )
    own = [each.term for each in weighted(terms) if isinstance(each.term, Band)]
    band = own[0] if own else _PUBLISHED_BAND
    below, above = (h < band.lower).float().mean(), (h > band.upper).float().mean()
    return {
        "lower": band.lower,
        "upper": band.upper,
        "bounds_of": "the method" if own else "adadfq",
        "below": below.item(),
        "within": (1 - below - above).item(),
        "above": above.item(),
        "edges": [i / _BINS for i in range(_BINS + 1)],
        "counts": h.cpu().histc(_BINS, 0, 1).int().tolist(),
    }
