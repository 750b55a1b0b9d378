"""The task of networks whose outputs are real values, such as detectors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from dreamquant.evaluation.boxes import match, mean_average_precision, without_doubles
from dreamquant.evaluation.intervals import Z95
from dreamquant.evaluation.task import Agreement, ScoredTask, Truth
from dreamquant.networks.found import Boxes
from dreamquant.networks.outputs import tensors_of


@dataclass(frozen=True)
class Regression(ScoredTask):
    """Real-valued outputs of any shape, compared by their relative distance.

    For each output, over all images and positions: 1 - root mean square of (given - wanted) /
    standard deviation of wanted, at least 0; then the mean over outputs.

    Attributes:
        names: names of the outputs.
        boxes: computes boxes (B, K, 6) from the outputs: x1, y1, x2, y2 in units of the image,
            score and class; ``None`` for networks without boxes. Labels are tensors (M, 5) for each
            image: class, x1, y1, x2, y2.
    """

    agreeing: ClassVar[str] = (
        "1 - distance: root mean square deviation from the original's outputs, in units of their "
        "own standard deviation"
    )

    names: tuple[str, ...]
    boxes: Boxes | None = None

    def agree(self, given: Any, wanted: Any) -> Tensor:
        """(B, 4 outputs): squared distance, sum, sum of squares and count of each output."""
        columns = []
        for found, aim in zip(tensors_of(given), tensors_of(wanted), strict=True):
            found, aim = (each.detach().flatten(1).double().cpu() for each in (found, aim))
            squares = (found - aim).square().sum(1), aim.sum(1), aim.square().sum(1)
            columns += [*squares, torch.full_like(squares[0], found.shape[1])]
        return torch.stack(columns, 1)

    def agreement(self, rows: Tensor) -> Agreement:
        """See the class; the interval follows from the delta method."""
        found = [_relative(*columns.unbind(1)) for columns in torch.split(rows, 4, 1)]
        each = {name: 100 * value for name, (value, _) in zip(self.names, found, strict=True)}
        mean = sum(each.values()) / len(each)
        influence = torch.stack([influence for _, influence in found]).mean(0)
        n = len(rows)
        half = 100 * Z95 * influence.std().item() / math.sqrt(n) if n > 1 else 100.0
        ends = max(0.0, mean - half), min(100.0, mean + half)
        return Agreement(mean, ends, each if len(each) > 1 else {})

    def score(self, given: Any, truth: Truth) -> Sequence[Any]:
        """Boxes matched with those of the labels."""
        assert self.boxes is not None  # the caller has checked it
        found = self.boxes(given).float().cpu()
        return [
            match(without_doubles(boxes), wanted)
            for boxes, wanted in zip(found, truth, strict=True)
        ]

    def scores(self, images: Sequence[Any]) -> dict[str, float]:
        """Average precision at an overlap of one half, mean over the classes that occur."""
        return {"mAP50": 100 * mean_average_precision(images)}


def _relative(
    distance: Tensor, total: Tensor, squares: Tensor, count: Tensor
) -> tuple[float, Tensor]:
    """1 - relative distance of one output, and the influence of each image (N,) on it."""
    mean = total.sum() / count.sum()
    spread = squares - 2 * mean * total + count * mean**2
    if distance.sum() == 0:
        return 1.0, torch.zeros_like(distance)
    if spread.sum() <= 0:
        return 0.0, torch.zeros_like(distance)
    ratio = distance.sum() / spread.sum()
    if not ratio < 1:
        return 0.0, torch.zeros_like(distance)
    influence = (distance - ratio * spread) / (2 * ratio.sqrt() * spread.mean())
    return float(1 - ratio.sqrt()), influence
