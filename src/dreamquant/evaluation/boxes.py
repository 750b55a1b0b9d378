"""Boxes around objects: overlap, suppression of doubles, and average precision at half overlap.

Written here because no library brings it without heavy extras: torchmetrics' mAP needs pycocotools,
which has to be compiled, and torchvision.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

_OVERLAP = 0.5  # of a box and the truth, from which it counts as found
_DOUBLE = 0.45  # of two boxes of a class, from which the less certain one is dropped
_LEAST_SCORE, _MOST_BOXES = 0.001, 100  # of an image, as COCO's protocol has it
_CANDIDATES = 400
_RECALLS = 101  # at which COCO reads precision


class Found(NamedTuple):
    """The boxes of one image, matched with its truth.

    Attributes:
        scores: (K,).
        classes: (K,), int64.
        hits: (K,), whether each is an object's first.
        truth: (M,), int64, classes of the objects there are.
    """

    scores: Tensor
    classes: Tensor
    hits: Tensor
    truth: Tensor


def overlaps(first: Tensor, second: Tensor) -> Tensor:
    """Intersection over union (N, M) of boxes (N, 4) and (M, 4): x1, y1, x2, y2."""
    low = torch.maximum(first[:, None, :2], second[None, :, :2])
    high = torch.minimum(first[:, None, 2:], second[None, :, 2:])
    shared = (high - low).clamp(min=0).prod(2)
    areas = [(box[:, 2:] - box[:, :2]).clamp(min=0).prod(1) for box in (first, second)]
    return shared / (areas[0][:, None] + areas[1][None] - shared).clamp(min=1e-12)


def without_doubles(boxes: Tensor) -> Tensor:
    """The most certain boxes (K, 6) of one image, none of which covers another of its class.

    Args:
        boxes: (N, 6): x1, y1, x2, y2 in units of the image, score, class.
    """
    boxes = boxes[boxes[:, 4] > _LEAST_SCORE]
    boxes = boxes[boxes[:, 4].argsort(descending=True, stable=True)[:_CANDIDATES]]
    same = boxes[:, None, 5] == boxes[None, :, 5]
    covers = ((overlaps(boxes[:, :4], boxes[:, :4]) > _DOUBLE) & same).triu(1)
    kept = torch.ones(len(boxes), dtype=torch.bool)
    for index in range(len(boxes)):
        if kept[index]:
            kept &= ~covers[index]
    return boxes[kept][:_MOST_BOXES]


def match(boxes: Tensor, truth: Tensor) -> Found:
    """Give each object the most certain box of its class that overlaps it by half.

    Args:
        boxes: (K, 6) as of :func:`without_doubles`, the most certain first.
        truth: (M, 5): class, x1, y1, x2, y2.
    """
    common = overlaps(boxes[:, :4], truth[:, 1:])
    common[boxes[:, None, 5] != truth[None, :, 0]] = 0
    hits = torch.zeros(len(boxes), dtype=torch.bool)
    for index in range(len(boxes) if len(truth) else 0):
        best = int(common[index].argmax())
        if common[index, best] >= _OVERLAP:
            hits[index] = True
            common[:, best] = 0
    return Found(boxes[:, 4], boxes[:, 5].long(), hits, truth[:, 0].long())


def mean_average_precision(images: Sequence[Found]) -> float:
    """Mean over the classes that occur of the area under precision over recall, in [0, 1]."""
    scores, classes, hits, truth = (torch.cat(parts) for parts in zip(*images, strict=True))
    precisions = [
        average_precision(scores[classes == label], hits[classes == label], count)
        for label, count in enumerate(truth.bincount().tolist())
        if count
    ]
    return sum(precisions) / max(len(precisions), 1)


def average_precision(scores: Tensor, hits: Tensor, positives: int) -> float:
    """The mean, over 101 recalls, of the best precision at that recall or beyond.

    Args:
        scores: (K,) of what was found.
        hits: (K,) whether it is right.
        positives: how many there are to find, at least 1.
    """
    if not len(scores):
        return 0.0
    right = hits[scores.argsort(descending=True, stable=True)].double().cumsum(0)
    precision = right / torch.arange(1, len(right) + 1)
    best = precision.flip(0).cummax(0).values.flip(0)
    at = torch.searchsorted(right / positives, torch.linspace(0, 1, _RECALLS).double() - 1e-9)
    return float(torch.cat([best, best.new_zeros(1)])[at].mean())
